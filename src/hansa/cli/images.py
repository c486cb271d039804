"""``hansa image …``: the catalogue of VM images."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import image_api
from hansa.client.effects import FileBody
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect
from hansa.client.transport import Transport
from hansa.client.units import parse_time
from hansa.images.wire import (
    ImagePolicy,
    NewEndorsement,
    NewImage,
    NewSubscription,
    NewVersion,
    Subscription,
    VmImage,
)
from hansa.machines.sync_wire import ImagePlace

_FORMATS = click.Choice(["qcow2", "raw"])


def _cells(image: VmImage) -> dict[str, Any]:
    newest = image.versions[0] if image.versions else None
    return {
        "image": image.name,
        "scope": image.scope,
        "version": newest.version if newest else None,
        "state": newest.status.phase if newest else "empty",
        "os": f"{image.os_name} {image.os_version}".strip(),
        "arch": image.arch,
        "size_mib": newest.size_bytes // 2**20 if newest and newest.size_bytes else None,
        "endorsed by": ", ".join(one.vo for one in image.endorsements),
    }


def _details(image: VmImage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "image": image.name,
        "scope": image.scope,
        "title": image.title,
        "description": image.description,
        "os": f"{image.os} {image.os_name} {image.os_version}".strip(),
        "arch": image.arch,
        "sign in as": image.login,
        "gpu drivers": ", ".join(image.gpu_drivers),
        "licence": image.licence,
        "contact": image.contact,
        "seen by": image.visibility,
    }
    for one in image.versions:
        done = f" ({one.done_bytes:,} of {one.size_bytes:,} bytes)" if one.size_bytes and one.done_bytes else ""
        found[f"version {one.version}"] = f"{one.status.phase}{done}: {one.status.message} {one.checksum or ''}".strip()
    for two in image.endorsements:
        until = f" until {two.until:%Y-%m-%d}" if two.until else ""
        found[f"endorsed for {two.vo}"] = f"by {two.by}, {two.version or 'what is newest'}{until}"
    return found


def show_image(image: VmImage, form: str) -> None:
    emit_one(image, form, _details, lambda item: item.name)


def names_in(session: Transport, vo: str | None) -> set[str]:
    """Names of the images of a VO, or of all that the caller sees."""
    found = session.run(collect(image_api.vm_images))
    return {image.name for image in found if vo is None or image.scope == f"vo/{vo}"}


def exactly(name: str, vo: str | None) -> str:
    """The name that means an image of this VO, whatever else has it."""
    return f"vo/{vo}/{name}" if vo else name


@click.command(epilog=examples("hansa image list", "hansa image list --vo vo.example.org"))
@click.option("--vo", metavar="VO", help="Only what this VO endorses.")
@output_option()
def list_images(vo: str | None, *, form: str) -> None:
    """List the VM images that you may see."""
    found = open_session().run(collect(image_api.vm_images))
    if vo is not None:
        found = [image for image in found if any(one.vo == vo for one in image.endorsements)]
    emit(found, form, _cells, lambda image: image.name)


@click.command(epilog=examples("hansa image show debian-12"))
@click.argument("image")
@output_option()
def show(image: str, *, form: str) -> None:
    """Show a VM IMAGE: what it is, its versions, and who endorses it."""
    show_image(open_session().run(image_api.vm_image(image)), form)


@click.command(
    epilog=examples(
        "hansa image add tools --url https://example.org/tools.qcow2 --checksum sha256:…",
        "hansa image add tools --file tools.qcow2 --version 2 --vo vo.example.org --visibility vo",
        "hansa image add tools --url oci://registry.example.org/images/tools:3",
    )
)
@click.argument("name")
@click.option("--url", metavar="URL", help="Where it is: https://, http:// or oci://.")
@click.option("--file", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file to upload.")
@click.option("--checksum", metavar="SUM", help="sha256:… or sha512:… that it must have.")
@click.option("--sums", metavar="URL", help="A file of checksums that names it.")
@click.option("--format", "form_", type=_FORMATS, help="Refuse it if it is anything else.")
@click.option("--version", "version", default="1", show_default=True, metavar="VERSION", help="Its version.")
@click.option("--vo", metavar="VO", help="Whose it is. [default: yours]")
@click.option("--visibility", type=click.Choice(["owner", "vo", "all"]), help="Who sees it. [default: vo, or owner]")
@click.option("--title", default="", metavar="TEXT", help="A title for people.")
@click.option("--description", default="", metavar="TEXT", help="What is in it.")
@click.option("--os", "os_name", default="", metavar="NAME", help="Its distribution: Debian.")
@click.option("--os-version", default="", metavar="VERSION", help="… and its version: 12.")
@click.option("--arch", default="x86_64", show_default=True, metavar="ARCH", help="The processor that it needs.")
@click.option("--login", default="", metavar="USER", help="The user whom its cloud-init makes.")
@click.option("--licence", default="", metavar="TEXT", help="Its licence.")
@click.option("--contact", default="", metavar="TEXT", help="Whom to ask about it.")
@click.option("--gpu-driver", "gpu_drivers", multiple=True, metavar="NAME", help="A GPU driver that is in it.")
@click.option("--expires", metavar="TIME", help="Nothing is started of it after so long: 90d.")
@output_option()
def add(
    name: str,
    url: str | None,
    file: Path | None,
    checksum: str | None,
    sums: str | None,
    form_: Any,
    version: str,
    vo: str | None,
    visibility: Any,
    expires: str | None,
    gpu_drivers: tuple[str, ...],
    *,
    form: str,
    **about: str,
) -> None:
    """Add the VM image NAME to the catalogue, or a version of it where it is there.

    It is pinned by its checksum: what is fetched, now or later, has it or is refused.
    """
    if (url is None) == (file is None):
        raise HansaError(USAGE, "Say where it is: --url or --file, one of them.")
    until = datetime.now(UTC) + timedelta(seconds=parse_time(expires)) if expires else None
    source = NewVersion(version, url, file is not None, checksum, sums, form_, until)
    session = open_session()
    known = _known(session, name, vo)
    if known is not None:
        _check_about(name, visibility, gpu_drivers, about)
    if known is not None and file is not None and _waits(known, version):
        image = known  # of a try that failed: its content is sent again
    elif known is not None and version != "1":
        image = session.run(image_api.add_vm_image_version(exactly(name, vo), source))
    else:
        seen: Any = visibility or ("vo" if vo else "owner")
        new = NewImage(name, source, vo, visibility=seen, gpu_drivers=list(gpu_drivers), **about)
        image = session.run(image_api.add_vm_image(new))
    if file is not None:
        note(f"sending {file} ({file.stat().st_size:,} bytes)")
        body = FileBody(file, file.stat().st_size)
        image = session.run(image_api.upload_vm_image(exactly(name, vo), version, body))
    show_image(image, form)


def _known(session: Transport, name: str, vo: str | None) -> VmImage | None:
    """The image of this name that a version would be added to."""
    found = session.run(collect(image_api.vm_images))
    return next((one for one in found if one.name == name and (vo is None or one.scope == f"vo/{vo}")), None)


def _waits(image: VmImage, version: str) -> bool:
    return any(one.version == version and one.status.phase == "uploading" for one in image.versions)


def _check_about(name: str, visibility: str | None, gpu_drivers: tuple[str, ...], about: dict[str, str]) -> None:
    """What is said of an image is said once; nothing of it is dropped in silence."""
    said = {key for key, value in about.items() if value and (key, value) != ("arch", "x86_64")}
    said |= {"visibility"} if visibility else set()
    said |= {"gpu-driver"} if gpu_drivers else set()
    if said:
        words = ", ".join(f"--{one.replace('os_name', 'os').replace('_', '-')}" for one in sorted(said))
        raise HansaError(
            USAGE,
            f"There is a VM image {name} already; {words} is said of all its versions, when the first is added.",
            hint="Leave it out to add a version, or choose another name.",
        )


@click.command(
    epilog=examples("hansa image fetch debian-12 debian-12.qcow2", "hansa image fetch debian-12 d.raw --format raw")
)
@click.argument("image")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--version", metavar="VERSION", help="Which. [default: the newest]")
@click.option("--format", "form", type=_FORMATS, help="As this format. [default: as it is]")
def fetch(image: str, file: Path, version: str | None, form: str | None) -> None:
    """Download a VM IMAGE into FILE, for a hypervisor of your own."""
    if file.exists():
        raise HansaError(USAGE, f"{file} is there already.", hint="Choose another name, or remove it.")
    partial = file.with_name(f".{file.name}.part")
    session = open_session()
    try:
        with partial.open("wb") as out:
            session.run(
                image_api.download_vm_image(image, version, form, _writer(out), lambda: out.truncate(out.seek(0)))
            )
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    note(f"{file}: {file.stat().st_size:,} bytes")


def _writer(out: BinaryIO) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        out.write(piece)

    return write


@click.command(epilog=examples("hansa image withdraw tools 1 --why 'CVE-2026-1'"))
@click.argument("image")
@click.argument("version")
@click.option("--why", default="", metavar="TEXT", help="For those who use it.")
@output_option()
def withdraw(image: str, version: str, why: str, *, form: str) -> None:
    """Take VERSION of IMAGE back: nothing new is started of it. What runs goes on."""
    show_image(open_session().run(image_api.withdraw_vm_image(image, version, why)), form)


@click.command(epilog=examples("hansa image endorse debian-12 --vo vo.example.org --follow"))
@click.argument("image")
@click.option("--vo", required=True, metavar="VO", help="Whose members may start it.")
@click.option("--version", metavar="VERSION", help="This version only. [default: the newest of today]")
@click.option("--follow", is_flag=True, help="Also what comes later.")
@click.option("--days", type=int, metavar="N", help="For so many days.")
@output_option()
def endorse(image: str, vo: str, version: str | None, follow: bool, days: int | None, *, form: str) -> None:
    """Let the members of a VO start IMAGE. For its managers and vm-operators."""
    show_image(open_session().run(image_api.endorse_vm_image(image, NewEndorsement(vo, version, follow, days))), form)


@click.command(epilog=examples("hansa image revoke debian-12 --vo vo.example.org"))
@click.argument("image")
@click.option("--vo", required=True, metavar="VO", help="Whose members may start it no more.")
@output_option()
def revoke(image: str, vo: str, *, form: str) -> None:
    """Let the members of a VO start IMAGE no more. What runs goes on."""
    show_image(open_session().run(image_api.revoke_vm_image(image, vo)), form)


@click.command(
    epilog=examples(
        "hansa image policy vo.example.org --site-images", "hansa image policy vo.example.org --registry quay.io"
    )
)
@click.argument("vo")
@click.option("--site-images/--no-site-images", default=None, help="Also the public VM images of sites.")
@click.option("--registry", "registries", multiple=True, metavar="HOST", help="A container registry that jobs may use.")
@click.option("--any-registry", is_flag=True, help="Jobs may use any container registry.")
@click.option(
    "--public-list/--no-public-list", default=None, help="Everybody may read what it endorses, signed, and fetch it."
)
@output_option()
def policy(
    vo: str,
    site_images: bool | None,
    registries: tuple[str, ...],
    any_registry: bool,
    public_list: bool | None,
    *,
    form: str,
) -> None:
    """Show, or set, what VO lets its members start besides the VM images that it endorses."""
    session = open_session()
    found = session.run(image_api.image_policy(vo))
    if site_images is not None or public_list is not None or registries or any_registry:
        hosts = None if any_registry else list(registries) or found.registries
        own = found.site_images if site_images is None else site_images
        wanted = ImagePolicy(own, hosts, found.public_list if public_list is None else public_list)
        found = session.run(image_api.set_image_policy(vo, wanted))
    emit_one(found, form, _policy_cells, lambda _: vo)


def _policy_cells(found: ImagePolicy) -> dict[str, Any]:
    return {
        "public images of sites": found.site_images,
        "list for everybody": found.public_list,
        "container registries": "any" if found.registries is None else ", ".join(found.registries) or "none",
    }


@click.command(epilog=examples("hansa image publish vo.example.org > image.list"))
@click.argument("vo")
def publish(vo: str) -> None:
    """Print the VM images that VO endorses as a HEPiX image list."""
    click.echo(json.dumps(open_session().run(image_api.image_list(vo)), indent=2))


@click.command(epilog=examples("hansa image sites", "hansa image sites debian-12"))
@click.argument("image", required=False)
@output_option()
def sites(image: str | None, *, form: str) -> None:
    """Show at which sites the VM images of your VOs are, or why not; of IMAGE only, if it is given.

    What a VO endorses is brought by itself to every cloud that supports the VO, unless its site says no (by its policy,
    or image_sync: false of the endpoint or of the VO there), and to this computer's own machines.
    """
    found = [one for one in open_session().run(image_api.image_places()).items if image in (None, one.image)]
    emit(found, form, _place_cells, lambda one: f"{one.image}@{one.version}")


def _place_cells(one: ImagePlace) -> dict[str, Any]:
    return {
        "image": f"{one.image}@{one.version}",
        "vo": one.vo,
        "site": one.place,
        "state": one.status.phase,
        "since": one.status.since,
        "why": one.status.message,
    }


def _list_cells(found: Subscription) -> dict[str, Any]:
    return {
        "id": found.id,
        "url": found.url,
        "signed": found.signed,
        "state": found.status.phase,
        "images": found.images,
        "expires": found.expires,
        "why": found.status.message,
    }


@click.command(epilog=examples("hansa image follow vo.example.org https://example.org/image.list --authorities ca.pem"))
@click.argument("vo")
@click.argument("url")
@click.option(
    "--authorities", type=click.Path(path_type=Path, exists=True), help="PEM file: who may have signed the list."
)
@click.option("--endorser", metavar="DN", help="The signer's name must be this.")
@click.option("--unsigned", is_flag=True, help="Trust its https address alone.")
@output_option()
def follow(vo: str, url: str, authorities: Path | None, endorser: str | None, unsigned: bool, *, form: str) -> None:
    """Follow the image list at URL for VO: what it names is endorsed, what it drops is withdrawn."""
    text = authorities.read_text(encoding="ascii") if authorities else None
    found = open_session().run(image_api.subscribe_images(vo, NewSubscription(url, text, endorser, unsigned)))
    emit_one(found, form, _list_cells, lambda item: item.id)


@click.command(epilog=examples("hansa image followed vo.example.org"))
@click.argument("vo")
@output_option()
def followed(vo: str, *, form: str) -> None:
    """List the image lists that VO follows."""
    emit(open_session().run(image_api.image_subscriptions(vo)).items, form, _list_cells, lambda item: item.id)


@click.command(epilog=examples("hansa image unfollow vo.example.org imglist_0198…"))
@click.argument("vo")
@click.argument("list_id", metavar="ID")
def unfollow(vo: str, list_id: str) -> None:
    """Follow the image list ID no more. Its images stay until they expire."""
    open_session().run(image_api.unsubscribe_images(vo, list_id))
