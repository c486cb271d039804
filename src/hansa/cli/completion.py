"""Completion with live names. It never starts a server, never waits for long, never says a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

TIMEOUT_S = 1.0
T = TypeVar("T")


def _ask(question: Callable[[Any], list[CompletionItem]]) -> list[CompletionItem]:
    try:
        from dataclasses import replace

        from hansa.client.connect import configured, default_home, running
        from hansa.client.transport import Transport

        endpoint = configured(None, None, None, os.environ) or running(default_home(os.environ))
        return question(Transport(replace(endpoint, timeout_s=TIMEOUT_S))) if endpoint else []
    except Exception:  # noqa: BLE001 - a prompt is no place for errors
        return []


def jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Numbers of recent jobs, with name and phase."""

    def question(session: Any) -> list[CompletionItem]:
        from hansa.client.effects import Request

        page = _json(session, Request("GET", "/jobs", {"limit": 50}, timeout_s=TIMEOUT_S))
        items = [("last", "the newest job")]
        items += [
            (
                str(job["number"]),
                f"{job.get('name') or ' '.join(job['command'])[:40]} ({job['status']['phase']})",
            )
            for job in page["items"]
        ]
        return [CompletionItem(value, help=text) for value, text in items if value.startswith(incomplete)]

    return _ask(question)


def sites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of sites."""

    def question(session: Any) -> list[CompletionItem]:
        from hansa.client.effects import Request

        page = _json(session, Request("GET", "/sites", timeout_s=TIMEOUT_S))
        return [
            CompletionItem(site["name"], help=site["kind"])
            for site in page["items"]
            if site["name"].startswith(incomplete)
        ]

    return _ask(question)


def machines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of machines."""

    def question(session: Any) -> list[CompletionItem]:
        from hansa.client.effects import Request

        page = _json(session, Request("GET", "/machines", timeout_s=TIMEOUT_S))
        return [
            CompletionItem(one["name"], help=f"{one['status']['phase']} at {one.get('site') or 'no site'}")
            for one in page["items"]
            if one["name"].startswith(incomplete)
        ]

    return _ask(question)


def volumes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of volumes."""

    def question(session: Any) -> list[CompletionItem]:
        from hansa.client.effects import Request

        page = _json(session, Request("GET", "/volumes", timeout_s=TIMEOUT_S))
        return [
            CompletionItem(one["name"], help=f"{one['status']['phase']}, {one['size_gib']} GiB")
            for one in page["items"]
            if one["name"].startswith(incomplete)
        ]

    return _ask(question)


def _json(session: Any, request: Any) -> Any:
    import json

    def once() -> Any:
        response = yield request
        return json.loads(response.body)

    return session.run(once())


@click.command(
    epilog="""\b
bash:  hansa completion bash > ~/.local/share/bash-completion/completions/hansa
zsh:   hansa completion zsh > ~/.zfunc/_hansa      (with fpath+=~/.zfunc before compinit)
fish:  hansa completion fish > ~/.config/fish/completions/hansa.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL; it completes commands, options, job numbers and sites."""
    from click.shell_completion import get_completion_class

    from hansa.cli.main import click_app

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - one of the choices above
    sys.stdout.write(kind(click_app(), {}, "hansa", "_HANSA_COMPLETE").source() + "\n")
