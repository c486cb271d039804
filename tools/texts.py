"""The catalogue of texts of all pages: collects every `_("…")` of their templates and code into `texts.json`.

With `--check` it tells whether the catalogue is what they say.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HANSA = Path(__file__).resolve().parent.parent / "src" / "hansa"
PORTAL = HANSA / "portal"
SIGN_IN = (HANSA / "identity" / "provider", HANSA / "identity" / "upstream")
"""Its pages are in the catalogue, too; what else that code says goes through the API, not onto a page."""
_SENTENCE = re.compile(r"[A-Z{][^\n]* [^\n]*[.?!]")
CATALOGUE = HANSA / "kernel" / "texts.json"
WORDS = (
    *("waiting", "running", "done", "failed", "killed", "job", "site", "organisation", "machine", "volume", "VM image"),
    *("grant", "sign-in", "user", "pilot"),
    *("Task", "State", "Wall time", "Wall time, s", "CPU time, s", "Memory, MiB", "Memory at most", "Busy cores"),
    *("Exit code", "Organisation", "Group", "User", "Site", "Kind", "Day", "Month"),
    *("organisation and site", "user", "organisation and user", "organisation and group", "kind of work", "month"),
    *("day", "month and organisation", "month and site", "run jobs", "look, and change nothing"),
    "all that a member may",
)
"""Words that pages show through the catalogue, and do not write themselves: of the API, and of tables in code."""


def texts() -> list[str]:
    """All texts, in order."""
    return sorted({*WORDS, *_of_templates(), *_of_code()})


def _templates() -> list[Path]:
    return sorted(file for room in (PORTAL, *SIGN_IN) for file in room.glob("templates/**/*.html"))


def _of_templates() -> Iterator[str]:
    from jinja2 import Environment, nodes

    environment = Environment(autoescape=True)
    for file in _templates():
        for call in environment.parse(file.read_text(encoding="utf-8")).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "_" and call.args:
                first = call.args[0]
                if isinstance(first, nodes.Const):
                    yield str(first.value)


def _of_code() -> Iterator[str]:
    for file in sorted(file for room in (PORTAL, *SIGN_IN) for file in room.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value)


_TAG, _WORD = re.compile(r"<[^>]*>|&\w+;"), re.compile(r"[^\W\d_]{2,}")
_CODE = re.compile(r"<(code|script|pre)\b.*?</\1>", re.DOTALL)
_LABEL = re.compile(r'(?:aria-label|title|alt)="([^"]*[^\W\d_]{2}[^"]*)"')
_NAMES = {"Hansa", "CPU", "GPU", "GiB", "ms"}
"""What is the same in every language."""


def strays() -> list[str]:
    """Sentences of code and words of templates that no translator would ever see."""
    from jinja2 import Environment, nodes

    found = []
    for file in _templates():
        parsed = Environment(autoescape=True).parse(file.read_text(encoding="utf-8"))
        bare = _CODE.sub("", " ".join(one.data for one in parsed.find_all(nodes.TemplateData)))
        words = [*_WORD.findall(_TAG.sub(" ", bare)), *_LABEL.findall(bare)]
        found += [f"{file.name}: {word}" for word in words if word not in _NAMES]
    for file in sorted(PORTAL.glob("*.py")):
        found += [f"{file.name}: {text}" for text in _sentences(ast.parse(file.read_text(encoding="utf-8")))]
    return found


def _sentences(tree: ast.AST) -> Iterator[str]:
    known: set[int] = set()  # docstrings, what goes through the catalogue, and pieces of what is looked at as a whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            known.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            known |= {id(one) for one in node.values}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            known |= {id(one) for one in ast.walk(node)}
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in parts)
        if id(node) not in known and isinstance(node, ast.Constant | ast.JoinedStr) and _SENTENCE.fullmatch(text):
            yield text


def catalogue() -> str:
    return json.dumps({text: text for text in texts()}, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: texts.py [--check]", file=sys.stderr)
        return 2
    if not arguments:
        CATALOGUE.write_text(catalogue(), encoding="utf-8")
        return 0
    if found := strays():
        print('these go past the catalogue; write _("…"):', *found, sep="\n", file=sys.stderr)
        return 1
    if CATALOGUE.read_text(encoding="utf-8") == catalogue():
        return 0
    print("texts.json is not what the pages say; run: .venv/bin/python tools/texts.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
