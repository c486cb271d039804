"""A hook of mkdocs: writes the reference pages from the code, at every build, so that they cannot lag behind it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

CONTRACT = Path(__file__).resolve().parent.parent / "docs" / "reference" / "openapi.json"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def pages() -> dict[str, Callable[[], str]]:
    return {
        "cli": cli_page,
        "python": python_page,
        "api": api_page,
        "settings": settings_page,
        "errors": errors_page,
        "site-file": site_file_page,
    }


def find(module: str, name: str) -> Any:
    """`name` of a module of ours, or None while that room is not built. To be deleted when all are."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None
    return getattr(importlib.import_module(module), name, None)


def not_built(title: str) -> str:
    return f"# {title}\n\nThis version of Hansa does not have it yet.\n"


# --- tables -------------------------------------------------------------------------------------------------


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- settings -----------------------------------------------------------------------------------------------


def settings_page() -> str:
    settings = find("hansa.kernel.settings", "Settings")
    if settings is None:
        return not_built("Settings")
    parts = ["# Settings\n\n" + SETTINGS_ORDER]
    for group, fields in grouped(walk_settings(settings)).items():
        rows = [
            (code(name), code(type_name(field)), code(default_of(field)), field.description or "")
            for name, field in fields
        ]
        parts.append(f"## {group}\n\n" + table(("setting", "type", "default", "meaning"), rows))
    return "\n".join(parts)


SETTINGS_ORDER = """\
A flag wins over the environment (`server.port` is `HANSA_SERVER__PORT`), that over the project's `hansa.toml`, which
may set `client` and `job` only, that over the user's `config.toml` in HANSA_HOME, and that over
`/etc/hansa/config.toml`.
"""


def grouped(settings: Iterable[tuple[str, FieldInfo]]) -> dict[str, list[tuple[str, FieldInfo]]]:
    groups: dict[str, list[tuple[str, FieldInfo]]] = {}
    for name, field in settings:
        groups.setdefault(name.rpartition(".")[0] or "general", []).append((name, field))
    return groups


def walk_settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Groups of settings are models of their own: `group.name`."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from walk_settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def type_name(field: FieldInfo) -> str:
    """In the words of Python; that a setting may be absent, its default tells."""
    annotation = field.annotation
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"typing\.|pathlib\.| \| None|Annotated\[(\w+),.*?\](?=$| )", r"\1", name).replace(" | ", " or ")


def default_of(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory is None else "computed"
    return "none" if field.default is None else str(field.default)


# --- site file ----------------------------------------------------------------------------------------------


def site_file_page() -> str:
    """The site file, from the models that the server validates it with."""
    wire, kinds = find("hansa.sites.wire", "NewSite"), find("hansa.sites.kinds.base", "kinds")
    if wire is None or kinds is None:
        return not_built("Site file")
    import hansa.sites.wire as models

    parts = [SITE_FILE]
    for title, model in (
        ("The site", models.NewSite),
        ("An endpoint", models.NewEndpoint),
        ("A VO at an endpoint", models.NewAccess),
        ("A contact", models.Contact),
        ("The policy", models.SitePolicy),
    ):
        parts.append(f"## {title}\n\n" + model_table(TypeAdapter(model).json_schema()))
    for name, kind in sorted(kinds().items()):
        said = (kind.settings.__doc__ or "").strip()
        parts.append(f"## Settings of {name}\n\n{said}\n\n" + model_table(kind.settings.model_json_schema()))
    return "\n".join(parts)


SITE_FILE = """\
# Site file

YAML that describes a site: see [Join a site](../how-to/join-a-site.md). An unknown field is an error.

`credential_file` of an endpoint names a file beside it, of lines `name: value`, which nobody else can read; the command
line sends what is in it as `credential`.
"""


def model_table(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else json.dumps(field["default"]) if "default" in field else ""
        rows.append((code(name), code(default) if default != "required" else default, field.get("description", "")))
    return table(("field", "default", "meaning"), rows) if rows else "It has none.\n"


# --- command line -------------------------------------------------------------------------------------------


def cli_page() -> str:
    click_app = find("hansa.cli.main", "click_app")
    if click_app is None:
        return not_built("Command line")
    parts = ["# Command line\n"]
    for path, command in walk_commands(click_app(), "hansa"):
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        parts.append(f"## {path}\n\n{help_text(command)}\n\n    {path} {usage}\n")
        options = list(described_parameters(command))
        if options:
            parts.append(table(("option", "default", "meaning"), options))
    return "\n".join(parts)


def walk_commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            if not child.hidden:
                yield from walk_commands(child, f"{path} {name}")


def help_text(command: click.Command) -> str:
    return (command.help or command.short_help or "").replace("\b", "").replace("\f", "").strip()


def described_parameters(command: click.Command) -> Iterator[tuple[str, str, str]]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            shown = parameter.default not in (None, False, (), [], "") and not callable(parameter.default)
            shown = shown and "UNSET" not in repr(parameter.default).upper()
            default = str(parameter.default) if shown else ""
            yield code(", ".join(parameter.opts)), code(default), parameter.help or ""


# --- errors -------------------------------------------------------------------------------------------------


def errors_page() -> str:
    registry = find("hansa.kernel.errors", "registry")
    if registry is None:
        return not_built("Errors")
    import_rooms_errors()
    rows = [
        (code(entry.code), str(entry.status), str(entry.exit_code), entry.title)
        for _, entry in sorted(registry().items())
    ]
    return (
        "# Errors\n\nEvery error of the API is a problem document (RFC 9457) with one of these codes in `code`; the "
        "command line ends with the exit code, except that `hansa run` passes the job's on and uses one code for all "
        "of its own.\n\n" + table(("code", "HTTP status", "exit code", "meaning"), rows)
    )


def import_rooms_errors() -> None:
    """Rooms register their errors when their `errors.py` is imported."""
    import hansa

    for room in pkgutil.iter_modules(hansa.__path__, "hansa."):
        find(f"{room.name}.errors", "")


# --- APIs ---------------------------------------------------------------------------------------------------


def api_page() -> str:
    if not CONTRACT.exists():
        return not_built("HTTP API")
    contract = json.loads(CONTRACT.read_text(encoding="utf-8"))
    rows = [
        (code(method.upper()), code(path), operation.get("summary", ""))
        for path, operations in sorted(contract["paths"].items())
        for method, operation in operations.items()
        if isinstance(operation, dict)
    ]
    return (
        "# HTTP API\n\nThe contract is [openapi.json](openapi.json); a running server shows it at `/docs`. Lists come "
        "as `{items, next}`, errors as problem documents.\n\n" + table(("method", "path", "what it does"), rows)
    )


def python_page() -> str:
    if find("hansa", "Hansa") is None:
        return not_built("Python API")
    return "# Python API\n\n::: hansa.Hansa\n"
