"""Runs one process by one engine, as told by a JSON file: for tests, under any user and any Python from 3.9 on."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path: str) -> int:
    from hansa.node.containers import engines
    from hansa.node.containers.launcher import LaunchError
    from hansa.node.containers.process import Bind, ProcessSpec, Tree

    order = json.loads(Path(path).read_text("utf-8"))
    tree = Tree(**{**order["tree"], "layers": tuple(order["tree"]["layers"])})
    spec = dict(order["spec"])
    spec["argv"] = tuple(spec["argv"])
    spec["binds"] = tuple(Bind(*bind) for bind in spec.get("binds", ()))
    spec["files"] = tuple((name, text) for name, text in spec.get("files", ()))
    try:
        return engines.engine(order["engine"]).run(tree, ProcessSpec(**spec))
    except LaunchError as error:
        sys.stderr.write(f"{error}\n")
        return error.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
