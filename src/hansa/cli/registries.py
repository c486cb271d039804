"""``hansa registry …``: as whom jobs get container images from registries."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from hansa.cli.jobs import examples
from hansa.cli.output import emit, output_option
from hansa.cli.session import note, open_session
from hansa.client import job_api
from hansa.client.errors import NO_LOGIN, HansaError
from hansa.jobs.wire import RegistryLogin
from hansa.node.containers.credentials import IDENTITY_TOKEN_USER, Credentials
from hansa.node.containers.model import canonical_registry


def _cells(one: RegistryLogin) -> dict[str, Any]:
    return {"registry": one.registry, "user": one.username, "since": one.since}


@click.command(
    epilog=examples(
        "hansa registry login registry.example.org --username ada",
        "hansa registry login ghcr.io -u ada --password-stdin < token",
        "hansa container login quay.io && hansa registry login quay.io",
    )
)
@click.argument("registry")
@click.option("--username", "-u", metavar="NAME", help="Who you are there.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
def login(registry: str, username: str | None, *, password_stdin: bool) -> None:
    """Let your jobs get private container images from REGISTRY.

    Without --username, with what `hansa container login`, Docker or Podman keep for REGISTRY on this computer. The
    server keeps it sealed, shows it to nobody, and gives it to pilots that bring an image from there for your jobs.
    A token that may only read is enough, and better than a password.
    """
    user, password = _given(username, is_piped=password_stdin) if username else _kept(registry)
    kept = open_session().run(job_api.put_registry_login(registry, user, password))
    note(f"your jobs get images from {kept.registry} as {kept.username}")


def _given(username: str, *, is_piped: bool) -> tuple[str, str]:
    if is_piped:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("password or token", hide_input=True, err=True)
    if not password:
        raise click.UsageError("The password is empty.")
    return username, password


def _kept(registry: str) -> tuple[str, str]:
    host = canonical_registry((registry.partition("://")[2] or registry).strip("/"))
    found = Credentials.standard(os.environ).find(host)
    if found is None or found.user == IDENTITY_TOKEN_USER:
        raise HansaError(
            NO_LOGIN,
            f"No user and password for {host} are kept on this computer.",
            hint=f"Say who you are there: hansa registry login {host} --username NAME",
        )
    return found.user, found.secret


@click.command(name="list", epilog=examples("hansa registry list"))
@output_option()
def list_logins(*, form: str) -> None:
    """List where your jobs sign in to get container images, and as whom."""
    emit(open_session().run(job_api.registry_logins()).items, form, _cells, lambda one: one.registry)


@click.command(epilog=examples("hansa registry logout quay.io"))
@click.argument("registry")
def logout(registry: str) -> None:
    """Forget your login at REGISTRY. Images that nodes have already stay usable there."""
    open_session().run(job_api.remove_registry_login(registry))
    note(f"your login at {registry} was forgotten")
