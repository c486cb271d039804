"""Where ``hansa`` starts: the shortest way to a command, and one place that turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

OWN = 125
"""What ``hansa run`` exits with when Hansa, not the job, failed."""
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]) and "_HANSA_COMPLETE" not in os.environ:
        from hansa.version import __version__

        sys.stdout.write(f"hansa {__version__}\n")
        return 0
    if words[:1] == ["container"] and "_HANSA_COMPLETE" not in os.environ:
        from hansa.cli import container

        if argv is None:
            container.start(words[1:])
        return container.main(words[1:])
    return _dispatch(words)


def click_app() -> click.Group:
    """The whole tree of commands, for documentation and completion."""
    from hansa.cli.app import hansa

    return hansa


def _dispatch(words: list[str]) -> int:
    import click

    from hansa.cli import failures

    is_run = words[:1] == ["run"]
    try:
        result = click_app().main(words, prog_name="hansa", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where an error becomes words and an exit code
        code = failures.report(error, sys.stderr, os.environ)
        return OWN if is_run else code
    return result if isinstance(result, int) else 0


def _drop_stdout() -> None:
    """Whoever read our output is gone; the interpreter must not complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
