"""``node.pyz pilot --config FILE``, ``relay``, ``container …``, ``--version``; ``spawner`` is the pilot's own."""

from __future__ import annotations

import sys
from typing import List, Optional

USAGE = "usage: node.pyz pilot --config FILE [--detach] | node.pyz container COMMAND … | node.pyz --version\n"


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["container"]:
        from .containers import commands

        if arguments is None:
            commands.start(words[1:], "node.pyz container")
        return commands.main(words[1:], "node.pyz container")
    if words[:1] == ["pilot"]:
        from . import pilot

        return pilot.main(words[1:])
    if words[:1] == ["relay"]:
        from . import relay

        return relay.main(words[1:])
    if words[:1] == ["spawner"]:
        from . import spawner

        return spawner.main(words[1:])
    if words[:1] == ["--version"]:
        from .protocol import PROTOCOL_VERSION

        sys.stdout.write(f"hansa node, protocol {PROTOCOL_VERSION}\n")
        return 0
    sys.stderr.write(USAGE)
    return 0 if words[:1] in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main())
