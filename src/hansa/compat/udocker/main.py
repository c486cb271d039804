"""Where ``hansa-udocker`` starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from hansa.compat.udocker.face import Face, Usage
from hansa.node.containers.commands import leave
from hansa.node.containers.errors import ContainerError
from hansa.node.containers.options import FLAG, VALUE, Parsed, parse
from hansa.node.containers.runner import NotStarted
from hansa.node.containers.semantics import RunRefused

OK = 0
ERROR = 1
NOT_STARTED = 2
"""As udocker's, whatever kept the program from starting."""

GLOBAL = {
    "--allow-root": (FLAG, "ignored"),
    "--repo": (VALUE, "repo"),
    "--config": (VALUE, "config"),
    "--insecure": (FLAG, "insecure"),
    "-q": (FLAG, "quiet"),
    "--quiet": (FLAG, "quiet"),
    "-D": (FLAG, "debug"),
    "--debug": (FLAG, "debug"),
    "-h": (FLAG, "help"),
    "--help": (FLAG, "help"),
    "-V": (FLAG, "version"),
    "--version": (FLAG, "version"),
}
MODULES = {
    "run": "running",
    "create": "cells",
    "ps": "cells",
    "rm": "cells",
    "name": "cells",
    "rmname": "cells",
    "rename": "cells",
    "clone": "cells",
    "inspect": "cells",
    "export": "cells",
    "protect": "cells",
    "unprotect": "cells",
    "setup": "cells",
    "images": "images",
    "rmi": "images",
    "tag": "images",
    "verify": "images",
    "load": "images",
    "save": "images",
    "import": "images",
    "pull": "remote",
    "search": "remote",
    "login": "remote",
    "logout": "remote",
    "manifest": "remote",
    "mkrepo": "rest",
    "showconf": "rest",
    "version": "rest",
    "install": "rest",
    "help": "rest",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. Without arguments: that of ``sys.argv``, as the whole program."""
    if arguments is None:
        leave(main(sys.argv[1:]))
    words = list(arguments)
    is_debug = "-D" in words or "--debug" in words
    try:
        code = _run(words)
        sys.stdout.flush()
    except (NotStarted, RunRefused) as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return NOT_STARTED
    except EOFError:
        sys.stderr.write("Error: nothing was typed\n")
        return ERROR
    except (ContainerError, Usage) as error:
        if is_debug:
            raise
        hint = getattr(error, "hint", "")
        sys.stderr.write(f"Error: {error}" + (f": {hint}" if hint else "") + "\n")
        return ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except KeyboardInterrupt:
        return 130
    return code


def _run(words: list[str]) -> int:
    parsed = parse(words, GLOBAL, stops_at_word=True)
    verb, rest = (parsed.words[0], parsed.words[1:]) if parsed.words else ("", [])
    if parsed.flag("version"):
        verb = "version"
    elif parsed.flag("help") or not verb:
        verb = "help"
    if verb not in MODULES:
        raise Usage(f"invalid command: {verb}")
    if "--help" in rest[:1]:
        verb, rest = "help", [verb]
    module = import_module(f"hansa.compat.udocker.{MODULES[verb]}")
    function: Callable[[Face, list[str]], int] = getattr(module, f"do_{verb}")
    return function(_face(parsed), rest)


def _face(parsed: Parsed) -> Face:
    return Face(
        os.environ,
        repo=parsed.text("repo"),
        is_insecure=parsed.flag("insecure"),
        is_quiet=parsed.flag("quiet"),
    )


if __name__ == "__main__":
    sys.exit(main())
