"""``hansa image build``: a Debian cloud image, made on this computer and put into the catalogue."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import click

from hansa.cli import image_golden
from hansa.cli.images import exactly, names_in, show_image
from hansa.cli.jobs import examples
from hansa.cli.output import output_option
from hansa.cli.session import note, open_session
from hansa.client import image_api
from hansa.client.effects import FileBody
from hansa.client.errors import USAGE, HansaError
from hansa.images.wire import NewImage, NewVersion

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(
    epilog=examples(
        "hansa image build base",
        "hansa image build tools --package htop --package git --vo vo.example.org",
        "hansa image build base --file base.qcow2              # a file only",
        "hansa image build lab --from debian-12 --cloud-init lab.yaml --vo vo.example.org",
        "hansa image build lab --from base@1 --playbook lab.yaml --version 2",
    )
)
@click.argument("name")
@click.option("--from", "base", metavar="IMAGE", help="Customise this one of the catalogue, in a throw-away machine.")
@click.option("--cloud-init", type=_FILE, metavar="FILE", help="With --from: user data for its first boot.")
@click.option("--playbook", type=_FILE, metavar="FILE", help="With --from: an Ansible playbook to run in it.")
@click.option("--release", default="bookworm", show_default=True, help="Of Debian: bookworm or trixie.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="A Debian package to install as well.")
@click.option("--disk", "disk_gib", type=int, default=4, show_default=True, metavar="GIB", help="Size of its disk.")
@click.option("--mirror", default="http://deb.debian.org", show_default=True, metavar="URL", help="Debian's packages.")
@click.option("--version", default="1", show_default=True, metavar="VERSION", help="Its version in the catalogue.")
@click.option("--vo", metavar="VO", help="Whose it is. [default: yours]")
@click.option("--file", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write a file; add nothing.")
@output_option()
def build(
    name: str,
    base: str | None,
    cloud_init: Path | None,
    playbook: Path | None,
    release: str,
    packages: tuple[str, ...],
    disk_gib: int,
    mirror: str,
    version: str,
    vo: str | None,
    output: Path | None,
    *,
    form: str,
) -> None:
    """Make a Debian cloud image NAME of packages, without the network but for apt: cloud-init, sshd and a kernel.

    It starts by itself, by BIOS and by UEFI. The same recipe gives the same image, bit by bit, as long as the mirror
    has the same packages and the same programs make it. It takes about two minutes, as an ordinary user, and needs
    mmdebstrap, qemu-utils, e2fsprogs, uidmap, mtools, grub-common, grub-pc-bin and grub-efi-amd64-bin.

    With --from it is a golden image: a machine of another image is started on this computer, customised by cloud-init
    and Ansible, cleaned of what is its own, and its disk becomes the image. Nothing is left of the machine.
    """
    from hansa.images.errors import BUILD_FAILED
    from hansa.kernel.errors import Permanent, Temporary
    from hansa.machines.build import builder
    from hansa.machines.build.recipe import Recipe, check
    from hansa.machines.build.workspace import workspace

    if output is not None and output.exists():
        raise HansaError(USAGE, f"{output} is there already.", hint="Choose another name, or remove it.")
    if base is None and (cloud_init or playbook):
        raise HansaError(USAGE, "--cloud-init and --playbook customise another image.", hint="Say which: --from IMAGE.")
    if base is not None and packages:
        raise HansaError(USAGE, "--package is for images made from nothing.", hint="Install them by --cloud-init.")
    teller = _Teller(time.monotonic())
    try:
        with workspace() as folder:
            if base is not None:
                session = open_session()
                made = image_golden.make(session, base, cloud_init, playbook, folder, teller)
                about = image_golden.described(session.run(image_api.vm_image(base.partition("@")[0])))
                about["title"] = f"{base}, customised"
            else:
                recipe = check(Recipe(release, tuple(sorted(set(packages))), disk_gib, mirror))
                made = asyncio.run(builder.build(recipe, folder, teller))
                about = _about(release)
            if output is not None:
                shutil.move(made, output)
                note(f"{output}: {output.stat().st_size:,} bytes")
                return
            _add(name, version, vo, made, about, form)
    except (Permanent, Temporary) as error:
        raise HansaError(BUILD_FAILED, str(error)) from error


class _Teller:
    """Says each step once, with how far it is."""

    def __init__(self, start: float) -> None:
        self._start = start

    async def __call__(self, said: str, share: float) -> None:
        note(f"{share:4.0%} {time.monotonic() - self._start:4.0f} s  {said}")


def _about(release: str) -> dict[str, str]:
    number = {"bookworm": "12", "trixie": "13"}[release]
    return {
        "title": f"Debian {number}, made here", "os_name": "Debian", "os_version": number, "login": "debian",
        "licence": "free software, see the packages",
    }  # fmt: skip


def _add(name: str, version: str, vo: str | None, made: Path, about: dict[str, Any], form: str) -> None:
    """The image becomes a version in the catalogue."""
    session, source = open_session(), NewVersion(version, upload=True, format="qcow2")
    if name in names_in(session, vo):
        session.run(image_api.add_vm_image_version(exactly(name, vo), source))
    else:
        seen: Any = "vo" if vo else "owner"
        new = NewImage(name, source, vo, visibility=seen, **about)
        session.run(image_api.add_vm_image(new))
    body = FileBody(made, made.stat().st_size)
    show_image(session.run(image_api.upload_vm_image(exactly(name, vo), version, body)), form)
