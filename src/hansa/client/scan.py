"""Files named in a command travel by themselves: which words of a command are files, and of which tasks."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hansa.client.arrays import Array, filler, has_template
from hansa.client.errors import INPUT, USAGE, HansaError
from hansa.client.files import Source, check_dest, merge, missing, source, tree
from hansa.client.units import show_count

_OPTION = re.compile(r"--?[A-Za-z][\w-]*=(.+)", re.DOTALL)
_OF_SYSTEM = (
    "/bin/",
    "/sbin/",
    "/usr/",
    "/lib",
    "/etc/",
    "/opt/",
    "/dev/",
    "/proc/",
    "/sys/",
    "/nix/",
    "/snap/",
)


@dataclass
class Found:
    """The command as it runs there, the files of all tasks, those of single tasks, and what to tell."""

    command: list[str]
    shared: list[Source] = field(default_factory=list)
    per_task: list[list[Source]] | None = None
    notes: list[str] = field(default_factory=list)

    def add_task_files(self, files: list[Source | None]) -> None:
        if self.per_task is None:
            self.per_task = [[] for _ in files]
        for mine, new in zip(self.per_task, files, strict=True):
            if new is not None:
                mine.append(new)


def scan_command(command: list[str], array: Array | None, base: Path) -> Found:
    """Find the files that a command names, relative to ``base`` (the current directory, or --workdir)."""
    found = Found(list(command))
    found.command[0] = _scan_program(command[0], array, base, found)
    for word in command[1:]:
        option = _OPTION.fullmatch(word)
        _scan_word(option[1] if option else word, array, base, found)
    return found


def _scan_program(word: str, array: Array | None, base: Path, found: Found) -> str:
    if word.startswith("/") or (array and has_template(word, array.known())):
        return word
    path = base / word
    if not path.is_file():
        if "/" in word:
            raise HansaError(
                INPUT,
                f"There is no program {word}.",
                hint=f"It would be {path.absolute()}. Without a slash it is looked up where the job runs.",
            )
        return word
    if "/" not in word and shutil.which(word):
        return word  # a program of the system that has the name of a file here, as with any shell
    if not _is_inside(word):
        raise HansaError(
            INPUT,
            f"The program {word} is outside the current directory, so it is not sent.",
            hint=f"Run: hansa run --input {word} -- ./{PurePosixPath(word).name} …",
        )
    if not os.access(path, os.X_OK):
        raise HansaError(
            INPUT,
            f"{word} is not executable.",
            hint=f"Run: chmod +x {word}{_interpreter(word)}",
        )
    dest = check_dest(word)
    found.shared.append(source(path, dest))
    return word if "/" in word else f"./{word}"


def _interpreter(word: str) -> str:
    program = {".py": "python", ".sh": "sh", ".R": "Rscript", ".jl": "julia", ".pl": "perl"}.get(Path(word).suffix)
    return f", or run it as: {program} {word}" if program else ""


def _scan_word(word: str, array: Array | None, base: Path, found: Found) -> None:
    if not word or word.startswith("-") or "\n" in word or "\x00" in word or len(word) > 4096:
        return
    if array and has_template(word, array.known()):
        _scan_template(word, array, base, found)
        return
    path = base / word
    try:
        if path.is_file():
            _take_file(word, path, found)
        elif path.is_dir() and not word.startswith("/") and word.strip("./"):
            note = f"{word} is a directory and is not sent; send it with --input {word}, or all with --workdir ."
            found.notes.append(note)
    except OSError:
        return  # a word that no file can have as its name


def _take_file(word: str, path: Path, found: Found) -> None:
    if _is_inside(word):
        found.shared.append(source(path, check_dest(word)))
    elif not word.startswith(_OF_SYSTEM):
        name = PurePosixPath(word).name
        found.notes.append(
            f"{word} is not sent, as it is not below the current directory; "
            f"to send it: --input {word}, and write {name} in the command"
        )


def _is_inside(word: str) -> bool:
    return not word.startswith("/") and ".." not in PurePosixPath(word).parts


def _scan_template(word: str, array: Array, base: Path, found: Found) -> None:
    if not _is_inside(word) or not _may_exist(word, array, base):
        return
    files = [one if one and one.dest == _normal(one, base) else None for one in _of_tasks(word, word, array, base)]
    number = sum(one is not None for one in files)
    if not number:
        return
    found.add_task_files(files)
    if number < array.count:
        found.notes.append(
            f"{word}: {show_count(number, 'task has', 'tasks have')} such a file here, the other "
            f"{array.count - number:,} not; if each needs one, name it with --input {word}"
        )


def _normal(found: Source, base: Path) -> str:
    """Where a file is below the base: one from outside has another destination."""
    return os.path.relpath(found.path, base)


def _may_exist(word: str, array: Array, base: Path) -> bool:
    """Whether any file here has a name of this shape: saves a million looks for ``echo {i}``."""
    folder, _, name = word.rpartition("/")
    if has_template(folder, array.known()):
        return True
    pattern = re.escape(name)
    for known in array.known():
        pattern = pattern.replace(re.escape(f"{{{known}}}"), r"-?\d+" if known == "i" else r".*")
    try:
        with os.scandir(base / folder) as entries:
            return any(re.fullmatch(pattern, entry.name) for entry in entries)
    except OSError:
        return False


def _of_tasks(word: str, dest: str, array: Array, base: Path) -> list[Source | None]:
    """The file of each task, None where there is none here."""
    names = [*array.names, "i"]
    fill, fill_dest = filler(word, names), filler(dest, names)
    files: list[Source | None] = []
    known: dict[tuple[str, str], Source | None] = {}
    for position in range(array.count):
        values = array.values(position)
        key = (fill(values), fill_dest(values))
        if key not in known:
            path = base / key[0]
            known[key] = source(path, _place(*key)) if path.is_file() else None
        files.append(known[key])
    return files


def _place(src: str, dest: str) -> str:
    return check_dest(PurePosixPath(src).name if dest == src and not _is_inside(src) else dest)


def add_inputs(found: Found, inputs: Iterable[str], array: Array | None, base: Path) -> None:
    """Add what ``--input SRC[=DEST]`` names. Every file that is not there is in the one error."""
    absent: list[str] = []
    for text in inputs:
        for src, dest in _split(text, base):
            if array and has_template(src, array.known()):
                files = _of_tasks(src, dest, array, base)
                fill = filler(src, [*array.names, "i"])
                absent += [fill(array.values(n)) for n, one in enumerate(files) if one is None]
                found.add_task_files(files)
            elif (base / src).is_dir():
                part = tree(base / src, "" if dest == "." else check_dest(dest) + "/")
                found.shared += part.sources
                found.notes += part.notes
            elif (base / src).is_file():
                found.shared.append(source(base / src, check_dest(dest)))
            else:
                absent.append(src)
    if absent:
        raise missing(list(dict.fromkeys(absent)))


def _split(text: str, base: Path) -> Iterator[tuple[str, str]]:
    src, separator, dest = text.rpartition("=")
    if not separator or (base / text).exists():
        src, dest = text, ""
    if not src:
        raise HansaError(USAGE, f"--input {text!r} names no file.", hint="Write it as SRC or SRC=DEST.")
    if src.startswith("~"):
        src = str(Path(src).expanduser())
    if not dest:
        dest = PurePosixPath(src).as_posix() if _is_inside(src) else PurePosixPath(src).name
    elif dest.endswith("/"):
        dest += PurePosixPath(src).name
    yield src, dest


def merge_found(found: Found) -> None:
    """One file per destination, for all tasks and for each of them."""
    found.shared = merge([found.shared])
    if found.per_task is not None:
        places = {one.dest for one in found.shared}
        found.per_task = [[one for one in merge([mine]) if one.dest not in places] for mine in found.per_task]
