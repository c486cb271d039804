"""Machines in QEMU on the computer at hand, without root."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hansa.engines.qemu_img import convert, qemu_img
from hansa.kernel.errors import Permanent, Temporary
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
from hansa.machines.drivers.guest import guest_on_console, keys_on_console
from hansa.machines.drivers.qemu import kvm
from hansa.machines.drivers.qemu.bases import Base, Bases
from hansa.machines.drivers.qemu.command import (
    RING_BYTES,
    SWITCH,
    Run,
    command,
    device,
    mac,
    node,
    seed_files,
    serial,
    volume_disk,
)
from hansa.machines.drivers.qemu.processes import detached, end, free_port, kill_all, strays, until_gone
from hansa.machines.drivers.qemu.qmp import Qmp, QmpError, talk
from hansa.machines.drivers.qemu.store import Store, process_of, read, remove, write
from hansa.machines.drivers.scratch import clear, scratch
from hansa.node.sampling import parse_stat
from hansa.node.series import read_io

_CAN = frozenset({Can.POWER, Can.RESIZE, Can.SNAPSHOT, Can.VOLUMES, Can.NETWORKS, Can.CONSOLE, Can.IMAGES, Can.METERS})
_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")
_STILL = "still"
"""A file beside a machine that stands still, as its disk is copied."""


class Qemu:
    """Machines, Power, Resizes, Snapshots, Volumes, Networks and Consoles. ``folder`` is this driver's own."""

    def __init__(self, folder: Path, *, has_egress: bool = True, patience_s: float = 30.0) -> None:
        self._folder = folder
        self._store = Store(folder)
        self._bases = Bases(folder / "bases")
        self._has_egress = has_egress
        self._patience_s = patience_s
        self._locks: dict[Key, asyncio.Lock] = {}

    def capabilities(self) -> Capabilities:
        note = "They are in a virtual machine of their own, without a way out but SSH from here."
        if self._has_egress:
            note = "They reach the world, and what listens on this computer's loopback: for its owner only."
        return Capabilities(_CAN, user_data_bytes=512 * 1024, is_isolated=not self._has_egress, note=note)

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        check(spec, self.capabilities())
        async with self._lock(key):
            if self._store.spec(key) is None:
                base = await self._bases.prepare(base_of(spec.image), spec.image)
                await self._reserve(spec, key, base)
            if not self._has_started(key):
                await self._launch(key)
        seen = await self.observe(key)
        if seen is None:
            raise Temporary(f"The machine {key} went away while it was started.")
        return seen

    async def prepare(self, image: Image) -> None:
        """Have the image here, so that machines of it start at once."""
        await self._bases.prepare(base_of(image), image)

    async def ensure_image(self, image: Image, name: str) -> str | None:  # noqa: ARG002 - known by its checksum
        await self.prepare(image)
        return base_of(image)

    async def delete_image(self, checksum: str) -> Progress:
        gone = await self.remove_base(base_of(Image(checksum)))
        return Progress.DONE if gone else Progress.PENDING

    async def bases(self) -> dict[str, int]:
        """SHA-256 of the images that are here, with the number of machines of each."""
        specs = [self._store.spec(key) for key in self._keys()]
        used = [spec["base"] for spec in specs if spec]
        return {name: used.count(name) for name in self._bases.names()}

    async def remove_base(self, sha256: str) -> bool:
        """Remove an image from here; False while machines use it."""
        with self._store.alone():
            if (await self.bases()).get(sha256):
                return False
            self._bases.remove(sha256)
        return True

    async def _reserve(self, spec: MachineSpec, key: Key, base: Base) -> None:
        """Everything of a machine but its process. What says that it exists is written last."""
        folder = self._store.machines / _checked(key)
        remove(folder)
        (folder / "seed").mkdir(parents=True, mode=0o700)
        size = [f"{spec.size.disk_gib}G"] if spec.size.disk_gib else []
        await qemu_img(
            "create", "-q", "-f", "qcow2", "-F", base.format, "-b", str(base.disk), str(folder / "disk.qcow2"), *size
        )
        with self._store.alone():
            lan = self._store.address(spec.network) if spec.network else None
            for name, content in seed_files(key, spec.name, spec.user_data, spec.ssh_keys, lan).items():
                (folder / "seed" / name).write_bytes(content)
            about = {
                "name": spec.name, "base": base_of(spec.image), "login": spec.image.login, "network": spec.network,
                "lan": lan, "cores": spec.size.cores or 1, "memory_mib": spec.size.memory_mib or 1024,
                "disk_gib": spec.size.disk_gib, "created": datetime.now(UTC).isoformat(),
            }  # fmt: skip
            write(folder / "spec.json", about)

    def _has_started(self, key: Key) -> bool:
        """Whether it ran at least once: what was killed before that is not there yet."""
        run = read(self._store.machines / key / "run.json")
        return run is not None and (run.get("started", True) or process_of(self._store.machines / key) is not None)

    async def _launch(self, key: Key) -> None:
        """Start its process; nothing where it runs."""
        folder, spec = self._store.machines / key, self._store.need(key)
        if process_of(folder) is not None:
            return
        has_started = self._has_started(key)
        base = self._bases.find(spec["base"])
        if base is None:
            raise Permanent(f"The image that {key} was made of is gone from {self._folder}.")
        if spec["network"]:
            await self._ensure_switch(spec["network"])
        found = await kvm.probe(self._folder / "kvm.json", base.kernel, base.initrd)
        (folder / "console.log").unlink(missing_ok=True)  # what QEMU itself left, it replaces, but for another QEMU's
        port = free_port()
        accelerator = "kvm" if found.works else "tcg"
        about = {"port": port, "accelerator": accelerator}
        write(folder / "run.json", {**about, "started": has_started})
        run = Run(
            str(folder), spec["name"], spec["cores"], spec["memory_mib"], port, mac(key, "out"), accelerator,
            str(base.kernel) if base.kernel else None, str(base.initrd) if base.initrd else None,
            network=f"../../networks/{spec['network']}/{SWITCH}" if spec["network"] else None,
            private_mac=mac(key, "lan"),
            volumes=tuple((name, f"../../volumes/{name}/disk.qcow2") for name in self._store.volumes_of(key)),
            has_egress=self._has_egress,
        )  # fmt: skip
        await detached(command(run), folder)
        write(folder / "run.json", {**about, "started": True})

    async def observe(self, key: Key) -> Observed | None:
        folder, spec = self._store.machines / _checked(key), self._store.spec(key)
        run = read(folder / "run.json")
        if spec is None or run is None or not self._has_started(key):
            return None
        is_running = process_of(folder) is not None
        if (folder / _STILL).exists() and not self._lock(key).locked():
            await self._go_on(folder)
        log = await self._console(key) if is_running else ""
        guest, said = guest_on_console(log) if is_running else (Guest.UNKNOWN, "")
        ssh = Ssh("127.0.0.1", spec["login"], run["port"], keys_on_console(log)) if is_running else None
        return Observed(
            provider_id=key,
            life=Life.RUNNING if is_running else Life.STOPPED,
            message="" if is_running or read(folder / "stopped.json") else "Its process is gone.",
            private=(spec["lan"] or "10.0.2.15",),
            ssh=ssh,
            guest=guest,
            guest_message=said,
            flavour=run["accelerator"],
            size=Size(spec["cores"], spec["memory_mib"], spec["disk_gib"]),
            created=datetime.fromisoformat(spec["created"]),
        )

    async def meter(self, key: Key) -> Meter | None:
        """Of its process: what emulating it costs is counted, too."""
        pid = process_of(self._store.machines / _checked(key))
        if pid is None:
            return None
        try:
            process = parse_stat(pid, Path(f"/proc/{pid}/stat").read_bytes())
        except FileNotFoundError:  # it has just ended
            return None
        except (OSError, ValueError, IndexError) as error:
            raise Temporary(f"The process of {key} cannot be looked at: {error}.") from error
        read, written = read_io([pid]) or (None, None)
        return Meter(process.cpu_s, process.memory_mib, read, written)

    async def trim(self, key: Key) -> Progress:  # noqa: ARG002 - a key is a folder: there is never a second
        return Progress.DONE

    async def delete(self, key: Key) -> Progress:
        folder = self._store.machines / _checked(key)
        async with self._lock(key):
            await end(folder)
            await asyncio.to_thread(kill_all, folder)  # one that was started, and whose starter was killed just then
            for volume in self._store.volumes_of(key):
                self._attach_to(volume, None)
            remove(folder)
        self._locks.pop(key, None)
        return Progress.DONE

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        return [key for key in self._keys() if key.startswith(prefix)]

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def stop(self, key: Key) -> Progress:
        self._store.need(key)
        folder = self._store.machines / key
        async with self._lock(key):
            if process_of(folder) is not None:
                with contextlib.suppress(QmpError):
                    async with talk(folder) as qmp:
                        await qmp.ask("system_powerdown")
                    await until_gone(folder, self._patience_s)
                await end(folder)
            write(folder / "stopped.json", {"at": datetime.now(UTC).isoformat()})
        return Progress.DONE

    async def start(self, key: Key) -> Progress:
        self._store.need(key)
        async with self._lock(key):
            (self._store.machines / key / "stopped.json").unlink(missing_ok=True)
            await self._launch(key)
        return Progress.DONE

    async def reboot(self, key: Key, *, hard: bool = False) -> None:
        self._store.need(key)
        if process_of(self._store.machines / key) is None:
            await self.start(key)
            return
        async with talk(self._store.machines / key) as qmp:
            if hard:
                await qmp.ask("system_reset")
            else:
                keys = [{"type": "qcode", "data": name} for name in ("ctrl", "alt", "delete")]
                await qmp.ask("send-key", keys=keys)

    async def resize(self, key: Key, size: Size) -> Progress:
        spec, folder = self._store.need(key), self._store.machines / key
        goes_on = spec.get("goes_on") or process_of(folder) is not None
        write(folder / "spec.json", {**spec, "goes_on": goes_on})  # for whoever takes over where this is killed
        await self.stop(key)
        changed = {"cores": size.cores or spec["cores"], "memory_mib": size.memory_mib or spec["memory_mib"]}
        if size.disk_gib > spec["disk_gib"]:
            await qemu_img("resize", "-q", "-f", "qcow2", str(folder / "disk.qcow2"), f"{size.disk_gib}G")
            changed["disk_gib"] = size.disk_gib
        write(folder / "spec.json", {**spec, **changed, "goes_on": goes_on})
        if goes_on:
            await self.start(key)
        write(folder / "spec.json", {**spec, **changed, "goes_on": False})
        return Progress.DONE

    async def snapshot(self, key: Key, snapshot_key: Key, name: str) -> Snapshot:  # noqa: ARG002 - the catalogue names it
        target = self._folder / "snapshots" / f"{_checked(snapshot_key)}.qcow2"
        if not target.is_file():
            self._store.need(key)
            with scratch(target.parent) as work:
                async with self._lock(key):
                    made = await self._copy(self._store.machines / key, work)
                made.rename(target)
        return Snapshot(Progress.DONE, path=target, size_bytes=target.stat().st_size)

    async def _copy(self, folder: Path, work: Path) -> Path:
        """The disk as one image of its own; the machine stands still meanwhile."""
        if process_of(folder) is None:
            return await convert(folder / "disk.qcow2", "qcow2", "qcow2", work)
        (folder / _STILL).touch()
        async with talk(folder) as qmp:
            await qmp.ask("stop")
        try:
            return await convert(folder / "disk.qcow2", "qcow2", "qcow2", work, is_shared=True)
        finally:
            await self._go_on(folder)

    async def _go_on(self, folder: Path) -> None:
        """A machine that stood still for a snapshot goes on; also where the snapshot was killed."""
        with contextlib.suppress(QmpError):  # it has ended meanwhile
            async with talk(folder) as qmp:
                await qmp.ask("cont")
        (folder / _STILL).unlink(missing_ok=True)

    async def delete_snapshot(self, snapshot_key: Key) -> Progress:
        (self._folder / "snapshots" / f"{_checked(snapshot_key)}.qcow2").unlink(missing_ok=True)
        clear(self._folder / "snapshots")
        return Progress.DONE

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:  # noqa: ARG002
        folder = self._store.volumes / _checked(volume_key)
        if read(folder / "volume.json") is None:
            remove(folder)
            folder.mkdir(mode=0o700)
            await qemu_img("create", "-q", "-f", "qcow2", str(folder / "disk.qcow2"), f"{size_gib}G")
            write(folder / "volume.json", {"size_gib": size_gib, "attached": None})
        return self._volume(volume_key)

    async def observe_volume(self, volume_key: Key) -> Volume | None:
        if read(self._store.volumes / _checked(volume_key) / "volume.json") is None:
            return None
        return self._volume(volume_key)

    def device(self, volume_key: Key) -> str:
        return f"/dev/disk/by-id/virtio-{serial(volume_key)}"

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:
        self._store.need(key)
        volume = self._volume(volume_key)
        if volume.attached_to not in (None, key):
            raise Refused(Why.UNABLE, f"The volume belongs to {volume.attached_to} now: detach it there.")
        if volume.attached_to is None:
            if process_of(self._store.machines / key) is not None:
                path = str(self._store.volumes.resolve() / volume_key / "disk.qcow2")  # QEMU has left its folder
                async with talk(self._store.machines / key) as qmp:
                    await _plug_in(qmp, volume_key, path)
            self._attach_to(volume_key, key)  # after it: who is killed between the two is asked again
        return self._volume(volume_key)

    async def detach(self, volume_key: Key) -> Progress:
        volume = await self.observe_volume(volume_key)
        if volume is None or volume.attached_to is None:
            return Progress.DONE
        folder = self._store.machines / volume.attached_to
        if process_of(folder) is not None:
            async with talk(folder) as qmp:
                with contextlib.suppress(QmpError):  # asked already, or gone already
                    await qmp.ask("device_del", id=device(volume_key))
                with contextlib.suppress(QmpError):
                    await qmp.ask("blockdev-del", **{"node-name": node(volume_key)})
                if await _has_disk(qmp, volume_key):
                    return Progress.PENDING  # the guest has not let go of it yet
        self._attach_to(volume_key, None)
        return Progress.DONE

    async def delete_volume(self, volume_key: Key) -> Progress:
        if await self.detach(volume_key) is Progress.PENDING:
            return Progress.PENDING
        remove(self._store.volumes / _checked(volume_key))
        return Progress.DONE

    def _volume(self, volume_key: Key) -> Volume:
        about = read(self._store.volumes / volume_key / "volume.json")
        if about is None:
            raise Refused(Why.UNABLE, f"There is no volume {volume_key}.")
        name = self.device(volume_key) if about["attached"] else ""
        return Volume(volume_key, about["size_gib"], True, about["attached"], name)

    def _attach_to(self, volume_key: Key, key: Key | None) -> None:
        path = self._store.volumes / volume_key / "volume.json"
        write(path, {**read(path), "attached": key})

    async def ensure_network(self, name: Key) -> None:
        folder = self._store.networks / _checked(name)
        with self._store.alone():
            folder.mkdir(mode=0o700, exist_ok=True)
            if read(folder / "network.json") is None:
                write(folder / "network.json", {"prefix": self._store.prefix()})
        await self._ensure_switch(name)

    async def _ensure_switch(self, name: Key) -> None:
        """The switch of a network runs: it does not outlive a restart of the computer."""
        folder = self._store.networks / name
        if process_of(folder) is not None:
            return
        (folder / SWITCH).unlink(missing_ok=True)
        await detached([sys.executable, "-m", "hansa.machines.drivers.qemu.switch", SWITCH, str(folder)], folder)

    async def delete_network(self, name: Key) -> Progress:
        folder = self._store.networks / _checked(name)
        with self._store.alone():
            if self._store.users_of(name):
                return Progress.PENDING
            await end(folder)
            remove(folder)
        return Progress.DONE

    async def console_log(self, key: Key, lines: int = 200) -> str:
        self._store.need(key)
        return "\n".join((await self._console(key)).splitlines()[-lines:])

    async def _console(self, key: Key) -> str:
        """All that is known of what the console said. QEMU keeps the last part until somebody asks."""
        said = ""
        if process_of(self._store.machines / key) is not None:
            with contextlib.suppress(QmpError):  # it ends just now
                async with talk(self._store.machines / key) as qmp:
                    said = await qmp.ask("ringbuf-read", device="console", size=RING_BYTES)
        return self._store.add_log(key, said)

    async def leftovers(self) -> list[str]:
        """Processes and folders of machines that are gone: none, if all is well."""
        left = [f"process {pid}" for pid in await asyncio.to_thread(strays, self._folder.resolve())]
        folders = (self._store.machines, self._store.volumes, self._store.networks, self._folder / "snapshots")
        left += [f"file {path}" for folder in folders for path in folder.iterdir() if path.name.startswith(".")]
        return left

    def _keys(self) -> list[str]:
        return sorted(path.name for path in self._store.machines.iterdir() if not path.name.startswith("."))

    def _lock(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(_checked(key), asyncio.Lock())


def _checked(key: Key) -> Key:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


async def _plug_in(qmp: Qmp, volume_key: Key, path: str) -> None:
    """A machine that runs has a volume, however far an attempt before this one came."""
    if not await _has_disk(qmp, volume_key):
        await qmp.ask("blockdev-add", **volume_disk(volume_key, path))
    there = await qmp.ask("qom-list", path="/machine/peripheral")
    if device(volume_key) not in [one["name"] for one in there]:
        await qmp.ask(
            "device_add", driver="virtio-blk-pci", drive=node(volume_key), id=device(volume_key),
            serial=serial(volume_key),
        )  # fmt: skip


async def _has_disk(qmp: Qmp, volume_key: Key) -> bool:
    return any(one["node-name"] == node(volume_key) for one in await qmp.ask("query-named-block-nodes"))
