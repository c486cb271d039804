"""The output of tasks: while they run and afterwards, all of it or what is looked for."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tests.support.cli import PATIENCE_S, Desk


def test_output_is_searched_and_cut_and_followed(desk: Desk) -> None:
    script = "for i in $(seq 1 2000); do echo line $i; done; echo oops >&2; printf unfinished"
    desk.hansa("run", "--detach", "--memory", "64M", "--", "sh", "-c", script)
    desk.hansa("job", "wait", "1")
    said = desk.hansa("job", "logs", "1")
    assert said.out.splitlines() == [*(f"line {i}" for i in range(1, 2001)), "unfinished"]
    assert said.err == "oops\n"
    assert desk.hansa("job", "logs", "1", "--tail", "2").out == "line 2000\nunfinished"
    assert desk.hansa("job", "logs", "1", "--tail", "14B", "--stream", "stdout").out == "000\nunfinished"
    assert desk.hansa("job", "logs", "1", "--grep", "^line 19.0$").out.split("\n")[:2] == ["line 1900", "line 1910"]
    assert desk.hansa("job", "logs", "1", "--grep", "oops").err == "oops\n"
    assert desk.hansa("job", "logs", "1", "--grep", "nothing like it", code=1).out == ""
    said_last = desk.hansa("job", "logs", "1", "--grep", "^line 1.0$", "--tail", "2", "--stream", "stdout").out
    assert said_last == "line 180\nline 190\n"
    assert "no regular expression" in desk.hansa("job", "logs", "1", "--grep", "(", code=2).err
    assert desk.hansa("job", "logs", "1", "--since", "1h").out == said.out
    assert desk.hansa("job", "logs", "1", "--since", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}").out == ""
    assert desk.hansa("job", "logs", "1", "-f", "--tail", "1").out == "unfinished"
    assert "--tail 0" in desk.hansa("job", "logs", "1", "--tail", "0", code=2).err


def test_output_of_a_whole_array(desk: Desk) -> None:
    desk.hansa("run", "--detach", "--memory", "64M", "--array", "0-3", "--", "sh", "-c", "echo a {i}; echo b {i}")
    desk.hansa("job", "wait", "1")
    lines = desk.hansa("job", "logs", "1").out.splitlines()
    assert sorted(lines) == sorted(f"1.{i} | {word} {i}" for i in range(4) for word in "ab")
    assert sorted(desk.hansa("job", "logs", "1", "--grep", "^b [12]").out.splitlines()) == ["1.1 | b 1", "1.2 | b 2"]
    assert desk.hansa("job", "logs", "1", "--grep", "c", code=1).out == ""
    assert len(desk.hansa("job", "logs", "1", "--grep", "b", "--tail", "3").out.splitlines()) == 3
    assert len(desk.hansa("job", "logs", "1", "--tail", "3").out.splitlines()) == 3
    assert desk.hansa("job", "logs", "1.2").out == "a 2\nb 2\n"
    assert "number of lines" in desk.hansa("job", "logs", "1", "--tail", "1K", code=2).err


def test_following_what_runs(desk: Desk) -> None:
    """The first line is there while the task runs; it goes on when it is told to."""
    command = f"echo first; while [ ! -e {desk.folder}/go ]; do sleep 0.1; done; echo last"
    desk.hansa(
        "run", "--detach", "--memory", "64M", "--array", "0-1", "--", "sh", "-c", f"[ {{i}} = 1 ] || {{ {command}; }}"
    )
    follower = desk.popen("job", "logs", "-f", "1.0")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first\n"
    late = desk.popen("job", "logs", "-f", "1.0", "--tail", "1")
    assert late.stdout is not None
    assert late.stdout.readline() == b"first\n"
    (desk.folder / "go").touch()
    for process in (follower, late):
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert out == b"last\n"
        assert process.returncode == 0


def test_a_task_that_says_too_much_is_cut_with_a_word(desk: Desk) -> None:
    desk.environ["HANSA_JOB__LOG_LIMIT_BYTES"] = "10000"
    desk.hansa("run", "--detach", "--memory", "64M", "--", "sh", "-c", "yes | head -c 50000")
    desk.hansa("job", "wait", "1")
    out = desk.hansa("job", "logs", "1").out
    assert re.search(r"\[hansa: 40,000 bytes dropped, the limit of one stream is 10,000 bytes\]\n$", out)
    assert "40,000 bytes dropped" in desk.hansa("job", "logs", "1", "--tail", "1").out
