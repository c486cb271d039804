"""Names of jobs, forms of output, and the tree of commands."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
import yaml

from hansa.cli import output
from hansa.cli.main import click_app
from hansa.cli.refs import Ref, by_job, parse
from hansa.client.errors import HansaError


def test_refs() -> None:
    assert parse("12") == [Ref(12)]
    assert parse("12.17") == [Ref(12, 17)]
    assert parse("12-14") == [Ref(12), Ref(13), Ref(14)]
    assert by_job([Ref(1, 2), Ref(1, 3), Ref(2), Ref(2, 1)]) == {1: [2, 3], 2: None}


@pytest.mark.parametrize(("text", "code"), [("nope", 4), ("12.x", 4), ("", 4), ("9-3", 2), ("1-99999999", 2)])
def test_bad_refs(text: str, code: int) -> None:
    with pytest.raises(HansaError) as caught:
        parse(text)
    assert caught.value.code.exit_code == code


def test_a_table_is_aligned_and_clean(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table([{"job": 1, "name": "a\x1b[2Jb"}, {"job": 100, "name": None}])
    assert capsys.readouterr().out == "JOB  NAME\n  1  a?[2Jb\n100\n"


@pytest.mark.parametrize("form", ["json", "yaml", "id"])
def test_forms(capsys: pytest.CaptureFixture[str], form: str) -> None:
    output.emit([Ref(1, 2), Ref(3)], form, lambda _: {}, lambda ref: ref.number)
    out = capsys.readouterr().out
    if form == "id":
        assert out == "1\n3\n"
    else:
        assert (json.loads(out) if form == "json" else yaml.safe_load(out)) == [
            {"number": 1, "task": 2},
            {"number": 3},
        ]


def walk(command: click.Command, path: str = "hansa") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, f"{path} {name}")


def test_every_command_teaches() -> None:
    for path, command in walk(click_app()):
        assert command.help, path
        if not isinstance(command, click.Group):
            assert command.epilog, path
            assert "hansa" in command.epilog, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


def test_every_group_lists_its_commands() -> None:
    names = {path for path, _ in walk(click_app())}
    assert {"hansa run", "hansa job submit", "hansa admin user add", "hansa db upgrade"} <= names
