"""What a node says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.node.facts import cpu_features, node_facts, os_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('ID=debian\nVERSION_ID="12"\n', ["debian", "debian12", "linux"]),
        (
            'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
            ["centos", "el9", "fedora", "linux", "rhel", "rhel9", "rocky", "rocky9", "rocky9.4"],
        ),
        ("nonsense", ["linux"]),
    ],
)
def test_an_operating_system_answers_to_several_names(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "os-release").write_text(text)
    assert os_names(str(tmp_path / "os-release")) == names
    assert os_names(str(tmp_path / "absent")) == ["linux"]


def test_the_flags_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx\n")
    assert cpu_features(str(tmp_path / "cpuinfo")) == ["avx", "avx2", "fpu"]
    assert cpu_features(str(tmp_path / "absent")) == []


def test_this_node(tmp_path: Path) -> None:
    facts = node_facts(str(tmp_path), has_gpus=False)
    assert "linux" in facts["os"]
    assert facts["disk_mib"] >= 0
