"""Commands that speak to registries."""

from __future__ import annotations

import getpass
import json
import sys

from hansa.compat.udocker.face import Face, Usage, one
from hansa.node.containers.credentials import Credentials
from hansa.node.containers.model import Reference
from hansa.node.containers.options import FLAG, VALUE, Table, parse
from hansa.node.containers.registry import Registry
from hansa.node.containers.verbs import registry as ours
from hansa.node.containers.web import Web

_SOURCE: Table = {
    "--platform": (VALUE, "platform"),
    "--httpproxy": (VALUE, "proxy"),
    "--index": (VALUE, "index"),
    "--registry": (VALUE, "registry"),
}
_SEARCH: Table = {**_SOURCE, "-a": (FLAG, "all"), "--no-trunc": (FLAG, "wide"), "--list-tags": (FLAG, "tags")}
_LOGIN: Table = {
    "--username": (VALUE, "user"),
    "--password": (VALUE, "password"),
    "--password-stdin": (FLAG, "stdin"),
    "--registry": (VALUE, "registry"),
}


def do_pull(face: Face, words: list[str]) -> int:
    parsed = parse(words, _SOURCE)
    name = one(parsed.words, "image:tag or repository/image:tag")
    image = ours.fetch(
        face.context, name, parsed.text("platform"), parsed.text("proxy"), registry=parsed.text("registry")
    )
    for layer in image.layers:
        face.info(f"Info: downloading layer {layer.digest}")
    return 0


def do_search(face: Face, words: list[str]) -> int:
    parsed = parse(words, _SEARCH)
    expression = one(parsed.words, "the expression")
    web = Web(ours.settings(face.context, parsed.text("proxy")))
    try:
        if parsed.flag("tags"):
            reference = Reference.parse(expression, ours.host_of(parsed.text("registry")))
            for tag in Registry(reference.registry, web).tags(reference.repository):
                face.out(tag)
            return 0
        host, term = ours.split_search(expression, parsed.text("registry"))
        found = Registry(host, web).search(term)
    finally:
        web.close()
    shape = "{:<55} {:>8} {:<70} {:>5}" if parsed.flag("wide") else "{:<55.80} {:>8.8} {:<70.70} {:>5.5}"
    face.info(shape.format("NAME", "OFFICIAL", "DESCRIPTION", "STARS"))
    for item in found:
        text = item.description.replace("\n", " ")
        face.out(shape.format(item.name, "[OK]" if item.is_official else "----", text, str(item.stars)))
    return 0


def do_login(face: Face, words: list[str]) -> int:
    parsed = parse(words, _LOGIN)
    host = ours.host_of(parsed.text("registry"))
    user = parsed.text("user") or input("username: ")
    if parsed.flag("stdin"):
        secret = sys.stdin.readline().rstrip("\n")
    else:
        secret = parsed.text("password") or getpass.getpass("password: ")
    if not user or not secret:
        raise Usage("invalid credentials")
    ours.sign_in(face.context, host, user, secret)
    return 0


def do_logout(face: Face, words: list[str]) -> int:
    parsed = parse(words, {"-a": (FLAG, "all"), "--registry": (VALUE, "registry")})
    known = Credentials.standard(face.context.environ)
    if parsed.flag("all"):
        if not known.logout_all():
            raise Usage("deleting credentials")
        return 0
    if not known.logout(ours.host_of(parsed.text("registry"))):
        raise Usage("deleting credentials")
    return 0


def do_manifest(face: Face, words: list[str]) -> int:
    parsed = parse(words, _SOURCE)
    if len(parsed.words) != 2 or parsed.words[0] != "inspect":
        raise Usage("invalid subcommand")
    document = ours.remote_manifest(face.context, parsed.words[1], parsed.text("platform"))
    face.out(json.dumps(document, sort_keys=True, indent=4, separators=(",", ": ")))
    return 0
