"""How tasks end, and what comes back from them."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.node_server import FakeServer
from tests.support.pilots import Pilot, alive, until

PY = [sys.executable, "-c"]
SH = ["/bin/sh", "-c"]


def run(server: FakeServer, command: list[str], index: int = 0, **more: Any) -> dict[str, Any]:
    server.add(1, command, **more)
    server.wait(lambda: (1, index) in server.results)
    return server.results[1, index]


def log(server: FakeServer, stream: str = "stdout", index: int = 0) -> str:
    return server.logs.get((1, index, stream), bytearray()).decode()


def test_many_tasks_each_once(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, ["/bin/echo", "{i}", "{job}", "{x}"], 300, array=True)
    server.wait(lambda: len(server.results) == 300)
    assert all(result["outcome"] == "exited" and result["exit_code"] == 0 for result in server.results.values())
    assert log(server, index=123) == "123 1 {x}\n"


@pytest.mark.parametrize(
    ("script", "code", "signal"), [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", None, 9)]
)
def test_exit_codes_and_signals(
    server: FakeServer, pilot: Pilot, script: str, code: int | None, signal: int | None
) -> None:
    result = run(server, [*SH, script])
    assert (result["outcome"], result.get("exit_code"), result.get("signal")) == ("exited", code, signal)


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["no-such-command"], "command not found: no-such-command"),
        (["./nothing"], "No such file"),
        (["/etc/passwd"], "Permission denied"),
        (["/bin/true", "a\0b"], "null byte"),
    ],
)
def test_not_started(server: FakeServer, pilot: Pilot, command: list[str], part: str) -> None:
    result = run(server, command)
    assert result["outcome"] == "not_started"
    assert part in result["message"]


def test_wall_time(server: FakeServer, pilot: Pilot) -> None:
    result = run(server, ["/bin/sleep", "60"], wall_time_s=1)
    assert (result["outcome"], result["signal"]) == ("wall_time", 15)
    assert "wall time of 1 s" in result["message"]


def test_memory(server: FakeServer, pilot: Pilot) -> None:
    script = "import time; data = bytearray(300 << 20); time.sleep(60)"
    result = run(server, [*PY, script], memory_mib=100)
    assert result["outcome"] == "memory"
    assert "asked for 100 MiB" in result["message"]
    assert result["memory_mib"] > 100


def test_kill_of_one_task(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    server.wait(lambda: "ready" in log(server))
    server.say(kill=[{"lease": server.lease_of(1, 0), "index": 0}])
    server.wait(lambda: server.results)
    assert server.results[1, 0]["outcome"] == "killed"


def test_dropped_lease_is_stopped_and_not_reported(server: FakeServer, pilot: Pilot, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    server.add(1, [*SH, f"echo $$ > {mark}; exec sleep 60"])
    until(lambda: mark.exists() and mark.read_text())
    server.say(dropped=[server.lease_of(1, 0)])
    until(lambda: not alive(int(mark.read_text())))
    server.add(2, ["/bin/true"])
    server.wait(lambda: (2, 0) in server.results)
    assert (1, 0) not in server.results


def test_environment_is_clean(server: FakeServer, pilot: Pilot) -> None:
    run(server, ["/usr/bin/env"], env={"GREETING": "hello {job}"}, cores=2)
    env = dict(line.split("=", 1) for line in log(server).splitlines())
    assert env["GREETING"] == "hello 1"
    assert (env["HANSA_JOB"], env["HANSA_TASK"], env["HANSA_ATTEMPT"]) == ("1", "0", "1")
    assert (env["OMP_NUM_THREADS"], env["HANSA_CORES"], env["HANSA_PILOT"]) == ("2", "2", "p-1")
    assert "SECRET_OF_THE_PILOT" not in env
    assert "CUDA_VISIBLE_DEVICES" not in env


def test_gpus_are_given_out(server: FakeServer, make_pilot: Callable[..., Pilot]) -> None:
    make_pilot(gpus=["0", "GPU-b"]).start()
    server.add(1, [*SH, 'echo "$CUDA_VISIBLE_DEVICES"'], gpus=2)
    server.add(2, [*SH, 'test "${CUDA_VISIBLE_DEVICES-unset}" = ""'])
    server.wait(lambda: len(server.results) == 2)
    assert sorted(log(server).strip().split(",")) == ["0", "GPU-b"]
    assert server.results[2, 0]["exit_code"] == 0


def test_cores_are_bound_one_each(server: FakeServer, pilot: Pilot) -> None:
    run(server, [*PY, "import os; print(len(os.sched_getaffinity(0)))"])
    assert log(server).strip() == "1"


def test_forked_away_child_is_gone_after_the_task(server: FakeServer, pilot: Pilot, tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    script = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(mark)!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not os.path.exists({str(mark)!r}) or not open({str(mark)!r}).read(): time.sleep(0.01)
"""
    result = run(server, [*PY, script])
    assert result["exit_code"] == 0
    until(lambda: not alive(int(mark.read_text())))


def test_inputs_and_outputs(server: FakeServer, pilot: Pilot) -> None:
    big = bytes(range(256)) * 4096
    inputs = [server.put(big, "in/big.bin"), server.put(b"#!/bin/sh\necho ran\n", "tool", executable=True)]
    rows = [{"values": ["one"], "inputs": [server.put(b"first", "own.txt")]}]
    script = "./tool && cp in/big.bin copy.bin && cat own.txt > small-{name}.txt && echo x >> tool; ln -s tool l"
    result = run(server, [*SH, script], inputs=inputs, rows=rows, names=["name"])
    assert result["exit_code"] == 0, log(server, "stderr")
    outputs = {output["path"]: output for output in result["outputs"]}
    assert set(outputs) == {"copy.bin", "small-one.txt", "tool"}
    assert server.files[outputs["copy.bin"]["digest"]] == big
    assert base64.b64decode(outputs["small-one.txt"]["data"]) == b"first"
    assert outputs["tool"]["executable"]


def test_common_input_is_fetched_once(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, ["/bin/cat", "data"], 20, inputs=[server.put(b"x" * 100_000, "data")])
    server.wait(lambda: len(server.results) == 20)
    assert len(server.downloads) == 1


def test_task_that_writes_to_its_input_does_not_spoil_the_cache(server: FakeServer, pilot: Pilot) -> None:
    script = "cat data && echo more >> data"
    server.add(1, [*SH, script], 4, inputs=[server.put(b"pure\n", "data")])
    server.wait(lambda: len(server.results) == 4)
    assert {log(server, index=index) for index in range(4)} == {"pure\n"}


def test_corrupted_download_is_refused(server: FakeServer, pilot: Pilot) -> None:
    file = server.put(b"right", "data")
    server.files[file["digest"]] = b"wrong"
    result = run(server, ["/bin/cat", "data"], inputs=[file])
    assert result["outcome"] == "input"
    assert "corrupted" in result["message"]


@pytest.mark.parametrize("path", ["/etc/hansa-test", "../up", "a/../../b"])
def test_unsafe_input_paths(server: FakeServer, pilot: Pilot, path: str) -> None:
    result = run(server, ["/bin/true"], inputs=[server.put(b"x", path)])
    assert result["outcome"] == "input"


def test_output_limit(server: FakeServer, pilot: Pilot) -> None:
    result = run(server, [*SH, "head -c 5000 /dev/zero > big"], output_limit_bytes=1000)
    assert result["outcome"] == "output"
    assert "big has 5,000 bytes" in result["message"]


def test_result_json(server: FakeServer, pilot: Pilot) -> None:
    values = {"loss": 0.5, "name": "x", "ok": True, "none": None, "deep": {"a": [1]}}
    result = run(server, [*SH, f"echo '{json.dumps(values)}' > result.json"])
    assert result["fields"] == values


def test_broken_result_json_does_not_fail_the_task(server: FakeServer, pilot: Pilot) -> None:
    result = run(server, [*SH, "echo '{' > result.json"])
    assert (result["outcome"], result["exit_code"]) == ("exited", 0)
    assert "result.json is not JSON" in result["message"]


def test_logs_are_followed_while_the_task_runs(server: FakeServer, pilot: Pilot, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server.add(1, [*SH, f"echo begin; while ! test -e {go}; do sleep 0.05; done; echo end; echo oops >&2"])
    server.wait(lambda: log(server) == "begin\n")
    assert not server.results
    server.wait(lambda: any(request.get("running") for request in server.requests))
    go.touch()
    server.wait(lambda: server.results)
    assert log(server) == "begin\nend\n"
    assert log(server, "stderr") == "oops\n"


def test_log_limit(server: FakeServer, pilot: Pilot) -> None:
    run(server, [*SH, "head -c 30000 /dev/zero | tr '\\0' x"], log_limit_bytes=10_000)
    text = log(server)
    assert text[:10_000] == "x" * 10_000
    assert "20,000 bytes dropped" in text[10_000:]


def test_disk_of_an_endless_log_is_given_back(server: FakeServer, pilot: Pilot, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"head -c 40000000 /dev/zero; while ! test -e {go}; do sleep 0.05; done"
    server.add(1, [*SH, script], log_limit_bytes=1_000_000)
    tasks = pilot.work_dir / "tasks"

    def is_punched() -> bool:
        files = list(tasks.glob("*/stdout"))
        return bool(files) and files[0].stat().st_size == 40_000_000 and files[0].stat().st_blocks * 512 < 8_000_000

    until(is_punched)
    go.touch()
    server.wait(lambda: server.results)


def test_large_log_arrives_before_its_result(server: FakeServer, pilot: Pilot) -> None:
    run(server, [*SH, "head -c 20000000 /dev/zero | tr '\\0' y"])
    assert len(server.logs[1, 0, "stdout"]) == 20_000_000


def test_setup_runs_once_and_its_directory_is_shared(server: FakeServer, pilot: Pilot) -> None:
    server.add(
        1,
        [*SH, 'cat "{node}/made" "$HANSA_NODE_DIR/made"'],
        10,
        setup="echo preparing; cat data > made; echo $$ >> made",
        inputs=[server.put(b"common\n", "data")],
    )
    server.wait(lambda: len(server.results) == 10)
    assert len({log(server, index=index) for index in range(10)}) == 1
    assert log(server).startswith("common\n")
    assert [bytes(said) for key, said in server.logs.items() if key[2] == "setup"] == [b"preparing\n"]


def test_failed_setup_ends_all_tasks(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, ["/bin/true"], 5, setup="echo no compiler here; exit 3")
    server.wait(lambda: len(server.results) == 5)
    for result in server.results.values():
        assert result["outcome"] == "setup"
        assert "exit code 3" in result["message"]
        assert "no compiler here" in result["message"]


def test_tasks_inherit_no_descriptors(server: FakeServer, pilot: Pilot) -> None:
    run(server, [*PY, "import os; print(sorted(os.listdir('/proc/self/fd'), key=int)[:-1])"])
    assert log(server).strip() == "['0', '1', '2']"
