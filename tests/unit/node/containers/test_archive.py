"""Unpacking: what archives may do, and what they may not."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.oci import MERGED, member, names_in, noise, tar_of, two_layers

from hansa.node.containers import tar
from hansa.node.containers.archive import Limits, Unpacked, can_whiteout, unpack
from hansa.node.containers.check import differences
from hansa.node.containers.compression import decompressed
from hansa.node.containers.errors import BadImage, ContainerError, UnsafeArchive
from hansa.node.containers.merge import merge
from hansa.node.containers.view import changes_in_copy, view_of, write_tree

DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Unpack = Callable[..., tuple[Path, Unpacked]]


@pytest.fixture
def put(tmp_path: Path) -> Unpack:
    """Unpack into a new directory beside which nothing may appear."""
    count = 0

    def run(data: bytes, **options: Any) -> tuple[Path, Unpacked]:
        nonlocal count
        count += 1
        box = tmp_path / f"box{count}"
        target = box / "in" / "root"
        target.mkdir(parents=True)
        try:
            return target, unpack([data], str(target), **options)
        finally:
            assert [one.name for one in box.iterdir()] == ["in"]
            assert [one.name for one in (box / "in").iterdir()] == ["root"]

    return run


HOSTILE: dict[str, Any] = {
    "parent": [(member("../up"), b"x")],
    "parent inside": [member("a", DIR), (member("a/../../up"), b"x")],
    "absolute": [(member("/up"), b"x")],
    "absolute whiteout": [member("/etc/.wh.passwd")],
    "whiteout of the parent": [member("a/.wh...")],
    "whiteout of nothing": [member("a/.wh.")],
    "link out, then through it": [member("out", LINK, linkname="../../.."), (member("out/up"), b"x")],
    "link chain out": [member("a", LINK, linkname="b/.."), member("b", LINK, linkname=".."), (member("a/up"), b"x")],
    "endless links": [member("a", LINK, linkname="b"), member("b", LINK, linkname="a"), (member("a/up"), b"x")],
    "hard link out": [member("passwd", HARD, linkname="../../../../etc/passwd")],
    "absolute hard link": [member("passwd", HARD, linkname="/etc/passwd")],
    "hard link to a directory": [member("d", DIR), member("e", HARD, linkname="d")],
    "whiteout through a link": [member("out", LINK, linkname="../.."), member("out/.wh.in")],
    "opaque through a link": [member("out", LINK, linkname="../../.."), member("out/.wh..wh..opq")],
    "directory through a link": [member("out", LINK, linkname="../.."), member("out/made", DIR)],
    "the root as a file": [(member("./"), b"x")],
    "too deep": [(member("/".join(["d"] * 300) + "/f"), b"x")],
    "too long": [(member("d/" * 100 + "n" * 4000), b"x")],
    "impossible name": [(member("n" * 300), b"x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(put: Unpack, name: str) -> None:
    with pytest.raises(UnsafeArchive):
        put(tar_of(HOSTILE[name]))


def test_nul_in_a_name(put: Unpack) -> None:
    info = member("x")
    info.pax_headers = {"path": "a\0b"}
    with pytest.raises(ContainerError):
        put(tar_of([(info, b"x")]))


BROKEN = {
    "hard link to nothing": tar_of([member("a", HARD, linkname="b")]),
    "hard link through a file": tar_of([(member("f"), b"1"), member("a", HARD, linkname="f/b")]),
    "checksum": b"x" * 1024,
    "cut in a file": tar_of([(member("a"), b"x" * 5000)])[:2000],
    "cut in a header": tar_of([(member("a"), b"")])[:300],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_archives_are_named(put: Unpack, name: str) -> None:
    with pytest.raises(BadImage):
        put(BROKEN[name])


def test_bombs(put: Unpack) -> None:
    with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
        put(tar_of([(member("a"), b"x" * 2000)]), limits=Limits(bytes=1000))
    with pytest.raises(UnsafeArchive, match="more than 3 members"):
        put(tar_of([member(str(number), DIR) for number in range(4)]), limits=Limits(entries=3))
    info = member("sparse")
    info.pax_headers = {"GNU.sparse.size": str(1 << 60), "GNU.sparse.map": ""}
    with pytest.raises(UnsafeArchive, match="bytes in its files"):
        put(tar_of([(info, b"")]))


def test_compression_bombs() -> None:
    def zeros() -> Any:
        packer = gzip.compress(bytes(64 << 20), 9)
        while True:
            yield packer

    with pytest.raises(UnsafeArchive, match="bomb"):
        for _ in decompressed(zeros(), max_ratio=100):
            pass


def test_links_inside_the_tree_are_followed(put: Unpack) -> None:
    root, _ = put(
        tar_of(
            [
                member("usr/lib", DIR),
                member("lib", LINK, linkname="usr/lib"),
                member("abs", LINK, linkname="/usr"),
                (member("lib/a"), b"1"),
                (member("abs/lib/b"), b"2"),
            ]
        )
    )
    assert (root / "usr/lib/a").read_bytes() == b"1"
    assert (root / "usr/lib/b").read_bytes() == b"2"


def test_the_later_member_wins(put: Unpack) -> None:
    root, result = put(
        tar_of(
            [
                (member("a"), b"first"),
                member("d", DIR),
                (member("d/x"), b"x"),
                (member("i/x"), b"x"),
                member("i/d", DIR, mode=0o700),
                member("i/.wh.y"),
                member("s", LINK, linkname="d"),
                (member("a"), b"second"),
                (member("d"), b"now a file"),
                (member("i"), b"now a file"),
                member("s", DIR),
                (member("s/y"), b"y"),
            ]
        )
    )
    assert (root / "a").read_bytes() == b"second"
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "i").read_bytes() == b"now a file"
    assert (root / "s/y").read_bytes() == b"y"
    assert not (root / "s").is_symlink()
    assert result.entries == 12
    assert result.whiteouts == result.implicit == []


def test_what_cannot_be_had_is_recorded(put: Unpack) -> None:
    root, result = put(tar_of(_base()))
    assert (root / "bin/tool").stat().st_mode & 0o7777 == 0o755
    assert result.changed["bin/tool"] == (0, 0, 0o4755)
    assert result.changed["bin/same"] == (0, 0, 0o4755)
    assert result.changed["etc/shadow"] == (0, 42, 0)
    assert result.changed["home/ann"] == (1000, 1000, 0o500)
    assert result.devices == {"dev/null": ("c", 1, 3, 0o666)}
    assert (root / "bin/tool").stat().st_ino == (root / "bin/same").stat().st_ino
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "etc/motd").stat().st_mtime == 1_600_000_000
    assert (root / "etc").stat().st_mtime == 1_600_000_000
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)
    assert Unpacked.from_json(result.to_json()) == result


def _base() -> list[Any]:
    stream = io.BytesIO(two_layers()[0])
    with tarfile.open(fileobj=stream) as archive:
        return [(one, archive.extractfile(one).read()) if one.isreg() else one for one in archive]  # type: ignore[union-attr]


def test_sharing_opens_modes_and_no_more(put: Unpack) -> None:
    files = [(member("secret", mode=0o600), b"x"), (member("run", mode=0o700), b"x"), member("d", DIR, mode=0o700)]
    root, result = put(tar_of(files), extra_mode=0o055)
    modes = {name: (root / name).stat().st_mode & 0o7777 for name in ("secret", "run", "d")}
    assert modes == {"secret": 0o644, "run": 0o755, "d": 0o755}
    assert result.changed["secret"] == (0, 0, 0o600)


def test_directories_that_are_not_listed(put: Unpack) -> None:
    root, result = put(tar_of([(member("tmp/x"), b""), (member("a/b/x"), b""), member("a", DIR, mode=0o711)]))
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "a").stat().st_mode & 0o7777 == 0o711
    assert result.implicit == ["a/b", "tmp"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(put: Unpack, form: int) -> None:
    long = "d" * 90 + "/" + "e" * 90
    members: list[Any] = [(member(long), b"1"), (member("b"), noise(70_000)), member("l", LINK, linkname="t" * 90)]
    if form != tarfile.USTAR_FORMAT:
        long = "/".join(["n" * 100] * 5)
        members += [(member(long), b"1"), member("ll", LINK, linkname="t" * 300), (member("ä€\udcff"), b"x")]
    root, _ = put(tar_of(members, form))
    assert (root / long).read_bytes() == b"1"
    assert (root / "b").read_bytes() == noise(70_000)
    if form != tarfile.USTAR_FORMAT:
        assert str((root / "ll").readlink()) == "t" * 300
        assert (root / "ä€\udcff").exists()


@pytest.mark.parametrize(
    "form", ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"]
)
def test_sparse_files(put: Unpack, tmp_path: Path, form: str) -> None:
    content = bytearray(5_000_000)
    for at in range(0, 5_000_000, 500_000):
        content[at : at + 4096] = noise(4096, at)
    with (tmp_path / "sparse").open("wb") as stream:
        for at in range(0, 5_000_000, 500_000):
            stream.seek(at)
            stream.write(content[at : at + 4096])
        stream.truncate(5_000_000)
    kind, *more = form.split()
    made = subprocess.run(
        ["tar", "c", "--sparse", f"--format={kind}", *more, "-C", str(tmp_path), "sparse"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    root, _ = put(made)
    assert (root / "sparse").read_bytes() == bytes(content)
    assert (root / "sparse").stat().st_blocks * 512 < 1_000_000
    assert differences([made], str(root)) == []


def test_attributes(put: Unpack) -> None:
    info = member("a")
    info.pax_headers = {
        f"SCHILY.xattr.{name}": "y" for name in ("user.kept", "user.overlay.opaque", "security.capability")
    }
    root, _ = put(tar_of([(info, b"x")]))
    try:
        assert os.listxattr(root / "a") == ["user.kept"]
    except OSError:
        pytest.skip("no attributes here")


@pytest.mark.parametrize("can", [True, False])
def test_layers_are_merged(put: Unpack, tmp_path: Path, can: bool) -> None:
    if can and not can_whiteout(str(tmp_path)):
        pytest.skip("no whiteouts here")
    parts = [(str(root), result) for root, result in (put(one, can_whiteout=can) for one in two_layers())]
    assert parts[1][1].needs_merge is not can
    assert parts[1][1].whiteouts == ["etc/motd", "gone"]
    assert parts[1][1].opaque == ["etc/old"]
    for linked in (True, False):
        target = tmp_path / f"merged{linked}"
        target.mkdir()
        merge(parts, str(target), linked)
        assert names_in(target) == MERGED
        assert (target / "usr/lib/new").samefile(Path(parts[1][0]) / "usr/lib/new") == linked
    assert set(view_of(parts)) == MERGED


def test_a_layer_does_not_hide_its_own_files(put: Unpack) -> None:
    root, result = put(
        tar_of(
            [
                (member("a/.wh.f"), b""),
                (member("a/f"), b"new"),
                member("a/.wh.d"),
                member("a/d", DIR),
                (member("a/d/x"), b""),
            ]
        )
    )
    assert (root / "a/f").read_bytes() == b"new"
    assert result.whiteouts == []
    assert result.opaque == ["a/d"]


def test_changes_of_an_unpacked_copy(put: Unpack, tmp_path: Path) -> None:
    parts = [(str(root), result) for root, result in (put(one) for one in two_layers())]
    copy = tmp_path / "copy"
    copy.mkdir()
    merge(parts, str(copy), is_linked=False)
    assert changes_in_copy(parts, str(copy)).is_empty
    (copy / "etc/shadow").write_text("changed")
    (copy / "usr/lib/big").unlink()
    (copy / "etc/old/two").unlink()
    (copy / "etc/old").rmdir()
    changes = changes_in_copy(parts, str(copy))
    assert changes.names == ("etc", "etc/shadow", "usr", "usr/lib")
    assert changes.whiteouts == ("etc/.wh.old", "usr/lib/.wh.big")
    stream = io.BytesIO()
    write_tree(changes.view, changes.names, stream, changes.whiteouts)
    root, result = put(stream.getvalue())
    assert result.whiteouts == ["etc/old", "usr/lib/big"]
    assert (root / "etc/shadow").read_text() == "changed"


def test_damage_is_named(put: Unpack) -> None:
    data = two_layers()[0]
    root, _ = put(data)
    assert differences([data], str(root)) == []
    (root / "etc/motd").write_text("welcomE\n")
    (root / "etc/old/one").unlink()
    (root / "lib").unlink()
    assert sorted(differences([data], str(root))) == [
        "'etc/motd' has other content",
        "'etc/old/one' is missing",
        "'lib' is missing",
    ]


def test_pieces_of_any_size(tmp_path: Path) -> None:
    data = two_layers()[0]
    for size in (1, 7, 511, 512, 100_000):
        source = tar.Source(data[at : at + size] for at in range(0, len(data), size))
        reader = tar.Reader(source)
        names = []
        for entry in reader:
            names.append(entry.name)
            if entry.name == b"usr/lib/big":
                assert b"".join(bytes(piece) for piece in reader.data()) == noise(300_000)
        assert len(names) == 21


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_archives_never_do_worse_than_an_error(data: st.DataObject) -> None:
    archive = bytearray(tar_of([member("d", DIR), (member("d/f"), b"x" * 700), member("l", LINK, linkname="d")]))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    reader = tar.Reader(tar.Source([bytes(archive)]))
    try:
        for entry in reader:
            for _ in reader.data():
                pass
            assert entry.size >= 0
    except ContainerError:
        pass
