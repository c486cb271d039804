"""``hansa machine …``: virtual machines at all sites."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hansa.cli import completion, output
from hansa.cli.jobs import examples
from hansa.cli.options import near_data, prefer_site
from hansa.cli.output import ago, emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import machines as ops
from hansa.client import ssh_keys
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect
from hansa.client.transport import Transport
from hansa.client.units import parse_memory, parse_time, show_time
from hansa.client.volumes import parse_volume
from hansa.machines.wire import Machine, MachineChange, MachineExplanation, NewMachine, Resize

name_argument = click.argument("machine", shell_complete=completion.machines)
wait_option = click.option("--wait/--no-wait", "is_waiting", default=True, help="Follow it until it is done.")


def _cells(machine: Machine) -> dict[str, Any]:
    return {
        "machine": machine.name,
        "state": machine.status.phase,
        "site": machine.site,
        "cores": machine.size.cores,
        "memory_mib": machine.size.memory_mib,
        "gpus": machine.size.gpus or None,
        "image": machine.image,
        "address": next(iter([*machine.public, *machine.private]), None),
        "created": ago(machine.created),
        "why": machine.status.message,
    }


def _details(machine: Machine) -> dict[str, Any]:
    size, status = machine.size, machine.status
    return {
        "machine": machine.name,
        "id": machine.id,
        "state": status.phase,
        "why": status.message,
        "waits for": status.waiting_on.value if status.waiting_on != "nobody" else "",
        "since": status.since,
        "wanted": machine.wanted,
        "vo": machine.vo,
        "site": f"{machine.site or ''} {machine.endpoint or ''}".strip(),
        "cores": size.cores,
        "memory_mib": size.memory_mib,
        "gpus": size.gpus or None,
        "flavour": size.flavour,
        "image": f"{machine.image} {machine.image_version}".strip(),
        "public": ", ".join(machine.public),
        "private": ", ".join(machine.private),
        "ssh": f"{machine.ssh.user}@{machine.ssh.host}:{machine.ssh.port}" if machine.ssh else "",
        "first boot": machine.guest,
        "open ports": ", ".join(machine.ports),
        "restart": machine.restart,
        "created": machine.created,
        "stopped on": machine.expires,
        "ended": machine.ended,
        "id at its site": machine.provider_id,
    }


def _show(machine: Machine, form: str) -> None:
    emit_one(machine, form, _details, lambda item: item.name)


def _follow(session: Transport, machine: Machine, phases: frozenset[str]) -> Machine:
    """Follow it with a line on stderr for whatever is new."""
    return session.run(ops.wait(machine.id, phases, told=lambda now: note(f"{now.name}: {now.status.message}")))


def size_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how large."""
    for option in (
        click.option("--memory", metavar="SIZE", help="Memory: 16G. [default: 1G for each CPU]"),
        click.option("--cpus", "cores", type=int, metavar="N", help="CPUs. [default: 1]"),
        click.option("--flavour", metavar="NAME", help="tiny, small, medium, large, xlarge, or a site's own."),
    ):
        function = option(function)
    return function


@click.command(
    epilog=examples(
        "hansa machine create --image debian-12",
        "hansa machine create --image debian-12 --name web --flavour small --public --port 443",
        "hansa machine create --image ubuntu-24.04 --cpus 4 --memory 16G --gpus 1 --vo vo.example.org",
        "hansa machine create --image debian-12 --cloud-init setup.yaml --expires 30d --restart",
        "hansa machine create --image debian-12 --volume 100G:/data",
    )
)
@click.option("--image", required=True, metavar="IMAGE", help="A VM image: NAME or NAME@VERSION, site:NAME.")
@click.option("--name", metavar="NAME", help="Its name, and host name. [default: after the image]")
@size_options
@click.option("--disk", "disk_gib", type=int, default=0, metavar="GIB", help="Its root disk.")
@click.option("--gpus", type=int, default=0, metavar="N", help="GPUs.")
@click.option("--gpu-model", metavar="NAME", help="Part of the name of the GPUs: A100.")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Only there; more than once: one of them.")
@prefer_site
@near_data
@click.option("--vo", metavar="VO", help="For which VO. [default: your only one]")
@click.option("--group", "vo_group", metavar="GROUP", help="The VO's group that it counts for.")
@click.option("--cloud-init", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="User data: a file.")
@click.option("--ssh-key", "keys", multiple=True, type=click.Path(path_type=Path), help="A .pub file. [default: yours]")
@click.option(
    "--volume", "volumes", multiple=True, metavar="VOLUME", help="SIZE[:PATH] for a new one, or NAME[:PATH] of yours."
)
@click.option("--network", metavar="NAME", help="A network of the site.")
@click.option("--public", is_flag=True, help="Give it a public address.")
@click.option("--port", "ports", multiple=True, metavar="PORT", help="Open besides SSH: 443, 8000-8010, 53/udp.")
@click.option("--restart", is_flag=True, help="Start it again when it fails; make it anew when it is lost.")
@click.option("--expires", default="7d", show_default=True, metavar="TIME", help="Stop it after so long, or: never.")
@wait_option
@output_option()
def create(
    memory: str | None,
    sites: tuple[str, ...],
    preferred_sites: tuple[str, ...],
    near_data: tuple[str, ...],
    ports: tuple[str, ...],
    cloud_init: Path | None,
    keys: tuple[Path, ...],
    volumes: tuple[str, ...],
    expires: str,
    is_waiting: bool,
    *,
    form: str,
    **more: Any,
) -> None:
    """Start a machine at the site that suits it best, and wait until it runs.

    Of its size you say what you wish; each site's own flavour that fits is found. After its time it is stopped, and a
    week later deleted: hansa machine extend gives it more.
    """
    try:
        user_data = cloud_init.read_text(encoding="utf-8") if cloud_init else ""
    except UnicodeDecodeError as error:
        raise HansaError(USAGE, f"{cloud_init} is no text.", hint="#cloud-config, or a script.") from error
    new = NewMachine(
        memory_mib=parse_memory(memory) if memory else None,
        sites=list(sites),
        preferred_sites=list(preferred_sites),
        near_data=list(near_data),
        ports=list(ports),
        user_data=user_data,
        volumes=[parse_volume(one) for one in volumes],
        lifetime_s=_lifetime(expires),
        **more,
    )
    session = open_session()
    made = session.run(ops.create_with_keys(new, *keys))
    if is_waiting:
        made = _follow(session, made, frozenset({"running"}))
    _show(made, form)
    if is_waiting and form == "table" and made.ssh:
        note(f"sign in with: hansa machine ssh {made.name}")


def _lifetime(text: str) -> int:
    return 0 if text == "never" else parse_time(text)


@click.command(epilog=examples("hansa machine list", "hansa machine list --site bari -o json"))
@click.option("--site", metavar="SITE", shell_complete=completion.sites, help="Only there.")
@click.option("--deleted", is_flag=True, help="Also those deleted of late.")
@output_option()
def list_machines(site: str | None, deleted: bool, *, form: str) -> None:
    """List your machines at all sites."""
    found = open_session().run(collect(lambda after: ops.machines(after, site, deleted)))
    emit(found, form, _cells, lambda item: item.name)
    if not found and form == "table":
        note("you have no machine; start one: hansa machine create --image debian-12")


@click.command(epilog=examples("hansa machine show web"))
@name_argument
@output_option()
def show(machine: str, *, form: str) -> None:
    """Show MACHINE: where it is, how to reach it, until when it lives."""
    _show(open_session().run(ops.machine(machine)), form)


@click.command(
    epilog=examples(
        "hansa machine ssh web", "hansa machine ssh web uname -a", "hansa machine ssh --jump gate.site.org db"
    ),
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--jump", metavar="USER@HOST:PORT", help="Through this host. [default: the one that its site names]")
@name_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(jump: str | None, machine: str, command: tuple[str, ...]) -> None:
    """Sign in at MACHINE, or run COMMAND there. Keys and jump hosts are taken care of."""
    found = open_session().run(ops.machine(machine))
    if jump is not None and found.ssh is not None:
        found = replace(found, ssh=replace(found.ssh, jump=jump))
    words = ssh_keys.ssh_command(found, command)
    ssh_keys.await_answer(found)
    try:
        os.execvp(words[0], words)  # noqa: S606 - the terminal is ssh's from here on
    except FileNotFoundError as error:
        raise HansaError(USAGE, "There is no ssh on this computer.", hint="Install openssh-client.") from error


@click.command(epilog=examples("hansa machine console web --lines 50"))
@name_argument
@click.option("--lines", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How many.")
def console(machine: str, lines: int) -> None:
    """Print what the console of MACHINE said last."""
    click.echo(open_session().run(ops.console(machine, lines)).text)


@click.command(epilog=examples("hansa machine logs web"))
@name_argument
def logs(machine: str) -> None:
    """Print the log of the first boot of MACHINE (cloud-init), read there by SSH."""
    found = open_session().run(ops.machine(machine))
    words = ssh_keys.ssh_command(found, ["sudo", "cat", "/var/log/cloud-init-output.log"])
    raise SystemExit(subprocess.run(words, check=False).returncode)


@click.command(epilog=examples("hansa machine stop web"))
@name_argument
@wait_option
@output_option()
def stop(machine: str, is_waiting: bool, *, form: str) -> None:
    """Shut MACHINE down. Disk and addresses stay."""
    session = open_session()
    found = session.run(ops.stop(machine))
    _show(_follow(session, found, frozenset({"stopped"})) if is_waiting else found, form)


@click.command(epilog=examples("hansa machine start web"))
@name_argument
@wait_option
@output_option()
def start(machine: str, is_waiting: bool, *, form: str) -> None:
    """Start a stopped MACHINE."""
    session = open_session()
    found = session.run(ops.start(machine))
    _show(_follow(session, found, frozenset({"running"})) if is_waiting else found, form)


@click.command(epilog=examples("hansa machine reboot web", "hansa machine reboot web --hard"))
@name_argument
@click.option("--hard", is_flag=True, help="Without asking the guest.")
@output_option()
def reboot(machine: str, hard: bool, *, form: str) -> None:
    """Boot MACHINE anew."""
    _show(open_session().run(ops.reboot(machine, hard=hard)), form)


@click.command(
    epilog=examples("hansa machine resize web --flavour large", "hansa machine resize web --cpus 8 --memory 32G")
)
@name_argument
@size_options
@output_option()
def resize(machine: str, flavour: str | None, cores: int | None, memory: str | None, *, form: str) -> None:
    """Give MACHINE another size, at the site where it is. It restarts meanwhile."""
    if flavour is None and cores is None and memory is None:
        raise HansaError(USAGE, "Say how large.", hint="--flavour large, or --cpus 8 --memory 32G")
    size = Resize(flavour, cores, parse_memory(memory) if memory else None)
    _show(open_session().run(ops.resize(machine, size)), form)


@click.command(epilog=examples("hansa machine rename web old-web"))
@name_argument
@click.argument("name")
@output_option()
def rename(machine: str, name: str, *, form: str) -> None:
    """Call MACHINE by another NAME. Its host name stays as it is."""
    _show(open_session().run(ops.change(machine, MachineChange(name=name))), form)


@click.command(epilog=examples("hansa machine extend web 30d", "hansa machine extend web never"))
@name_argument
@click.argument("time")
@output_option()
def extend(machine: str, time: str, *, form: str) -> None:
    """Let MACHINE live for TIME from now; a stopped one can then be started again."""
    lifetime_s = _lifetime(time)
    found = open_session().run(ops.change(machine, MachineChange(lifetime_s=lifetime_s)))
    note(f"{found.name} lives for {show_time(lifetime_s)} from now" if lifetime_s else f"{found.name} has no end now")
    _show(found, form)


@click.command(epilog=examples("hansa machine change web --restart", "hansa machine change web --no-restart"))
@name_argument
@click.option(
    "--restart/--no-restart",
    default=None,
    help="Start it again when it fails, make it anew when it is lost; or leave it.",
)
@output_option()
def change(machine: str, restart: bool | None, *, form: str) -> None:
    """Say what becomes of MACHINE when it fails. Its name, end and size have commands of their own."""
    if restart is None:
        raise HansaError(USAGE, "Say what shall change.", hint="--restart, or --no-restart")
    _show(open_session().run(ops.change(machine, MachineChange(restart=restart))), form)


@click.command(epilog=examples("hansa machine delete web", "hansa machine delete web old-web --no-wait"))
@click.argument("machines", nargs=-1, required=True, metavar="MACHINE...", shell_complete=completion.machines)
@wait_option
def delete(machines: tuple[str, ...], is_waiting: bool) -> None:
    """Remove machines, with their addresses and all that is on their disks. Volumes stay."""
    session = open_session()
    found = [session.run(ops.delete(name)) for name in machines]
    for one in found:
        if is_waiting:
            _follow(session, one, frozenset({"deleted"}))
        click.echo(one.name)


@click.command(epilog=examples("hansa machine explain web"))
@name_argument
@output_option()
def explain(machine: str, *, form: str) -> None:
    """Say why MACHINE is where and as it is, and who must act."""
    found = open_session().run(ops.explain(machine))
    if form == "table":
        print_explanation(found)
    else:
        emit_one(found, form, lambda _: {}, lambda item: item.subject)


def print_explanation(found: MachineExplanation) -> None:
    status = found.status
    click.echo(f"{output.show(found.subject)} {status.phase}: {output.show(status.message)}")
    if status.waiting_on != "nobody":
        click.echo(f"  it waits for: {status.waiting_on} (since {ago(status.since)}, {status.reason})")
    for line in found.lines:
        click.echo(f"  {output.show(line)}")
