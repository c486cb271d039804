"""``hansa image build``: a Debian cloud image, made on this computer and put into the catalogue."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

import click

from hansa.cli.images import names_in, show_image
from hansa.cli.jobs import examples
from hansa.cli.output import output_option
from hansa.cli.session import note, open_session
from hansa.client import api
from hansa.client.effects import FileBody
from hansa.client.errors import USAGE, HansaError
from hansa.images.wire import NewImage, NewVersion


@click.command(
    epilog=examples(
        "hansa image build base",
        "hansa image build tools --package htop --package git --vo vo.example.org",
        "hansa image build base --file base.qcow2              # a file only",
    )
)
@click.argument("name")
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

    The same recipe gives the same files, as long as the mirror has the same packages; not yet the same checksum, as
    inodes keep their times of change. It takes about two minutes, as an ordinary user, and needs mmdebstrap,
    qemu-utils, e2fsprogs and uidmap.
    """
    from hansa.images.errors import BUILD_FAILED
    from hansa.kernel.errors import Permanent, Temporary
    from hansa.machines.build import builder
    from hansa.machines.build.recipe import Recipe, check

    if output is not None and output.exists():
        raise HansaError(USAGE, f"{output} is there already.", hint="Choose another name, or remove it.")
    folder = Path(tempfile.mkdtemp(prefix="hansa-image-"))
    try:
        recipe = check(Recipe(release, tuple(sorted(set(packages))), disk_gib, mirror))
        made = asyncio.run(builder.build(recipe, folder, _Teller(time.monotonic())))
        if output is not None:
            shutil.move(made, output)
            note(f"{output}: {output.stat().st_size:,} bytes")
            return
        _add(name, version, vo, made, release, form)
    except (Permanent, Temporary) as error:
        raise HansaError(BUILD_FAILED, str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Teller:
    """Says each step once, with how far it is."""

    def __init__(self, start: float) -> None:
        self._start = start

    async def __call__(self, said: str, share: float) -> None:
        note(f"{share:4.0%} {time.monotonic() - self._start:4.0f} s  {said}")


def _add(name: str, version: str, vo: str | None, made: Path, release: str, form: str) -> None:
    """The image becomes a version in the catalogue."""
    session, source = open_session(), NewVersion(version, upload=True, format="qcow2")
    if name in names_in(session, vo):
        session.run(api.add_vm_image_version(name, source))
    else:
        numbers = {"bookworm": "12", "trixie": "13"}
        new = NewImage(
            name, source, vo, visibility="vo" if vo else "owner", title=f"Debian {numbers[release]}, made here",
            os_name="Debian", os_version=numbers[release], login="debian", licence="free software, see the packages",
        )  # fmt: skip
        session.run(api.add_vm_image(new))
    show_image(session.run(api.upload_vm_image(name, version, FileBody(made, made.stat().st_size))), form)
