"""Verbs about containers."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Tuple, Union

from .. import engines
from ..context import Context, show_bytes
from ..errors import ContainerNotFound, ImageNotFound
from ..model import ContainerRecord, Image
from ..options import FLAG, MANY, VALUE, BadOption, Table, parse
from ..store import Store

TABLES: Dict[str, Table] = {
    "create": {
        "--name": (VALUE, "name"),
        "--platform": (VALUE, "platform"),
        "--pull": (VALUE, "pull"),
        "--engine": (VALUE, "engine"),
        "--nvidia": (FLAG, "nvidia"),
    },
    "ps": {
        "-o": (VALUE, "output"),
        "-m": (FLAG, "mode"),
        "-s": (FLAG, "size"),
        "-p": (FLAG, "platform"),
        "-a": (FLAG, "ignored"),
        "-q": (FLAG, "ids"),
    },
    "rm": {"-f": (FLAG, "force"), "--force": (FLAG, "force")},
    "clone": {"--name": (VALUE, "name")},
    "inspect": {"-p": (FLAG, "path")},
    "export": {"-o": (VALUE, "output"), "--output": (VALUE, "output")},
    "commit": {
        "-m": (VALUE, "comment"),
        "--message": (VALUE, "comment"),
        "-a": (VALUE, "author"),
        "--author": (VALUE, "author"),
        "-c": (MANY, "changes"),
    },
    "setup": {
        "--engine": (VALUE, "engine"),
        "--execmode": (VALUE, "engine"),
        "--nvidia": (FLAG, "nvidia"),
        "--no-nvidia": (FLAG, "no_nvidia"),
        "--force": (FLAG, "ignored"),
    },
}


def create(context: Context, words: List[str]) -> int:
    """[--name NAME] IMAGE"""
    parsed = parse(words, TABLES["create"])
    asked = _one(parsed.words, "create", "IMAGE")
    try:
        image = context.store.find_image(asked)
    except ImageNotFound:
        if parsed.text("pull") == "never":
            raise
        from .registry import fetch

        image = fetch(context, asked, parsed.text("platform"))
    options: Dict[str, Any] = {}
    if parsed.text("engine"):
        options["engine"] = engines.engine(parsed.text("engine")).name
    if parsed.flag("nvidia"):
        options["nvidia"] = True
    record = context.store.create_container(image, parsed.text("name") or None, options, asked)
    context.put(record.id)
    return 0


def ps(context: Context, words: List[str]) -> int:
    """[-s] [-m] [-p] [-o table|json|id]"""
    parsed = parse(words, TABLES["ps"])
    rows = [row_of(context.store, record, has_size=parsed.flag("size")) for record in context.store.containers()]
    columns = ["short_id", "names", "image", "created", "running", "protected"]
    columns += [name for name in ("size", "mode", "platform") if parsed.flag(name)]
    context.show(rows, columns, "id" if parsed.flag("ids") else parsed.text("output", "table"))
    return 0


def row_of(store: Store, record: ContainerRecord, *, has_size: bool = False) -> Dict[str, Any]:
    """A container for people and programs."""
    size = size_of(store, record) if has_size else 0
    return {
        "id": record.id,
        "short_id": record.short_id,
        "names": list(record.names),
        "image": record.image_name,
        "image_id": record.image_id,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
        "running": store.is_running(record),
        "protected": record.is_protected,
        "mode": str(record.options.get("engine") or "auto"),
        "platform": "/".join(part for part in (record.config.os, record.config.architecture) if part),
        **({"size": show_bytes(size), "size_bytes": size} if has_size else {}),
    }


def size_of(store: Store, record: ContainerRecord) -> int:
    """Bytes of the container's own files: what it changed, not what its image has."""
    home = os.path.dirname(str(store.container_dirs(record)[0]))
    total = 0
    for place in ("upper", "tree", "volumes"):
        for directory, _, files in os.walk(os.path.join(home, place)):
            for name in files:
                try:
                    total += os.lstat(os.path.join(directory, name)).st_blocks * 512
                except OSError:
                    continue  # gone meanwhile
    return total


def rm(context: Context, words: List[str]) -> int:
    """[-f] CONTAINER …"""
    parsed = parse(words, TABLES["rm"])
    if not parsed.words:
        raise BadOption("rm: say which container")
    for asked in parsed.words:
        record = context.store.find_container(asked)
        context.store.remove_container(record, is_forced=parsed.flag("force"))
        context.put(record.id)
    return 0


def name(context: Context, words: List[str]) -> int:
    """CONTAINER NAME"""
    asked, new = _two(parse(words, {}).words, "name", "CONTAINER NAME")
    context.store.rename(context.store.find_container(asked), None, new)
    return 0


def rmname(context: Context, words: List[str]) -> int:
    """NAME"""
    asked = _one(parse(words, {}).words, "rmname", "NAME")
    context.store.rename(context.store.find_container(asked), asked, None)
    return 0


def rename(context: Context, words: List[str]) -> int:
    """NAME NEW-NAME"""
    old, new = _two(parse(words, {}).words, "rename", "NAME NEW-NAME")
    record = context.store.find_container(old)
    context.store.rename(record, old if old in record.names else None, new)
    return 0


def clone(context: Context, words: List[str]) -> int:
    """[--name NAME] CONTAINER"""
    parsed = parse(words, TABLES["clone"])
    record = context.store.find_container(_one(parsed.words, "clone", "CONTAINER"))
    context.put(clone_record(context.store, record, parsed.text("name")).id)
    return 0


def clone_record(store: Store, record: ContainerRecord, new_name: str) -> ContainerRecord:
    """A copy, with the files of volumes and of an unpacked copy."""
    from ..merge import copy_upper

    copy = store.clone_container(record, new_name or None)
    source, target = (os.path.dirname(str(store.container_dirs(one)[0])) for one in (record, copy))
    for place in ("tree", "volumes"):
        if os.path.isdir(os.path.join(source, place)):
            copy_upper(os.path.join(source, place), os.path.join(target, place))
    return copy


def inspect(context: Context, words: List[str]) -> int:
    """[-p] CONTAINER|IMAGE"""
    parsed = parse(words, TABLES["inspect"])
    thing = find(context.store, _one(parsed.words, "inspect", "CONTAINER or IMAGE"))
    if parsed.flag("path"):
        context.put(path_of(context.store, thing))
        return 0
    context.put_json(describe(context.store, thing))
    return 0


def find(store: Store, asked: str) -> Union[ContainerRecord, Image]:
    """A container of that name or id, else an image."""
    if "/" not in asked and ":" not in asked:
        try:
            return store.find_container(asked)
        except ContainerNotFound:
            pass
    return store.find_image(asked)


def path_of(store: Store, thing: Union[ContainerRecord, Image]) -> str:
    """Where the files are: what a container changed, or the top layer of an image."""
    if isinstance(thing, Image):
        paths = store.layer_paths(thing)
        return str(paths[-1]) if paths else ""
    upper = str(store.container_dirs(thing)[0])
    copy = os.path.join(os.path.dirname(upper), "tree")
    return copy if os.path.isdir(copy) else upper


def describe(store: Store, thing: Union[ContainerRecord, Image]) -> Dict[str, Any]:
    """Everything about it."""
    layers = [layer.to_json() for layer in thing.layers]
    paths = [str(path) for path in store.layer_paths(thing)]
    if isinstance(thing, Image):
        from .images import row_of as image_row

        return {**image_row(thing), **thing.config.to_json(), "layers": layers, "layer_paths": paths}
    rest = {"options": dict(thing.options), "path": path_of(store, thing), "layers": layers, "layer_paths": paths}
    return {**row_of(store, thing), **thing.config.to_json(), **rest}


def export(context: Context, words: List[str]) -> int:
    """[-o FILE] CONTAINER"""
    from ..transfer import export as export_container
    from .images import open_output

    parsed = parse(words, TABLES["export"])
    rest = [word for word in parsed.words if word != "-"]
    record = context.store.find_container(_one(rest, "export", "CONTAINER"))
    with open_output(parsed.text("output", "-")) as stream:
        export_container(context.store, record, stream)
    return 0


def commit(context: Context, words: List[str]) -> int:
    """[-m COMMENT] [-a AUTHOR] CONTAINER [NAME]"""
    from ..images import commit as commit_container

    parsed = parse(words, TABLES["commit"])
    if not 1 <= len(parsed.words) <= 2:
        raise BadOption("commit: CONTAINER [NAME]")
    record = context.store.find_container(parsed.words[0])
    path = path_of(context.store, record)
    image = commit_container(
        context.store,
        record,
        parsed.words[1] if len(parsed.words) == 2 else None,
        comment=parsed.text("comment"),
        author=parsed.text("author"),
        unpacked_copy=path if path.endswith("/tree") else None,
    )
    context.put(image.id)
    return 0


def protect(context: Context, words: List[str]) -> int:
    """CONTAINER|IMAGE"""
    context.store.protect(find(context.store, _one(parse(words, {}).words, "protect", "CONTAINER or IMAGE")), True)
    return 0


def unprotect(context: Context, words: List[str]) -> int:
    """CONTAINER|IMAGE"""
    context.store.protect(find(context.store, _one(parse(words, {}).words, "unprotect", "CONTAINER or IMAGE")), False)
    return 0


def setup(context: Context, words: List[str]) -> int:
    """[--engine NAME|auto] [--nvidia] CONTAINER"""
    parsed = parse(words, TABLES["setup"])
    record = context.store.find_container(_one(parsed.words, "setup", "CONTAINER"))
    options = dict(record.options)
    chosen = parsed.text("engine")
    if chosen == "auto":
        options.pop("engine", None)
    elif chosen:
        options["engine"] = engines.engine(chosen).name
    if parsed.flag("nvidia"):
        options["nvidia"] = True
    if parsed.flag("no_nvidia"):
        options.pop("nvidia", None)
    if options != dict(record.options):
        record = context.store.set_options(record, options)
    context.put(f"engine: {record.options.get('engine', 'auto')}")
    context.put(f"nvidia: {'yes' if record.options.get('nvidia') else 'no'}")
    return 0


def _one(words: List[str], verb: str, what: str) -> str:
    if len(words) != 1:
        raise BadOption(f"{verb}: say which {what}" if not words else f"{verb}: one {what} at a time")
    return words[0]


def _two(words: List[str], verb: str, what: str) -> Tuple[str, str]:
    if len(words) != 2:
        raise BadOption(f"{verb}: {what}")
    return words[0], words[1]
