"""``hansa vo …``: virtual organisations."""

from __future__ import annotations

from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import people_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect
from hansa.client.units import parse_time
from hansa.identity.wire import Invitation, Member, Vo

ROLES = click.Choice(["member", "vm-operator", "manager"])


def _cells(vo: Vo) -> dict[str, Any]:
    return {
        "name": vo.name,
        "members": vo.members,
        "my roles": ", ".join(vo.my_roles),
        "my groups": ", ".join(vo.my_groups),
        "state": "suspended" if vo.suspended else "active",
        "description": vo.description,
    }


def _details(vo: Vo) -> dict[str, Any]:
    return {
        **_cells(vo),
        "groups": ", ".join(vo.groups),
        "members come": f"from {vo.issuer}, not by invitation" if vo.issuer else "by invitation",
        "suspended why": vo.suspended_why,
        "created": vo.created,
    }


def _member_cells(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "roles": ", ".join(member.roles),
        "groups": ", ".join(member.groups),
        "state": "suspended" if member.suspended else "active",
        "why": member.suspended_why,
        "since": member.since,
        "id": member.user_id,
    }


def _invitation_cells(found: Invitation) -> dict[str, Any]:
    return {"link": found.link, "expires": found.expires}


def _show(vo: Vo, form: str) -> None:
    emit_one(vo, form, _details, lambda item: item.name)


def _show_member(member: Member, form: str) -> None:
    emit_one(member, form, _member_cells, lambda item: item.user_id)


def show_invitation(found: Invitation, form: str) -> None:
    """The link of an invitation."""
    emit_one(found, form, _invitation_cells, lambda item: item.link)


@click.command(epilog=examples("hansa vo create vo.example.org --describe 'Galaxies' --manager maria"))
@click.argument("name")
@click.option("--describe", "description", default="", metavar="TEXT", help="What it is for.")
@click.option("--manager", metavar="USER", help="Its first manager. [default: you]")
@output_option()
def create(name: str, description: str, manager: str | None, *, form: str) -> None:
    """Create the virtual organisation NAME. For operators."""
    _show(open_session().run(people_api.create_vo(name, description, manager)), form)


@click.command(epilog=examples("hansa vo list"))
@output_option()
def list_vos(*, form: str) -> None:
    """List your virtual organisations."""
    found = open_session().run(collect(people_api.vos))
    emit(found, form, _cells, lambda vo: vo.name)
    if not found:
        note("you are in no virtual organisation; their managers send invitations")


@click.command(epilog=examples("hansa vo show vo.example.org"))
@click.argument("vo")
@output_option()
def show(vo: str, *, form: str) -> None:
    """Show the virtual organisation VO."""
    _show(open_session().run(people_api.vo(vo)), form)


@click.command(epilog=examples("hansa vo describe vo.example.org 'Galaxies and what is between them'"))
@click.argument("vo")
@click.argument("text")
@output_option()
def describe(vo: str, text: str, *, form: str) -> None:
    """Say with TEXT what VO is for."""
    _show(open_session().run(people_api.describe_vo(vo, text)), form)


@click.command(epilog=examples("hansa vo group vo.example.org analysis"))
@click.argument("vo")
@click.argument("group")
@output_option()
def group(vo: str, group: str, *, form: str) -> None:
    """Make the group GROUP in VO; a:b is the group b of the group a."""
    _show(open_session().run(people_api.add_group(vo, group)), form)


@click.command(epilog=examples("hansa vo invite vo.example.org", "hansa vo invite vo.example.org --role manager"))
@click.argument("vo")
@click.option("--role", "roles", multiple=True, type=ROLES, help="What it makes of who uses it. [default: member]")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="A group to be in.")
@click.option("--expires", metavar="TIME", help="How long it is good, as 24h or 7-00:00:00. [default: 7 days]")
@output_option()
def invite(vo: str, roles: tuple[str, ...], groups: tuple[str, ...], expires: str | None, *, form: str) -> None:
    """Make a link that lets one person join VO, once."""
    lasts_s = parse_time(expires) if expires else None
    found = open_session().run(people_api.invite(vo, list(roles), list(groups), lasts_s))
    show_invitation(found, form)
    note("send it to one person only: who opens it first joins")


@click.command(epilog=examples("hansa vo join https://…/join?invitation=…", "hansa vo join  # asks for the link"))
@click.argument("link", required=False)
@output_option()
def join(link: str | None, *, form: str) -> None:
    """Join with the LINK of an invitation."""
    word = (link or click.prompt("Link of the invitation", hide_input=True, err=True)).strip()
    token = word.rpartition("invitation=")[2].partition("&")[0]
    if not token:
        raise HansaError(USAGE, "This is not the link of an invitation.")
    _show(open_session().run(people_api.join_vo(token)), form)


@click.command(epilog=examples("hansa vo suspend vo.example.org --why 'The grant has ended'"))
@click.argument("vo")
@click.option("--why", default="", metavar="TEXT", help="For its members.")
@output_option()
def suspend(vo: str, why: str, *, form: str) -> None:
    """Let no new work start for VO. What runs goes on, nothing is deleted. For operators."""
    _show(open_session().run(people_api.suspend_vo(vo, why)), form)


@click.command(epilog=examples("hansa vo resume vo.example.org"))
@click.argument("vo")
@output_option()
def resume(vo: str, *, form: str) -> None:
    """Let new work start for VO again. For operators."""
    _show(open_session().run(people_api.resume_vo(vo)), form)


@click.command(epilog=examples("hansa vo member list vo.example.org"))
@click.argument("vo")
@output_option()
def list_members(vo: str, *, form: str) -> None:
    """List the members of VO."""
    found = open_session().run(collect(lambda after: people_api.members(vo, after)))
    emit(found, form, _member_cells, lambda member: member.user_id)


@click.command(epilog=examples("hansa vo member set vo.example.org maria --role manager --group analysis"))
@click.argument("vo")
@click.argument("member")
@click.option("--role", "roles", multiple=True, type=ROLES, help="Roles, in the place of those there are.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Groups, in the place of those there are.")
@click.option("--no-groups", is_flag=True, help="In no group any more.")
@output_option()
def set_member(
    vo: str, member: str, roles: tuple[str, ...], groups: tuple[str, ...], *, no_groups: bool, form: str
) -> None:
    """Give MEMBER of VO other roles or groups."""
    wanted = [] if no_groups else list(groups) or None
    if not roles and wanted is None:
        raise HansaError(USAGE, "There is nothing to change.", hint="Give --role, --group or --no-groups.")
    _show_member(open_session().run(people_api.change_member(vo, member, list(roles) or None, wanted)), form)


@click.command(epilog=examples("hansa vo member remove vo.example.org maria"))
@click.argument("vo")
@click.argument("member")
def remove_member(vo: str, member: str) -> None:
    """Take MEMBER out of VO. Everybody may leave."""
    open_session().run(people_api.remove_member(vo, member))
    note(f"{member} is no longer a member of {vo}")


@click.command(epilog=examples("hansa vo member suspend vo.example.org maria --why 'Left the institute'"))
@click.argument("vo")
@click.argument("member")
@click.option("--why", default="", metavar="TEXT", help="For the member.")
@output_option()
def suspend_member(vo: str, member: str, why: str, *, form: str) -> None:
    """Let MEMBER start no new work for VO."""
    _show_member(open_session().run(people_api.suspend_member(vo, member, why)), form)


@click.command(epilog=examples("hansa vo member resume vo.example.org maria"))
@click.argument("vo")
@click.argument("member")
@output_option()
def resume_member(vo: str, member: str, *, form: str) -> None:
    """Let MEMBER start new work for VO again."""
    _show_member(open_session().run(people_api.resume_member(vo, member)), form)
