"""``python -m hansa.server --home PATH``: the server in the foreground."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hansa.kernel.errors import Fault
from hansa.kernel.settings import default_home
from hansa.server.serve import serve


def main() -> int:
    """Serve until told to stop; the exit code."""
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
