"""``hansa run`` as people meet it: exit codes, bytes, files, interrupts."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.integration.client.conftest import Run
from tests.integration.client.fake_server import Fake


def test_output_is_byte_exact_and_the_exit_code_the_jobs(hansa: Run, fake: Fake, here: Path) -> None:
    fake.state.chunk = 1000
    code = "import os,sys; b=bytes(range(256))*40; os.write(1,b); os.write(2,b'\\xff err'); sys.exit(7)"
    done = hansa("run", "-q", "--", sys.executable, "-c", code)
    assert done.returncode == 7
    assert done.stdout == bytes(range(256)) * 40
    assert done.stderr.startswith(b"\xff err")
    assert list(here.iterdir()) == []


def test_files_go_there_and_come_back(hansa: Run, here: Path) -> None:
    (here / "in.txt").write_text("42")
    (here / "sim.sh").write_text("#!/bin/sh\nmkdir out; cat in.txt > out/a.txt; cp sim.sh out/b.sh\n")
    (here / "sim.sh").chmod(0o755)
    done = hansa("run", "--", "./sim.sh", "in.txt")
    assert done.returncode == 0, done.stderr
    assert (here / "hansa-1/out/a.txt").read_text() == "42"
    assert (here / "hansa-1/out/b.sh").stat().st_mode & 0o100
    assert b"job 1: 1 core, 1024 MiB, 1 h" in done.stderr
    assert b"2 files" in done.stderr
    again = hansa("job", "fetch", "1")
    assert (again.returncode, again.stdout) == (0, b"hansa-1\n")
    (here / "hansa-1/out/a.txt").write_text("mine")
    assert b"was not written over" in hansa("job", "fetch", "1").stderr


def test_a_folder_of_others_is_left_alone(hansa: Run, here: Path) -> None:
    (here / "hansa-1").mkdir()
    (here / "hansa-1/mine").write_text("x")
    done = hansa("run", "--", "sh", "-c", "echo x > y")
    assert done.returncode == 125
    assert b"has other files in it; nothing was written" in done.stderr
    assert [path.name for path in (here / "hansa-1").iterdir()] == ["mine"]


def test_a_lying_server_writes_nothing_outside(hansa: Run, fake: Fake, here: Path) -> None:
    fake.state.lying_paths = ["../../evil"]
    done = hansa("run", "--", "true")
    assert done.returncode == 125
    assert not (here.parent / "evil").exists()
    assert not (here / "evil").exists()


def test_an_array_with_parameters(hansa: Run, here: Path) -> None:
    (here / "p.csv").write_text("rate,kind\n1,a\n0,b\n")
    script = 'printf \'{"score": {rate}, "node": "x", "m": {"k": "{kind}"}}\' > result.json; exit {rate}'
    done = hansa("run", "--params", "p.csv", "--", "sh", "-c", script)
    assert done.returncode == 1
    assert b"1 done, 1 failed" in done.stderr
    assert b"  1.0 rate=1 kind=a: exit code 1" in done.stderr
    with (here / "hansa-1/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["rate"], r["state"], r["score"], r["result.node"], r["m.k"]) for r in rows] == [
        ("1", "failed", "1", "x", "a"),
        ("0", "done", "0", "x", "b"),
    ]
    assert json.loads((here / "hansa-1/1/result.json").read_text())["score"] == 0
    table = hansa("job", "results", "1", "-o", "csv")
    assert table.stdout == (here / "hansa-1/results.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), b"There is no command to run"),
        (("--bogus", "--", "x"), b"No such option"),
        (("--memory", "2X", "--", "x"), b"no amount of memory"),
        (("--array", "200", "--", "x"), b"For 200 tasks write 0-199"),
        (("--input", "nope", "--", "x"), b"There is no input file nope"),
        (("--priority", "11", "--", "x"), b"It goes from 0 to 10"),
    ],
)
def test_our_own_failures_exit_125(hansa: Run, fake: Fake, words: tuple[str, ...], message: bytes) -> None:
    done = hansa("run", *words)
    assert done.returncode == 125
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
    assert fake.state.jobs == {}
    assert hansa("job", "submit", *words).returncode == 2


def test_other_commands_use_the_codes_of_errors(hansa: Run) -> None:
    assert hansa("job", "show", "nope").returncode == 4
    assert hansa("job", "show", "99").returncode == 4
    assert hansa("site", "show", "mars").returncode == 4
    assert hansa("whoami", HANSA_TOKEN="wrong").returncode == 3
    assert hansa("jib").returncode == 2


def test_a_large_input_is_refused_before_it_is_read(hansa: Run, fake: Fake, here: Path) -> None:
    with (here / "huge").open("wb") as file:
        file.truncate(3 * 1024**4)  # to read it would take an hour
    done = hansa("run", "--", "cat", "huge")
    assert done.returncode == 125
    assert b"huge has 3 TiB; this server takes up to" in done.stderr
    assert fake.state.uploads == []
    assert fake.state.jobs == {}


def test_detached_prints_the_number_only(hansa: Run) -> None:
    assert hansa("run", "-d", "--", "true").stdout == b"1\n"
    assert hansa("job", "submit", "--", "true").stdout == b"2\n"
    assert hansa("job", "list", "-o", "id").stdout == b"2\n1\n"


def test_interrupt_detaches(fake: Fake, environ: dict[str, str], here: Path) -> None:
    fake.state.hold_jobs = True
    command = [sys.executable, "-m", "hansa.cli.main", "run", "--", "true"]
    process = subprocess.Popen(command, env=environ, cwd=here, stderr=subprocess.PIPE)
    try:
        _until(lambda: ("GET", "/jobs/1/follow") in fake.state.requests)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
        fake.state.hold_jobs = False
    assert process.returncode == 130
    assert b"job 1 goes on: hansa job wait 1, or stop it: hansa job kill 1" in err
    assert b"Traceback" not in err


def test_waiting_is_explained(fake: Fake, hansa: Run) -> None:
    fake.state.hold_jobs = True
    threading.Timer(3.5, lambda: setattr(fake.state, "hold_jobs", False)).start()
    done = hansa("run", "--", "true")
    assert done.stderr.count(b"job 1 waits: Waits for a free core at local.") == 1


def test_a_closed_stdout_ends_quietly(environ: dict[str, str], here: Path) -> None:
    command = f"{sys.executable} -m hansa.cli.main run -q -- seq 200000 | head -1"
    done = subprocess.run(["sh", "-c", command], env=environ, cwd=here, capture_output=True, check=False)
    assert done.stdout == b"1\n"
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_the_server_comes_back_while_a_job_is_followed(environ: dict[str, str], here: Path) -> None:
    first = Fake()
    first.state.hold_jobs = True
    command = [sys.executable, "-m", "hansa.cli.main", "run", "--", "echo", "back"]
    settings = environ | {"HANSA_SERVER": first.url}
    process = subprocess.Popen(command, env=settings, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _until(lambda: ("GET", "/jobs/1/follow") in first.state.requests)
        first.state.drop_after.append("GET /jobs/1/follow")
        first.stop()  # the port is free again, and whoever asks now is refused
        time.sleep(0.5)
        first.state.drop_after.clear()
        second = Fake(first.port, first.state)
        first.state.hold_jobs = False
        out, err = process.communicate(timeout=120)
        second.stop()
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, b"back\n")
    assert err.count(b"does not answer") <= 1


def test_completion_is_live_and_silent(hansa: Run) -> None:
    hansa("run", "-q", "--name", "fit", "--", "true")
    zsh = {"_HANSA_COMPLETE": "zsh_complete", "COMP_WORDS": "hansa job show ", "COMP_CWORD": "3"}
    assert b"1\nfit (done)" in hansa(**zsh).stdout
    away = hansa(**zsh, HANSA_SERVER="http://127.0.0.1:1")
    assert away.stderr == b""
    none = hansa(**zsh, HANSA_SERVER="")
    assert none.stderr == b""


def test_a_command_of_completion_prints_a_script(hansa: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert b"_HANSA_COMPLETE" in hansa("completion", shell).stdout


def _until(is_so: object, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
