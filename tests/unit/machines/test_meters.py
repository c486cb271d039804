"""What machines use over their time: few samples, however long they run, and nothing lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.machines.drivers.base import Meter
from hansa.machines.drivers.nspawn.meter import meter_of, read_meter
from hansa.machines.drivers.nspawn.root import Helper
from hansa.machines.meters import MOST, Sample, plain, sample_of, samples_of, stretches, with_sample

looks = st.lists(
    st.tuples(st.floats(1.0, 100_000.0), st.floats(0.0, 64.0), st.floats(0.0, 1e6)), min_size=2, max_size=1500
)


@given(looks)
def test_few_samples_hold_all_that_was_used(taken: list[tuple[float, float, float]]) -> None:
    samples: list[Sample] = []
    at = used = 0.0
    for step, cores, memory in taken:
        at, used = at + step, used + step * cores
        samples = with_sample(samples, Sample(at, used, memory))
        assert len(samples) <= MOST
    begin = taken[0]
    found = stretches(samples)
    assert found[0].start == begin[0]
    assert found[-1].end == at
    assert all(one.end == after.start for one, after in itertools.pairwise(found))
    shown = sum(one.cores * (one.end - one.start) for one in found)
    assert shown == pytest.approx(used - begin[0] * begin[1], rel=1e-6, abs=1e-6)
    assert max(one.memory_mib for one in found) == max(memory for _, _, memory in taken[1:])


def test_the_newest_hour_is_as_it_was_looked_at() -> None:
    samples: list[Sample] = []
    for number in range(100_000):
        samples = with_sample(samples, Sample(number * 30.0, number * 15.0, 1.0))
    late = [one for one in stretches(samples) if one.end > samples[-1].at - 3600]
    assert len(late) == 120
    assert all(one.end - one.start == 30.0 for one in late)
    assert samples[0].at == 0.0
    assert all(one.cores == pytest.approx(0.5) for one in stretches(samples))


def test_a_machine_that_was_started_anew_counts_from_nothing() -> None:
    found = stretches([Sample(0.0, 100.0, 1.0, 5.0, 5.0), Sample(10.0, 20.0, 2.0, 1.0, None)])
    assert (found[0].cores, found[0].read_mib_s, found[0].written_mib_s) == (2.0, 0.1, None)


def test_what_is_kept_is_what_was_seen_and_the_clock_only_goes_forward() -> None:
    one = sample_of(Meter(1.5, 20.0, None, 3.0), 100.0)
    assert samples_of(plain([one])) == [one]
    assert with_sample([one], Sample(99.0, 2.0, 1.0)) == [one]


def test_cgroups_of_both_versions() -> None:
    old = {
        "cpuacct/cpuacct.usage": "2500000000\n",
        "memory/memory.usage_in_bytes": f"{64 << 20}\n",
        "memory/memory.stat": f"cache 5\ntotal_inactive_file {14 << 20}\n",
    }
    assert meter_of(old, unified=False) == Meter(2.5, 50.0)
    new = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.current": f"{64 << 20}\n",
        "memory.stat": f"anon 1\ninactive_file {4 << 20}\n",
    }
    assert meter_of(new, unified=True) == Meter(1.5, 60.0)
    with pytest.raises(KeyError):
        meter_of(new | {"cpu.stat": ""}, unified=True)


def test_a_machine_that_does_not_run_has_no_meter(tmp_path: Path) -> None:
    assert read_meter(str(tmp_path), "no-such-machine") is None
    assert Helper(("python", f"--store={tmp_path}")).store == str(tmp_path)
    assert Helper(("sudo", "hansa-nspawn")).store.startswith("/var/lib/hansa/nspawn/")
