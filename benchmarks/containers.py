"""Containers beside an overlay and bwrap put together by hand, bare bwrap, runc, podman and udocker, in one run.

    python -m benchmarks containers
    python -m benchmarks.containers [--rootfs FILE.tar] [--quick] [--parts starts ready]     # as any user

The image is a Debian of mmdebstrap with Python in it (some minutes, as root; kept in ``.cache``). What is not installed
(Debian: bubblewrap runc podman uidmap proot docker-registry) or does not work here is left out; ``detail`` says why.
Contenders take turns, round by round. Work is compared by the fastest round of each, which others disturb least; starts
and pulls by medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.container_peers import ENV, Peers, RegistryHere, Unusable, words_of
from benchmarks.container_peers import run as command
from benchmarks.cputime import CpuTime, counted
from benchmarks.embedded import hansa_command
from benchmarks.harness import ROOT, Better, Row, facts, rounded, used_by_others
from benchmarks.table import render
from hansa.node.containers import launcher
from hansa.node.containers.process import Bind, ProcessSpec, Tree
from hansa.node.containers.store import Store
from hansa.node.containers.transfer import import_tarball
from hansa.node.containers.tree import remove_path

CACHED = ROOT / ".cache" / "containers" / "bench.tar"
CROWD = 64
WORK = {
    "find over the tree": "find / -xdev > /dev/null",
    "500 forks": "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done",
    "read /usr and /etc": "find /usr /etc -xdev -type f -exec cat {} + > /dev/null 2>&1; true",
}
COMPUTE = """
import time
def primes(most):
    found = bytearray([1]) * most
    for number in range(2, int(most ** 0.5) + 1):
        if found[number]:
            found[number * number :: number] = bytes(len(range(number * number, most, number)))
    return sum(found)
def pairs(count):
    total = 0
    for number in range(count):
        total += number * number % 7
    return total
began = time.perf_counter(); primes(3_000_000); pairs(6_000_000); print(time.perf_counter() - began)
"""
DIGITS = """
import time, warnings
warnings.simplefilter("ignore")
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from sklearn.neural_network import MLPClassifier
x, y = load_digits(return_X_y=True)
began = time.perf_counter()
for _ in range(5): SVC(gamma=0.001).fit(x[:1400], y[:1400]).score(x[1400:], y[1400:])
MLPClassifier((64,), max_iter=60, random_state=1).fit(x / 16, y)
print(time.perf_counter() - began)
"""
SLIM = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from hansa.node.containers import launcher
from hansa.node.containers.process import ProcessSpec, Tree
for line in sys.stdin:
    home, layers, words, env = json.loads(line)
    tree = Tree(tuple(layers), home + "/u", home + "/w", home + "/m", is_throwaway=True)
    print(launcher.run(tree, ProcessSpec(tuple(words), env, has_stdin=False)), flush=True)
"""
Case = Callable[[str], None]


def make_rootfs(place: Path) -> Path:
    """A tarball of a root file system: Debian where this user can make one, or else busybox, without Python."""
    if CACHED.exists():
        return CACHED
    if os.geteuid() == 0 and shutil.which("mmdebstrap"):
        CACHED.parent.mkdir(parents=True, exist_ok=True)
        partial = CACHED.with_suffix(".part.tar")
        command(["mmdebstrap", "--variant=minbase", "--include=python3", "bookworm", str(partial)])
        return partial.rename(CACHED)
    tree, path = place / "busybox", place / "rootfs.tar"
    for name in ("bin", "usr/bin", "proc", "sys", "dev", "etc", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in command(["/bin/busybox", "--list"]).split():
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    command(["tar", "-C", str(tree), "-cf", str(path), "."])
    return path


class Bench:
    """The image in a store, and Hansa's own ways of running it."""

    def __init__(self, place: Path, rootfs: Path, quick: bool, cpu: CpuTime) -> None:
        self.place, self.rootfs, self.rounds = place, rootfs, 3 if quick else 20
        self.store = Store(place / "store")
        with rootfs.open("rb") as stream:
            image = import_tarball(self.store, stream, "bench")
        layer = self.store.layer_directories(image)[0]
        self.count = 0
        self.left_out: dict[str, str] = {}
        self.cpu = cpu
        self.used: dict[str, float] = {}
        self.slim: subprocess.Popen[str] | None = None
        self.peers = Peers(place, rootfs, layer, self.fresh)
        self.layers = (layer, str(self.peers.top))

    def fresh(self) -> Path:
        """Directories for a new container."""
        self.count += 1
        home = self.place / f"c{self.count}"
        for name in ("u", "w", "m"):
            (home / name).mkdir(parents=True)
        return home

    def launcher(self, script: str) -> None:
        """By a process that has imported nothing else, as what starts tasks has not: a fork costs what it copies."""
        if self.slim is None:
            words = [sys.executable, "-I", "-S", "-c", SLIM, str(ROOT / "src")]
            self.slim = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.slim.stdin is not None
        assert self.slim.stdout is not None
        self.slim.stdin.write(json.dumps([str(self.fresh()), self.layers, words_of(script), ENV]) + "\n")
        self.slim.stdin.flush()
        if self.slim.stdout.readline() != "0\n":
            raise Unusable("the launcher's program failed")

    def close(self) -> None:
        if self.slim is not None:
            self.slim.communicate(timeout=60)

    def words(self, *words: str) -> list[str]:
        return [*hansa_command(), "container", "--store", str(self.store.root), "-q", *words]

    def whole_command(self, script: str) -> None:
        command(self.words("run", "--rm", "bench", *words_of(script)))

    def able(self, cases: dict[str, tuple[Case, Callable[[], None] | None]]) -> dict[str, Case]:
        """Those that work here."""
        found = {}
        for name, (case, prepare) in cases.items():
            try:
                if prepare is not None:
                    prepare()
                case("")
                found[name] = case
            except (Unusable, OSError, subprocess.SubprocessError) as error:
                self.left_out[name] = str(error)
        return found

    def race(self, cases: dict[str, Case], script: str, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of every round; of CPU time too, for the next row's detail."""
        took: dict[str, list[float]] = {name: [] for name in cases}
        used: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, case in cases.items():
                before, began = self.cpu.ms(), time.perf_counter()
                case(script)
                took[name].append((time.perf_counter() - began) * 1000)
                after = self.cpu.ms()
                if before is not None and after is not None:
                    used[name].append(after - before)
        self.used = {name: rounded(statistics.median(some)) for name, some in used.items() if some}
        return took

    def row(self, work: str, took: dict[str, list[float]], budget: float | None, pick: Any = statistics.median) -> Row:
        """Hansa's is the first."""
        values = {name: rounded(pick(some)) for name, some in took.items()}
        first, *others = values
        detail = {
            "runs": {name: [rounded(one) for one in some] for name, some in took.items()},
            "picked": pick.__name__,
        }
        detail |= {
            "cpu_ms": self.used,
            "used_by_others": used_by_others(),
            "load": os.getloadavg()[0],
            "left_out": dict(self.left_out),
        }
        peers = {name: values[name] for name in others}
        return Row(work, "ms", Better.LOWER, values[first], peers, budget and rounded(budget), detail)


def starts(bench: Bench) -> list[Row]:
    """From the wish to run ``/bin/true`` to its end, in an image that is unpacked."""
    peers = bench.peers
    inner: dict[str, tuple[Case, Callable[[], None] | None]] = {
        "launcher": (bench.launcher, None),
        "overlay and bwrap by hand": (peers.by_hand, None),
        "bwrap": (peers.bwrap, None),
        "runc": (peers.runc, None),
    }
    outer: dict[str, tuple[Case, Callable[[], None] | None]] = {
        "hansa container run": (bench.whole_command, None),
        "udocker version": (peers.udocker_version, peers.install_udocker),
        "udocker run (P1)": (peers.udocker, peers.prepare_udocker),
        "podman run": (peers.podman, peers.prepare_podman),
    }
    rows = []
    took = bench.race(bench.able(inner), "", bench.rounds)
    hand = took.get("overlay and bwrap by hand")
    rows.append(bench.row("start /bin/true: the launcher", took, 1.25 * statistics.median(hand) if hand else None))
    took = bench.race(bench.able(outer), "", bench.rounds)
    theirs = took.get("udocker run (P1)") or took.get("udocker version")
    rows.append(bench.row("start /bin/true: the whole command", took, statistics.median(theirs) if theirs else None))
    return rows


def file_work(bench: Bench) -> list[Row]:
    """What an overlay costs programs: ours and the one by hand are the same kernel's."""
    cases = bench.able({"launcher": (bench.launcher, None), "by hand": (bench.peers.by_hand, None)})
    rows = []
    for what, script in WORK.items():
        took = bench.race(cases, script, max(3, bench.rounds // 2))
        rows.append(bench.row(what, took, 1.1 * min(took["by hand"]) if "by hand" in took else None, min))
    return rows


def speed(bench: Bench) -> list[Row]:
    """Seconds that a program measures itself, inside and outside: the same interpreter, the host's, on both sides."""
    site = bench.place / "site"
    try:
        command([sys.executable, "-m", "venv", str(bench.place / "pip")])
        python = command(["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
        pip = [str(bench.place / "pip/bin/python"), "-m", "pip", "install", "-q", "--only-binary=:all:"]
        command([*pip, "--python-version", python, "--target", str(site), "scikit-learn"])
    except (Unusable, OSError) as error:
        bench.left_out["digits"] = str(error)
    rows = []
    for what, program in (("compute", COMPUTE), ("scikit-learn on digits", DIGITS)):
        try:
            took = _inside_and_outside(bench, program, site)
        except (Unusable, OSError, ValueError) as error:
            bench.left_out[what] = str(error)
            continue
        rows.append(bench.row(f"{what}, inside a container", took, 1.02 * min(took["outside"]), min))
    return rows


def _inside_and_outside(bench: Bench, program: str, site: Path) -> dict[str, list[float]]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env = {**ENV, **threads, "PYTHONPATH": str(site)}
    words = ("/usr/bin/python3", "-c", program)
    took: dict[str, list[float]] = {"inside": [], "outside": []}
    for _ in range(max(3, 2 * bench.rounds)):
        output = bench.place / "seconds"
        home = bench.fresh()
        tree = Tree(bench.layers, f"{home}/u", f"{home}/w", f"{home}/m", is_throwaway=True)
        binds = (Bind(str(bench.place), str(bench.place)), Bind("/usr", "/usr", is_read_only=True))
        script = f'exec {words[0]} -c "$0" > {output}'
        if launcher.run(tree, ProcessSpec(("/bin/sh", "-c", script, program), env, binds=binds, has_stdin=False)):
            raise Unusable("the program failed in the container")
        took["inside"].append(float(output.read_text()) * 1000)
        took["outside"].append(float(command(words, env=env)) * 1000)
    bench.used = {}
    return took


def ready(bench: Bench) -> list[Row]:
    """From nothing to the first container that can be started, and the second one."""
    try:
        registry = RegistryHere(bench.place, bench.rootfs)
    except (Unusable, OSError) as error:
        bench.left_out["pull"] = str(error)
        return []
    name = f"{registry.host}/lab/bench:1"
    peers = bench.peers
    now = {"hansa": bench.place, "udocker": bench.place, "podman": bench.place}

    def anew(whose: str) -> Path:
        """An empty place for each round."""
        now[whose] = Path(tempfile.mkdtemp(prefix=f"{whose}-", dir=bench.place))
        return now[whose]

    def hansa(*words: str) -> None:
        store = str(now["hansa"] / "store")
        command([*hansa_command(), "container", "--store", store, "--insecure", "-q", *words])

    def udocker(*words: str) -> None:
        command(peers.udocker_words(*words), env={**peers.udocker_env(), "UDOCKER_DIR": str(now["udocker"])})

    def ours(_script: str) -> None:
        anew("hansa")
        hansa("pull", name)
        hansa("create", "--name", "first", name)

    def theirs(_script: str) -> None:
        shutil.copytree(peers.udocker_dir / "lib", anew("udocker") / "lib")
        udocker("--insecure", "pull", f"--registry=http://{registry.host}", "lab/bench:1")
        udocker("create", "--name=first", "lab/bench:1")

    def podman(_script: str) -> None:
        words = peers.podman_words("pull", "-q", "--tls-verify=false", name)
        command([*words[:1], "--root", str(anew("podman")), *words[3:]])

    def ours_again(_script: str) -> None:
        hansa("create", name)

    def theirs_again(_script: str) -> None:
        udocker("create", "lab/bench:1")

    try:
        found = bench.able({"hansa": (ours, None), "udocker": (theirs, None), "podman pull": (podman, None)})
        took = bench.race(found, "", max(2, bench.rounds // 7))
        half = statistics.median(took["udocker"]) / 2 if "udocker" in took else None
        rows = [bench.row("pull and be ready to run", took, half)]
        before = _kib(now["hansa"])
        again = bench.able({"hansa": (ours_again, None), "udocker": (theirs_again, None)})
        took = bench.race(again, "", max(2, bench.rounds // 7))
        rows.append(bench.row("the second container of an image", took, None))
        rows[-1].detail["kib_each"] = (_kib(now["hansa"]) - before) / (len(took["hansa"]) + 1)
        return rows
    finally:
        registry.close()


def _kib(path: Path) -> float:
    return float(command(["du", "-sk", str(path)]).split()[0])


def crowd(bench: Bench) -> list[Row]:
    """64 at once, and what a thousand starts leave."""

    def at_once(words: list[str]) -> Case:
        def start(_script: str) -> None:
            running = [
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(CROWD)
            ]
            if any(process.wait() for process in running):
                raise Unusable(f"not all of {CROWD} ended well")

        return start

    took = bench.race({"hansa": at_once(bench.words("run", "--rm", "bench", "/bin/true"))}, "", 3)
    rows = [bench.row(f"{CROWD} containers at once", took, None)]
    times = 100 if bench.rounds < 10 else 1000
    before = _leavings(bench)
    began = time.perf_counter()
    for _ in range(times):
        bench.whole_command("")
    each = (time.perf_counter() - began) / times * 1000
    left = [now - then for now, then in zip(_leavings(bench), before, strict=True)]
    detail = {"each_ms": rounded(each), "left": dict(zip(("mounts", "processes", "files", "KiB"), left, strict=True))}
    rows.append(
        Row(
            f"left by {times:,} starts: mounts, processes, files",
            "things",
            Better.LOWER,
            sum(left[:3]),
            {},
            0.0,
            detail,
        )
    )
    return rows


def _leavings(bench: Bench) -> list[float]:
    store = str(bench.store.root)
    mounts = sum(store in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    processes = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            processes += store.encode() in path.read_bytes()
        except OSError:
            continue
    files = sum(len(names) + len(more) for _, names, more in os.walk(store))
    return [mounts, processes, files, _kib(bench.store.root)]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "starts": starts,
    "file_work": file_work,
    "speed": speed,
    "ready": ready,
    "crowd": crowd,
}


def run(quick: bool, rootfs: Path | None = None, parts: Sequence[str] = tuple(PARTS)) -> list[Row]:
    """All rows, or those of some parts."""
    place = Path(tempfile.mkdtemp(prefix="hb-"))
    place.chmod(0o755)
    try:
        with counted() as cpu:
            bench = Bench(place, rootfs or make_rootfs(place), quick, cpu)
            try:
                return [row for part in parts for row in PARTS[part](bench)]
            finally:
                bench.close()
    finally:
        remove_path(str(place))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootfs", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = run(options.quick, options.rootfs, options.parts)
    print(render(rows, facts()))
    for row in rows:
        print(f"{row.work}: {json.dumps({key: value for key, value in row.detail.items() if key != 'runs'})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
