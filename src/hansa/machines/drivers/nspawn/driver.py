"""Machines as containers of systemd-nspawn: a whole system in two seconds, on the computer at hand.

What needs root is done by ``helper.py``, a program of its own: run by sudo for an ordinary server, directly for root.
Conversions of images, which are files of ours, are done here, as whoever runs the server.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hansa.engines.qemu_img import convert
from hansa.kernel.errors import Temporary
from hansa.machines.drivers.base import (
    Can,
    Capabilities,
    Guest,
    Image,
    Key,
    Life,
    MachineSpec,
    Meter,
    Observed,
    Progress,
    Refused,
    Size,
    Snapshot,
    Ssh,
    Volume,
    Why,
    base_of,
    check,
)
from hansa.machines.drivers.guest import guest_of
from hansa.machines.drivers.nspawn.meter import read_meter
from hansa.machines.drivers.nspawn.root import Helper, NotThereError
from hansa.machines.drivers.scratch import clear, scratch

_CAN = frozenset({Can.POWER, Can.RESIZE, Can.SNAPSHOT, Can.VOLUMES, Can.NETWORKS, Can.CONSOLE, Can.IMAGES, Can.METERS})
_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SHARED = "They share the kernel of this computer, and their disks its disk."
_STOP_S = 20


class Nspawn:
    """All of machines but public addresses and ports, by containers. ``folder`` is this driver's own."""

    def __init__(self, folder: Path, helper: Helper, *, is_isolated: bool) -> None:
        self._folder = folder
        self._helper = helper
        self._is_isolated = is_isolated
        self._imports: dict[str, asyncio.Lock] = {}

    def capabilities(self) -> Capabilities:
        note = _SHARED
        if not self._is_isolated:
            note = f"{_SHARED} Their root is root of this computer, as it has no user namespaces: for trusted users."
        return Capabilities(_CAN, user_data_bytes=512 * 1024, is_open=True, is_isolated=self._is_isolated, note=note)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        base = base_of(spec.image)
        wish = {
            "key": _checked(key), "base": base, "name": spec.name, "user_data": spec.user_data.decode(),
            "ssh_keys": list(spec.ssh_keys), "network": spec.network, "trusted": not self._is_isolated,
            "login": spec.image.login, "cores": spec.size.cores or 1, "memory_mib": spec.size.memory_mib or 1024,
            "disk_gib": spec.size.disk_gib,
        }  # fmt: skip
        try:
            return _seen(key, await self._helper.ask("create", wish))
        except NotThereError:
            await self.prepare(spec.image)
            return _seen(key, await self._helper.ask("create", wish))

    async def prepare(self, image: Image) -> None:
        """Have the image unpacked here, so that machines of it start at once. Raises Temporary or Permanent."""
        if image.path is None:
            raise Refused(Why.IMAGE, "Its content is not on this computer.")
        base = base_of(image)
        async with self._imports.setdefault(base, asyncio.Lock()):
            with scratch(self._folder / "work") as work:
                raw = await convert(image.path, image.format, "raw", work)
                more = [] if self._is_isolated else ["trusted"]
                with raw.open("rb") as file:
                    await self._helper.run(["import", base, *more], stdin=file)

    async def ensure_image(self, image: Image, name: str) -> str | None:  # noqa: ARG002 - known by its checksum
        base = base_of(image)
        if base not in await self.bases():
            await self.prepare(image)
        return base

    async def delete_image(self, checksum: str) -> Progress:
        gone = await self.remove_base(base_of(Image(checksum)))
        return Progress.DONE if gone else Progress.PENDING

    async def bases(self) -> dict[str, int]:
        """SHA-256 of the images that are unpacked here, with the number of machines of each."""
        found: dict[str, int] = (await self._helper.ask("bases", {}))["bases"]
        return found

    async def remove_base(self, sha256: str) -> bool:
        """Remove an unpacked image; False while machines use it."""
        if (await self.bases()).get(sha256):
            return False
        await self._helper.ask("remove-base", {"base": sha256})
        return True

    async def observe(self, key: Key) -> Observed | None:
        found = await self._helper.ask("observe", {"key": _checked(key)})
        return None if found["state"] == "absent" else _seen(key, found)

    async def trim(self, key: Key) -> Progress:  # noqa: ARG002 - a key is a folder: there is never a second
        return Progress.DONE

    async def delete(self, key: Key) -> Progress:
        await self._helper.ask("delete", {"key": _checked(key)})
        return Progress.DONE

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        return [one for one in (await self._helper.ask("list", {}))["keys"] if one.startswith(prefix)]

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def stop(self, key: Key) -> Progress:
        await self._power("stop", {"key": _checked(key), "patience_s": _STOP_S})
        return Progress.DONE

    async def start(self, key: Key) -> Progress:
        await self._power("start", {"key": _checked(key)})
        return Progress.DONE

    async def reboot(self, key: Key, *, hard: bool = False) -> None:
        await self._power("reboot", {"key": _checked(key), "hard": hard})

    async def resize(self, key: Key, size: Size) -> Progress:
        wish = {"key": _checked(key), "cores": size.cores or 1, "memory_mib": size.memory_mib or 1024}
        await self._power("resize", wish)
        return Progress.DONE

    async def _power(self, verb: str, wish: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._helper.ask(verb, wish)
        except NotThereError as error:
            raise Refused(Why.UNABLE, f"There is no machine {wish['key']}.") from error

    async def snapshot(self, key: Key, snapshot_key: Key, name: str) -> Snapshot:  # noqa: ARG002 - the catalogue names it
        target = self._snapshot(snapshot_key)
        if not target.is_file():
            with scratch(target.parent) as work:
                raw = work / "raw"
                try:
                    with raw.open("wb") as file:
                        await self._helper.run(["snapshot", _checked(key)], stdout=file)
                except NotThereError as error:
                    raise Refused(Why.UNABLE, f"There is no machine {key}.") from error
                made = await convert(raw, "raw", "qcow2", work)
                made.rename(target)
        return Snapshot(Progress.DONE, path=target, size_bytes=target.stat().st_size)

    async def delete_snapshot(self, snapshot_key: Key) -> Progress:
        self._snapshot(snapshot_key).unlink(missing_ok=True)
        clear(self._folder / "snapshots")
        return Progress.DONE

    def _snapshot(self, snapshot_key: Key) -> Path:
        return self._folder / "snapshots" / f"{_checked(snapshot_key)}.qcow2"

    def device(self, volume_key: Key) -> str:  # noqa: ARG002
        return ""  # they are mounted from outside

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:
        label = name if re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name) else "volume"
        wish = {"key": _checked(volume_key), "size_gib": size_gib, "name": label, "trusted": not self._is_isolated}
        return _volume(volume_key, await self._helper.ask("volume", wish))

    async def volumes(self) -> list[Key]:
        """Keys of all volumes here."""
        found: list[Key] = (await self._helper.ask("volumes", {}))["keys"]
        return found

    async def observe_volume(self, volume_key: Key) -> Volume | None:
        found = await self._helper.ask("observe-volume", {"key": _checked(volume_key)})
        return None if found["state"] == "absent" else _volume(volume_key, found)

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:
        wish = {"key": _checked(volume_key), "machine": _checked(key), "path": path}
        try:
            return _volume(volume_key, await self._helper.ask("attach", wish))
        except NotThereError as error:
            raise Refused(Why.UNABLE, str(error)) from error

    async def detach(self, volume_key: Key) -> Progress:
        found = await self._helper.ask("detach", {"key": _checked(volume_key)})
        return Progress.DONE if found["gone"] else Progress.PENDING

    async def delete_volume(self, volume_key: Key) -> Progress:
        found = await self._helper.ask("delete-volume", {"key": _checked(volume_key)})
        return Progress.DONE if found["gone"] else Progress.PENDING

    async def ensure_network(self, name: Key) -> None:
        await self._helper.ask("network", {"name": _checked(name), "egress": True})

    async def delete_network(self, name: Key) -> Progress:
        found = await self._helper.ask("remove-network", {"name": _checked(name)})
        return Progress.DONE if found["gone"] else Progress.PENDING

    async def console_log(self, key: Key, lines: int = 200) -> str:
        found = await self._power("console", {"key": _checked(key)})
        return "\n".join(str(found["log"]).splitlines()[-lines:])

    async def meter(self, key: Key) -> Meter | None:
        try:
            return await asyncio.to_thread(read_meter, self._helper.store, _checked(key))
        except (OSError, ValueError, KeyError) as error:
            raise Temporary(f"The cgroup of {key} cannot be read: {error}.") from error

    async def leftovers(self) -> list[str]:
        """What is left of machines that are gone: nothing, if all is well."""
        found: list[str] = (await self._helper.ask("sweep", {}))["left"]
        return found


def _checked(key: Key) -> Key:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


def _seen(key: Key, found: dict[str, Any]) -> Observed:
    """What the helper says, as all drivers say it. Pure."""
    life, message = Life.RUNNING, ""
    if found["state"] == "stopped":
        life = Life.STOPPED
        if found["ended"] == 1:
            life, message = Life.FAILED, "Its container could not be started: see its console."
        elif found["ended"] is None:
            message = "Its process is gone: this computer was restarted, or somebody ended it."
    guest, said = (Guest.UNKNOWN, "") if life is not Life.RUNNING else guest_of(_result(found["result"]))
    ssh = Ssh(found["address"], found["login"], host_keys=tuple(_bare(one) for one in found["host_keys"]))
    return Observed(
        provider_id=key,
        life=life,
        message=message,
        private=(found["address"],),
        ssh=ssh if life is Life.RUNNING else None,
        guest=guest,
        guest_message=said,
        size=Size(found["cores"], found["memory_mib"], found["disk_gib"]),
        created=datetime.fromtimestamp(found["created"], UTC),
    )


def _volume(volume_key: Key, found: dict[str, Any]) -> Volume:
    return Volume(volume_key, found["size_gib"], True, found["attached"], found["path"] or "")


def _bare(line: str) -> str:
    """A public key without its comment."""
    return " ".join(line.split()[:2])


def _result(text: str | None) -> Any:
    """cloud-init's result.json, as far as it can be read: a guest may have written anything."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return {}
