"""Images for tests, written by hand: layers by `tarfile`, put together as an OCI layout, pushed by skopeo."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MTIME = 1_600_000_000
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mtime = MTIME
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar_of(members: Iterable[Any], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for one in members:
            info, data = one if isinstance(one, tuple) else (one, b"")
            if info.type == tarfile.REGTYPE:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that no compression makes smaller."""
    return random.Random(seed).randbytes(size)


def two_layers() -> list[bytes]:
    """A base and a layer that changes, hides and replaces parts of it."""
    directory = tarfile.DIRTYPE
    base = [
        member("./", directory),
        member("bin", directory),
        (member("bin/tool", mode=0o4755), b"#!/bin/sh\necho tool\n"),
        member("bin/same", tarfile.LNKTYPE, linkname="bin/tool"),
        member("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        member("usr/lib", directory),
        (member("usr/lib/big"), noise(300_000)),
        member("etc", directory),
        (member("etc/motd"), b"welcome\n"),
        (member("etc/shadow", mode=0o000, uid=0, gid=42), b"root:*\n"),
        member("etc/old", directory),
        (member("etc/old/one"), b"1"),
        member("gone", directory),
        (member("gone/file"), b"x"),
        member("tmp", directory, mode=0o1777),
        member("home", directory),
        member("home/ann", directory, mode=0o500, uid=1000, gid=1000),
        (member("home/ann/mine", mode=0o600, uid=1000, gid=1000), b"mine"),
        member("dev", directory),
        member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("pipe", tarfile.FIFOTYPE),
    ]
    change = [
        member("etc", directory),
        member("etc/.wh.motd"),
        member("etc/old", directory),
        member("etc/old/.wh..wh..opq"),
        (member("etc/old/two"), b"2"),
        member(".wh.gone"),
        (member("usr/lib/new"), noise(200_000, 2)),
    ]
    return [tar_of(base), tar_of(change)]


MERGED = {
    "bin", "bin/tool", "bin/same", "lib", "usr", "usr/lib", "usr/lib/big", "usr/lib/new", "etc", "etc/shadow",
    "etc/old", "etc/old/two", "tmp", "home", "home/ann", "home/ann/mine", "dev", "pipe",
}  # fmt: skip
"""What is seen of :func:`two_layers`."""


def names_in(root: Path) -> set[str]:
    """Relative names of everything in a tree, without whiteouts."""
    found = set()
    for path in root.rglob("*"):
        status = path.lstat()
        if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
            found.add(str(path.relative_to(root)))
    return found


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout directory in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = sha(data)
        (self.path / "blobs" / "sha256" / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def image(
        self,
        layers: Iterable[bytes],
        architecture: str = "amd64",
        config: Mapping[str, Any] | None = None,
        compression: str = "gzip",
        diff_ids: list[str] | None = None,
        variant: str = "",
    ) -> dict[str, Any]:
        tars = list(layers)
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {"Cmd": ["/bin/tool"], "Env": ["A=1"]}),
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha(one) for one in tars]},
            "history": [{"created_by": f"step {number}"} for number in range(len(tars))],
        }
        if variant:
            document["variant"] = variant
        described = [
            {"mediaType": media, **self.blob(data)} for media, data in (_packed(one, compression) for one in tars)
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                **self.blob(json.dumps(document).encode()),
            },
            "layers": described,
        }
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        return {"mediaType": manifest["mediaType"], **self.blob(json.dumps(manifest).encode()), "platform": platform}

    def index(self, manifests: list[dict[str, Any]]) -> dict[str, Any]:
        media = "application/vnd.oci.image.index.v1+json"
        document = {"schemaVersion": 2, "mediaType": media, "manifests": manifests}
        return {"mediaType": media, **self.blob(json.dumps(document).encode())}

    def finish(self, top: dict[str, Any], tag: str = "latest") -> None:
        entry = {key: value for key, value in top.items() if key != "platform"}
        self.manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))


def _packed(tar: bytes, compression: str) -> tuple[str, bytes]:
    if compression == "zstd":
        return ZSTD, subprocess.run(["zstd", "-q", "-c"], input=tar, stdout=subprocess.PIPE, check=True).stdout
    if compression == "gzip":
        return GZIP, gzip.compress(tar, 1, mtime=0)
    return "application/vnd.oci.image.layer.v1.tar", tar


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def push(layout: Path, host: str, name: str, tag: str = "latest") -> None:
    skopeo(
        "copy",
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        f"oci:{layout}:{tag}",
        f"docker://{host}/{name}",
    )


class Failure(Exception):
    """A ContainerError in the other process."""

    def __init__(self, said: dict[str, str]) -> None:
        super().__init__(f"{said['kind']}: {said['message']}")
        self.kind = said["kind"]
        self.message = said["message"]
        self.hint = said["hint"]


def tar_of_tree(root: Path) -> bytes:
    """A directory as a layer; whiteouts of overlay are left out."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(root, ".", filter=lambda info: None if info.ischr() else info)
    return stream.getvalue()
