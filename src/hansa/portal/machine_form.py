"""The wizard for a machine: its fields, and the NewMachine that they ask for. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.texts import _
from hansa.kernel.wire import encode
from hansa.machines.placing import NAMED
from hansa.machines.volume_wire import MachineVolume
from hansa.machines.wire import DAY_S, DEFAULT_LIFETIME_S, NewMachine

CHOICES = (
    "image", "vo", "flavour", "cores", "memory_gib", "disk_gib", "gpus", "gpu_model", "site", "network", "public",
    "ports", "days", "volumes",
)  # fmt: skip
"""What the address of the second and third step carries: nothing that should not stand in a history."""
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_VOLUME = re.compile(
    r"(?:(?P<size>[1-9]\d{0,6})(?P<unit>[GT])|(?P<name>[a-z][a-z0-9-]{0,62}))(?::(?P<path>/\S{1,200}))?"
)


def blank() -> dict[str, str]:
    return dict.fromkeys((*CHOICES, "name", "ssh_keys", "user_data", "restart"), "") | {"flavour": "small", "days": "7"}


def read(form: Mapping[str, str]) -> NewMachine:
    """The machine that is asked for. Raises Fault ``kernel.invalid`` with what would be right."""
    flavour = form.get("flavour", "")
    own = flavour == "own"
    name = form.get("name", "").strip()
    if name and not _NAME.fullmatch(name):
        raise Fault(
            INVALID,
            _("{name} cannot name a machine.", name=repr(name[:63])),
            hint=_("Small letters, digits and -, a letter first."),
        )
    image = form.get("image", "").strip()
    if not image or len(image) > 200:
        raise Fault(INVALID, _("A machine is started of a VM image."), hint=_("Choose one of the catalogue."))
    site = form.get("site", "")
    return NewMachine(
        image,
        name or None,
        vo=form.get("vo") or None,
        flavour=None if own else (flavour[:200] or None),
        cores=_whole(form, "cores", 1, 100_000) if own else None,
        memory_mib=_mib(form) if own else None,
        disk_gib=_whole(form, "disk_gib", 0, 1_000_000) or 0,
        gpus=_whole(form, "gpus", 0, 1000) or 0,
        gpu_model=form.get("gpu_model", "").strip()[:200] or None,
        sites=[site[:200]] if site else [],
        user_data=form.get("user_data", "").replace("\r\n", "\n"),
        ssh_keys=[line.strip() for line in form.get("ssh_keys", "").splitlines() if line.strip()][:50],
        network=form.get("network", "").strip()[:200] or None,
        public=bool(form.get("public")),
        ports=form.get("ports", "").replace(",", " ").split()[:100],
        restart=bool(form.get("restart")),
        volumes=_volumes(form),
        lifetime_s=lifetime_s(form),
    )


def _volumes(form: Mapping[str, str]) -> list[MachineVolume]:
    words = form.get("volumes", "").replace(",", " ").split()
    if len(words) > 20:
        raise Fault(INVALID, _("A machine gets 20 volumes at most, not {count:,}.", count=len(words)))
    return [_volume(word) for word in words]


def _volume(word: str) -> MachineVolume:
    """``100G:/data`` for a new one, ``archive:/old`` for one that there is; the path may be left out."""
    found = _VOLUME.fullmatch(word)
    if found is None:
        raise Fault(
            INVALID,
            _("{word} is no volume.", word=repr(word[:80])),
            hint=_("As in 100G:/data (a new one), or archive:/old."),
        )
    gib = int(found["size"]) * (1024 if found["unit"] == "T" else 1) if found["size"] else None
    if gib is not None and gib > 1_000_000:
        raise Fault(
            INVALID, _("{word} is too large for a volume.", word=repr(word[:80])), hint=_("At most 1,000,000 GiB.")
        )
    return MachineVolume(gib, found["name"], found["path"])


def lifetime_s(form: Mapping[str, str]) -> int:
    """Seconds that it may run; 0 without an end."""
    days = form.get("days", "").strip()
    if not days:
        return DEFAULT_LIFETIME_S
    return (_whole(form, "days", 0, 3660) or 0) * DAY_S


def _whole(form: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:12]) <= most:
        raise Fault(
            INVALID,
            _(
                "{name} takes a whole number from {least:,} to {most:,}.",
                name=name.replace("_", " "),
                least=least,
                most=most,
            ),
        )
    return int(text[:12])


def _mib(form: Mapping[str, str]) -> int | None:
    text = form.get("memory_gib", "").strip().replace(",", ".")
    if not text:
        return None
    try:
        gib = float(text)
    except ValueError:
        gib = -1.0
    if not 0 < gib <= 97_000:
        raise Fault(INVALID, _("Memory is a number of GiB that is greater than 0."))
    return max(1, round(gib * 1024))


def sizes() -> list[tuple[str, str]]:
    """The named sizes, and what they are."""
    return [(name, f"{cores} × CPU, {mib / 1024:g} GiB") for name, (cores, mib) in NAMED.items()]


def command(new: NewMachine) -> str:
    """The same on the command line. Keys are those of the computer there."""
    words = ["hansa", "machine", "create", "--image", shlex.quote(new.image)]
    memory = f"{new.memory_mib}M" if new.memory_mib else None
    days = f"{new.lifetime_s // DAY_S}d" if new.lifetime_s else "never"
    pairs: list[tuple[str, Any]] = [
        ("name", new.name), ("vo", new.vo), ("flavour", new.flavour), ("cpus", new.cores), ("memory", memory),
        ("disk", new.disk_gib or None), ("gpus", new.gpus or None), ("gpu-model", new.gpu_model),
        ("network", new.network), ("expires", None if new.lifetime_s == DEFAULT_LIFETIME_S else days),
    ]  # fmt: skip
    pairs += [("site", site) for site in new.sites] + [("port", port) for port in new.ports]
    pairs += [("volume", _volume_word(one)) for one in new.volumes]
    for option, value in pairs:
        if value is not None:
            words += [f"--{option}", shlex.quote(str(value))]
    words += ["--public"] if new.public else []
    words += ["--restart"] if new.restart else []
    return " ".join(words)


def _volume_word(volume: MachineVolume) -> str:
    return f"{volume.name or f'{volume.size_gib}G'}{f':{volume.path}' if volume.path else ''}"


def body(new: NewMachine) -> dict[str, Any]:
    """What the API is asked, without what it takes for granted."""
    usual = encode(NewMachine(new.image))
    return {name: value for name, value in encode(new).items() if name == "image" or value != usual.get(name)}
