"""The lock by which a pilot lives."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from hansa.node.pilot import _lock


def test_whoever_looks_whether_a_pilot_lives_does_not_turn_it_away(tmp_path: Path) -> None:
    path = tmp_path / "pilot.lock"
    with path.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        found = []
        pilot = threading.Thread(target=lambda: found.append(_lock(str(path))))
        pilot.start()
        pilot.join(0.1)
        assert pilot.is_alive(), "it neither has the lock nor gave up"
    pilot.join(60)
    assert found[0] is not None
    with found[0]:
        assert _lock(str(path)) is None, "another pilot lives"
