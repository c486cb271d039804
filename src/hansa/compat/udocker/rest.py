"""Commands about the tool itself."""

from __future__ import annotations

from pathlib import Path

from hansa.compat.udocker.face import Face, Usage, one, repository
from hansa.compat.udocker.main import MODULES
from hansa.node.containers import engines
from hansa.node.containers.store import Store
from hansa.version import __version__


def do_mkrepo(_face: Face, words: list[str]) -> int:
    """Another repository; it must not be there yet."""
    path = Path(one(words, "the directory"))
    if path.exists():
        raise Usage(f"directory already exists: {path}")
    path.mkdir(parents=True)
    Store(repository({}, str(path))).layout.prepare()
    return 0


def do_showconf(face: Face, _words: list[str]) -> int:
    face.out(f"topdir = {face.store.root}")
    face.out(f"http_insecure = {face.context.is_insecure}")
    face.out(f"engines = {', '.join(engines.NAMES)}")
    return 0


def do_version(face: Face, _words: list[str]) -> int:
    face.out(f"version: {__version__}")
    face.out("tarball: none is needed")
    face.out("tarball_release: none")
    return 0


def do_install(face: Face, _words: list[str]) -> int:
    """Nothing has to be fetched."""
    face.info("Info: already installed")
    return 0


def do_help(face: Face, _words: list[str]) -> int:
    face.out("Syntax:\n  hansa-udocker  [general_options] <command>  [command_options]  <command_args>\n")
    face.out("General options: --allow-root --repo=<directory> --config=<file> --insecure -q -D\n")
    face.out("Commands: " + " ".join(MODULES))
    face.out("\nThe options of the commands are udocker's.")
    return 0
