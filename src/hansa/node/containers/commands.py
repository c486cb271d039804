"""``hansa container …`` and ``node.pyz container …``: the way from words to a verb, and from errors to exit codes.

On the way to ``run`` as little as possible is imported: its start is part of every container's start.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Dict, List, NoReturn, Optional, Sequence, Tuple

from .context import Context
from .errors import ContainerError, Exit
from .options import FLAG, VALUE, Parsed, parse

INTERRUPTED = 130
BROKEN_PIPE = 141

GLOBAL = {
    "--store": (VALUE, "store"),
    "--repo": (VALUE, "store"),
    "--insecure": (FLAG, "insecure"),
    "-q": (FLAG, "quiet"),
    "--quiet": (FLAG, "quiet"),
    "-h": (FLAG, "help"),
    "--help": (FLAG, "help"),
}

VERBS: Dict[str, Tuple[str, str, str]] = {
    "run": ("running", "run", "run a program in a container, or in a new one of an image"),
    "pull": ("registry", "pull", "get an image from a registry"),
    "push": ("registry", "push", "send an image to a registry"),
    "search": ("registry", "search", "look for images in a registry; --list-tags for those of one"),
    "login": ("registry", "login", "sign in at a registry"),
    "logout": ("registry", "logout", "forget a registry's credentials"),
    "manifest": ("registry", "manifest", "manifest inspect IMAGE: what a registry says of an image"),
    "images": ("images", "images", "list images"),
    "rmi": ("images", "rmi", "remove images"),
    "tag": ("images", "tag", "give an image another name"),
    "verify": ("images", "verify", "check every byte of an image against its digests"),
    "history": ("images", "history", "how an image was made"),
    "load": ("images", "load", "take in images from a Docker or OCI archive"),
    "save": ("images", "save", "write images to an archive"),
    "import": ("images", "import_", "make an image of a tarball of a root file system"),
    "gc": ("images", "gc", "remove what no image and no container needs"),
    "create": ("cells", "create", "make a container of an image"),
    "ps": ("cells", "ps", "list containers"),
    "rm": ("cells", "rm", "remove containers"),
    "name": ("cells", "name", "give a container a name"),
    "rmname": ("cells", "rmname", "take a name away"),
    "rename": ("cells", "rename", "change a container's name"),
    "clone": ("cells", "clone", "copy a container with its files"),
    "inspect": ("cells", "inspect", "what a container or an image is, as JSON"),
    "export": ("cells", "export", "write a container's files to a tarball"),
    "commit": ("cells", "commit", "make an image of a container"),
    "protect": ("cells", "protect", "forbid the removal of a container or image"),
    "unprotect": ("cells", "unprotect", "allow it again"),
    "setup": ("cells", "setup", "choose a container's engine; bring GPUs into it"),
    "doctor": ("node", "doctor", "which engines work on this node, which do not and why"),
    "showconf": ("node", "showconf", "where things are and what is set"),
    "version": ("node", "version", "the version"),
}


def main(arguments: Sequence[str], prog: str = "hansa container") -> int:
    """Run a command; returns its exit code."""
    verb = ""
    try:
        parsed = parse(arguments, GLOBAL, stops_at_word=True)
        if parsed.flag("help") or not parsed.words:
            sys.stdout.write(usage(prog))
            return 0 if parsed.flag("help") else Exit.USAGE
        verb, words = parsed.words[0], parsed.words[1:]
        if verb not in VERBS:
            sys.stderr.write(f"{prog}: there is no command {verb!r}; {prog} --help lists them\n")
            return Exit.USAGE
        if words[:1] in (["--help"], ["-h"]) and not (verb == "run" and words != words[:1]):
            sys.stdout.write(help_of(prog, verb))
            return 0
        return _call(verb, _context(parsed), words)
    except ContainerError as error:
        report(error, prog)
        return code_of(error, is_run=verb == "run")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED


def start(arguments: Sequence[str], prog: str) -> NoReturn:
    """:func:`main` as a whole program."""
    leave(main(arguments, prog))


def leave(code: int) -> NoReturn:
    """End this process at once.

    What the interpreter does at its end, taking all modules apart, would be a fifth of a container's start.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever read it is gone
        code = code or BROKEN_PIPE
    os._exit(code)


def _context(parsed: Parsed) -> Context:
    return Context(
        os.environ,
        root=parsed.text("store") or None,
        is_insecure=parsed.flag("insecure"),
        is_quiet=parsed.flag("quiet"),
    )


def _call(verb: str, context: Context, words: List[str]) -> int:
    module, function, _ = VERBS[verb]
    if verb == "run":
        gc.disable()  # there is nothing to collect in what a start imports; a pull allows it again
    code = getattr(import_module(f"{__package__}.verbs.{module}"), function)(context, words)
    sys.stdout.flush()
    return int(code)


def code_of(error: ContainerError, *, is_run: bool) -> int:
    """``run`` keeps 125 to 127 for itself, as Docker does; the others say what kind of failure it was."""
    if is_run:
        return error.exit_code if error.exit_code in (126, 127) else Exit.OWN
    return error.exit_code


def report(error: ContainerError, prog: str) -> None:
    """The sentence, and what to do."""
    sys.stderr.write(f"{prog}: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  {error.hint}\n")


def usage(prog: str) -> str:
    """All verbs."""
    lines = [f"usage: {prog} [--store DIR] [--insecure] [-q] COMMAND …", ""]
    lines += [f"  {verb:<10} {what}" for verb, (_, _, what) in VERBS.items()]
    return "\n".join(lines) + f"\n\n{prog} COMMAND --help shows its options.\n"


def help_of(prog: str, verb: str) -> str:
    """One verb: its line, and the options that its function's table names."""
    module, function, what = VERBS[verb]
    found = import_module(f"{__package__}.verbs.{module}")
    table: Optional[Dict[str, Tuple[str, str]]] = getattr(found, "TABLES", {}).get(verb)
    lines = [f"usage: {prog} {verb} {(getattr(found, function).__doc__ or '').splitlines()[0]}", "", f"  {what}"]
    if table:
        by_key: Dict[str, List[str]] = {}
        for option, (kind, key) in table.items():
            if not key.startswith("ignored"):
                by_key.setdefault(key, []).append(option + ("" if kind == FLAG else " VALUE"))
        lines += ["", *(f"  {', '.join(names)}" for names in by_key.values())]
    return "\n".join(lines) + "\n"
