"""Running tasks' use over time, sample by sample; of tasks that are younger than a second nothing is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

from .core import Task
from .sampling import Usage
from .series import CPU, GPU, GPU_MEMORY, MEMORY, READ, WRITTEN, Recorder, read_io

AGE_S = 1.0
IO_S = 0.25
GPUS_S = 5.0
_TOOL_S = 10.0


class Gpu(NamedTuple):
    """One device as it is now."""

    busy: float  # 0 to 1
    memory_mib: float


class Gpus:
    """Asks the NVIDIA driver's tool, in a worker thread and never twice at once, while tasks with GPUs run."""

    def __init__(
        self, do: Callable[[Callable[[], None]], None], clock: Callable[[], float], tool: Optional[str] = None
    ) -> None:
        self._do = do
        self._clock = clock
        self._tool = tool or shutil.which("nvidia-smi")
        self._is_asking = False
        self._asked_at = -GPUS_S
        self._seen: Dict[str, Gpu] = {}

    def of(self, devices: Sequence[str], now: float) -> Optional[Gpu]:
        """What some devices do together, as of a few seconds ago; None while that is not known."""
        if self._tool is not None and not self._is_asking and now - self._asked_at >= GPUS_S:
            self._is_asking, self._asked_at = True, now
            self._do(self._ask)
        found = [self._seen[device] for device in devices if device in self._seen]
        if not found or len(found) < len(devices):
            return None
        return Gpu(sum(one.busy for one in found), sum(one.memory_mib for one in found))

    def _ask(self) -> None:
        try:
            self._seen = ask_gpus(self._tool or "")
        finally:
            self._is_asking = False


def ask_gpus(tool: str) -> Dict[str, Gpu]:
    """All devices, by index and by UUID; nothing where the tool does not answer."""
    command = [tool, "--query-gpu=index,uuid,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_S, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return {}
    return parse_gpus(said)


def parse_gpus(said: str) -> Dict[str, Gpu]:
    """Lines of ``index, uuid, per cent, MiB``. A device that does not tell ("[N/A]") is left out."""
    found: Dict[str, Gpu] = {}
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        try:
            index, uuid, percent, memory = parts
            one = Gpu(float(percent) / 100, float(memory))
        except ValueError:
            continue
        found[index] = found[uuid] = one
    return found


class Curves:
    """Keeps the recorders of tasks."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._cores = float(os.cpu_count() or 1)

    def note(self, task: Task, usage: Usage, pids: List[int], now: float) -> None:
        """A sample of a running task's processes."""
        age_s = now - task.started
        if age_s < AGE_S or task.is_setup:
            return
        recorder = task.recorder
        if recorder is None:
            recorder = task.recorder = Recorder({CPU: self._cores})
        totals = {CPU: usage.cpu_s}
        levels = {MEMORY: usage.memory_mib}
        if age_s - recorder.io_at >= max(IO_S, recorder.every_s / 4):
            recorder.io_at = age_s
            moved = read_io(pids)
            if moved is not None:
                totals[READ], totals[WRITTEN] = moved
        if task.gpus:
            gpu = self._gpus.of(task.gpus, now)
            if gpu is not None:
                totals[GPU] = recorder.total(GPU) + gpu.busy * (age_s - recorder.span_s)
                levels[GPU_MEMORY] = gpu.memory_mib
        recorder.add(age_s, totals, levels)
