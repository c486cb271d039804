"""What costs start-up time is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("authlib", "joserfc", "jinja2", "argon2", "keyring", "cryptography")


@pytest.mark.parametrize("module", ["hansa.cli.run", "hansa.client.logins", "hansa.server.app"])
def test_nothing_of_sign_in_is_imported_before_it_is_needed(module: str) -> None:
    code = f"import {module}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
