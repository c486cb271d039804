"""Verbs that speak to registries."""

from __future__ import annotations

import getpass
import sys
import threading
from typing import Dict, List

from .. import pull as pulling
from ..context import Context, show_bytes
from ..credentials import Credential, Credentials
from ..images import inspect_remote
from ..images import push as push_image
from ..manifest import parse_platform, pick
from ..model import DOCKER_HUB, Image, Progress, Reference
from ..options import FLAG, VALUE, BadOption, Table, parse
from ..registry import Registry
from ..web import Web, WebSettings

_SOURCE: Table = {
    "--platform": (VALUE, "platform"),
    "--httpproxy": (VALUE, "proxy"),
    "--index": (VALUE, "ignored"),
    "--registry": (VALUE, "registry"),
    "--insecure": (FLAG, "insecure"),
    "-q": (FLAG, "quiet"),
}
TABLES: Dict[str, Table] = {
    "pull": _SOURCE,
    "push": _SOURCE,
    "search": {
        **_SOURCE,
        "-a": (FLAG, "all"),
        "--no-trunc": (FLAG, "no_trunc"),
        "--list-tags": (FLAG, "list_tags"),
        "--limit": (VALUE, "limit"),
        "-o": (VALUE, "output"),
    },
    "login": {
        "--username": (VALUE, "user"),
        "-u": (VALUE, "user"),
        "--password": (VALUE, "password"),
        "-p": (VALUE, "password"),
        "--password-stdin": (FLAG, "stdin"),
        "--registry": (VALUE, "registry"),
    },
    "logout": {"--registry": (VALUE, "registry"), "-a": (FLAG, "all"), "--all": (FLAG, "all")},
    "manifest": _SOURCE,
}


def settings(context: Context, proxy: str = "") -> WebSettings:
    """How to speak to registries."""
    proxies = {"http": proxy, "https": proxy} if proxy else None
    return WebSettings(is_insecure=context.is_insecure, proxies=proxies)


def host_of(text: str) -> str:
    """``https://quay.io/v2/`` is ``quay.io``; nothing, and all names of Docker Hub, are Docker Hub."""
    host = text.split("://", 1)[-1].split("/", 1)[0]
    return DOCKER_HUB if not host or host.endswith("docker.io") or host == "hub.docker.com" else host


def fetch(context: Context, name: str, platform: str = "", proxy: str = "", registry: str = "") -> Image:
    """Pull, with progress for people on stderr."""
    reference = Reference.parse(name, host_of(registry)) if registry else Reference.parse(name)
    report = None if context.is_quiet else Report()
    try:
        return pulling.pull(
            context.store,
            reference,
            settings(context, proxy),
            platform=parse_platform(platform) if platform else None,
            on_progress=report,
        )
    finally:
        if report is not None:
            report.end()


class Report:
    """Progress on a terminal as one line that changes; elsewhere a line for each finished layer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Dict[str, Progress] = {}
        self._is_terminal = sys.stderr.isatty()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            before = self._seen.get(progress.digest)
            self._seen[progress.digest] = progress
            if self._is_terminal:
                self._line()
            elif progress.phase == "done" and (before is None or before.phase != "done"):
                sys.stderr.write(f"{progress.digest[7:19]}: done, {show_bytes(progress.total)}\n")

    def _line(self) -> None:
        done = sum(one.total if one.phase in ("done", "present") else one.done for one in self._seen.values())
        total = sum(one.total for one in self._seen.values())
        busy = {one.phase for one in self._seen.values()} - {"done", "present"}
        text = f"{', '.join(sorted(busy)) or 'done'}: {show_bytes(done)} of {show_bytes(total)}"
        sys.stderr.write("\r" + text.ljust(self._width))
        self._width = len(text)

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal and self._width:
            sys.stderr.write("\n")


def pull(context: Context, words: List[str]) -> int:
    """[OPTIONS] IMAGE"""
    parsed = parse(words, TABLES["pull"])
    name = one_word(parsed.words, "pull", "IMAGE")
    context.is_insecure = context.is_insecure or parsed.flag("insecure")
    context.is_quiet = context.is_quiet or parsed.flag("quiet")
    image = fetch(context, name, parsed.text("platform"), parsed.text("proxy"), parsed.text("registry"))
    context.put(image.id)
    return 0


def push(context: Context, words: List[str]) -> int:
    """IMAGE [NAME AT THE REGISTRY]"""
    parsed = parse(words, TABLES["push"])
    if not 1 <= len(parsed.words) <= 2:
        raise BadOption("push: IMAGE [NAME]")
    context.is_insecure = context.is_insecure or parsed.flag("insecure")
    image = context.store.find_image(parsed.words[0])
    context.put(push_image(context.store, image, parsed.words[-1], settings(context, parsed.text("proxy"))))
    return 0


def search(context: Context, words: List[str]) -> int:
    """[REGISTRY/]WORDS"""
    parsed = parse(words, TABLES["search"])
    expression = one_word(parsed.words, "search", "EXPRESSION")
    context.is_insecure = context.is_insecure or parsed.flag("insecure")
    web = Web(settings(context, parsed.text("proxy")))
    try:
        if parsed.flag("list_tags"):
            reference = Reference.parse(expression, host_of(parsed.text("registry")))
            for tag in Registry(reference.registry, web).tags(reference.repository):
                context.put(tag)
            return 0
        host, term = split_search(expression, parsed.text("registry"))
        limit = parsed.text("limit", "25")
        found = Registry(host, web).search(term, int(limit) if limit.isdigit() else 25)
    finally:
        web.close()
    width = None if parsed.flag("no_trunc") else 60
    rows = [
        {"name": one.name, "official": one.is_official, "stars": one.stars, "description": one.description[:width]}
        for one in found
    ]
    context.show(rows, ("name", "official", "stars", "description"), parsed.text("output", "table"), "name")
    return 0


def split_search(expression: str, registry: str) -> "tuple[str, str]":
    """``quay.io/word`` searches Quay for ``word``."""
    first, slash, rest = expression.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return host_of(first), rest
    return host_of(registry), expression


def login(context: Context, words: List[str]) -> int:
    """[--username NAME] [--password-stdin] [REGISTRY]"""
    parsed = parse(words, TABLES["login"])
    host = host_of(parsed.text("registry") or (parsed.words[0] if parsed.words else ""))
    user = parsed.text("user") or _ask(f"user at {host}: ")
    if parsed.flag("stdin"):
        secret = sys.stdin.readline().rstrip("\n")
    else:
        secret = parsed.text("password") or getpass.getpass(f"password of {user} at {host}: ")
    sign_in(context, host, user, secret)
    context.say(f"signed in at {host} as {user}")
    return 0


def sign_in(context: Context, host: str, user: str, secret: str) -> None:
    """Try the credential at the registry, then keep it."""
    credential = Credential(user, secret)
    web = Web(settings(context))
    try:
        Registry(host, web).check_login(credential)
    finally:
        web.close()
    Credentials.standard(context.environ).login(host, credential)


def _ask(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def logout(context: Context, words: List[str]) -> int:
    """[REGISTRY] [--all]"""
    parsed = parse(words, TABLES["logout"])
    known = Credentials.standard(context.environ)
    if parsed.flag("all"):
        context.say(f"{known.logout_all()} forgotten")
        return 0
    host = host_of(parsed.text("registry") or (parsed.words[0] if parsed.words else ""))
    context.say(f"{host}: forgotten" if known.logout(host) else f"{host}: nothing was kept")
    return 0


def manifest(context: Context, words: List[str]) -> int:
    """inspect IMAGE"""
    parsed = parse(words, TABLES["manifest"])
    if len(parsed.words) != 2 or parsed.words[0] != "inspect":
        raise BadOption("manifest inspect IMAGE")
    context.is_insecure = context.is_insecure or parsed.flag("insecure")
    context.put_json(remote_manifest(context, parsed.words[1], parsed.text("platform")))
    return 0


def remote_manifest(context: Context, name: str, platform: str = "") -> object:
    """The manifest or index of a name as the registry has it now."""
    _, document = inspect_remote(name, settings(context))
    if platform and "manifests" in document:
        chosen = pick(document, parse_platform(platform), name)
        reference = Reference.parse(name).with_digest(chosen.digest)
        _, document = inspect_remote(str(reference), settings(context))
    return document


def one_word(words: List[str], verb: str, what: str) -> str:
    """The only argument. BadOption otherwise."""
    if len(words) != 1:
        raise BadOption(f"{verb}: {what} is missing" if not words else f"{verb}: one {what} only")
    return words[0]
