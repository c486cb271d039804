"""What is said in which request, and the journal."""

from __future__ import annotations

import base64
from pathlib import Path

from hansa.node.journal import Journal, directories_in
from hansa.node.logs import Stream
from hansa.node.outbox import LOG_BUDGET_BYTES, Item, Outbox, Parcel, Speaker
from hansa.node.protocol import EXCHANGE_LIMIT_BYTES


def stream(tmp_path: Path, content: bytes, limit: int = 1 << 30, name: str = "stdout") -> Stream:
    (tmp_path / name).write_bytes(content)
    out = Stream(name, str(tmp_path / name), limit)
    out.close()
    return out


def item(index: int, size: int = 100, streams: list[Stream] | None = None) -> Item:
    result = {"lease": 1, "index": index, "outcome": "exited"}
    return Item(result, Speaker(1, index, streams or []), 1.0, size)


def test_results_that_do_not_fit_wait_for_the_next_request() -> None:
    outbox = Outbox()
    for index in range(10):
        outbox.add(item(index, EXCHANGE_LIMIT_BYTES // 5))
    content = outbox.compose([])
    assert len(content.items) == 4
    assert len(outbox.compose([]).items) == 4
    assert len(outbox) == 10
    outbox.answered(Parcel({}, content.items, [], 0, False))
    assert len(outbox) == 6


def test_result_waits_for_its_log(tmp_path: Path) -> None:
    outbox = Outbox()
    outbox.add(item(0, streams=[stream(tmp_path, b"x" * (LOG_BUDGET_BYTES + 1000))]))
    outbox.add(item(1))
    first = outbox.compose([])
    assert [one.result["index"] for one in first.items] == [1]
    early = outbox.compose([])
    assert (early.items, early.chunks) == ([], [])  # the first part has not arrived: the rest might overtake it
    outbox.answered(Parcel({}, first.items, first.speakers, 0, False))
    second = outbox.compose([])
    assert [one.result["index"] for one in second.items] == [0]
    shipped = b"".join(base64.b64decode(chunk["data"]) for chunk in first.chunks + second.chunks)
    assert len(shipped) == LOG_BUDGET_BYTES + 1000


def test_a_running_tasks_log_is_on_its_way_in_one_request_at_a_time(tmp_path: Path) -> None:
    outbox = Outbox()
    talker = Speaker(1, 0, [stream(tmp_path, b"a" * 100)])
    quiet = Speaker(1, 1, [stream(tmp_path, b"", name="other")])
    first = outbox.compose([talker, quiet])
    (tmp_path / "stdout").write_bytes(b"a" * 100 + b"b" * 100)
    talker.streams[0].look()
    assert outbox.compose([talker, quiet]).chunks == []
    outbox.answered(Parcel({}, first.items, first.speakers, 0, False))
    (chunk,) = outbox.compose([talker, quiet]).chunks
    assert (chunk["offset"], base64.b64decode(chunk["data"])) == (100, b"b" * 100)


def test_log_over_its_limit_ends_with_a_count(tmp_path: Path) -> None:
    one = stream(tmp_path, b"a" * 1500, limit=1000)
    assert one.read(999) == b"a" * 999
    assert one.read(999) == b"a"
    assert b"500 bytes dropped" in one.read(999)
    assert one.unread == 0


def test_log_taken_into_memory_keeps_its_offset(tmp_path: Path) -> None:
    one = stream(tmp_path, b"hello world")
    assert one.read(6) == b"hello "
    one.take_into_memory()
    (tmp_path / "stdout").unlink()
    assert (one.offset, one.unread, one.read(100), one.offset) == (6, 5, b"world", 11)


def test_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    one = Stream("stdout", str(tmp_path / "stdout"), 1000)
    one.close()
    assert one.read(100) == b""
    assert one.unread == 0


def test_lease_that_was_dropped_is_forgotten() -> None:
    outbox = Outbox()
    outbox.add(item(0))
    assert len(outbox.forget_lease(1)) == 1
    assert len(outbox) == 0


def test_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    small = item(0, streams=[stream(tmp_path, b"small")])
    small.source.streams[0].take_into_memory()
    large = item(1, streams=[stream(tmp_path, b"large", name="stderr")])
    large.directory = "/tasks/1"
    Journal(path).append([small, large], False)
    with Path(path).open("ab") as half:
        half.write(b'{"result": {"lea')
    again = Journal(path)
    assert again.unread == 2
    assert directories_in(path) == ["/tasks/1"]
    one, two = again.read(10)
    assert one.result == small.result
    assert (one.source.streams[0].read(10), two.source.streams[0].read(10)) == (b"small", b"large")
    again.clear()
    assert not Path(path).exists()


def test_journal_as_the_only_copy(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    journal.append([item(0)], False)
    journal.append([item(1), item(2)], True)
    assert [one.result["index"] for one in journal.read(1)] == [1]
    journal.append([item(3)], True)
    assert [one.result["index"] for one in journal.read(9)] == [2, 3]
    assert journal.unread == 0
