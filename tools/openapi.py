"""The HTTP contract: writes `docs/reference/openapi.json`, or with `--check` tells how the code differs from it."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path

CONTRACT = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"
SHOWN_LINES = 80


def current() -> str:
    from hansa.server.app import create_openapi  # type: ignore[import-not-found,unused-ignore]

    return json.dumps(create_openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: openapi.py [--check]", file=sys.stderr)
        return 2
    now = current()
    if not arguments:
        CONTRACT.write_text(now, encoding="utf-8")
        return 0
    before = CONTRACT.read_text(encoding="utf-8") if CONTRACT.exists() else ""
    if now == before:
        return 0
    difference = list(difflib.unified_diff(before.splitlines(), now.splitlines(), "contract", "code", lineterm=""))
    print("\n".join(difference[:SHOWN_LINES]))
    print(
        f"\nThe HTTP API differs from docs/reference/openapi.json ({len(difference)} lines of difference).\n"
        "If that is meant (an addition: the API is additive only), run: .venv/bin/python tools/openapi.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
