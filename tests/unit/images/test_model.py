"""What comes next for a version of an image, and which checksum a file of checksums gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from hansa.images.model import DROP, FETCH, PIN, Phase, Seen, Turn, decide, usable
from hansa.images.sources import find_sum
from hansa.kernel.errors import Permanent
from hansa.kernel.reconcile import Act, Settle

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GONE, HERE = Seen(False), Seen(True)


@dataclass
class Version:
    phase: str = "known"
    wanted: bool = True
    checksum: str | None = "sha256:00"
    source: str = "https://example.org/x"
    expires: datetime | None = None
    place: str | None = None


@pytest.mark.parametrize(
    ("version", "seen", "expected"),
    [
        (Version(wanted=False), GONE, Settle("images.known")),
        (Version(checksum=None), GONE, Act(PIN, "images.pinning")),
        (Version(phase="ready", source="snapshot", place="site/cloud"), GONE, Settle("images.kept")),
        (Version(), GONE, Act(FETCH, "images.fetching")),
        (Version(phase="fetching"), Seen(False, 10), Act(FETCH, "images.fetching")),
        (Version(phase="ready"), HERE, Settle("images.ready")),
        (Version(phase="ready"), GONE, Act(FETCH, "images.fetching")),
        (Version(phase="uploading"), GONE, Settle("images.uploading")),
        (Version(phase="withdrawn"), HERE, Act(DROP, "images.unused")),
        (Version(phase="refused"), Seen(False, 5), Act(DROP, "images.unused")),
        (Version(phase="withdrawn"), GONE, Settle("images.ended")),
    ],
)
def test_what_comes_next(version: Version, seen: Seen, expected: Act | Settle) -> None:
    assert decide(version, seen, NOW) == expected


def test_time_ends_a_version_and_a_lost_upload_cannot_be_fetched_again() -> None:
    ended = decide(Version(phase="ready", expires=NOW), HERE, NOW)
    assert isinstance(ended, Turn)
    assert ended.phase is Phase.EXPIRED
    lost = decide(Version(phase="ready", source="upload"), GONE, NOW)
    assert isinstance(lost, Turn)
    assert lost.phase is Phase.REFUSED


def test_only_what_is_neither_withdrawn_nor_expired_is_started() -> None:
    assert usable("ready", None, NOW)
    assert usable("known", NOW + timedelta(seconds=1), NOW)
    assert not usable("ready", NOW, NOW)
    assert not any(usable(phase, None, NOW) for phase in ("uploading", "refused", "withdrawn", "expired"))


def test_files_of_checksums_in_both_styles() -> None:
    text = f"""# a comment
{"0a" * 32}  other.qcow2
{"0b" * 64} *./disk.qcow2
SHA256 (alma.qcow2) = {"0C" * 32}
"""
    assert find_sum(text, "disk.qcow2") == "sha512:" + "0b" * 64
    assert find_sum(text, "alma.qcow2") == "sha256:" + "0c" * 32
    with pytest.raises(Permanent, match=r"does not name disk\.raw"):
        find_sum(text, "disk.raw")
