"""The images that every server knows."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from hansa.images.presets import PRESETS, Preset
from hansa.images.sources import find_sum


@pytest.mark.parametrize("preset", PRESETS, ids=[one.name for one in PRESETS])
def test_each_is_pinned_by_its_distributions_own_list_beside_it(preset: Preset) -> None:
    image, sums = urlsplit(preset.url), urlsplit(preset.sums)
    assert image.scheme == sums.scheme == "https"
    assert image.netloc == sums.netloc
    assert image.path.rpartition("/")[0] == sums.path.rpartition("/")[0]
    name = image.path.rpartition("/")[2]
    lines = {"Debian": f"{'0a' * 64}  {name}", "Ubuntu": f"{'0a' * 32} *{name}", "AlmaLinux": f"{'0a' * 32}  {name}"}
    other = f"{'0b' * 32}  {name}.manifest\n"
    assert find_sum(other + lines[preset.os_name] + "\n", name).partition(":")[2].startswith("0a0a")


def test_names_are_unique_and_say_who_signs_in() -> None:
    assert len({one.name for one in PRESETS}) == len(PRESETS)
    assert all(one.login for one in PRESETS)
