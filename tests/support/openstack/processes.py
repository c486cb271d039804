"""The processes of one environment: each ended by its pid, the last one first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 180.0
STOP_S = 30.0


@dataclass
class Processes:
    """Start them from the thread that lives longest: they end with it."""

    logs: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str | Path], **environ: str) -> None:
        """Its output goes to NAME.out among the logs."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.out").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [str(word) for word in command],
                env=os.environ | self.environ | environ,
                cwd=self.logs.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def run(self, command: Sequence[str | Path], **environ: str) -> None:
        """A step that must work. Raises RuntimeError with its last words."""
        done = subprocess.run(
            [str(word) for word in command],
            env=os.environ | self.environ | environ,
            cwd=self.logs.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-3000:]}")

    def wait(self, name: str, is_up: Callable[[], bool]) -> None:
        """Until it is up. Raises RuntimeError with its last words when it ends, or after three minutes."""
        deadline = time.monotonic() + START_S
        while not is_up():
            if self.running[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not come up:\n{self.words(name)}")
            time.sleep(0.1)

    def words(self, name: str) -> str:
        """The end of what it printed and of its log."""
        files = [self.logs / f"{name}.out", self.logs / f"{name}.log"]
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in files if file.exists())

    def stop(self, *, gently: bool = False) -> None:
        """End all, with their children. Only gently does a database write down what it has."""
        for name in reversed(list(self.running)):
            self.end(name, gently=gently)

    def end(self, name: str, *, gently: bool = False) -> None:
        self._end(self.running.pop(name), gently)

    def _end(self, process: subprocess.Popen[bytes], gently: bool) -> None:
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM if gently else signal.SIGKILL)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()  # psutil makes sure that the pid is still that process


def _end_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
