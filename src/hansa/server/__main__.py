"""``python -m hansa.server --home PATH``: the server in the foreground."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path


def main() -> int:
    """Serve until told to stop; the exit code."""
    gc.disable()  # what a start imports and builds all stays; serve() turns it on again
    from hansa.kernel.errors import Fault
    from hansa.kernel.settings import default_home
    from hansa.server.serve import serve

    parser = argparse.ArgumentParser(prog="python -m hansa.server", description="Run the Hansa server of a home.")
    parser.add_argument("--home", type=Path, default=default_home(), help="HANSA_HOME")
    try:
        serve(parser.parse_args().home)
    except Fault as fault:
        sys.stderr.write(f"hansa: {fault.detail}\n" + (f"hint: {fault.hint}\n" if fault.hint else ""))
        return fault.code.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
