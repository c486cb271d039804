"""What every engine promises."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.contract.containers.conftest import Bench

DEADLINE_S = 120.0


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["/bin/true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 125"], 125),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/lost"], 127),
        (["/plain"], 126),
        (["/data"], 126),
    ],
)
def test_exit_codes(bench: Bench, argv: list[str], code: int) -> None:
    if argv == ["/lost"] and bench.engine in ("bwrap", "bwrap-copy", "runc"):
        pytest.skip("this launcher does not tell a missing interpreter from other failures")
    if code == 137 and bench.engine == "runc":
        pytest.skip("the program is the first process of its pid namespace, which cannot kill itself")
    done = bench.run(*argv)
    assert done.returncode == code, done.stderr
    if code in (126, 127):
        assert argv[0] in done.stderr


def test_streams_are_passed_and_kept_apart(bench: Bench) -> None:
    done = bench.run("sh", "-c", "cat; echo bad >&2", text="good\n")
    assert (done.stdout, done.stderr) == ("good\n", "bad\n")


def test_without_stdin_there_is_nothing_to_read(bench: Bench) -> None:
    assert bench.run("cat", text="unread", has_stdin=False).stdout == ""


def test_the_environment_is_the_containers_only(bench: Bench) -> None:
    done = bench.run("env", env={"PATH": "/bin", "A": "x y=z", "EMPTY": ""})
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: seen.get(name) for name in ("PATH", "A", "EMPTY")} == {"PATH": "/bin", "A": "x y=z", "EMPTY": ""}
    assert seen.keys() <= {"PATH", "A", "EMPTY", "PWD", "HOME", "SHLVL", "container"}


@pytest.mark.parametrize("cwd", ["/", "/tmp", "/made/for/it"])
def test_the_working_directory_is_made_where_it_is_missing(bench: Bench, cwd: str) -> None:
    assert bench.run("pwd", cwd=cwd).stdout == cwd + "\n"


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (1234, 1235)])
def test_the_user_is_the_one_asked_for(bench: Bench, uid: int, gid: int) -> None:
    if bench.engine == "runc" and bench.box.user is not None and uid != 0:
        done = bench.run("true", uid=uid, gid=gid)
        assert (done.returncode, "only as the container's root" in done.stderr) == (125, True)
        return
    done = bench.run("sh", "-c", "id -u; id -g; touch /tmp/mine && stat -c %u /tmp/mine", uid=uid, gid=gid)
    assert done.stdout.split() == [str(uid), str(gid), str(uid)], done.stderr


def test_layers_lie_over_each_other(bench: Bench) -> None:
    done = bench.run("sh", "-c", "cat /data/low /data/high; ls -d /gone 2>&1 || exit 3")
    assert done.returncode == 3, "a whiteout hides what is below"
    assert done.stdout.startswith("lowhigh")


def test_what_is_written_stays_in_the_container_and_out_of_the_layers(bench: Bench) -> None:
    tree = bench.tree()
    assert (
        bench.run(
            "sh", "-c", "echo new > /data/low; rm /data/high; mkdir -p /a/b; echo c > /a/b/c", tree=tree
        ).returncode
        == 0
    )
    assert bench.run("sh", "-c", "cat /data/low /a/b/c; ls /data", tree=tree).stdout.split() == ["new", "c", "low"]
    assert (bench.box.layers[0] / "data/low").read_text() == "low"
    assert bench.run("cat", "/data/low").stdout == "low", "another container sees the image"


def test_binds(bench: Bench, tmp_path: Path) -> None:
    shared, fixed = bench.box.directory(), bench.box.directory()
    (shared / "file").write_text("from outside\n")
    (fixed / "file").write_text("fixed\n")
    bench.box.own(shared)
    bench.box.own(fixed)
    binds = [
        (str(shared), "/made/dir", False),
        (str(fixed), "/data", True),
        (str(shared / "file"), "/etc/one-file", True),
        (str(tmp_path / "absent"), "/absent", False, True),
    ]
    script = "cat /made/dir/file /data/file /etc/one-file; echo in > /made/dir/new; touch /data/x 2>/dev/null && echo RO; [ -e /absent ] && echo ABSENT; true"  # noqa: E501
    done = bench.run("sh", "-c", script, binds=binds)
    assert done.stdout.splitlines() == ["from outside", "fixed", "from outside"], done.stderr
    assert (shared / "new").read_text() == "in\n"
    assert not (fixed / "x").exists()


def test_a_bind_follows_links_inside_the_container(bench: Bench) -> None:
    """etc/resolv.conf of the image is a link to nowhere; on the host the same path may be something."""
    if bench.engine.startswith(("bwrap", "runc")):
        pytest.skip("this launcher refuses a link to nowhere as a mount point")
    source = bench.box.directory() / "resolv.conf"
    source.write_text("nameserver 192.0.2.1\n")
    done = bench.run("cat", "/etc/resolv.conf", binds=[(str(source), "/etc/resolv.conf", True)])
    assert done.stdout == "nameserver 192.0.2.1\n", done.stderr
    assert not Path("/run/resolver").exists()


def test_a_missing_source_is_an_error_of_the_container(bench: Bench) -> None:
    done = bench.run("true", binds=[("/no/such/source", "/mnt", False)])
    assert done.returncode not in (0, 126, 127)
    assert "/no/such/source" in done.stderr


def test_files_are_written_into_the_container(bench: Bench) -> None:
    assert bench.run("cat", "/etc/some/file", files=[("/etc/some/file", "text\n")]).stdout == "text\n"


def test_only_its_own_processes_are_there(bench: Bench) -> None:
    if bench.engine == "copy-shared-pids":
        pytest.skip("that is what it cannot do")
    done = bench.run("sh", "-c", "cd /proc; ls -d [0-9]* | wc -l")
    assert int(done.stdout) <= 6
    assert bench.run("sh", "-c", f"kill -0 {os.getpid()}").returncode != 0


def test_the_hosts_environment_cannot_be_read_from_other_processes(bench: Bench) -> None:
    script = "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done 2>/dev/null | grep SECRET"
    assert bench.run("sh", "-c", script).stdout == ""


def test_files_of_the_host_are_not_there(bench: Bench) -> None:
    secret = bench.box.directory() / "secret"
    secret.write_text("x")
    done = bench.run("sh", "-c", f"ls {secret} /proc/1/root{secret} /proc/1/cwd{secret} /.. /../..{secret}")
    assert done.returncode != 0
    assert str(secret) + "\n" not in done.stdout


def test_nothing_can_be_mounted_or_unmounted(bench: Bench) -> None:
    for command in ("mount -t tmpfs none /tmp", "umount /proc", "mount -o remount,rw /sys"):
        assert bench.run("sh", "-c", command).returncode != 0, command


def test_devices(bench: Bench) -> None:
    script = (
        "echo x > /dev/null && head -c 8 /dev/urandom | wc -c && echo y > /dev/shm/y && cat /dev/shm/y && ls /dev/pts"
    )
    done = bench.run("sh", "-c", script)
    assert done.stdout.split()[:2] == ["8", "y"], done.stderr
    assert bench.run("ls", "/dev/vda", "/dev/sda", "/dev/mem").stdout == ""


def test_system_settings_are_read_only(bench: Bench) -> None:
    assert bench.run("sh", "-c", "echo 1 > /proc/sys/kernel/sysrq").returncode != 0
    assert bench.run("sh", "-c", "echo h > /proc/sysrq-trigger").returncode != 0
    assert bench.run("sh", "-c", "echo x > /sys/kernel/mm/transparent_hugepage/enabled").returncode != 0


def test_no_descriptor_leaks_in(bench: Bench) -> None:
    done = bench.run("sh", "-c", "ls /proc/self/fd | sort -n | tail -1")
    assert int(done.stdout) <= 3


def test_hostname(bench: Bench) -> None:
    assert bench.run("hostname", hostname="cell").stdout == "cell\n"
    assert bench.run("hostname").stdout.strip() == os.uname().nodename


def test_a_signal_reaches_the_program(bench: Bench) -> None:
    process = bench.start("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.02; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 42


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_without_a_handler_ends_the_program(bench: Bench, number: int) -> None:
    if bench.engine == "runc":
        pytest.skip("the first process of a pid namespace ignores what it does not handle")
    process = bench.start("sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)  # exec
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 128 + number


def sleepers(seconds: str) -> list[str]:
    out = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", seconds.encode()]:
            out.append(path.parent.name)
    return out


def wait_for_no_sleeper(seconds: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while sleepers(seconds):
        assert time.monotonic() < deadline, "a process of the container lives on"
        time.sleep(0.02)


def test_what_it_leaves_in_the_background_ends_with_it(bench: Bench) -> None:
    seconds = str(5_000_000 + os.getpid())
    done = bench.run("sh", "-c", f"sleep {seconds} >/dev/null 2>&1 & exit 5")
    assert done.returncode == 5
    if bench.engine != "copy-shared-pids":
        wait_for_no_sleeper(seconds)
    for pid in sleepers(seconds):
        os.kill(int(pid), signal.SIGKILL)


def test_killing_the_launcher_ends_everything(bench: Bench) -> None:
    if bench.engine in ("runc", "copy-shared-pids"):
        pytest.skip("a process of its own that does not look at who started it")
    seconds = str(7_000_000 + os.getpid())
    process = bench.start("sh", "-c", f"echo ready; sleep {seconds} & sleep {seconds}; true")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    wait_for_no_sleeper(seconds)  # or its end of the pipes stays open
    process.communicate(timeout=DEADLINE_S)
