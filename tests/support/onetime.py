"""One-time codes of a host that is signed in to by keyboard-interactive: a PAM service of the test's own."""

from __future__ import annotations

import secrets
from pathlib import Path

_CHECK = """#!/bin/sh
[ "$PAM_TYPE" = auth ] || exit 0
# The code comes on standard input, ended by a zero byte. Each is good once.
code=$(tr -d '\\0')
case "$code" in ''|*[!0-9]*) exit 1;; esac
rm "{folder}/good/$code" 2>/dev/null || exit 1
echo x >> "{folder}/taken"
"""


class OneTime:
    """Makes codes, and takes each once. Only root may make one: PAM reads its rules from /etc/pam.d."""

    def __init__(self, folder: Path) -> None:
        self.service = f"hansa-test-{secrets.token_hex(4)}"
        self._folder = folder
        (folder / "good").mkdir(parents=True)
        check = folder / "check"
        check.write_text(_CHECK.format(folder=folder))
        check.chmod(0o755)
        self._rules = Path("/etc/pam.d") / self.service
        self._rules.write_text(
            f"auth required pam_exec.so expose_authtok quiet {check}\n"
            "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
        )

    def next(self) -> str:
        """A code that is good once."""
        code = f"{secrets.randbelow(10**8):08d}"
        (self._folder / "good" / code).touch()
        return code

    @property
    def taken(self) -> int:
        """How many codes opened a session."""
        file = self._folder / "taken"
        return len(file.read_text().split()) if file.exists() else 0

    def remove(self) -> None:
        self._rules.unlink()
