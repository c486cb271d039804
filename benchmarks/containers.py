"""Containers beside bare bwrap, an overlay put together by hand, runc, podman and udocker, in one run.

    python -m benchmarks.containers [--rootfs FILE.tar] [--rounds 30] [--json]

Without ``--rootfs`` a small Debian is made by mmdebstrap (as root), or else a tree of busybox. A peer that is not
installed or does not work here is listed with the reason. udocker comes from PyPI by ``uv`` and needs its own PRoot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hansa.node.containers import launcher
from hansa.node.containers.engines.runc import config as runc_config
from hansa.node.containers.process import ProcessSpec, Tree
from hansa.node.containers.store import Store
from hansa.node.containers.transfer import import_tarball
from hansa.node.containers.tree import remove_path

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
WORK = {
    "find over the tree": "find / -xdev > /dev/null",
    "500 forks": "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done",
    "read /usr and /etc": "find /usr /etc -xdev -type f -exec cat {} + > /dev/null 2>&1; true",
    "compute": "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done",
}
Case = Callable[[str], None]


def make_rootfs(place: Path) -> Path:
    """A tarball of a root file system."""
    path = place / "rootfs.tar"
    if os.geteuid() == 0 and shutil.which("mmdebstrap"):
        words = ["mmdebstrap", "--variant=minbase", "--include=python3-minimal", "bookworm", str(path)]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return path
    tree = place / "busybox"
    for name in ("bin", "usr/bin", "proc", "sys", "dev", "etc", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    with tarfile.open(path, "w") as stream:
        stream.add(tree, ".")
    return path


def run(words: list[str], **options: Any) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1:] or [f"ended with {done.returncode}"])


class Bench:
    """All ways to run a shell command in the image."""

    def __init__(self, place: Path, rootfs: Path) -> None:
        self.place = place
        self.store = Store(place / "store")
        with rootfs.open("rb") as stream:
            image = import_tarball(self.store, stream, "bench")
        self.layer = str(self.store.layer_paths(image)[0])
        self.top = place / "top"
        self.top.mkdir()
        self.count = 0
        self.rootfs = rootfs

    def dirs(self) -> Path:
        self.count += 1
        home = self.place / f"c{self.count}"
        for name in ("u", "w", "m"):
            (home / name).mkdir(parents=True)
        return home

    def launcher(self, script: str) -> None:
        home = self.dirs()
        tree = Tree((self.layer, str(self.top)), f"{home}/u", f"{home}/w", f"{home}/m", is_throwaway=True)
        assert launcher.run(tree, ProcessSpec(words_of(script), ENV, has_stdin=False)) == 0

    def by_hand(self, script: str) -> None:
        home = self.dirs()
        options = f"userxattr,lowerdir={self.top}:{self.layer},upperdir={home}/u,workdir={home}/w"
        mount = f"mount -t overlay overlay -o {options} {home}/m"
        box = f'exec bwrap --unshare-pid --bind {home}/m / --proc /proc --dev /dev -- "$@"'
        run(["unshare", "-Urm", "sh", "-c", f"{mount} && {box}", "sh", *words_of(script)])

    def bwrap(self, script: str) -> None:
        run(
            [
                "bwrap",
                "--unshare-pid",
                "--bind",
                self.layer,
                "/",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--",
                *words_of(script),
            ]
        )

    def command(self, script: str) -> None:
        code = "import sys; from hansa.cli.main import main; sys.exit(main())"
        words = [sys.executable, "-c", code, "container", "--store", str(self.store.root), "run", "--rm", "bench"]
        run([*words, *words_of(script)])

    def runc(self, script: str) -> None:
        home = self.dirs()
        document = runc_config(self.layer, ProcessSpec(words_of(script), ENV, has_stdin=False))
        (home / "config.json").write_text(json.dumps(document))
        run(["runc", "--root", f"{home}/state", "run", "--bundle", str(home), f"bench{self.count}"])

    def prepare_podman(self) -> None:
        run(["podman", "--storage-driver", "overlay", "import", str(self.rootfs), "bench"])

    def podman(self, script: str) -> None:
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        run(["podman", "--runtime", "runc", "run", "--rm", "--network", "host", *limits, "bench", *words_of(script)])

    def udocker_words(self, *words: str) -> list[str]:
        return [str(self.place / "peer/bin/udocker"), "--allow-root", "-q", *words]

    def prepare_udocker(self) -> None:
        run(["uv", "venv", str(self.place / "peer")])
        run(["uv", "pip", "install", "--python", str(self.place / "peer/bin/python"), "udocker"])
        os.environ["UDOCKER_DIR"] = str(self.place / "udocker")
        run(self.udocker_words("import", str(self.rootfs), "bench:1"))
        run(self.udocker_words("create", "--name=bench", "bench:1"))

    def udocker(self, script: str) -> None:
        run(self.udocker_words("run", "--nobanner", "bench", *words_of(script)))

    def udocker_version(self, _script: str) -> None:
        run(self.udocker_words("version"))


def words_of(script: str) -> tuple[str, ...]:
    return ("/bin/true",) if not script else ("/bin/sh", "-c", script)


def median_ms(case: Case, script: str, rounds: int) -> float:
    case(script)  # once for the caches
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        case(script)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def measure(bench: Bench, rounds: int) -> dict[str, dict[str, float | str]]:
    """Case -> what was measured, in ms, or why it was not."""
    host: Case = lambda script: run(list(words_of(script)))  # noqa: E731
    cases: dict[str, tuple[Case, Callable[[], None] | None]] = {
        "host": (host, None),
        "overlay and bwrap by hand": (bench.by_hand, None),
        "hansa launcher": (bench.launcher, None),
        "hansa container run": (bench.command, None),
        "bwrap on the rootfs": (bench.bwrap, None),
        "runc on a bundle": (bench.runc, None),
        "podman (runc)": (bench.podman, bench.prepare_podman),
        "udocker version": (bench.udocker_version, bench.prepare_udocker),
        "udocker run": (bench.udocker, None),
    }
    out: dict[str, dict[str, float | str]] = {}
    for name, (case, prepare) in cases.items():
        row: dict[str, float | str] = {}
        out[name] = row
        try:
            if prepare is not None:
                prepare()
            row["start of /bin/true"] = median_ms(case, "", rounds)
            if name in ("host", "overlay and bwrap by hand", "hansa launcher", "bwrap on the rootfs"):
                for what, script in WORK.items():
                    if name != "host" or what in ("compute", "500 forks"):
                        row[what] = median_ms(case, script, max(3, rounds // 6))
        except (RuntimeError, OSError, AssertionError) as error:
            row["not measured"] = str(error)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootfs", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    try:
        bench = Bench(place, options.rootfs or make_rootfs(place))
        found = measure(bench, options.rounds)
    finally:
        remove_path(str(place))
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    columns = ["start of /bin/true", *WORK]
    print(f"{'ms, median':<28}" + "".join(f"{column:>22}" for column in columns))
    for name, row in found.items():
        cells = [row.get(column) for column in columns]
        shown = "".join(f"{cell:>22.1f}" if isinstance(cell, float) else f"{'-':>22}" for cell in cells)
        print(f"{name:<28}{shown}  {row.get('not measured', '')}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
