"""Errors as people meet them: what is wrong, what to do next, no traceback unless HANSA_DEBUG is set."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import IO

import click

from hansa.kernel.errors import Exit, Fault


def report(error: Exception, stderr: IO[str], environ: Mapping[str, str]) -> int:
    """Write the error; returns the exit code of its kind."""
    if environ.get("HANSA_DEBUG"):
        stderr.write("".join(traceback.format_exception(error)))
    message, hint, code = describe(error)
    stderr.write(f"hansa: {message}\n")
    if hint:
        stderr.write(f"  {hint}\n")
    return code


def describe(error: Exception) -> tuple[str, str | None, int]:
    """Message, hint, exit code."""
    if isinstance(error, Fault):
        return error.detail, error.hint, error.code.exit_code
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "hansa"
        return error.format_message(), f"See: {path} --help", Exit.USAGE
    if isinstance(error, click.ClickException):
        return error.format_message(), None, error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", None, Exit.FAILED
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("hansa"):
        return f"This installation is not complete: {error}.", "Install hansa again.", Exit.FAILED
    return (
        f"This is a defect of Hansa ({type(error).__name__}: {error}).",
        "Run it again with HANSA_DEBUG=1, and report what it prints.",
        Exit.FAILED,
    )


def is_debugging() -> bool:
    return bool(os.environ.get("HANSA_DEBUG"))
