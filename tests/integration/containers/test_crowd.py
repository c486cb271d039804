"""Many containers: at once, one after another, and many programs in one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.containers.conftest import DEADLINE_S, MAIN, Home, finish
from tests.support.boxes import Box

MANY = 64


def mounts(store: Path) -> list[str]:
    """Mounts in a store that the host sees. Whoever else works on this computer may mount what they want."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(store) in line]


def processes(marker: str) -> list[int]:
    out = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                out.append(int(path.parent.name))
        except OSError:
            continue
    return out


def disk(path: Path) -> tuple[int, int]:
    """Entries and blocks below a directory."""
    entries = blocks = 0
    for directory, directories, files in os.walk(path):
        for name in (*directories, *files):
            entries += 1
            blocks += (Path(directory) / name).lstat().st_blocks
    return entries, blocks


def wait_for_no_process(marker: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while processes(marker):
        assert time.monotonic() < deadline, processes(marker)
        time.sleep(0.05)


def test_64_at_once(home: Home) -> None:
    home.well("run", "--rm", "box:1", "true")
    before = mounts(home.store), disk(home.store)[0]
    running = [
        home.start("run", "--rm", "box:1", "sh", "-c", f"echo {number} > /own; sleep 0.3; cat /own")
        for number in range(MANY)
    ]
    ended = [finish(process, ["run"]) for process in running]
    assert [(one.returncode, one.stdout) for one in ended] == [(0, f"{number}\n") for number in range(MANY)], [
        one.stderr for one in ended if one.returncode
    ]
    wait_for_no_process(str(home.store))
    assert (mounts(home.store), disk(home.store)[0]) == before


@pytest.mark.slow
@pytest.mark.parametrize("starts", [300, pytest.param(1000, marks=pytest.mark.long)])
def test_many_starts_leave_nothing(home: Home, starts: int) -> None:
    home.well("run", "--rm", "box:1", "true")
    before = mounts(home.store), disk(home.store)
    for number in range(starts):
        done = home("run", "--rm", "box:1", "sh", "-c", "echo x > /tmp/x; sleep 100 & exit 0")
        assert done.returncode == 0, f"start {number}: {done.stderr}"
    wait_for_no_process(str(home.store))
    assert (mounts(home.store), disk(home.store)) == before


def test_programs_that_share_a_container_see_one_file_system(home: Home) -> None:
    home.well("create", "--name", "shared", "box:1")
    script = (
        "for n in $(seq 20); do echo {0}.$n >> /log; echo x > /data/{0}.$n; done; cat /data/* > /dev/null; sleep 0.2"
    )
    running = [home.start("run", "shared", "sh", "-c", script.format(number)) for number in range(12)]
    ended = [finish(process, ["run"]) for process in running]
    assert [one.returncode for one in ended] == [0] * 12, [one.stderr for one in ended]
    expected = {f"{number}.{step}" for number in range(12) for step in range(1, 21)}
    assert set(home.well("run", "shared", "cat", "/log").split()) == expected
    assert expected <= set(home.well("run", "shared", "ls", "/data").split())
    home.well("rm", "shared")


def test_what_one_writes_the_other_sees_while_both_run(home: Home) -> None:
    home.well("create", "--name", "pair", "box:1")
    first = home.start("run", "pair", "sh", "-c", "echo one > /one; while [ ! -e /two ]; do sleep 0.02; done; cat /two")
    second = home.start(
        "run", "-u", "worker", "pair", "sh", "-c", "while [ ! -e /one ]; do sleep 0.02; done; id -u; cat /one"
    )
    out = finish(second, ["run"])
    assert (out.returncode, out.stdout.split()) == (0, ["1234", "one"]), out.stderr
    assert home("rm", "pair").returncode == 5, "it runs"
    home.well("run", "pair", "sh", "-c", "echo two > /two.new; mv /two.new /two")
    done = finish(first, ["run"])
    assert (done.returncode, done.stdout) == (0, "two\n"), done.stderr
    home.well("rm", "pair")


def test_killing_one_of_those_who_share_leaves_the_others(home: Home) -> None:
    home.well("create", "--name", "trio", "box:1")
    wait = "echo ready; while [ ! -e /end ]; do sleep 0.02; done; echo well"
    running = [home.start("run", "trio", "sh", "-c", wait) for _ in range(3)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    running[0].send_signal(signal.SIGKILL)
    running[0].communicate(timeout=DEADLINE_S)
    home.well("run", "trio", "touch", "/end")
    assert [finish(process, ["run"]).stdout for process in running[1:]] == ["well\n"] * 2
    home.well("rm", "trio")


def test_kill_9_leaves_a_store_that_works(home: Home) -> None:
    for _ in range(5):
        process = home.start("run", "--rm", "box:1", "sh", "-c", "echo ready; sleep 1000")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)
    wait_for_no_process(str(home.store))
    left = home.well("ps", "-o", "id").split()
    assert len(left) == 5
    for container in left:
        assert home.well("run", container, "echo", "works") == "works"
    home.well("gc")
    assert home.well("ps", "-o", "id").split() == left, "young ones may be about to start"
    code = "import hansa.node.containers.collect as c; c.YOUNG_S = 0.0; " + MAIN
    done = finish(home.box.popen([home.box.python, "-c", code, "--store", str(home.store), "gc"]), ["gc"])
    assert done.returncode == 0, done.stderr
    assert home.well("ps", "-o", "id") == ""


def test_other_users_files_are_as_closed_as_on_the_host(home: Home) -> None:
    if home.box.user is None:
        pytest.skip("root may read everything on the host")
    place = home.box.directory()
    secret = place / "secret"
    secret.write_text("hush")
    secret.chmod(0o600)
    os.chown(secret, 0, 0)
    done = home("run", "--rm", "-v", f"{place}:/in", "box:1", "cat", "/in/secret")
    assert done.returncode == 1
    assert "hush" not in done.stdout
    assert home("run", "--rm", "-v", "/etc/shadow:/x:ro", "box:1", "cat", "/x").stdout == ""


def test_a_store_of_the_site_below_ones_own(home: Home) -> None:
    own = home.box.directory() / "own"
    words = [*home.command()[:3], "--store", str(own), "run", "--rm", "box:1", "echo", "from below"]
    process = home.box.popen(words, HANSA_CONTAINERS_BELOW=str(home.store))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "from below\n"), err
    assert isinstance(process, subprocess.Popen)


def test_a_store_of_somebody_elses_below(home: Home) -> None:
    """Its files belong to a user who is not there in the container; the usual places are open all the same."""
    if home.box.user is None:
        pytest.skip("root owns everything")
    site = home.box.place / "site"
    root = Home(Box(home.box.place, home.box.layers, None, home.box.python, home.box.sources), site)
    root.well("import", str(home.box.place / "box.tar"), "of-the-site")
    subprocess.run(["chmod", "-R", "a+rX", str(site)], check=True)
    script = "echo a > /tmp/a && echo b > /etc/new && mkdir /root/x && cat /tmp/a /etc/new && cat /etc/group | head -1"
    out = home.well("run", "--rm", "of-the-site", "sh", "-c", script, HANSA_CONTAINERS_BELOW=str(site))
    assert out.split() == ["a", "b", "root:x:0:"]
