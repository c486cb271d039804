"""``hansa authority …`` and ``hansa identity …``: under what Hansa acts for you, and with what you sign in."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, emit_one, output_option
from hansa.cli.session import note, open_session
from hansa.client import people_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.operations import collect
from hansa.identity.wire import Authority, Identity, Service, Vo

SCOPES = click.Choice(["hansa.jobs", "hansa.read", "hansa"])


def _cells(one: Authority) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "for": one.issuer or f"{one.vo} at {one.site}",
        "state": one.phase,
        "waiting on": one.waiting_on if one.waiting_on != "nobody" else "",
        "refreshed": one.refreshed,
        "expires": one.expires,
        "message": one.message,
    }


def _identity_cells(one: Identity) -> dict[str, Any]:
    return {"id": one.id, "issuer": one.title, "name": one.name, "subject": one.sub, "last used": one.last_seen}


def _service_cells(one: Service) -> dict[str, Any]:
    return {"id": one.id, "scopes": ", ".join(one.scopes), "secret": one.secret, "created": one.created}


@click.command(epilog=examples("hansa authority list"))
@output_option()
def list_authority(*, form: str) -> None:
    """List the grants under which Hansa acts while you are away."""
    found = open_session().run(collect(people_api.authority))
    emit(found, form, _cells, lambda one: one.id)
    if not found:
        note("there is none; hansa login --renew gives one, where your account is of another issuer")


@click.command(epilog=examples("hansa authority revoke authority_0192…"))
@click.argument("grant")
def revoke_authority(grant: str) -> None:
    """Take GRANT back. Nothing is killed; nothing new starts under it."""
    open_session().run(people_api.revoke_authority(grant))
    note(f"{grant} was taken back")


@click.command(epilog=examples("hansa identity list"))
@output_option()
def list_identities(*, form: str) -> None:
    """List with what you sign in at other issuers. The account page links more."""
    found = open_session().run(collect(people_api.identities))
    emit(found, form, _identity_cells, lambda one: one.id)
    if not found:
        note("there is none; the account page links one, where other issuers are trusted")


@click.command(epilog=examples("hansa identity unlink identity_0192…"))
@click.argument("identity")
def unlink(identity: str) -> None:
    """Forget IDENTITY and the memberships that it gave."""
    open_session().run(people_api.unlink(identity))
    note(f"{identity} was unlinked")


@click.command(
    epilog=examples("hansa vo rule vo.example.org --issuer check-in", "hansa vo rule vo.example.org --invitations")
)
@click.argument("vo")
@click.option("--issuer", metavar="NAME", help="The issuer that says who is in it, as the settings name it.")
@click.option("--as", "issuer_vo", metavar="NAME", help="What the issuer calls it. [default: as here]")
@click.option("--assurance", multiple=True, metavar="VALUE", help="A value of eduperson_assurance: one is needed.")
@click.option("--invitations", is_flag=True, help="Invitations say who is in it.")
@output_option()
def rule(
    vo: str, issuer: str | None, issuer_vo: str | None, assurance: tuple[str, ...], *, invitations: bool, form: str
) -> None:
    """Say who says who is in VO: an issuer, or invitations, never both. Members of the other way are out.

    For operators.
    """
    if (issuer is None) != invitations:
        raise HansaError(USAGE, "Give either --issuer NAME or --invitations.")
    found: Vo = open_session().run(people_api.rule_vo(vo, issuer, issuer_vo, list(assurance)))
    cells = {"name": found.name, "members come from": found.issuer or "invitations", "as": found.issuer_vo}
    emit_one(found, form, lambda _: cells, lambda one: one.name)


@click.command(epilog=examples("hansa vo service list vo.example.org"))
@click.argument("vo")
@output_option()
def list_services(vo: str, *, form: str) -> None:
    """List the service accounts of VO."""
    emit(
        open_session().run(collect(lambda after: people_api.services(vo, after))),
        form,
        _service_cells,
        lambda one: one.id,
    )


@click.command(
    epilog=examples("hansa vo service add vo.example.org gateway", "hansa vo service add VO NAME --scope hansa.read")
)
@click.argument("vo")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=SCOPES, help="What it may do. [default: hansa.jobs]")
@output_option()
def add_service(vo: str, name: str, scopes: tuple[str, ...], *, form: str) -> None:
    """Add the service account NAME of VO: a program that acts for VO. Its secret is shown once."""
    emit_one(
        open_session().run(people_api.add_service(vo, name, list(scopes))), form, _service_cells, lambda one: one.id
    )


@click.command(epilog=examples("hansa vo service remove vo.example.org gateway.vo.example.org"))
@click.argument("vo")
@click.argument("service")
def remove_service(vo: str, service: str) -> None:
    """Remove SERVICE, an account of VO; its tokens are void at once."""
    open_session().run(people_api.remove_service(vo, service))
    note(f"removed {service}")


@click.command(epilog=examples("hansa vo credential list vo.example.org"))
@click.argument("vo")
@output_option()
def list_credentials(vo: str, *, form: str) -> None:
    """List what VO signs in with at sites, without the secrets."""
    found = open_session().run(collect(lambda after: people_api.site_credentials(vo, after)))
    emit(found, form, _cells, lambda one: one.id)


@click.command(epilog=examples("hansa vo credential set vo.example.org SITE < credential.json"))
@click.argument("vo")
@click.argument("site")
@click.option("--expires", type=click.DateTime(), metavar="DATE", help="When the site ends it (UTC).")
@output_option()
def set_credential(vo: str, site: str, expires: datetime | None, *, form: str) -> None:
    """Keep, sealed, what VO signs in with at SITE: a JSON object on the standard input.

    For an OpenStack application credential: {"id": "…", "secret": "…"}.
    """
    try:
        fields = json.loads(sys.stdin.read())
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise HansaError(
            USAGE,
            "The credential is a JSON object of texts, on the standard input.",
            hint='For an OpenStack application credential: {"id": "…", "secret": "…"}',
        )
    ends = expires.replace(tzinfo=UTC) if expires else None
    emit_one(
        open_session().run(people_api.set_site_credential(vo, site, fields, ends)), form, _cells, lambda one: one.id
    )
