"""What needs root for machines in containers of systemd-nspawn: a fixed set of verbs with strictly checked arguments.

Standard library only: an administrator puts it, as one file that only root can write, where sudo may run it.
``hansa-nspawn VERB`` reads its arguments as one JSON object from standard input (``import`` reads a raw disk,
``snapshot`` writes one to standard output), answers with JSON, and says what was wrong as JSON on standard error, with
exit code 3.

A caller names machines, never paths: all that is made lies below one folder per calling user. What guests or images
wrote is read only as data: without following their links, and unpacked as a user id that owns nothing else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hansa.machines.drivers.nspawn.helper.disks import verb_bases, verb_import, verb_remove_base, verb_snapshot
from hansa.machines.drivers.nspawn.helper.looks import verb_probe, verb_sweep
from hansa.machines.drivers.nspawn.helper.machines import (
    verb_console,
    verb_create,
    verb_delete,
    verb_list,
    verb_observe,
    verb_resize,
)
from hansa.machines.drivers.nspawn.helper.networks import verb_network, verb_remove_network
from hansa.machines.drivers.nspawn.helper.power import verb_reboot, verb_start, verb_stop
from hansa.machines.drivers.nspawn.helper.store import Store
from hansa.machines.drivers.nspawn.helper.tools import SYSTEM_PATH
from hansa.machines.drivers.nspawn.helper.volumes import (
    verb_attach,
    verb_delete_volume,
    verb_detach,
    verb_observe_volume,
    verb_volume,
    verb_volumes,
)
from hansa.machines.drivers.nspawn.helper.words import (
    HOST,
    KEY,
    LABEL,
    LOGIN,
    PATH,
    SHA256,
    VERSION,
    Refusal,
    Shape,
    blob,
    checked,
    flag,
    keys,
    maybe,
    number,
    text,
)

SIZE: Shape = {"cores": number(1, 4096), "memory_mib": number(16, 1 << 24)}
SPEC: Shape = {
    "base": text(SHA256), "name": text(HOST), "user_data": blob, "ssh_keys": keys, "network": maybe(text(KEY)),
    "trusted": flag, "login": text(LOGIN), "disk_gib": number(0, 1 << 20), **SIZE,
}  # fmt: skip
VERBS: Mapping[str, tuple[Shape, Callable[..., Any]]] = {
    "probe": ({}, verb_probe),
    "bases": ({}, verb_bases),
    "remove-base": ({"base": text(SHA256)}, verb_remove_base),
    "network": ({"name": text(KEY), "egress": flag}, verb_network),
    "remove-network": ({"name": text(KEY)}, verb_remove_network),
    "create": ({"key": text(KEY), **SPEC}, verb_create),
    "observe": ({"key": text(KEY)}, verb_observe),
    "list": ({}, verb_list),
    "start": ({"key": text(KEY)}, verb_start),
    "stop": ({"key": text(KEY), "patience_s": number(0, 600)}, verb_stop),
    "reboot": ({"key": text(KEY), "hard": flag}, verb_reboot),
    "resize": ({"key": text(KEY), **SIZE}, verb_resize),
    "console": ({"key": text(KEY)}, verb_console),
    "delete": ({"key": text(KEY)}, verb_delete),
    "volume": ({"key": text(KEY), "size_gib": number(1, 1 << 20), "name": text(LABEL), "trusted": flag}, verb_volume),
    "volumes": ({}, verb_volumes),
    "observe-volume": ({"key": text(KEY)}, verb_observe_volume),
    "attach": ({"key": text(KEY), "machine": text(KEY), "path": maybe(text(PATH))}, verb_attach),
    "detach": ({"key": text(KEY)}, verb_detach),
    "delete-volume": ({"key": text(KEY)}, verb_delete_volume),
    "sweep": ({}, verb_sweep),
}


def store_of(given: str | None, environ: Mapping[str, str]) -> str:
    """The folder of whoever calls: by sudo that of the user, for root the one that it names."""
    caller = environ.get("SUDO_UID", "")
    if given is None:
        return f"/var/lib/hansa/nspawn/{int(caller or 0)}"
    if caller not in ("", "0") or not os.path.isabs(given) or os.path.normpath(given) != given:
        raise Refusal("usage", "only root names a folder, as an absolute path")
    if re.search(r"[,:\\\s\"]", given):
        raise Refusal("usage", "the folder's path has letters that mount and systemd-nspawn read otherwise")
    return given


def answer(argv: Sequence[str]) -> Any:
    words = list(argv[1:])
    given = words.pop(0).partition("=")[2] if words and words[0].startswith("--store=") else None
    if not words:
        raise Refusal("usage", f"say a verb: {', '.join(sorted(VERBS))}, import SHA256 or snapshot KEY")
    verb, *more = words
    if os.geteuid() != 0:
        raise Refusal("root", "this needs to be root")
    os.environ.update(PATH=SYSTEM_PATH, LC_ALL="C")
    os.umask(0o022)
    store = Store(store_of(given, os.environ))
    if verb != "probe":  # which changes nothing
        store.make()
    if verb == "import" and len(more) in (1, 2) and more[1:] in ([], ["trusted"]):
        return verb_import(store, text(SHA256)(more[0]), bool(more[1:]))
    if verb == "snapshot" and len(more) == 1:
        return verb_snapshot(store, text(KEY)(more[0]))
    if verb not in VERBS or more:
        raise Refusal("usage", f"the verbs are {', '.join(sorted(VERBS))}, import SHA256 and snapshot KEY")
    shape, work = VERBS[verb]
    return work(store, **checked(shape, json.loads(sys.stdin.read(2 << 20) or "{}")))


def fail(why: str, message: str, passing: bool) -> int:
    sys.stderr.write(json.dumps({"why": why, "message": message, "passing": passing, "version": VERSION}))
    return 3


def main() -> int:
    try:
        found = answer(sys.argv)
    except Refusal as refusal:
        return fail(refusal.why, str(refusal), refusal.passing)
    except (ValueError, IndexError) as error:
        return fail("usage", f"not understood: {error}", False)
    except OSError as error:
        return fail("system", f"{error}", True)
    if found is not None:
        sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
