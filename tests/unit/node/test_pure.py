"""The pure parts: placeholders, paths, backlog, back-off, results, samples."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from hansa.node.backlog import Rate, free_soon, wanted
from hansa.node.backoff import Backoff
from hansa.node.config import make_key, read_bearer
from hansa.node.files import Cache
from hansa.node.isolation import make_plan
from hansa.node.outputs import parse_fields, select
from hansa.node.pack import build_node_zipapp
from hansa.node.paths import UnsafePathError, checked, glob_pattern, matcher
from hansa.node.protocol import File
from hansa.node.sampling import Process, Sampler, parse_stat
from hansa.node.template import placeholders, render, values_of
from hansa.node.wire import WireError, clean_text, parse_reply


def test_placeholders_with_a_value_are_replaced_and_nothing_else_is() -> None:
    values = values_of(job=7, index=3, names=["x", "i"], row=["{job}", "never"], node_dir="/n")
    assert render("{i}/{job}/{node}/{x}", values) == "3/7//n/{job}"
    assert render('{"a": {i}} {} {y} ${i}', values) == '{"a": 3} {} {y} $3'
    assert render("{i} {node}", values_of(job=1, index=None)) == "{i} {node}"
    assert placeholders("{a} and {b}{a}") == ["a", "b", "a"]


@pytest.mark.parametrize("path", ["", "/x", "../x", "a/../b", "a//b", "./a", "a/", "a\0b", ".."])
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(UnsafePathError):
        checked(path)


def test_safe_paths() -> None:
    assert checked("a/b..c/.d") == "a/b..c/.d"


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("**", "a/b", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("**/*.txt", "a.txt", True),
        ("**/*.txt", "d/e/a.txt", True),
        ("out", "out/deep/file", True),
        ("out/", "out/file", True),
        ("./out", "out", True),
        ("out", "outer", False),
        ("a[0-9].b", "a5.b", True),
        ("a[!0-9].b", "a5.b", False),
        ("a[!0].b", "a/.b", False),
        ("a?c", "a/c", False),
        ("a[", "a[", True),
        ("a+(b)", "a+(b)", True),
    ],
)
def test_globs(glob: str, path: str, expected: bool) -> None:
    assert bool(glob_pattern(glob).fullmatch(path)) is expected
    assert matcher([glob])(path) is expected


def test_backlog_of_slow_tasks_is_one_for_each_slot() -> None:
    assert wanted(slots=4, queued=0, running=0, asked=0, per_second=0) == 8
    assert wanted(slots=4, queued=0, running=4, asked=0, per_second=0) == 4
    assert wanted(slots=4, queued=4, running=4, asked=0, per_second=0.1) == 0


def test_backlog_of_fast_tasks_follows_the_rate_up_to_a_limit() -> None:
    assert wanted(slots=2, queued=100, running=2, asked=0, per_second=1000) == 400
    assert wanted(slots=2, queued=100, running=2, asked=300, per_second=1000) == 100
    assert wanted(slots=2, queued=0, running=2, asked=0, per_second=1e6) == 512


def test_room_counts_what_will_be_free_soon() -> None:
    assert free_soon(free=1, used=3, running=3, per_second=0) == 1
    assert free_soon(free=1, used=3, running=3, per_second=1000) == 4
    assert free_soon(free=0, used=4, running=4, per_second=4) == 2


def test_rate_forgets() -> None:
    rate = Rate()
    for step in range(10):
        rate.add(10, step / 10)
    assert rate.per_second(1.0) == pytest.approx(100, rel=0.2)
    assert rate.per_second(3.0) == 0


def test_backoff_grows_with_jitter_and_is_bounded() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next_s() for _ in range(12)]
    assert all(0.1 * 2**n <= wait <= 0.2 * 2**n for n, wait in enumerate(waits[:7]))
    assert all(15 <= wait <= 30 for wait in waits[8:])
    backoff.reset()
    assert backoff.next_s() <= 0.2


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"{", "not JSON"),
        (b"[1]", "no JSON object"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b"\xff", "not JSON"),
        (b'{"a": "' + b"x" * 70_000 + b'"}', "more than"),
        (b"[" * 60_000, "not JSON"),
    ],
)
def test_result_json_that_is_ignored(raw: bytes, part: str) -> None:
    fields, note = parse_fields(raw)
    assert fields is None
    assert part in note


def test_result_json_that_is_taken() -> None:
    assert parse_fields(b'{"a": 1, "b": [null, {"c": "\xc3\xa9"}]}') == (
        {"a": 1, "b": [None, {"c": "é"}]},
        "",
    )


def test_selection_of_outputs(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("same", "changed", "d/new", "d/other.log"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "dirlink").symlink_to("/etc")
    stamp = (tmp_path / "same").stat()
    inputs = {"same": (stamp.st_size, stamp.st_mtime_ns, stamp.st_ino), "changed": (1, 2, 3)}
    chosen = select(str(tmp_path), matcher(["**"]), inputs, 100, 100)
    assert [found.path for found in chosen.files] == ["changed", "d/new", "d/other.log"]
    chosen = select(str(tmp_path), matcher(["d/*.log"]), inputs, 100, 100)
    assert [found.path for found in chosen.files] == ["d/other.log"]
    assert "more than 2 output files" in select(str(tmp_path), matcher(["**"]), {}, 100, 2).violation


def test_stat_lines_with_odd_names() -> None:
    fields = [
        "S",
        "10",
        "20",
        "30",
        "0",
        "-1",
        "0",
        "0",
        "0",
        "0",
        "0",
        "100",
        "50",
        "10",
        "5",
        "20",
        "0",
        "1",
        "0",
        "777",
        "1000",
        "256",
    ]
    process = parse_stat(5, b"5 (a) b) " + " ".join(fields).encode())
    assert (process.parent, process.session, process.started) == (10, 30, 777)
    assert process.memory_mib == pytest.approx(1.0)


def test_sampler_keeps_what_was_forked_away() -> None:
    def process(pid: int, parent: int, session: int, memory_mib: float) -> Process:
        return Process(pid, parent, session, pid, 1.0, memory_mib)

    sampler = Sampler()
    family = [process(1, 0, 1, 5), process(10, 1, 10, 100), process(11, 10, 10, 50), process(12, 11, 12, 7)]
    usage = sampler.sample({one.pid: one for one in family}, {10: 3})
    assert (usage[3].memory_mib, usage[3].cpu_s) == (157, 3)
    family[3] = process(12, 1, 12, 8)  # its parent has ended
    del family[2]
    assert sampler.sample({one.pid: one for one in family}, {10: 3})[3].memory_mib == 108
    assert sampler.sample({one.pid: one for one in family}, {}) == {}


def test_replies_ignore_the_unknown_and_refuse_the_broken() -> None:
    reply = parse_reply(
        b'{"new": 1, "leases": [{"lease": 1, "job": 2, "first": 0, "last": 1, "attempt": 1, "x": 2, "rows": '
        b'[{"values": [1]}, {"inputs": [{"path": "a", "digest": "sha256:0", "size": 1}]}]}], '
        b'"jobs": [{"number": 2, "command": ["x"], "cores": 1, "memory_mib": 1, "wall_time_s": 1}], '
        b'"stop": "drain"}'
    )
    assert reply.leases[0].rows is not None
    assert reply.leases[0].rows[0].values == ["1"]
    assert reply.leases[0].rows[1].inputs[0].path == "a"
    assert (reply.jobs[0].outputs, reply.stop) == (["**"], "drain")
    for raw in (
        b"",
        b"[]",
        b'{"leases": [{}]}',
        b'{"leases": [{"lease":1,"job":1,"first":2,"last":1,"attempt":1}]}',
    ):
        with pytest.raises(WireError):
            parse_reply(raw)


def test_texts_are_cleaned() -> None:
    assert clean_text("a\0b\udc80") == "a\N{REPLACEMENT CHARACTER}b?"
    assert len(clean_text("x" * 5000)) == 2000


def test_plan_of_hidden_directories(tmp_path: Path) -> None:
    for name in ("home/work/tasks", "home/keys", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/token", "token"):
        (tmp_path / name).touch()
    home, keep = str(tmp_path / "home"), str(tmp_path / "home/work/tasks")
    plan = make_plan(
        [keep, "/nowhere"],
        [home, f"{home}/work", f"{home}/keys", "/nowhere", "/", keep],
        [f"{home}/token", str(tmp_path / "token")],
    )
    assert (plan.keep, list(plan.directories), list(plan.files)) == ([keep], [home], [str(tmp_path / "token")])


def test_zipapp_is_the_same_every_time() -> None:
    assert build_node_zipapp() == build_node_zipapp()


def test_the_cache_of_inputs_makes_room_by_age_and_need(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), lambda digest: digest)
    digests = ["sha256:" + str(number) * 64 for number in range(4)]
    for age, digest in enumerate(digests):
        path = Path(cache.place(digest))
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "coming.part").write_bytes(b"x" * 1000)
    assert cache.make_room(400, set) == 0
    cache.used(File("a", digests[2], 100))
    assert cache.make_room(150, lambda: {digests[3]}) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([digests[3].partition(":")[2], "coming.part"])


def test_a_pilots_key_is_made_once_and_is_shown_with_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "token").chmod(0o600)
    key = str(tmp_path / "key")
    assert read_bearer(str(tmp_path / "token"), "") == "t"
    make_key(key)
    shown = read_bearer(str(tmp_path / "token"), key)
    assert re.fullmatch(r"t~[\w-]{43}", shown)
    make_key(key)  # the pilot's process is started anew in its place
    assert read_bearer(str(tmp_path / "token"), key) == shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "token"]
