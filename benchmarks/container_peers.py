"""The other ways of running a container that ``benchmarks.containers`` measures beside Hansa's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hansa.node.containers.engines.runc import config as runc_config
from hansa.node.containers.process import ProcessSpec

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
TOOLS_RELEASE = "1.2.11"
"""What udocker 1.3.17 wants to find in ``lib/VERSION`` of its directory."""
PROOT_WITHOUT_K = """#!/bin/sh
# Debian's PRoot 5.1.0 does not start a program with -k (emulate a kernel release): left out, with its value.
n=$#
while [ $n -gt 0 ]; do
  a=$1; shift; n=$((n-1))
  if [ "$a" = -k ]; then shift; n=$((n-1)); else set -- "$@" "$a"; fi
done
exec proot "$@"
"""


class Unusable(Exception):
    """A peer does not work here; the text says why."""


def run(words: Sequence[str], **options: Any) -> str:
    """The output of a command that must succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        list(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900, **options
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        raise Unusable(f"{words[0]}: {said[0][:200]}")
    return done.stdout


def words_of(script: str) -> tuple[str, ...]:
    return ("/bin/true",) if not script else ("/bin/sh", "-c", script)


class Peers:
    """On one layer, which is the whole image, and one root file system as a tarball."""

    def __init__(self, place: Path, rootfs: Path, layer: str, fresh: Callable[[], Path]) -> None:
        self.place, self.rootfs, self.layer = place, rootfs, layer
        self.top = place / "top"
        self.top.mkdir()
        self._fresh = fresh
        self.udocker_dir = place / "udocker"

    def by_hand(self, script: str) -> None:
        """The overlay of two layers, and bwrap, put together in a shell: what the budget is about."""
        home = self._fresh()
        options = f"userxattr,lowerdir={self.top}:{self.layer},upperdir={home}/u,workdir={home}/w"
        mount = f"mount -t overlay overlay -o {options} {home}/m"
        box = f'exec bwrap --unshare-pid --bind {home}/m / --proc /proc --dev /dev -- "$@"'
        run(["unshare", "-Urm", "sh", "-c", f"{mount} && {box}", "sh", *words_of(script)])

    def bwrap(self, script: str) -> None:
        places = ["--bind", self.layer, "/", "--proc", "/proc", "--dev", "/dev"]
        run(["bwrap", "--unshare-pid", *places, "--", *words_of(script)])

    def runc(self, script: str) -> None:
        home = self._fresh()
        document = runc_config(self.layer, ProcessSpec(words_of(script), ENV, has_stdin=False))
        (home / "config.json").write_text(json.dumps(document), encoding="utf-8")
        run(["runc", "--root", f"{home}/state", "run", "--bundle", str(home), home.name])

    def podman_words(self, *words: str) -> list[str]:
        """With a store of its own, so that nothing is left on this computer."""
        own = ["--root", str(self.place / "podman"), "--runroot", str(self.place / "run")]  # of 50 characters at most
        return ["podman", *own, "--storage-driver", "overlay", "--runtime", "runc", *words]

    def prepare_podman(self) -> None:
        run(self.podman_words("import", str(self.rootfs), "bench"))

    def podman(self, script: str) -> None:
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "host"]
        run(self.podman_words("run", "--rm", *limits, "bench", *words_of(script)))

    def udocker_words(self, *words: str) -> list[str]:
        return [str(self.place / "peer/bin/udocker"), "--allow-root", "-q", *words]

    def udocker_env(self) -> dict[str, str]:
        proot = str(self.place / "proot-without-k")
        return {**os.environ, "UDOCKER_DIR": str(self.udocker_dir), "UDOCKER_USE_PROOT_EXECUTABLE": proot}

    def install_udocker(self) -> None:
        """From PyPI. Its own tools come from the internet only; Debian's PRoot stands in for the one among them."""
        if (self.place / "peer").exists():
            return
        run([sys.executable, "-m", "venv", str(self.place / "peer")])
        run([str(self.place / "peer/bin/python"), "-m", "pip", "install", "-q", "udocker"])
        if shutil.which("proot") is None:
            raise Unusable("proot is not installed")
        wrapper = self.place / "proot-without-k"
        wrapper.write_text(PROOT_WITHOUT_K, encoding="utf-8")
        wrapper.chmod(0o755)
        (self.udocker_dir / "lib").mkdir(parents=True)
        (self.udocker_dir / "lib/VERSION").write_text(f"{TOOLS_RELEASE}\n", encoding="utf-8")

    def prepare_udocker(self) -> None:
        self.install_udocker()
        run(self.udocker_words("import", str(self.rootfs), "bench:1"), env=self.udocker_env())
        run(self.udocker_words("create", "--name=bench", "bench:1"), env=self.udocker_env())

    def udocker(self, script: str) -> None:
        run(self.udocker_words("run", "--nobanner", "bench", *words_of(script)), env=self.udocker_env())

    def udocker_version(self, _script: str) -> None:
        run(self.udocker_words("version"), env=self.udocker_env())


class RegistryHere:
    """Debian's docker-registry on loopback, with the root file system in it as ``bench:1``."""

    def __init__(self, place: Path, rootfs: Path) -> None:
        if shutil.which("docker-registry") is None:
            raise Unusable("docker-registry is not installed")
        self.host = f"127.0.0.1:{_free_port()}"
        config = place / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place / 'registry'}}}}}\n"
            f"http: {{addr: '{self.host}'}}\n",
            encoding="utf-8",
        )
        words = ["docker-registry", "serve", str(config)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._fill(place, rootfs)
        except BaseException:
            self.close()
            raise

    def _fill(self, place: Path, rootfs: Path) -> None:
        from hansa.node.containers.images import push
        from hansa.node.containers.store import Store
        from hansa.node.containers.transfer import import_tarball
        from hansa.node.containers.tree import remove_path
        from hansa.node.containers.web import WebSettings

        filling = Path(tempfile.mkdtemp(prefix="fill-", dir=place))
        store = Store(filling / "store")
        packer = subprocess.Popen(["gzip", "-n", "-c", str(rootfs)], stdout=subprocess.PIPE)  # as registries have them
        assert packer.stdout is not None
        with packer.stdout as stream:
            image = import_tarball(store, stream, "bench:1")
        if packer.wait():
            raise Unusable("gzip failed")
        run(["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", f"http://{self.host}/v2/"])
        push(store, image, f"{self.host}/lab/bench:1", WebSettings(is_insecure=True))
        remove_path(str(filling))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
