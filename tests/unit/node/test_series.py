"""What a task uses over its time: stretches, however often and irregularly somebody looks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.node import series
from hansa.node.curves import Curves, Gpus, ask_gpus, parse_gpus
from hansa.node.sampling import Usage
from hansa.node.series import CPU, FIRST_S, GPU, MEMORY, MOST, READ, WRITTEN, Recorder

steps = st.lists(
    st.tuples(
        st.floats(0.01, 40_000.0),  # seconds since the last look
        st.floats(0.0, 8.0),  # cores that were busy meanwhile
        st.floats(0.0, 1e6),  # MiB now
    ),
    min_size=1,
    max_size=400,
)


@given(steps)
def test_however_somebody_looks_nothing_is_lost_and_nothing_grows(looks: list[tuple[float, float, float]]) -> None:
    recorder = Recorder()
    age = total = 0.0
    for step, cores, memory in looks:
        age += step
        total += step * cores
        recorder.add(age, {CPU: total}, {MEMORY: memory})
        assert recorder.count <= MOST
    found = recorder.series()
    count = len(found.cores)
    lengths = [found.every_s] * (count - 1) + [age - (count - 1) * found.every_s]
    assert len(found.memory_mib) == count
    assert (count - 1) * found.every_s < age <= count * found.every_s
    assert found.every_s >= FIRST_S
    assert (found.every_s / FIRST_S).is_integer()
    if lengths[-1] >= 0.1 * found.every_s:
        shown = sum(rate * length for rate, length in zip(found.cores, lengths, strict=True))
        assert shown == pytest.approx(total, rel=1e-6, abs=0.001 * age)  # rates have three digits
    assert max(found.memory_mib) == pytest.approx(max(memory for _, _, memory in looks), abs=0.1)
    assert all(0 <= cores <= 8.001 for cores in found.cores)


@given(st.floats(0.05, 3.0), st.floats(0.0, 4.0), st.integers(1, 3000))
def test_steady_use_is_a_flat_line(step: float, cores: float, looks: int) -> None:
    recorder = Recorder()
    for number in range(1, looks + 1):
        recorder.add(number * step, {CPU: number * step * cores}, {MEMORY: 5.0})
    found = recorder.series()
    assert found.cores == pytest.approx([cores] * len(found.cores), abs=0.002)
    assert found.memory_mib == [5.0] * len(found.memory_mib)


def test_a_young_tasks_series_has_a_stretch_each_second() -> None:
    recorder = Recorder()
    recorder.add(1.0, {CPU: 1.0}, {MEMORY: 10.0})
    recorder.add(1.5, {CPU: 1.0}, {MEMORY: 30.0})
    recorder.add(2.5, {CPU: 3.0}, {MEMORY: 20.0})
    found = recorder.series()
    assert (found.every_s, found.span_s) == (1.0, 2.5)
    assert found.cores == [1.0, 1.0, 2.0]
    assert found.memory_mib == [10.0, 30.0, 20.0]
    assert (found.read_mib_s, found.gpus) == (None, None)


def test_a_total_that_falls_and_rises_again_makes_no_mountain() -> None:
    recorder = Recorder({CPU: 4.0})
    recorder.add(1.0, {CPU: 4.0}, {})
    recorder.add(2.0, {CPU: 0.5}, {})  # a process went whose use nobody took over
    recorder.add(3.0, {CPU: 500.0}, {})  # the whole is told at the end
    assert recorder.series().cores == [4.0, 0.0, 4.0]


def test_what_is_looked_at_more_rarely_is_shared_out_since_its_own_last_look() -> None:
    recorder = Recorder()
    recorder.add(1.0, {CPU: 1.0, WRITTEN: 10.0, READ: 0.0}, {})
    recorder.add(2.0, {CPU: 2.0}, {})
    recorder.add(3.0, {CPU: 3.0, WRITTEN: 30.0, READ: 0.0}, {})
    assert recorder.series().written_mib_s == [10.0, 10.0, 10.0]


def test_the_end_of_a_task_completes_its_last_stretch_and_short_ones_have_none() -> None:
    recorder = Recorder()
    recorder.add(2.0, {CPU: 1.0}, {MEMORY: 8.0})
    found = series.last_series(recorder, 2.8, 1.8)
    assert found is not None
    assert (found.cores, found.memory_mib) == ([0.5, 0.5, 1.0], [8.0, 8.0, 8.0])
    assert series.last_series(Recorder(), 1.9, 1.0) is None


def test_the_server_is_told_of_an_older_task_more_rarely() -> None:
    recorder = Recorder()
    recorder.sent_at = 100.0
    assert not series.is_due(recorder, 10.0, 104.0, 5.0)
    assert series.is_due(recorder, 10.0, 105.0, 5.0)
    assert not series.is_due(recorder, 5000.0, 199.0, 5.0)
    assert series.is_due(recorder, 5000.0, 200.0, 5.0)
    assert not series.is_due(Recorder(), 1.0, 1e6, 5.0)


def test_disks_are_those_of_live_processes() -> None:
    found = series.read_io([os.getpid()])
    if found is None:
        pytest.skip("this kernel does not count what processes read and write")
    assert found[0] >= 0
    assert found[1] >= 0
    assert series.read_io([2**22 + 1]) == (0.0, 0.0)  # there is no such process any more
    assert series.read_io(list(range(1000))) is None


def test_the_kernels_count_of_bytes() -> None:
    raw = b"rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n"
    assert series.parse_io(raw) == (4096, 4096)
    assert series.parse_io(b"rchar: 9\n") is None
    assert series.parse_io(b"read_bytes: x\nwrite_bytes: 1\ncancelled_write_bytes: 0\n") is None


def test_gpus_that_tell_nothing_are_left_out() -> None:
    found = parse_gpus("0, GPU-a, 50, 1024\n1, GPU-b, [N/A], 10\nnonsense\n")
    assert found["0"] == found["GPU-a"] == (0.5, 1024.0)
    assert set(found) == {"0", "GPU-a"}


def _tool(folder: Path, text: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_tool_for_gpus_that_fails_gives_nothing(tmp_path: Path) -> None:
    assert ask_gpus(_tool(tmp_path, "exit 9")) == {}
    assert ask_gpus(str(tmp_path / "missing")) == {}


def test_a_task_with_gpus_has_their_load(tmp_path: Path) -> None:
    def at_once(work: Callable[[], None]) -> None:
        work()

    gpus = Gpus(at_once, lambda: 0.0, _tool(tmp_path, 'echo "0, GPU-a, 40, 100"; echo "1, GPU-b, 80, 300"'))
    task: Any = SimpleNamespace(started=100.0, is_setup=False, gpus=("0", "GPU-b"))
    task.recorder = None
    curves = Curves(gpus)
    curves.note(task, Usage(0.1, 7.0), [], 100.5)
    too_young = task.recorder
    assert too_young is None
    for number in range(1, 11):
        curves.note(task, Usage(number * 0.5, 7.0), [], 100.0 + number)
    recorder: Any = task.recorder
    found = recorder.series()
    assert found.gpus == pytest.approx([1.2] * 10)
    assert found.gpu_memory_mib == [400.0] * 10
    assert recorder.total(GPU) == pytest.approx(12.0)
