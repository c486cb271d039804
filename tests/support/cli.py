"""The command line as a user has it: real processes, a real embedded server, a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "src"
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """A user at a terminal: a home, a current directory, and the ``hansa`` command."""

    home: Path
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_") or "TEST" in name}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {**kept, "PYTHONPATH": str(SOURCES), "HANSA_HOME": str(self.home), **self.environ}

    def popen(self, *words: str, has_input: bool = False) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "hansa.cli.main", *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def raw(self, *words: str, text: str = "") -> tuple[int, bytes, bytes]:
        process = self.popen(*words, has_input=bool(text))
        out, err = process.communicate(text.encode() or None, timeout=PATIENCE_S)
        return process.returncode, out, err

    def hansa(self, *words: str, code: int | None = 0, text: str = "") -> Said:
        """Run ``hansa WORDS``, with ``text`` on its stdin; its exit code must be ``code`` (None: any)."""
        found, out, err = self.raw(*words, text=text)
        said = Said(found, out.decode(errors="replace"), err.decode(errors="replace"))
        assert code is None or found == code, f"hansa {' '.join(words)} ended with {found}:\n{said.out}\n{said.err}"
        return said

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def results(self, job: int | str = "last") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.hansa("job", "results", str(job), "-o", "json").json()
        return rows
