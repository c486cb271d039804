"""The command line of ``run``, as Docker and udocker spell it, for both faces."""

from __future__ import annotations

import os
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from .options import FLAG, MANY, OPTIONAL, VALUE, BadOption, Parsed, parse
from .semantics import RunOptions, RunRefused

PULL_WAYS = ("missing", "never", "always", "reuse")

TABLE: Dict[str, Tuple[str, str]] = {
    "--rm": (FLAG, "rm"),
    "--name": (VALUE, "name"),
    "-w": (VALUE, "workdir"),
    "--workdir": (VALUE, "workdir"),
    "-u": (VALUE, "user"),
    "--user": (VALUE, "user"),
    "-v": (MANY, "volumes"),
    "--volume": (MANY, "volumes"),
    "--novol": (MANY, "novol"),
    "-e": (MANY, "env"),
    "--env": (MANY, "env"),
    "--env-file": (MANY, "env_files"),
    "--hostauth": (FLAG, "hostauth"),
    "--containerauth": (FLAG, "containerauth"),
    "--nosysdirs": (FLAG, "nosysdirs"),
    "--nometa": (FLAG, "nometa"),
    "--dri": (FLAG, "dri"),
    "--hostenv": (FLAG, "hostenv"),
    "--bindhome": (FLAG, "bindhome"),
    "--cpuset-cpus": (VALUE, "cpus"),
    "--device": (MANY, "devices"),
    "--entrypoint": (OPTIONAL, "entrypoint"),
    "--hostname": (VALUE, "hostname"),
    "--platform": (VALUE, "platform"),
    "--pull": (OPTIONAL, "pull"),
    "-i": (FLAG, "stdin"),
    "--interactive": (FLAG, "stdin"),
    "-t": (FLAG, "tty"),
    "--tty": (FLAG, "tty"),
    "--gpus": (VALUE, "gpus"),
    "--nvidia": (FLAG, "nvidia"),
    "--subuids": (FLAG, "subuids"),
    "--engine": (VALUE, "engine"),
    # Understood because scripts say them; they change nothing here.
    "--nobanner": (FLAG, "ignored"),
    "--init": (FLAG, "ignored"),
    "--kernel": (VALUE, "ignored"),
    "--publish": (MANY, "published"),
    "-p": (MANY, "published"),
    "--publish-all": (FLAG, "ignored"),
    "--httpproxy": (VALUE, "proxy"),
    "--index": (VALUE, "ignored"),
    "--registry": (VALUE, "registry"),
    "--location": (VALUE, "location"),
    "--network": (VALUE, "network"),
    "--net": (VALUE, "network"),
    "--ipc": (VALUE, "ignored"),
    "--shm-size": (VALUE, "ignored"),
    "--ulimit": (MANY, "ignored_many"),
}


class RunRequest(NamedTuple):
    """A ``run``: what to run in, how, and what to do before and after."""

    target: str
    options: RunOptions
    name: str
    is_removed: bool
    engine: Optional[str]
    pull: str
    platform: str
    location: str
    proxy: str


def read(words: Sequence[str], *, is_udocker: bool) -> RunRequest:
    """Understand the words after ``run``. Raises BadOption, RunRefused."""
    table = dict(TABLE)
    if is_udocker:
        table["-t"] = table["-i"] = (FLAG, "ignored")
    else:
        table["-h"] = (VALUE, "hostname")
        table["--entrypoint"] = (VALUE, "entrypoint")
    parsed = parse(words, table, stops_at_word=True)
    rest = list(parsed.words)
    location = parsed.text("location")
    if not rest and not location:
        raise BadOption("run: say which container or image")
    target = rest.pop(0) if rest else ""
    network = parsed.text("network", "host")
    if network not in ("host", "bridge", "default"):
        raise RunRefused(f"network {network!r}: containers here share the host's network")
    pull = (parsed.text("pull") or "missing").lower()
    if pull not in PULL_WAYS:
        raise BadOption(f"--pull={pull}: one of {', '.join(PULL_WAYS)}")
    return RunRequest(
        target=target,
        options=_options(parsed, tuple(rest), is_udocker=is_udocker),
        name=parsed.text("name"),
        is_removed=parsed.flag("rm"),
        engine=parsed.text("engine") or None,
        pull=pull,
        platform=parsed.text("platform"),
        location=location,
        proxy=parsed.text("proxy"),
    )


def _options(parsed: Parsed, command: Tuple[str, ...], *, is_udocker: bool) -> RunOptions:
    entrypoint: Optional[Tuple[str, ...]] = None
    if parsed.has("entrypoint"):
        given = parsed.text("entrypoint")
        entrypoint = (tuple(given.split()) if is_udocker else (given,)) if given else ()
    is_terminal = os.isatty(0)
    if is_udocker:  # always at the caller's streams; with a terminal where the caller is at one
        has_stdin, has_tty = True, is_terminal and os.isatty(1)
    else:
        has_stdin, has_tty = parsed.flag("stdin"), parsed.flag("tty")
        if has_stdin and has_tty and not is_terminal:
            has_tty = False  # in batch there is none; the program reads what is there
    return RunOptions(
        command=command,
        entrypoint=entrypoint,
        env=parsed.many("env"),
        env_files=tuple(_read(path) for path in parsed.many("env_files")),
        workdir=parsed.text("workdir"),
        user=parsed.text("user"),
        volumes=parsed.many("volumes"),
        without_volumes=parsed.many("novol"),
        devices=parsed.many("devices"),
        hostname=parsed.text("hostname") or None,
        cpus=parsed.text("cpus"),
        has_host_env=parsed.flag("hostenv"),
        has_host_auth=parsed.flag("hostauth"),
        has_container_auth=parsed.flag("containerauth"),
        has_home=parsed.flag("bindhome"),
        has_dri=parsed.flag("dri"),
        has_gpu=parsed.flag("nvidia") or parsed.has("gpus"),
        has_system=not parsed.flag("nosysdirs"),
        has_meta=not parsed.flag("nometa"),
        has_stdin=has_stdin,
        has_tty=has_tty,
        has_subuids=parsed.flag("subuids"),
        is_one_path_bound=is_udocker,
        default_command=("/bin/sh",) if is_udocker else (),
        is_login=is_udocker,
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise RunRefused(f"cannot read the environment file {path}: {error}") from error
