"""Tasks in containers: a real pilot, a real registry, as root and as an ordinary user, from the zipapp."""

from __future__ import annotations

import json
import os
import pwd
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.node.containers.conftest import RealRegistry
from tests.support.boxes import make_layers, need_busybox, ordinary_user, python_for
from tests.support.cli import Desk
from tests.support.front import Front
from tests.support.node_server import FakeServer
from tests.support.oci import Layout, push, skopeo, tar_of_tree
from tests.support.pilots import Pilot, terminate, until

from hansa.node.pack import build_node_zipapp

SH = ["/bin/sh", "-c"]


@dataclass
class World:
    """A pilot of a user, and the registry with ``box:1`` in it."""

    server: FakeServer
    pilot: Pilot
    registry: str
    store: Path

    @property
    def image(self) -> str:
        return f"docker://{self.registry}/box:1"

    def run(self, job: int, *words: str, **more: Any) -> dict[str, Any]:
        """The result of a job's only task."""
        self.server.add(job, list(words), **{"image": self.image, **more})
        self.server.wait(lambda: (job, 0) in self.server.results)
        return self.server.results[job, 0]

    def log(self, job: int, stream: str = "stdout") -> str:
        return bytes(self.server.logs.get((job, 0, stream), b"")).decode()


@pytest.fixture(scope="module")
def box_registry(registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory) -> RealRegistry:
    need_busybox()
    place = tmp_path_factory.mktemp("box")
    layout = Layout(place / "images")
    config = {
        "Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"],
        "Entrypoint": ["/no/such/entrypoint"],
        "User": "worker",
        "Volumes": {"/data": {}},
    }
    layers = [tar_of_tree(layer) for layer in make_layers(place)[:2]]
    layout.finish(layout.image(layers, config=config), "1")
    push(layout.path, registry.host, "box:1", "1")
    return registry


@pytest.fixture(params=["root", "user"])
def world(request: pytest.FixtureRequest, box_registry: RealRegistry) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: for a user of its own, and as the other case")
    server = FakeServer()
    with tempfile.TemporaryDirectory(prefix="hansa-jobs-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        if request.param == "root":
            yield from _world(folder, server, box_registry.host, None)
        else:
            with ordinary_user() as user:
                yield from _world(folder, server, box_registry.host, user)
    server.shutdown()
    server.server_close()
    assert server.faults == []


def _world(folder: Path, server: FakeServer, registry: str, user: pwd.struct_passwd | None) -> Iterator[World]:
    work = folder / "home" / "pilots" / "p-1"
    store = folder / "home" / "images"
    work.mkdir(parents=True)
    pilot = Pilot(folder, server, work_dir=str(work), hide=[str(folder / "home")])
    pilot.work_dir = work
    program = folder / "node.pyz"
    program.write_bytes(build_node_zipapp())
    pilot.python = python_for(user)
    pilot.prefix = ["env", "-u", "PYTHONPATH", f"HANSA_CONTAINERS={store}", f"HOME={folder}"]
    if user is not None:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user.pw_uid, user.pw_gid)
        who = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        pilot.prefix = [*who, *pilot.prefix]
    pilot.start([str(program), "pilot"])
    try:
        yield World(server, pilot, registry, store)
        assert terminate(pilot) == 0
        setups = {"2"} if any("setup" in job for job in server.jobs.values()) else set()
        left = {entry.name for entry in (work / "tasks").iterdir()}
        assert left <= {"runtime", "engines", *setups}, "tasks leave nothing"
    finally:
        pilot.kill()


def test_a_task_runs_in_its_image_and_ends_as_its_program_does(world: World) -> None:
    script = 'echo "$FROM_IMAGE $HANSA_TASK"; cat in.txt; pwd; echo made > out.txt; id -u'
    script += "; echo x > /tmp/y; echo z > ~/z"
    file = world.server.put(b"the input\n", "in.txt")
    result = world.run(1, *SH, script, inputs=[file], env={"MINE": "1"})
    lines = world.log(1).splitlines()
    assert (result["outcome"], result.get("exit_code"), world.log(1, "stderr")) == ("exited", 0, "")
    assert lines[:2] == ["yes 0", "the input"]
    assert lines[2].startswith(str(world.pilot.work_dir / "tasks"))
    assert lines[3] == "1234", "the image's user"
    assert [one["path"] for one in result["outputs"]] == ["out.txt"], "neither /tmp nor the home come back"
    assert world.run(2, *SH, "exit 37")["exit_code"] == 37
    killed = world.run(3, *SH, "kill -9 $$")
    assert (killed.get("exit_code"), killed["signal"]) == (None, 9)
    assert world.run(4, *SH, "kill -TERM $$")["signal"] == 15
    assert world.run(5, *SH, "exit 143")["exit_code"] == 143, "no signal: the program said so"
    missing = world.run(6, "no-such-program")
    assert missing["outcome"] == "not_started"
    assert "not found in the container" in missing["message"]
    hidden = world.run(
        7, *SH, f"ls {world.pilot.token.parent} {world.pilot.config} /root /etc/hostname; ls /proc | grep -c '^[0-9]'"
    )
    assert hidden["outcome"] == "exited"
    assert str(world.pilot.config) not in world.log(7)
    assert int(world.log(7).split()[-1]) <= 6, "no process but its own"


def test_a_setup_runs_in_the_image_and_its_directory_is_there(world: World) -> None:
    setup = "test -x /bin/busybox && test $FROM_IMAGE = yes && echo prepared > ready"
    result = world.run(1, "cat", "{node}/ready", setup=setup)
    assert result.get("exit_code") == 0, (result, world.log(1, "setup"))
    assert world.log(1) == "prepared\n"


def test_limits_hold_in_containers(world: World) -> None:
    late = world.run(1, *SH, "trap '' TERM; sleep 600 & wait", wall_time_s=1)
    assert late["outcome"] == "wall_time"
    big = world.run(2, *SH, "x=$(head -c 400000000 /dev/zero | tr '\\0' a); echo ${#x}; sleep 600", memory_mib=100)
    assert big["outcome"] in ("memory", "exited")
    world.server.add(3, [*SH, "echo begun; sleep 600"], image=world.image)
    world.server.wait(lambda: "begun" in world.log(3))
    world.server.say(kill=[{"lease": world.server.lease_of(3, 0)}])
    world.server.wait(lambda: (3, 0) in world.server.results)
    assert world.server.results[3, 0]["outcome"] == "killed"


def test_an_image_that_cannot_be_had_fails_the_job_and_not_the_pilot(world: World) -> None:
    world.server.add(1, ["true"], 5, image=f"{world.registry}/nothing:9")
    world.server.wait(lambda: len(world.server.results) == 5)
    assert {result["outcome"] for result in world.server.results.values()} == {"image"}
    message = world.server.results[1, 0]["message"]
    assert "nothing:9" in message
    assert world.run(3, "true").get("exit_code") == 0


@pytest.mark.parametrize("world", ["root"], indirect=True)  # it is asked for many times: once is enough
def test_a_registry_that_is_away_fails_no_job(world: World) -> None:
    away = world.run(2, "true", image="127.0.0.1:1/box:1")
    assert away["outcome"] == "node"
    assert world.run(3, "true").get("exit_code") == 0


def test_many_tasks_one_download(world: World, box_registry: RealRegistry) -> None:
    front = Front(box_registry.port)
    try:
        image = f"{front.host}/box:1"
        front.behaviour.user, front.behaviour.password, front.behaviour.wants_token = "ann", "hush-hush", True
        refused = world.run(1, "true", image=image)
        assert refused["outcome"] == "image"
        world.server.add(
            2, [*SH, "echo $HANSA_TASK"], 40, image=image + "@" + _digest(world, box_registry),
            registry_auth={"username": "ann", "password": "hush-hush"},
        )  # fmt: skip
        world.server.wait(lambda: len(world.server.results) == 41)
        assert all(world.server.results[2, index].get("exit_code") == 0 for index in range(40)), world.server.results
        assert len({one.path for one in front.blobs()}) == len(front.blobs()), "each blob once"
        said = [setup for request in world.server.requests for setup in request.get("setups", ())]
        assert {"running", "done"} <= {one["state"] for one in said if one["job"] == 2}
        everything = json.dumps([p.read_text(errors="replace") for p in world.pilot.folder.rglob("*") if p.is_file()])
        assert "hush-hush" not in everything
    finally:
        front.close()


def _digest(world: World, registry: RealRegistry) -> str:
    import urllib.request

    request = urllib.request.Request(
        f"http://{registry.host}/v2/box/manifests/1",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        method="HEAD",
    )
    with urllib.request.urlopen(request) as response:
        return str(response.headers["Docker-Content-Digest"])


def test_what_a_killed_pilot_ran_in_containers_ends_with_it(world: World) -> None:
    world.server.add(1, [*SH, "echo begun; sleep 987"], image=world.image)
    world.server.wait(lambda: "begun" in world.log(1))
    assert _has_process("sleep 987")
    os.kill(world.pilot.pid, 9)
    until(lambda: not _has_process("sleep 987"))
    world.pilot.kill()
    world.pilot.start([str(world.pilot.folder / "node.pyz"), "pilot"])
    world.server.add(2, ["true"])  # for the request that the dead pilot had left with the server
    world.server.wait(lambda: not world.server.queue)
    assert world.run(3, "true").get("exit_code") == 0, "what was left behind is in nobody's way"


def _has_process(words: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if (
                words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                and int(path.parent.name) != os.getpid()
            ):
                return True
        except OSError:
            continue
    return False


def test_a_private_image_by_a_login_that_the_server_keeps(
    box_registry: RealRegistry, closed_registry: RealRegistry, tmp_path: Path
) -> None:
    """Wherever the pilot and the server write to: the password is nowhere in the clear, nor in any argument."""
    target = f"{closed_registry.host}/ann/box:1"
    words = ["--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds", "ann:hush-hush"]
    skopeo("copy", *words, f"docker://{box_registry.host}/box:1", f"docker://{target}")
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    logins = tmp_path / "registries.json"
    desk = Desk(home, folder, {"HANSA_CONTAINERS": str(home / "images"), "HANSA_REGISTRY_AUTH": str(logins)})
    run = ("run", "--image", target, "--no-fetch", "--", "sh", "-c", "echo $FROM_IMAGE")
    try:
        refused = desk.hansa(*run, code=125)
        assert "wants to know who asks" in refused.err
        nothing = desk.hansa("registry", "login", closed_registry.host, code=3)
        assert "--username" in nothing.err
        desk.hansa("registry", "login", closed_registry.host, "-u", "ann", "--password-stdin", text="guess\n")
        wrong = desk.hansa(*run, code=125)
        assert "does not accept the credentials of 'ann'" in wrong.err
        secret = "hush-hush\n"
        desk.hansa(
            "container", "--insecure", "login", closed_registry.host, "-u", "ann", "--password-stdin", text=secret
        )
        desk.hansa("registry", "login", closed_registry.host)
        desk.hansa("container", "logout", closed_registry.host)
        assert desk.hansa(*run).out == "yes\n"
        assert closed_registry.host in desk.hansa("registry", "list").out
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()]
        assert kept == []
        desk.hansa("registry", "logout", closed_registry.host)
        desk.hansa("registry", "logout", closed_registry.host, code=4)
    finally:
        desk.hansa("down")


def test_explain_shows_an_image_on_its_way(box_registry: RealRegistry, tmp_path: Path) -> None:
    front = Front(box_registry.port)
    front.behaviour.hold_after = 150_000
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    desk = Desk(home, folder, {"HANSA_CONTAINERS": str(home / "images")})
    try:
        desk.hansa("job", "submit", "--image", f"{front.host}/box:1", "--", "true")
        on_its_way = rf"The container image {re.escape(front.host)}/box:1 is on its way to .* of "  # so much of so much
        until(lambda: re.search(on_its_way, desk.hansa("job", "explain", "1").out) is not None)
        front.go_on.set()
        desk.hansa("job", "wait", "1")
    finally:
        front.close()
        desk.hansa("down")


def test_through_a_server_from_the_command_line(box_registry: RealRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    desk = Desk(tmp_path / "home", folder, {"HANSA_CONTAINERS": str(tmp_path / "home" / "images")})
    try:
        image = f"docker://{box_registry.host}/box:1"
        desk.write("x.sh", "echo from $FROM_IMAGE; exit 7\n")
        said = desk.hansa("run", "--image", image, "--", "sh", "x.sh", code=7)
        assert said.out == "from yes\n"
        assert desk.hansa("run", "--image", image, "--array", "0-9", "--no-fetch", "--", "true", code=0)
        missing = desk.hansa("run", "--image", f"{box_registry.host}/none:1", "--", "true", code=125)
        assert "none:1" in missing.err
        assert "none:1" in desk.hansa("job", "explain", "3").out
        napping = desk.hansa("job", "submit", "-q", "--image", image, "--", "sh", "-c", "echo hi > there; sleep 600")
        beside = ("job", "shell", napping.out.strip(), "--", "sh", "-c", "echo $FROM_IMAGE; cat there; ls -d /proc/1")
        until(lambda: "hi" in desk.hansa(*beside, code=None).out)
        assert desk.hansa(*beside).out == "yes\nhi\n/proc/1\n", "a shell is in the task's image and directory"
        desk.hansa("job", "kill", napping.out.strip())
        assert "is not an image name" in desk.hansa("run", "--image", "Not An Image", "--", "true", code=125).err
    finally:
        desk.hansa("down")
