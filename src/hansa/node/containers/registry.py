"""A client of OCI and Docker registries: read, list, search and push.

Source: the OCI distribution specification 1.1. Pulls go to the mirrors of a registry first. Each host only ever gets
its own credentials.
"""

from __future__ import annotations

import json
import random
import re
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, TypeVar

from ..backoff import Backoff
from .auth import Authorizer
from .blobs import MAX_DOCUMENT_BYTES, digest_of
from .credentials import Credential, Credentials
from .errors import (
    ContainerError,
    DigestMismatch,
    ImageNotFound,
    RegistryAway,
    RegistryRefused,
    SignInNeeded,
)
from .manifest import ACCEPT
from .model import DOCKER_HUB, Reference
from .web import Response, Web, host_of, is_away, origin_of

TRIES = 6
MIRROR_TRIES = 2
HUB_HOST = "registry-1.docker.io"
_HUB_SEARCH = "https://index.docker.io/v1/search"
_LINK = re.compile(r"<([^>]*)>\s*;\s*rel=\"?next\"?")
_MOST_PAGES = 1000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fetched:
    """A manifest or index, checked against its digest."""

    data: bytes
    digest: str
    media_type: str


@dataclass(frozen=True)
class Found:
    """A result of a search."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False


@dataclass(frozen=True)
class _Place:
    """One host that serves a registry's repositories below a prefix."""

    host: str
    prefix: str
    authorizer: Authorizer

    def path(self, base: str, repository: str, rest: str) -> str:
        name = f"{self.prefix}/{repository}" if self.prefix else repository
        return f"{base}/v2/{urllib.parse.quote(name)}/{rest}"


class Registry:
    """One registry with its mirrors. Thread-safe. ``sleep`` waits between tries."""

    def __init__(
        self,
        name: str,
        web: Optional[Web] = None,
        credentials: Optional[Credentials] = None,
        sleep: Callable[[float], None] = time.sleep,
        rng: Optional[random.Random] = None,
    ) -> None:
        self.name = name
        self._web = web or Web()
        self._credentials = credentials or Credentials.standard()
        self._sleep = sleep
        self._rng = rng or random.Random()
        mirrors = self._web.settings.mirrors.get(name, ())
        self._own = self._make_place(HUB_HOST if name == DOCKER_HUB else name, name)
        self._places = [*(self._make_place(mirror, "") for mirror in mirrors), self._own]

    def _make_place(self, where: str, known_as: str) -> _Place:
        host, _, prefix = where.partition("/")
        return _Place(host, prefix.strip("/"), Authorizer(self._web, host, self._credentials.find(known_as or host)))

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    # Reading.

    def manifest(self, reference: Reference) -> Fetched:
        """The manifest or index of a name, from the first mirror that has it. Raises ImageNotFound and all others."""
        problem: Optional[ContainerError] = None
        for place in self._places:
            try:
                tries = TRIES if place is self._own else MIRROR_TRIES
                return self._retried(lambda at=place: self._manifest(at, reference), tries)  # type: ignore[misc]
            except (RegistryAway, RegistryRefused, SignInNeeded, ImageNotFound) as error:
                problem = error
        assert problem is not None
        raise problem

    def _manifest(self, place: _Place, reference: Reference) -> Fetched:
        url = place.path(self._base(place), reference.repository, f"manifests/{reference.wanted}")
        response = self._ask(place, "GET", url, _pull_scope(place, reference.repository), {"Accept": ACCEPT})
        self._expect(response, (200,), reference)
        data = response.body(MAX_DOCUMENT_BYTES)
        digest = digest_of(data)
        told = response.headers.get("Docker-Content-Digest", "")
        if reference.digest is not None and digest != reference.digest:
            raise DigestMismatch(f"{place.host} answers {digest} when asked for {reference}")
        if told.startswith("sha256:") and told != digest:
            raise DigestMismatch(f"{place.host} announces the manifest {told} of {reference} and sends {digest}")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Fetched(data, digest, media_type)

    def opener(self, repository: str, digest: str) -> Callable[[int], Iterator[bytes]]:
        """For ``Blobs.incoming``: the content from an offset on. Broken connections are taken up where they broke."""

        def open_at(offset: int) -> Iterator[bytes]:
            at = offset
            backoff = Backoff(self._rng)
            failures = 0
            while True:
                before = at
                try:
                    for piece in self._blob(repository, digest, at):
                        at += len(piece)
                        yield piece
                    return
                except RegistryAway as error:
                    failures = 1 if at > before else failures + 1
                    if at > before:
                        backoff.reset()
                    if failures >= TRIES:
                        raise
                    self._wait(backoff, error)

        return open_at

    def blob_bytes(self, repository: str, digest: str, size: int) -> bytes:
        """A small blob. Raises DigestMismatch."""
        if size > MAX_DOCUMENT_BYTES:
            raise RegistryRefused(f"the configuration {digest} of {repository} has {size:,} bytes: too many")
        out: List[bytes] = []
        count = 0
        for piece in self.opener(repository, digest)(0):
            count += len(piece)
            if count > size:
                break
            out.append(piece)
        data = b"".join(out)
        if count != size or digest_of(data) != digest:
            raise DigestMismatch(f"the blob {digest} from {self.name}/{repository} is damaged")
        return data

    def _blob(self, repository: str, digest: str, offset: int) -> Iterator[bytes]:
        problem: Optional[ContainerError] = None
        for place in self._places:
            url = place.path(self._base(place), repository, f"blobs/{digest}")
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            try:
                response = self._ask(place, "GET", url, _pull_scope(place, repository), headers)
                self._expect(response, (200, 206), None, f"the blob {digest} of {self.name}/{repository}")
            except (RegistryRefused, SignInNeeded, ImageNotFound, RegistryAway) as error:
                if place is self._own:
                    raise
                problem = error
                continue
            return _from_offset(response, offset)
        raise problem or RegistryAway(self.name)

    def tags(self, repository: str) -> List[str]:
        """All tags, sorted by the registry."""
        found: List[str] = []
        for document in self._pages(repository, "tags/list?n=1000"):
            found += [str(tag) for tag in document.get("tags") or ()]
        return found

    def _pages(self, repository: str, rest: str) -> Iterator[Dict[str, Any]]:
        place = self._own
        base = self._base(place)
        url = place.path(base, repository, rest) if repository else f"{base}/v2/{rest}"
        scope = _pull_scope(place, repository) if repository else "registry:catalog:*"
        for _ in range(_MOST_PAGES):
            response = self._retried(lambda at=url: self._ask(place, "GET", at, scope, {}))  # type: ignore[misc]
            self._expect(
                response, (200,), None, f"{self.name}/{repository}" if repository else f"the list of {self.name}"
            )
            link = _LINK.search(response.headers.get("Link", ""))
            yield _document(response)
            if link is None:
                return
            following = urllib.parse.urljoin(url, link.group(1))
            if origin_of(following) != origin_of(url):
                return
            url = following

    def search(self, words: str, limit: int = 25) -> List[Found]:
        """On Docker Hub its search; elsewhere the old search interface, else the names in the registry's catalogue."""
        query = urllib.parse.urlencode({"q": words, "n": limit})
        url = f"{_HUB_SEARCH}?{query}" if self.name == DOCKER_HUB else f"{self._base(self._own)}/v1/search?{query}"
        response = self._retried(lambda: self._checked(self._web.request("GET", url)))
        if response.status == 200:
            results = _document(response).get("results") or ()
            return [_found(one) for one in results if isinstance(one, dict)][:limit]
        response.close()
        if self.name == DOCKER_HUB:
            raise RegistryRefused(f"Docker Hub's search answers {response.status}")
        names: List[str] = []
        for document in self._pages("", "_catalog?n=1000"):
            names += [str(name) for name in document.get("repositories") or () if words.lower() in str(name).lower()]
            if len(names) >= limit:
                break
        return [Found(name) for name in names[:limit]]

    def check_login(self, credential: Credential) -> None:
        """Raise SignInNeeded unless the registry accepts the credential."""
        place = _Place(self._own.host, "", Authorizer(self._web, self._own.host, credential))
        response = self._retried(lambda: self._ask(place, "GET", f"{self._base(place)}/v2/", "", {}))
        self._expect(response, (200,), None, self.name)
        response.close()

    # Pushing.

    def has_blob(self, repository: str, digest: str) -> bool:
        """True if a push can leave it out."""
        url = self._own.path(self._base(self._own), repository, f"blobs/{digest}")
        response = self._retried(lambda: self._ask(self._own, "HEAD", url, self._push_scope(repository), {}))
        response.close()
        return response.status == 200

    def push_blob(
        self, repository: str, digest: str, size: int, open_pieces: Callable[[], Iterable[bytes]], mount_from: str = ""
    ) -> bool:
        """Upload, unless the registry can take it from another repository. False if nothing had to travel."""
        return self._retried(lambda: self._push_blob(repository, digest, size, open_pieces, mount_from))

    def _push_blob(
        self, repository: str, digest: str, size: int, open_pieces: Callable[[], Iterable[bytes]], mount_from: str
    ) -> bool:
        place, scope = self._own, self._push_scope(repository)
        rest = "blobs/uploads/"
        if mount_from:
            rest += "?" + urllib.parse.urlencode({"mount": digest, "from": mount_from})
        url = place.path(self._base(place), repository, rest)
        response = self._ask(place, "POST", url, scope, {"Content-Length": "0"})
        self._expect(response, (201, 202), None, f"{self.name}/{repository}")
        location = urllib.parse.urljoin(url, response.headers.get("Location", ""))
        response.body()
        if response.status == 201:
            return False
        joint = "&" if urllib.parse.urlsplit(location).query else "?"
        target = f"{location}{joint}{urllib.parse.urlencode({'digest': digest})}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        if origin_of(target) == origin_of(url):
            headers.update(place.authorizer.header(scope))
        else:
            self._web._check_target(url, target)
        response = self._checked(self._web.request("PUT", target, headers, open_pieces()))
        self._expect(response, (201, 204), None, f"the blob {digest} in {self.name}/{repository}")
        response.body()
        return True

    def push_manifest(self, reference: Reference, data: bytes, media_type: str) -> str:
        """Put a manifest or index under a tag, or under its digest where there is none. Returns its digest."""
        digest = digest_of(data)
        url = self._own.path(self._base(self._own), reference.repository, f"manifests/{reference.tag or digest}")
        headers = {"Content-Type": media_type}
        scope = self._push_scope(reference.repository)
        response = self._retried(lambda: self._ask(self._own, "PUT", url, scope, headers, data))
        self._expect(response, (200, 201, 202), reference)
        response.body()
        return digest

    def _push_scope(self, repository: str) -> str:
        return f"repository:{repository}:pull,push"

    # One request.

    def _base(self, place: _Place) -> str:
        return self._web.base_url(place.host)

    def _ask(
        self, place: _Place, method: str, url: str, scope: str, headers: Mapping[str, str], body: Optional[bytes] = None
    ) -> Response:
        for _ in range(3):
            known = place.authorizer.header(scope)
            response = self._web.request(method, url, {**headers, **known}, body)
            if response.status != 401:
                return self._checked(response)
            challenges = response.headers.get_all("WWW-Authenticate") or []
            response.close()
            place.authorizer.answer(challenges, scope, known)
        raise SignInNeeded(
            f"{place.host} refuses the tokens of its own token server", f"hansa container login {self.name}"
        )

    def _checked(self, response: Response) -> Response:
        if is_away(response.status):
            after = response.headers.get("Retry-After", "")
            response.close()
            error = RegistryAway(f"{host_of(response.url)} answers {response.status}")
            error.after_s = min(float(after), 60.0) if after.isdigit() else None  # type: ignore[attr-defined]
            raise error
        return response

    def _expect(
        self, response: Response, wanted: Tuple[int, ...], reference: Optional[Reference], what: str = ""
    ) -> None:
        if response.status in wanted:
            return
        name = what or str(reference)
        said = _problem(response)
        if response.status == 404:
            raise ImageNotFound(f"{host_of(response.url)} does not have {name}{said}")
        if response.status in (401, 403):
            raise SignInNeeded(f"{host_of(response.url)} denies {name}{said}", f"hansa container login {self.name}")
        raise RegistryRefused(f"{host_of(response.url)} answers {response.status} for {name}{said}")

    def _retried(self, action: Callable[[], Result], tries: int = TRIES) -> Result:
        backoff = Backoff(self._rng)
        for _ in range(tries - 1):
            try:
                return action()
            except RegistryAway as error:
                if error.hint:
                    raise  # trying again does not help
                self._wait(backoff, error)
        return action()

    def _wait(self, backoff: Backoff, error: RegistryAway) -> None:
        after_s = getattr(error, "after_s", None)
        self._sleep(max(backoff.next_s(), after_s or 0.0))


def _pull_scope(place: _Place, repository: str) -> str:
    name = f"{place.prefix}/{repository}" if place.prefix else repository
    return f"repository:{name}:pull"


def _from_offset(response: Response, offset: int) -> Iterator[bytes]:
    """The body from an offset on; servers may ignore ranges."""
    skip = offset
    if response.status == 206:
        skip = 0
        started = response.headers.get("Content-Range", "").partition("bytes ")[2].partition("-")[0]
        if started != str(offset):
            response.close()
            raise RegistryRefused(f"{host_of(response.url)} sends the range from {started or 'nowhere'}, not {offset}")
    for piece in response.pieces():
        if skip >= len(piece):
            skip -= len(piece)
            continue
        yield piece[skip:] if skip else piece
        skip = 0


def _document(response: Response) -> Dict[str, Any]:
    try:
        document = json.loads(response.body())
    except ValueError as error:
        raise RegistryRefused(f"{host_of(response.url)} answers with something that is not JSON") from error
    return document if isinstance(document, dict) else {}


def _problem(response: Response) -> str:
    """What the registry says about an error, in one short line."""
    try:
        document = json.loads(response.body(1 << 16))
        first = document["errors"][0]
        text = str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ContainerError):
        return ""
    printable = "".join(character for character in text[:200] if character.isprintable())
    return f": {printable}" if printable else ""


def _found(one: Mapping[str, Any]) -> Found:
    return Found(
        str(one.get("name", "")),
        str(one.get("description") or ""),
        int(one.get("star_count") or 0),
        bool(one.get("is_official")),
    )
