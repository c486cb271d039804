"""Commands about images."""

from __future__ import annotations

import os

from hansa.compat.udocker.face import Face, Usage, one, uuid_of
from hansa.node.containers import collect, transfer
from hansa.node.containers.model import Reference
from hansa.node.containers.options import FLAG, VALUE, Table, parse
from hansa.node.containers.verbs.images import names_for, open_input, open_output

_IMAGES: Table = {
    "-l": (FLAG, "long"),
    "-p": (FLAG, "platform"),
    "--no-trunc": (FLAG, "ignored"),
    "--all": (FLAG, "ignored"),
}
_IMPORT: Table = {
    "--mv": (FLAG, "move"),
    "--tocontainer": (FLAG, "container"),
    "--clone": (FLAG, "clone"),
    "--name": (VALUE, "name"),
    "--platform": (VALUE, "platform"),
}


def do_images(face: Face, words: list[str]) -> int:
    parsed = parse(words, _IMAGES)
    face.info("REPOSITORY")
    for image in face.store.images():
        for name in image.names:
            familiar, lock = Reference.parse(name).familiar, "P" if image.is_protected else "."
            if parsed.flag("platform"):
                platform = f"{image.config.os}/{image.config.architecture}"
                face.out(f"{platform:<18.18} {lock} {familiar}")
            else:
                face.out(f"{familiar}    {lock}")
            if parsed.flag("long"):
                face.out(f" {face.store.root}")
                for layer in image.layers:
                    face.out(f"    /{layer.digest} ({max(1, layer.size >> 20) if layer.size else 0} MB)")
    return 0


def do_rmi(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-f": (FLAG, "force")})
    asked = one(parsed.words, "image:tag or repository/image:tag")
    face.info(f"Info: deleting image: {asked}")
    if face.store.find_image(asked).is_protected and not parsed.flag("force"):
        raise Usage("image repository is protected")
    face.store.remove_image(asked, is_forced=True)  # its containers stay, as udocker's do
    collect.collect(face.store)
    return 0


def do_tag(face: Face, words: list[str]) -> int:
    if len(words) != 2:
        raise Usage("must specify source and target image")
    face.store.tag(face.store.find_image(words[0]), words[1])
    return 0


def do_verify(face: Face, words: list[str]) -> int:
    asked = one(words, "image:tag or repository/image:tag")
    face.info(f"Info: verifying: {asked}")
    report = collect.verify(face.store, face.store.find_image(asked))
    if not report.is_good:
        for line in report.damaged:
            face.error(f"{line}")
        raise Usage("image verification failure")
    face.info("Info: image Ok")
    return 0


def do_load(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-i": (VALUE, "file"), "--input": (VALUE, "file")})
    before = {name for image in face.store.images() for name in image.names}
    with open_input(parsed.text("file", "-")) as stream:
        found = transfer.load(face.store, stream)
    for image in found:
        if parsed.words:
            image = face.store.tag(image, parsed.words[0])
            face.out(Reference.parse(parsed.words[0]).familiar)
            continue
        for name in [new for new in image.names if new not in before] or image.names:
            face.out(Reference.parse(name).familiar)
    return 0


def do_save(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-o": (VALUE, "file"), "--output": (VALUE, "file")})
    if not parsed.words:
        raise Usage("must specify image:tag or repository/image:tag")
    wanted = [(face.store.find_image(name), name) for name in parsed.words]
    with open_output(parsed.text("file", "-")) as stream:
        transfer.save(face.store, [(image, names_for(image, name)) for image, name in wanted], stream)
    return 0


def do_import(face: Face, words: list[str]) -> int:
    parsed = parse(words, _IMPORT)
    if parsed.flag("clone"):
        raise Usage("--clone: udocker's own format is not read; import a plain tarball")
    if not 1 <= len(parsed.words) <= 2:
        raise Usage("must specify tar filename and image")
    path, name = parsed.words[0], parsed.words[1] if len(parsed.words) == 2 else "imported:latest"
    if len(parsed.words) == 1 and not parsed.flag("container"):
        raise Usage("must specify image:tag or repository/image:tag")
    if parsed.flag("container"):
        return _import_container(face, path, name, parsed.text("name"))
    if _has_image(face, name):
        face.info(f"Info: tag already exists in repo: {Reference.parse(name).tag}")
        raise Usage("importing")
    with open_input(path) as stream:
        image = transfer.import_tarball(face.store, stream, name)
    face.info(f"Info: added layer {image.layers[-1].diff_id.partition(':')[2]}")
    return 0


def _import_container(face: Face, path: str, image_name: str, name: str) -> int:
    """No image is left of it but what the container itself needs."""
    passing = f"importing-{os.getpid()}:latest"
    with open_input(path) as stream:
        image = transfer.import_tarball(face.store, stream, passing)
    try:
        record = face.store.create_container(image, name or None, image_name=image_name)
    finally:
        face.store.remove_image(passing, is_forced=True)
    face.out(uuid_of(record))
    return 0


def _has_image(face: Face, name: str) -> bool:
    wanted = str(Reference.parse(name))
    return any(wanted in image.names for image in face.store.images())
