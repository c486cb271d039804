"""Verbs about images in the store."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, Dict, List

from .. import collect, transfer
from .. import images as imaging
from ..context import Context, show_bytes
from ..errors import ContainerError
from ..model import Image
from ..options import FLAG, VALUE, BadOption, Table, parse

_OUTPUT: Table = {"-o": (VALUE, "output"), "--output": (VALUE, "output")}
TABLES: Dict[str, Table] = {
    "images": {"-o": (VALUE, "output"), "-l": (FLAG, "long"), "--no-trunc": (FLAG, "no_trunc"), "-q": (FLAG, "ids")},
    "rmi": {"-f": (FLAG, "force")},
    "tag": {},
    "verify": {},
    "history": {"-o": (VALUE, "output")},
    "load": {"-i": (VALUE, "input"), "--input": (VALUE, "input")},
    "save": _OUTPUT,
    "import": {"--platform": (VALUE, "platform")},
    "gc": {},
}


class FileTrouble(ContainerError):
    """A file of the user's cannot be read or written."""

    code = "containers.file"


def images(context: Context, words: List[str]) -> int:
    """[-l] [-o table|json|id]"""
    parsed = parse(words, TABLES["images"])
    rows = [row_of(image) for image in context.store.images()]
    how = "id" if parsed.flag("ids") else parsed.text("output", "table")
    columns = ["names", "short_id", "created", "size"]
    if parsed.flag("long"):
        columns += ["platform", "layers", "protected", "below"]
    context.show(rows, columns, how)
    return 0


def row_of(image: Image) -> Dict[str, Any]:
    """An image for people and programs."""
    config = image.config
    return {
        "id": image.id,
        "short_id": image.short_id,
        "names": list(image.names),
        "created": image.created[:19],
        "size": show_bytes(image.size),
        "size_bytes": image.size,
        "layers": len(image.layers),
        "platform": "/".join(part for part in (config.os, config.architecture, config.variant) if part),
        "manifest": image.manifest_digest,
        "protected": image.is_protected,
        "below": image.is_read_only,
    }


def rmi(context: Context, words: List[str]) -> int:
    """[-f] IMAGE …"""
    parsed = parse(words, TABLES["rmi"])
    if not parsed.words:
        raise BadOption("rmi: say which image")
    for name in parsed.words:
        for line in context.store.remove_image(name, is_forced=parsed.flag("force")):
            context.put(line)
    collect.collect(context.store)
    return 0


def tag(context: Context, words: List[str]) -> int:
    """IMAGE NEW-NAME"""
    parsed = parse(words, TABLES["tag"])
    if len(parsed.words) != 2:
        raise BadOption("tag: IMAGE NEW-NAME")
    context.store.tag(context.store.find_image(parsed.words[0]), parsed.words[1])
    return 0


def verify(context: Context, words: List[str]) -> int:
    """IMAGE …"""
    parsed = parse(words, TABLES["verify"])
    if not parsed.words:
        raise BadOption("verify: say which image")
    is_good = True
    for name in parsed.words:
        report = collect.verify(context.store, context.store.find_image(name))
        for line in report.damaged:
            sys.stderr.write(f"{name}: {line}\n")
        for line in report.healed:
            context.say(f"{name}: made good: {line}")
        context.put(f"{name}: {'good' if report.is_good else 'damaged: pull it again'}")
        is_good = is_good and report.is_good
    return 0 if is_good else 1


def history(context: Context, words: List[str]) -> int:
    """IMAGE"""
    parsed = parse(words, TABLES["history"])
    if len(parsed.words) != 1:
        raise BadOption("history: IMAGE")
    rows = [
        {
            "created": step.created[:19],
            "size": show_bytes(step.layer.size) if step.layer is not None else "-",
            "step": step.created_by[:80],
            "comment": step.comment,
        }
        for step in imaging.history(context.store, context.store.find_image(parsed.words[0]))
    ]
    context.show(rows, ("created", "size", "step"), parsed.text("output", "table"), "step")
    return 0


def load(context: Context, words: List[str]) -> int:
    """[-i FILE]"""
    parsed = parse(words, TABLES["load"])
    path = parsed.text("input") or (parsed.words[0] if parsed.words else "-")
    with open_input(path) as stream:
        for image in transfer.load(context.store, stream):
            context.put(image.names[0] if image.names else image.id)
    return 0


def save(context: Context, words: List[str]) -> int:
    """[-o FILE] IMAGE …"""
    parsed = parse(words, TABLES["save"])
    if not parsed.words:
        raise BadOption("save: say which image")
    wanted = [(context.store.find_image(name), name) for name in parsed.words]
    with open_output(parsed.text("output", "-")) as stream:
        transfer.save(context.store, [(image, names_for(image, name)) for image, name in wanted], stream)
    return 0


def names_for(image: Image, asked: str) -> List[str]:
    """The name that an image was asked for by, in full; all its names if it was asked for by id."""
    from ..errors import BadReference
    from ..model import Reference

    try:
        full = str(Reference.parse(asked))
    except BadReference:
        return list(image.names)
    return [full] if full in image.names else list(image.names)


def import_(context: Context, words: List[str]) -> int:
    """FILE|- NAME"""
    parsed = parse(words, TABLES["import"])
    if len(parsed.words) != 2:
        raise BadOption("import: FILE NAME")
    with open_input(parsed.words[0]) as stream:
        context.put(transfer.import_tarball(context.store, stream, parsed.words[1]).id)
    return 0


def gc(context: Context, words: List[str]) -> int:
    """(no arguments)"""
    parse(words, TABLES["gc"])
    found = collect.collect(context.store)
    counts = f"{found.images} images, {found.layers} layers, {found.blobs} blobs, {found.containers} containers"
    context.put(f"{counts}: {show_bytes(found.bytes)} freed")
    return 0


def open_input(path: str) -> IO[bytes]:
    """A file, or stdin for ``-``."""
    if path == "-":
        return os.fdopen(os.dup(0), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise FileTrouble(f"cannot read {path}: {error.strerror}") from error


def open_output(path: str) -> IO[bytes]:
    """A file, or stdout for ``-``."""
    if path in ("-", ""):
        return os.fdopen(os.dup(1), "wb")
    try:
        return open(path, "wb")
    except OSError as error:
        raise FileTrouble(f"cannot write {path}: {error.strerror}") from error
