"""Whatever a site says of itself, what is kept is small and plausible."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hansa.kernel.wire import decode, encode
from hansa.sites import facts
from hansa.sites.wire import Capacity, Facts, Flavour, Quota, VmImage


def test_a_quota_without_limit_and_one_that_cannot_be() -> None:
    found = facts.checked(Facts(quotas={"cores": Quota(-1, 3), "machines": Quota(10**30, 5), "gpus": Quota(2, 7)}))
    assert found.quotas["cores"] == Quota(None, 3)
    assert found.quotas["machines"] == Quota(None, 5)
    assert found.quotas["gpus"].free == 0
    assert len(found.notes) == 2


def test_too_much_is_cut_and_said() -> None:
    images = [VmImage(str(number), "x" * 10_000) for number in range(facts.MOST_IMAGES + 10)]
    flavours = [Flavour("1", "none", 0, 0), Flavour("2", "\x1b[31mred\n", 2, 4096)]
    found = facts.checked(Facts(vm_images=images, flavours=flavours))
    assert len(found.vm_images) == facts.MOST_IMAGES
    assert len(found.vm_images[0].name) == facts.LONGEST
    assert [one.name for one in found.flavours] == ["?[31mred?"]
    assert any("5,010 VM images" in note for note in found.notes)
    assert facts.checked(Facts(capacity=Capacity(-5, 10))).capacity == Capacity(0, 0)


quotas = st.dictionaries(st.text(max_size=400), st.builds(Quota, st.none() | st.integers(), st.integers()), max_size=80)
flavours = st.lists(st.builds(Flavour, st.text(), st.text(), st.integers(), st.integers(), st.integers()), max_size=8)


@given(quotas, flavours)
def test_whatever_it_says_can_be_kept_and_read_again(said: dict[str, Quota], sizes: list[Flavour]) -> None:
    found = facts.checked(Facts(quotas=said, flavours=sizes))
    assert decode(Facts, json.loads(json.dumps(encode(found)))) == found
    for one in found.quotas.values():
        assert one.free is None or 0 <= one.free <= facts.LARGEST
