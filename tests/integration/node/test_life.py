"""The pilot's own life: outages, deaths, ends, and what tasks cannot see."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hansa.node.pack import bootstrap_source, build_node_zipapp, node_digest
from tests.support.node_server import TOKEN, FakeServer
from tests.support.pilots import SOURCES, Pilot, alive, terminate, until

PY = [sys.executable, "-c"]
SH = ["/bin/sh", "-c"]


def log(server: FakeServer, stream: str = "stdout", index: int = 0, job: int = 1) -> str:
    return server.logs.get((job, index, stream), bytearray()).decode()


def pids_from(server: FakeServer, count: int, job: int = 1) -> list[int]:
    def all_said() -> bool:
        return all(log(server, index=index, job=job).strip() for index in range(count))

    server.wait(all_said)
    return [int(log(server, index=index, job=job)) for index in range(count)]


# -- outages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 0, 302])
def test_nothing_is_lost_while_the_server_is_away(
    server: FakeServer, pilot: Pilot, status: int, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"[ {{i}} -lt 2 ] || while ! test -e {go}; do sleep 0.05; done; echo {{i}}; echo {{i}} > out"
    server.add(1, [*SH, script], 12, array=True)
    server.wait(lambda: len(server.results) >= 2)
    server.failing = lambda _path: status
    go.touch()
    until(lambda: (pilot.work_dir / "journal.jsonl").exists())
    server.failing = lambda _path: None
    server.wait(lambda: len(server.results) == 12)
    assert all(result["exit_code"] == 0 for result in server.results.values())
    assert [log(server, index=index) for index in range(12)] == [f"{index}\n" for index in range(12)]
    until(lambda: not (pilot.work_dir / "journal.jsonl").exists())


def test_answers_that_get_lost_are_asked_for_again(server: FakeServer, pilot: Pilot) -> None:
    server.drops = 4
    server.add(1, ["/bin/true"], 50)
    server.wait(lambda: len(server.results) == 50)
    sequences = [(request["session"], request["sequence"]) for request in server.requests]
    assert len(set(sequences)) < len(sequences)


def test_results_survive_the_pilot(
    server: FakeServer, pilot: Pilot, make_pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    server.add(1, [*SH, f"while ! test -e {go}; do sleep 0.05; done; echo done"], 2)
    server.wait(lambda: server.leases)
    server.failing = lambda _path: 503
    go.touch()
    journal = pilot.work_dir / "journal.jsonl"
    until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 2)
    pilot.kill()
    server.failing = lambda _path: None
    again = make_pilot().start()
    server.wait(lambda: len(server.results) == 2)
    assert log(server, index=1) == "done\n"
    until(lambda: not journal.exists())
    assert terminate(again) == 0


def test_large_outputs_wait_for_the_server(server: FakeServer, pilot: Pilot) -> None:
    failures = iter([503, 0, 503])
    server.failing = lambda path: next(failures, None) if "/files/" in path else None
    server.add(1, [*SH, "head -c 300000 /dev/urandom > big"])
    server.wait(lambda: server.results)
    output = server.results[1, 0]["outputs"][0]
    assert len(server.files[output["digest"]]) == output["size"] == 300_000


@pytest.mark.parametrize("status", [401, 404, 410])
def test_pilot_that_is_not_wanted_ends(server: FakeServer, pilot: Pilot, status: int) -> None:
    server.add(1, [*SH, "echo $$; exec sleep 600"])
    (pid,) = pids_from(server, 1)
    server.failing = lambda _path: status
    server.say()
    assert pilot.wait() == 0
    assert not alive(pid)
    assert str(status) in pilot.ended()


def test_a_batch_systems_signal_to_all_is_no_failure_of_tasks(server: FakeServer, pilot: Pilot) -> None:
    """It comes to the pilot and to each of its tasks; who hears it first is chance."""
    server.add(1, [*SH, "echo $$; exec sleep 600"])
    server.add(2, [*SH, "trap 'exit 3' TERM; echo $$; while :; do sleep 0.1; done"])
    pids = [*pids_from(server, 1), *pids_from(server, 1, job=2)]
    os.kill(pilot.pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    os.kill(pilot.pid, signal.SIGTERM)
    os.kill(pilot.pid, signal.SIGCONT)
    assert pilot.wait() == 0
    found = {job: result["outcome"] for (job, _), result in server.results.items()}
    assert found == {1: "preempted", 2: "preempted"}


def test_a_task_that_ends_itself_by_that_signal_is_one_that_failed(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "kill -TERM $$"])
    server.wait(lambda: server.results)
    assert (server.results[1, 0]["outcome"], server.results[1, 0]["signal"]) == ("exited", signal.SIGTERM)


# -- deaths --------------------------------------------------------------------------------------------------


def test_death_of_the_spawner(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "echo $$; exec sleep 600"], 2)
    pids = pids_from(server, 2)
    os.kill(pilot.spawner(), signal.SIGKILL)
    server.wait(lambda: len(server.results) == 2)
    assert {result["outcome"] for result in server.results.values()} == {"node"}
    until(lambda: not any(alive(pid) for pid in pids))
    server.add(2, ["/bin/true"])
    server.wait(lambda: (2, 0) in server.results)
    assert server.results[2, 0]["exit_code"] == 0


def test_death_of_the_agent_ends_its_tasks(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "echo $$; setsid sleep 600 & wait"], 2)
    pids = pids_from(server, 2)
    spawner = pilot.spawner()
    assert pilot.process is not None
    os.kill(pilot.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in [*pids, spawner]))


def test_second_instance_is_refused(server: FakeServer, pilot: Pilot, make_pilot: Callable[..., Pilot]) -> None:
    server.wait(lambda: server.node)
    second = make_pilot().start()
    assert second.wait() == 0
    assert second.process is not None
    assert second.process.stderr is not None
    assert b"another one lives" in second.process.stderr.read()
    server.add(1, ["/bin/true"])
    server.wait(lambda: server.results)


# -- ends ----------------------------------------------------------------------------------------------------


def test_idle_end(server: FakeServer, make_pilot: Callable[..., Pilot]) -> None:
    server.add(1, ["/bin/true"])
    pilot = make_pilot(idle_timeout_s=0.5).start()
    assert pilot.wait() == 0
    assert (pilot.ended(), server.ending, len(server.results)) == ("idle", "idle", 1)


def test_drain(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "sleep 0.5"], 2)
    server.wait(lambda: server.leases)
    server.say(stop="drain")
    assert pilot.wait() == 0
    assert len(server.results) == 2
    assert all(result["exit_code"] == 0 for result in server.results.values())
    assert server.ending == "stopped"


@pytest.mark.parametrize("how", ["now", "sigterm"])
def test_stop_now_gives_back_what_never_started(server: FakeServer, pilot: Pilot, how: str) -> None:
    server.add(1, [*SH, "echo $$; exec sleep 600"], 4)
    pids = pids_from(server, 2)
    server.wait(lambda: sum(lease[2] - lease[1] + 1 for lease in server.leases.values()) == 4)
    if how == "now":
        server.say(stop="now")
        assert pilot.wait() == 0
    else:
        assert terminate(pilot) == 0
    assert not any(alive(pid) for pid in pids)
    assert {key: result["outcome"] for key, result in server.results.items()} == {
        (1, 0): "preempted",
        (1, 1): "preempted",
    }
    assert server.results[1, 0]["message"] == "the pilot was stopped"
    assert server.returned == [(1, 2), (1, 3)]
    assert server.ending == "stopped"


def test_wall_time_of_the_pilot(server: FakeServer, make_pilot: Callable[..., Pilot]) -> None:
    pilot = make_pilot(wall_time_s=30).start()
    server.add(1, ["/bin/true"], wall_time_s=10)
    server.wait(lambda: server.results)
    server.add(2, ["/bin/true"], wall_time_s=3600)
    assert pilot.wait() == 0
    assert (pilot.ended(), server.returned) == ("wall_time", [(2, 0)])


# -- what tasks cannot see -----------------------------------------------------------------------------------


@pytest.fixture(params=["root", "user"])
def somebody(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("needs to be root to act as two users")
    if request.param == "root":
        yield "root"
        return
    name = "hansa-test-node"
    subprocess.run(["useradd", "--system", "--no-create-home", name], check=True)
    try:
        for folder in [tmp_path, *tmp_path.parents]:
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o711)
        yield name
    finally:
        subprocess.run(["userdel", "--force", name], check=True)


@pytest.mark.root
def test_tasks_see_neither_hidden_directories_nor_the_agent(
    server: FakeServer, tmp_path: Path, somebody: str, make_pilot: Callable[..., Pilot]
) -> None:
    python = Path("/usr/bin/python3")
    if somebody != "root" and not python.exists():
        pytest.skip("no python that an ordinary user can run")
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "master").write_text("top secret")
    pilot = make_pilot(hide=[str(home)], work_dir=str(home / "pilots" / "p-1"))
    pilot.work_dir = home / "pilots" / "p-1"
    if somebody != "root":
        sources = tmp_path / "program"
        shutil.copytree(SOURCES / "hansa" / "node", sources / "hansa" / "node")
        (sources / "hansa" / "__init__.py").touch()
        entry = pwd.getpwnam(somebody)
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid)
        pilot.prefix = ["setpriv", f"--reuid={somebody}", f"--regid={entry.pw_gid}", "--clear-groups", "env",
                        f"PYTHONPATH={sources}"]  # fmt: skip
        pilot.python = str(python)
    pilot.start()
    server.wait(lambda: server.node)
    assert server.node is not None
    assert server.node["isolation"] == "user+mount", server.node
    tries = [
        f"cat {home}/keys/master",
        f"ls {home}/keys",
        f"cat {pilot.token}",
        f"cat {pilot.config}",
        f"cat {pilot.work_dir}/pilot.log",
        f"umount {home} && cat {home}/keys/master",
        f"unshare -Urm sh -c 'umount {home}; cat {home}/keys/master'",
        f"cat /proc/{pilot.pid}/environ",
        f"cat /proc/{pilot.pid}/root{home}/keys/master",
        f"head -c 100 /proc/{pilot.pid}/mem",
        f"for fd in 3 4 5 6 7 8; do readlink /proc/{pilot.pid}/fd/$fd; cat < /proc/{pilot.pid}/fd/$fd; done",
        f"cat /proc/{pilot.spawner()}/environ; readlink /proc/{pilot.spawner()}/fd/0",
        f"nsenter -t {pilot.pid} -m cat {home}/keys/master",
    ]
    for index, script in enumerate(tries, 1):
        server.add(index, [*SH, script + '; pwd > out; touch "$TMPDIR/x"'])
    server.wait(lambda: len(server.results) == len(tries))
    for index, script in enumerate(tries, 1):
        said = log(server, job=index)
        assert said.strip() == "", (script, said)
        assert log(server, "stderr", job=index) or "pilot.json" in script or "token" in script
        assert server.results[index, 0]["outputs"][0]["path"] == "out"
    pilot_dir = pilot.work_dir
    assert pilot_dir.joinpath("pilot.log").read_text()


# -- the program as it is shipped ----------------------------------------------------------------------------


def pythons() -> list[str]:
    found = shutil.which("python3.9")
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python3.9"))
    checks = [str(path) for path in candidates if path.exists()]
    return [path for path in checks if subprocess.run([path, "--version"], capture_output=True).returncode == 0]


@pytest.mark.parametrize("version", ["own", "3.9"])
def test_bootstrap_fetches_checks_and_runs(
    server: FakeServer, make_pilot: Callable[..., Pilot], tmp_path: Path, version: str
) -> None:
    python = sys.executable if version == "own" else next(iter(pythons()), None)
    if python is None:
        pytest.skip("no Python 3.9 here")
    program = build_node_zipapp()
    assert program == build_node_zipapp()
    server.files["node.pyz"] = program
    script = tmp_path / "bootstrap.py"
    script.write_text(bootstrap_source())
    pilot = make_pilot(node_digest=node_digest(program), idle_timeout_s=1.0)
    pilot.python = python
    pilot.start([str(script)])
    server.add(1, [*SH, "echo {i}; echo out > out; head -c 100000 /dev/zero > big"], 20, array=True,
               setup="echo ready", inputs=[server.put(b"x", "in")])  # fmt: skip
    assert pilot.wait() == 0, (pilot.work_dir / "pilot.log").read_text()
    assert len(server.results) == 20
    assert all(result["exit_code"] == 0 for result in server.results.values())
    assert server.node is not None
    if version == "3.9":
        assert server.node["python"].startswith("3.9.")


def test_bootstrap_refuses_a_wrong_program(
    server: FakeServer, make_pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    script = tmp_path / "bootstrap.py"
    script.write_text(bootstrap_source().replace("ROUNDS = 5", "ROUNDS = 1"))
    server.files["node.pyz"] = b"something else"
    pilot = make_pilot(node_digest="sha256:" + "0" * 64).start([str(script)])
    assert pilot.wait() == 3
    assert pilot.process is not None
    assert pilot.process.stderr is not None
    assert b"expected sha256:0000" in pilot.process.stderr.read()


def test_configuration_that_others_can_read_is_refused(make_pilot: Callable[..., Pilot]) -> None:
    pilot = make_pilot()
    pilot.config.chmod(0o644)
    assert pilot.start().wait() == 2
    pilot.config.chmod(0o600)
    pilot.token.chmod(0o640)
    pilot.kill()
    assert pilot.start().wait() == 2


def test_detached_pilot_lives_on(server: FakeServer, make_pilot: Callable[..., Pilot]) -> None:
    pilot = make_pilot(idle_timeout_s=0.5)
    pilot.start(["-m", "hansa.node", "pilot", "--detach"])
    assert pilot.wait() == 0
    server.add(1, ["/bin/true"])
    server.wait(lambda: server.ending)
    assert json.dumps(server.ending) == '"idle"'
    assert TOKEN not in (pilot.work_dir / "pilot.log").read_text()
