"""What a researcher does with the command line, from the first command on a fresh computer."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.cli import Desk

PYTHON = sys.executable


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
        time.sleep(0.05)


def test_the_first_command_starts_a_server_and_runs(desk: Desk) -> None:
    said = desk.hansa("run", "--", "echo", "Hello world")
    assert said.out == "Hello world\n"
    assert "1 core, 1024 MiB, 1 h" in said.err
    assert not list(desk.folder.iterdir()), "nothing is left behind by a job without outputs"
    assert (desk.home.stat().st_mode & 0o777) == 0o700
    status = desk.hansa("status", "-o", "json").json()
    assert status["running"] is True
    assert status["url"].startswith("http://127.0.0.1:")
    desk.hansa("down")
    assert desk.hansa("status", code=6).err
    assert desk.hansa("run", "--", "echo", "again").out == "again\n"
    assert desk.hansa("status", "-o", "json").json()["url"] == status["url"], "the port is chosen once and kept"


def test_a_sweep_over_a_table_of_parameters(desk: Desk) -> None:
    desk.write("params.csv", "x,label\n" + "".join(f"{n},name {n}\n" for n in range(12)))
    desk.write("offset.txt", "100")
    desk.write(
        "square.py",
        "import json, os, sys\n"
        "x = int(sys.argv[1]); offset = int(open(sys.argv[2]).read())\n"
        "print('computing', x)\n"
        "json.dump({'square': x * x + offset, 'label': os.environ['LABEL']}, open('result.json', 'w'))\n"
        "open(f'table-{x}.txt', 'w').write(str(x))\n"
        "sys.exit(3 if x == 7 else 0)\n",
    )
    command = ["--params", "params.csv", "--env", "LABEL={label}", "--", PYTHON, "square.py", "{x}", "offset.txt"]
    said = desk.hansa("run", *command, code=1)
    assert "1.7" in said.err
    assert "exit code 3" in said.err
    table = list(csv.DictReader(io.StringIO(desk.hansa("job", "results", "1", "-o", "csv").out)))
    assert [row["x"] for row in table] == [str(n) for n in range(12)]
    assert [row["square"] for row in table] == [str(n * n + 100) for n in range(12)]
    assert [row["exit_code"] for row in table] == ["3" if n == 7 else "0" for n in range(12)]
    assert table[4]["state"] == "done"
    assert float(table[4]["memory_mib"]) > 1
    assert (desk.folder / "hansa-1" / "results.csv").exists()
    assert (desk.folder / "hansa-1" / "4" / "table-4.txt").read_text() == "4"
    assert desk.hansa("job", "logs", "1.4").out == "computing 4\n"
    assert table[0]["label"] == "name 0"


def test_output_and_exit_code_are_the_jobs_own(desk: Desk) -> None:
    program = "import sys; sys.stdout.buffer.write(bytes(range(256))*3); sys.stderr.write('oops'); sys.exit(41)"
    code, out, err = desk.raw("run", "--", PYTHON, "-c", program)
    assert code == 41
    assert out == bytes(range(256)) * 3
    assert b"oops" in err
    assert desk.hansa("run", "--", "sh", "-c", "kill -TERM $$", code=143)
    missing = desk.hansa("run", "--", "no-such-program", code=127)
    assert "no-such-program" in missing.err


def test_limits_are_enforced_and_named(desk: Desk) -> None:
    slow = desk.hansa("run", "--time", "1s", "--", "sleep", "60", code=137)
    assert "wall time" in slow.err
    hungry = desk.hansa(
        "run", "--memory", "64M", "--", PYTHON, "-c", "x = bytearray(400 << 20)\nimport time; time.sleep(60)", code=137
    )
    assert "asked for 64 MiB" in hungry.err
    cores = desk.hansa("run", "--", PYTHON, "-c", "import os; print(len(os.sched_getaffinity(0)))")
    assert cores.out == "1\n"


def test_a_tree_travels_without_what_is_ignored_and_setup_runs_once(desk: Desk) -> None:
    desk.write("src/main.py", "import lib.tool, os; print(lib.tool.NAME, sorted(os.listdir('.')))")
    desk.write("src/lib/tool.py", "NAME = 'tool'")
    desk.write("src/data/huge.bin", "x" * 100_000)
    desk.write("src/.hansaignore", "data/\n")
    setup = "date +%s%N > $HANSA_NODE_DIR/once; ls"
    said = desk.hansa(
        *("run", "--workdir", "src", "--setup", setup, "--array", "0-3", "--"),
        *("sh", "-c", f"{PYTHON} main.py && cp {{node}}/once result-{{i}}.txt"),
    )
    assert "2 files" in said.err or "3 files" in said.err
    logs = {desk.hansa("job", "logs", f"1.{n}").out for n in range(4)}
    assert len(logs) == 1
    assert "tool" in logs.pop()
    stamps = {(desk.folder / "hansa-1" / str(n) / f"result-{n}.txt").read_text() for n in range(4)}
    assert len(stamps) == 1, "the setup command ran more than once on this computer"


def test_ctrl_c_detaches_and_the_job_goes_on(desk: Desk) -> None:
    desk.hansa("up")
    process = desk.popen("run", "--", "sh", "-c", "echo begun; while [ ! -e /tmp/never ]; do sleep 0.1; done")
    try:
        until(lambda: "1" in desk.hansa("job", "list", "--phase", "running", "-o", "id", code=None).out)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"hansa job wait 1" in err
        assert b"hansa job kill 1" in err
        assert desk.hansa("job", "show", "1", "-o", "json").json()["status"]["phase"] == "running"
    finally:
        process.kill()
        process.wait()
    desk.hansa("job", "kill", "1")
    desk.hansa("job", "wait", "1", code=1)
    assert desk.hansa("job", "show", "1", "-o", "json").json()["status"]["phase"] == "killed"


def test_killed_and_failed_tasks_run_again_when_asked(desk: Desk) -> None:
    flag = desk.folder / "fixed"
    desk.hansa("run", "--array", "0-5", "--", "sh", "-c", f"test {{i}} -lt 3 || test -e {flag}", code=1)
    assert [row["state"] for row in desk.results()] == ["done"] * 3 + ["failed"] * 3
    flag.touch()
    desk.hansa("job", "retry", "1")
    desk.hansa("job", "wait", "1")
    assert [row["state"] for row in desk.results()] == ["done"] * 6


def test_what_runs_at_a_stop_goes_on_after_the_next_start(desk: Desk) -> None:
    gate = desk.folder / "gate"
    wait = f"echo try >> {desk.folder}/tries; while [ ! -e {gate} ]; do sleep 0.05; done"
    number = desk.hansa("run", "--detach", "--array", "0-2", "--", "sh", "-c", wait).out.strip()
    until(lambda: (desk.folder / "tries").exists())
    desk.hansa("down")
    gate.touch()
    desk.hansa("up")
    desk.hansa("job", "wait", number)
    assert [row["state"] for row in desk.results(number)] == ["done"] * 3


def test_two_homes_live_side_by_side(make_desk: Callable[..., Desk]) -> None:
    one, two = make_desk("one"), make_desk("two")
    one.hansa("run", "--name", "mine", "--", "true")
    two.hansa("run", "--name", "other", "--", "true")
    assert "mine" in one.hansa("job", "list").out
    assert "mine" not in two.hansa("job", "list").out
    urls = {desk.hansa("status", "-o", "json").json()["url"] for desk in (one, two)}
    assert len(urls) == 2
    one.hansa("down")
    assert two.hansa("run", "--", "echo", "still here").out == "still here\n"


def test_a_backup_brings_everything_back(make_desk: Callable[..., Desk]) -> None:
    one, two = make_desk("one"), make_desk("two")
    one.write("in.txt", "hello")
    one.hansa("run", "--array", "0-2", "--", "sh", "-c", "cat in.txt; cp in.txt out-{i}.txt", "in.txt")
    archive = one.folder / "backup.tar.gz"
    one.hansa("admin", "backup", str(archive))
    assert (archive.stat().st_mode & 0o777) == 0o600
    one.hansa("down")
    two.hansa("admin", "restore", str(archive))
    assert [row["state"] for row in two.results()] == ["done"] * 3
    assert two.hansa("job", "logs", "1.2").out == "hello"
    two.hansa("job", "fetch", "1")
    assert (two.folder / "hansa-1" / "2" / "out-2.txt").read_text() == "hello"
    refused = two.hansa("admin", "restore", str(archive), code=5)
    assert "hansa down" in refused.err


BAD = [
    (["--array", "0", "--", "true"], "0-0"),
    (["--array", "5-3", "--", "true"], ""),
    (["--cores", "4000", "--", "true"], "4,000 cores"),
    (["--gpus", "3", "--", "true"], "GPUs"),
    (["--site", "nowhere", "--", "true"], "nowhere"),
    (["--memory", "lots", "--", "true"], "512M"),
    (["--time", "soon", "--", "true"], ""),
    (["--input", "not-there.txt", "--", "true"], "not-there.txt"),
    (["--params", "not-there.csv", "--", "true"], "not-there.csv"),
    (["--params", "ragged.csv", "--", "true"], "line 3"),
    (["--env", "=x", "--", "true"], ""),
    (["--vo", "biomed", "--", "true"], "biomed"),
    (["--frobnicate", "--", "true"], "--frobnicate"),
    (["--", "cat", "huge.bin"], "2 GiB"),
    (["--", "./not-there.sh"], "not-there.sh"),
    ([], "hansa run --"),
]


def test_bad_input_says_what_to_do_and_changes_nothing(desk: Desk) -> None:
    desk.write("ragged.csv", "a,b\n1,2\n1\n")
    with (desk.folder / "huge.bin").open("wb") as file:
        file.truncate(3 * 1024**3)
    before = sorted(desk.folder.iterdir())
    for words, named in BAD:
        said = desk.hansa("run", *words, code=125)
        assert named in said.err, said.err
        assert len(said.err.strip().splitlines()) >= 2, f"no word on what to do: {said.err}"
        assert "Traceback" not in said.err
        assert said.out == ""
    assert desk.hansa("job", "list", "-o", "json").json() == []
    assert sorted(desk.folder.iterdir()) == before
    assert not list((desk.home / "blobs").rglob("*.bin"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["job", "show", "99"], 4),
        (["job", "show", "nonsense"], 4),
        (["job", "logs", "99"], 4),
        (["site", "show", "mars"], 4),
        (["frobnicate"], 2),
    ],
)
def test_other_commands_have_fitting_exit_codes(desk: Desk, words: list[str], code: int) -> None:
    said = desk.hansa(*words, code=code)
    assert said.err
    assert "Traceback" not in said.err


def test_explain_says_what_failed_with_the_last_lines(desk: Desk) -> None:
    desk.hansa("run", "--", "sh", "-c", "echo about to fail >&2; exit 9", code=9)
    said = desk.hansa("job", "explain", "1")
    assert "exit code 9" in said.out
    assert "stderr: about to fail" in said.out
    assert f"failed at local on {socket.gethostname()}: exit code 9. Used: " in said.out
    assert "MiB at most." in said.out


def test_completion_knows_live_names_and_starts_no_server(desk: Desk) -> None:
    asked = {"_HANSA_COMPLETE": "bash_complete", "COMP_WORDS": "hansa job show ", "COMP_CWORD": "3"}
    silent = Desk(desk.home, desk.folder, asked)
    assert silent.hansa(code=None).out.strip() == ""
    assert not desk.home.exists()
    desk.hansa("run", "--name", "sweep", "--", "true")
    assert "1" in silent.hansa(code=None).out


def test_a_server_killed_under_a_follower_comes_back_with_the_result(desk: Desk) -> None:
    gate = desk.folder / "gate"
    desk.hansa("up")
    process = desk.popen("run", "--", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo finished")
    try:
        until(lambda: "1" in desk.hansa("job", "list", "--phase", "running", "-o", "id", code=None).out)
        os.kill(desk.hansa("status", "-o", "json").json()["pid"], signal.SIGKILL)
        gate.touch()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        assert out == b"finished\n"
    finally:
        process.kill()
        process.wait()
