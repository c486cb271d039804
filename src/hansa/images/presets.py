"""VM images that every server knows: the distributions' own cloud images, pinned by their own lists of checksums.

Nothing is fetched before somebody starts one.
"""

from __future__ import annotations

from dataclasses import dataclass

PRESET = "preset"
"""The scope of presets."""


@dataclass(frozen=True)
class Preset:
    """An official image. ``sums`` is the distribution's file of checksums beside it."""

    name: str
    title: str
    os_name: str
    os_version: str
    url: str
    sums: str
    login: str
    licence: str = "free software, see the distribution"


_DEBIAN = "https://cloud.debian.org/images/cloud"
_UBUNTU = "https://cloud-images.ubuntu.com"
_ALMA = "https://repo.almalinux.org/almalinux"


def _debian(number: str, name: str) -> Preset:
    folder = f"{_DEBIAN}/{name}/latest"
    file = f"debian-{number}-genericcloud-amd64.qcow2"
    return Preset(
        f"debian-{number}", f"Debian {number}", "Debian", number, f"{folder}/{file}", f"{folder}/SHA512SUMS", "debian"
    )


def _ubuntu(number: str, name: str) -> Preset:
    folder = f"{_UBUNTU}/{name}/current"
    file = f"{name}-server-cloudimg-amd64.img"
    return Preset(
        f"ubuntu-{number}", f"Ubuntu {number}", "Ubuntu", number, f"{folder}/{file}", f"{folder}/SHA256SUMS", "ubuntu"
    )


def _alma(number: str) -> Preset:
    folder = f"{_ALMA}/{number}/cloud/x86_64/images"
    file = f"AlmaLinux-{number}-GenericCloud-latest.x86_64.qcow2"
    title = f"AlmaLinux {number}"
    return Preset(
        f"almalinux-{number}", title, "AlmaLinux", number, f"{folder}/{file}", f"{folder}/CHECKSUM", "almalinux"
    )


PRESETS = (
    _debian("12", "bookworm"),
    _debian("13", "trixie"),
    _ubuntu("22.04", "jammy"),
    _ubuntu("24.04", "noble"),
    _alma("9"),
    _alma("10"),
)
