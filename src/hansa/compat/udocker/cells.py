"""Commands about containers."""

from __future__ import annotations

import json
from typing import Any

from hansa.compat.udocker.face import Face, Usage, one, uuid_of
from hansa.node.containers.blobs import Blobs
from hansa.node.containers.errors import ContainerError, ContainerNotFound, ImageNotFound
from hansa.node.containers.model import ContainerRecord, Image
from hansa.node.containers.options import FLAG, VALUE, Table, parse
from hansa.node.containers.verbs import cells as ours

_EXPORT: Table = {"-o": (FLAG, "file"), "--clone": (FLAG, "clone")}
_SETUP: Table = {
    "--execmode": (VALUE, "mode"),
    "--force": (FLAG, "force"),
    "--nvidia": (FLAG, "nvidia"),
    "--purge": (FLAG, "purge"),
    "--fixperm": (FLAG, "fixperm"),
}
_MODES = ("P1", "P2", "F1", "F2", "F3", "F4", "R1", "R2", "R3", "S1")
_DEFAULT_MODE = "P1"
_ALWAYS = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "Volumes")
_EMPTY = {"Hostname": "", "Image": "", "User": "", "WorkingDir": ""}


def do_create(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"--name": (VALUE, "name"), "--force": (FLAG, "force"), "--platform": (VALUE, "platform")})
    asked, name = one(parsed.words, "image:tag or repository/image:tag"), parsed.text("name")
    if name and face.has_container(name):
        if not parsed.flag("force"):
            raise Usage("container name already exists")
        known = face.container(name)
        face.store.rename(known, name, None)
    record = face.store.create_container(face.store.find_image(asked), name or None, image_name=asked)
    face.out(uuid_of(record))
    return 0


def do_ps(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-m": (FLAG, "mode"), "-s": (FLAG, "size"), "-p": (FLAG, "platform")})
    wide = [name for name in ("mode", "size", "platform") if parsed.flag(name)]
    heads = {"mode": "MOD ", "size": "SIZE ", "platform": "PLATFORM           "}
    middle = "".join(heads[name] for name in wide)
    face.out(f"{'CONTAINER ID':<36.36} P M {middle}{'NAMES':<18} {'IMAGE':<20.20}")
    for record in face.store.containers():
        cells = ""
        if "mode" in wide:
            cells += f"{mode_of(record):<2.2} "
        if "size" in wide:
            cells += f"{ours.size_of(face.store, record) // 1_000_000!s:>5.5} "
        if "platform" in wide:
            cells += f"{record.config.os + '/' + record.config.architecture:<18.18} "
        names = str(list(record.names or ("",)))
        lock = "P" if record.is_protected else "."
        face.out(f"{uuid_of(record):<36.36} {lock} W {cells}{names:<18.100} {record.image_name:<20.100}")
    return 0


def mode_of(record: ContainerRecord) -> str:
    return str(record.options.get("udocker_mode") or _DEFAULT_MODE)


def do_rm(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-f": (FLAG, "force")})
    if not parsed.words:
        raise Usage("must specify image:tag or repository/image:tag")
    code = 0
    for asked in parsed.words:
        try:
            record = face.container(asked)
            face.store.remove_container(record, is_forced=parsed.flag("force"))
        except ContainerNotFound:
            face.error(f"invalid container id {asked}")
            code = 1
        except ContainerError as error:
            face.error(f"{error}")
            code = 1
        else:
            face.info(f"Info: deleting container: {uuid_of(record)}")
    return code


def do_name(face: Face, words: list[str]) -> int:
    if len(words) != 2:
        raise Usage("must specify container-id and name")
    face.store.rename(face.container(words[0]), None, words[1])
    return 0


def do_rmname(face: Face, words: list[str]) -> int:
    name = one(words, "the name")
    face.store.rename(face.container(name), name, None)
    face.info(f"Info: container name: {name} removed.")
    return 0


def do_rename(face: Face, words: list[str]) -> int:
    if len(words) != 2:
        raise Usage("must specify name and new name")
    if face.has_container(words[1]):
        raise Usage("new name already exists")
    face.store.rename(face.container(words[0]), words[0], words[1])
    return 0


def do_clone(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"--name": (VALUE, "name")})
    name = parsed.text("name")
    if name and face.has_container(name):
        raise Usage("container name already exists")
    record = face.container(one(parsed.words, "the container"))
    face.out(uuid_of(ours.clone_record(face.store, record, name)))
    return 0


def do_inspect(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-p": (FLAG, "path")})
    asked = one(parsed.words, "container or image")
    thing: ContainerRecord | Image
    try:
        thing = face.container(asked)
    except ContainerNotFound:
        try:
            thing = face.store.find_image(asked)
        except ImageNotFound:
            raise Usage(f"image or container not found {asked}") from None
    if parsed.flag("path"):
        if isinstance(thing, Image):
            raise Usage(f"image or container not found {asked}")
        face.out(ours.path_of(face.store, thing))
        return 0
    face.out(json.dumps(_metadata(face, thing), sort_keys=True, indent=4, separators=(",", ": ")))
    return 0


def _metadata(face: Face, thing: ContainerRecord | Image) -> dict[str, Any]:
    """The image's own configuration as it was pulled; of what is not there, what programs look for."""
    image_id = thing.id if isinstance(thing, Image) else thing.image_id
    try:
        document: dict[str, Any] = json.loads(Blobs(face.store.layout, face.store.below).document(image_id))
    except (ContainerError, OSError, ValueError):
        document = thing.config.to_json()
    return {**document, "config": {**dict.fromkeys(_ALWAYS), **_EMPTY, **(document.get("config") or {})}}


def do_export(face: Face, words: list[str]) -> int:
    from hansa.node.containers.transfer import export
    from hansa.node.containers.verbs.images import open_output

    parsed = parse(words, _EXPORT)
    if parsed.flag("clone"):
        raise Usage("--clone: udocker's own format is not written; export without it")
    rest = [word for word in parsed.words if word != "-"]
    path = rest.pop(0) if parsed.flag("file") and rest else "-"
    record = face.container(one(rest, "the container"))
    if path != "-":
        face.out(f"Info: exporting to file {path}")
    with open_output(path) as stream:
        export(face.store, record, stream)
    return 0


def do_protect(face: Face, words: list[str]) -> int:
    return _protect(face, words, True)


def do_unprotect(face: Face, words: list[str]) -> int:
    return _protect(face, words, False)


def _protect(face: Face, words: list[str], is_protected: bool) -> int:
    asked = one(words, "container or image")
    thing = face.container(asked) if face.has_container(asked) else face.store.find_image(asked)
    face.store.protect(thing, is_protected)
    return 0


def do_setup(face: Face, words: list[str]) -> int:
    parsed = parse(words, _SETUP)
    record = face.container(one(parsed.words, "the container"))
    options = dict(record.options)
    mode = parsed.text("mode").upper()
    if mode:
        if record.is_protected:
            raise Usage("container is protected")
        if mode not in _MODES:
            raise Usage(f"invalid execmode: {mode}")
        options["udocker_mode"] = mode
    if parsed.flag("nvidia"):
        options["nvidia"] = True
    if options != dict(record.options):
        record = face.store.set_options(record, options)
    if not (mode or any(parsed.flag(key) for key in ("force", "nvidia", "purge", "fixperm"))):
        face.out(f"execmode: {mode_of(record)}")
        face.out(f"nvidiamode: {bool(record.options.get('nvidia'))}")
    return 0
