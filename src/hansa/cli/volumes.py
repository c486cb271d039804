"""``hansa volume …`` and ``hansa machine snapshot``: disks that outlive machines."""

from __future__ import annotations

from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.machines import print_explanation
from hansa.cli.output import ago, emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import volumes as ops
from hansa.client.operations import collect
from hansa.client.transport import Transport
from hansa.client.volumes import parse_size
from hansa.machines.volume_wire import NewSnapshot, NewVolume, Snapshot, Volume

name_argument = click.argument("volume", shell_complete=completion.volumes)
wait_option = click.option("--wait/--no-wait", "is_waiting", default=True, help="Follow it until it is done.")


def _cells(volume: Volume) -> dict[str, Any]:
    return {
        "volume": volume.name,
        "state": volume.status.phase,
        "gib": volume.size_gib,
        "site": volume.site,
        "machine": volume.machine,
        "device": volume.path or volume.device,
        "created": ago(volume.created),
        "why": volume.status.message,
    }


def _details(volume: Volume) -> dict[str, Any]:
    return {
        "volume": volume.name,
        "id": volume.id,
        "state": volume.status.phase,
        "why": volume.status.message,
        "since": volume.status.since,
        "vo": volume.vo,
        "site": f"{volume.site or ''} {volume.endpoint or ''}".strip(),
        "gib": volume.size_gib,
        "machine": volume.machine,
        "path": volume.path,
        "device": volume.device,
        "created": volume.created,
        "id at its site": volume.provider_id,
    }


def _show(volume: Volume, form: str) -> None:
    emit_one(volume, form, _details, lambda item: item.name)


def _follow(session: Transport, volume: Volume, *phases: str) -> Volume:
    return session.run(ops.wait(volume.id, frozenset(phases), told=note))


@click.command(epilog=examples("hansa volume create data 100G", "hansa volume create data 1T --site bari --vo biomed"))
@click.argument("name")
@click.argument("size")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Only there; more than once: one of them.")
@click.option("--vo", metavar="VO", help="For which VO. [default: your only one]")
@click.option("--group", "vo_group", metavar="GROUP", help="The VO's group that it counts for.")
@wait_option
@output_option()
def create(name: str, size: str, sites: tuple[str, ...], is_waiting: bool, *, form: str, **more: Any) -> None:
    """Make the volume NAME of SIZE: a disk that stays until you delete it, whatever machines have it."""
    session = open_session()
    made = session.run(ops.create(NewVolume(name, parse_size(size), sites=list(sites), **more)))
    _show(_follow(session, made, "available") if is_waiting else made, form)


@click.command(epilog=examples("hansa volume list", "hansa volume list -o json"))
@output_option()
def list_volumes(*, form: str) -> None:
    """List your volumes at all sites."""
    found = open_session().run(collect(ops.volumes))
    emit(found, form, _cells, lambda item: item.name)
    if not found and form == "table":
        note("you have no volume; make one: hansa volume create data 10G")


@click.command(epilog=examples("hansa volume show data"))
@name_argument
@output_option()
def show(volume: str, *, form: str) -> None:
    """Show VOLUME: where it is, and which machine has it."""
    _show(open_session().run(ops.volume(volume)), form)


@click.command(epilog=examples("hansa volume attach data web", "hansa volume attach data web --path /data"))
@name_argument
@click.argument("machine", shell_complete=completion.machines)
@click.option("--path", metavar="PATH", help="Mount it there, where the site's way of running machines can.")
@wait_option
@output_option()
def attach(volume: str, machine: str, path: str | None, is_waiting: bool, *, form: str) -> None:
    """Give VOLUME to MACHINE, which is at the same site."""
    session = open_session()
    found = session.run(ops.attach(volume, machine, path))
    _show(_follow(session, found, "attached") if is_waiting else found, form)


@click.command(epilog=examples("hansa volume detach data"))
@name_argument
@wait_option
@output_option()
def detach(volume: str, is_waiting: bool, *, form: str) -> None:
    """Take VOLUME from its machine. Unmount it there before."""
    session = open_session()
    found = session.run(ops.detach(volume))
    _show(_follow(session, found, "available", "deleted") if is_waiting else found, form)


@click.command(epilog=examples("hansa volume delete data", "hansa volume delete data scratch --no-wait"))
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...", shell_complete=completion.volumes)
@wait_option
def delete(volumes: tuple[str, ...], is_waiting: bool) -> None:
    """Remove volumes and all that is on them."""
    session = open_session()
    found = [session.run(ops.delete(name)) for name in volumes]
    for one in found:
        if is_waiting:
            _follow(session, one, "deleted")
        click.echo(one.name)


@click.command(epilog=examples("hansa volume explain data"))
@name_argument
@output_option()
def explain(volume: str, *, form: str) -> None:
    """Say why VOLUME is where and as it is, and who must act."""
    found = open_session().run(ops.explain(volume))
    if form == "table":
        print_explanation(found)
    else:
        emit_one(found, form, lambda _: {}, lambda item: item.subject)


def _snapshot_cells(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "image": f"{snapshot.image}@{snapshot.version}",
        "state": snapshot.status.phase,
        "machine": snapshot.machine,
        "site": snapshot.site,
        "created": ago(snapshot.created),
        "why": snapshot.status.message,
    }


@click.command(epilog=examples("hansa machine snapshot web", "hansa machine snapshot web --name web-gold --version 2"))
@click.argument("machine", shell_complete=completion.machines)
@click.option("--name", metavar="IMAGE", help="The VM image that it becomes a version of. [default: MACHINE]")
@click.option("--version", metavar="VERSION", help="Which version. [default: the next number]")
@wait_option
@output_option()
def snapshot(machine: str, name: str | None, version: str | None, is_waiting: bool, *, form: str) -> None:
    """Keep the disk of MACHINE as a VM image of yours.

    To go back to it, start a machine of it: hansa machine create --image IMAGE@VERSION. To remove it: hansa image
    withdraw IMAGE VERSION.
    """
    session = open_session()
    made = session.run(ops.take_snapshot(machine, NewSnapshot(name, version)))
    found = session.run(ops.wait_snapshot(made.id, told=note)) if is_waiting else made
    emit_one(found, form, _snapshot_cells, lambda item: f"{item.image}@{item.version}")
    if is_waiting and form == "table":
        note(f"start a machine of it with: hansa machine create --image {found.image}@{found.version}")


@click.command(epilog=examples("hansa machine snapshots"))
@output_option()
def list_snapshots(*, form: str) -> None:
    """List the snapshots of your machines, the newest first."""
    found = open_session().run(collect(ops.snapshots))
    emit(found, form, _snapshot_cells, lambda item: f"{item.image}@{item.version}")
    if not found and form == "table":
        note("you have no snapshot; take one: hansa machine snapshot MACHINE")
