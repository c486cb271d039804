"""One operation per route: what to ask, how often to try, what the answer means. No input and output here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from hansa.accounting.wire import UsagePage
from hansa.client.effects import (
    FileBody,
    Now,
    Operation,
    Pause,
    Reconnect,
    Request,
    Response,
    Unreachable,
)
from hansa.client.errors import NOT_HANSA, SERVER_AWAY, HansaError, ServerAway, of_response
from hansa.identity.wire import (
    Authority,
    AuthorityList,
    Client,
    ClientList,
    IdentityList,
    Invitation,
    Member,
    MemberChange,
    MemberPage,
    NewClient,
    NewGroup,
    NewInvitation,
    NewService,
    NewSiteCredential,
    NewUser,
    NewUserToken,
    NewVo,
    RotatedKey,
    Service,
    ServiceList,
    Suspension,
    Token,
    User,
    UserPage,
    Vo,
    VoChange,
    VoPage,
    VoRule,
)
from hansa.images.wire import (
    ImagePolicy,
    NewEndorsement,
    NewImage,
    NewSubscription,
    NewVersion,
    Subscription,
    SubscriptionPage,
    VmImage,
    VmImagePage,
    Withdrawal,
)
from hansa.jobs.wire import (
    Explanation,
    FileKey,
    FileKeys,
    Following,
    History,
    HistoryEntry,
    Job,
    JobInputs,
    JobPage,
    JobSpec,
    JobUsage,
    LogLine,
    MissingFiles,
    NewChannel,
    NewRegistryLogin,
    OpenedChannel,
    PilotPage,
    Received,
    RegistryLogin,
    RegistryLoginList,
    Selection,
    TaskFilePage,
    TaskPage,
    TaskUsage,
)
from hansa.kernel.wire import decode, encode
from hansa.machines.sync_wire import ImagePlacePage
from hansa.node.protocol import ChannelReply, ChannelRequest, File
from hansa.placement.wire import Plan, PlanRequest
from hansa.portal.wire import SignIn
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant, GrantCaps, GrantPage, GrantTerms, RefuseGrant
from hansa.sites.wire import (
    Admins,
    BanPage,
    BanView,
    CheckReport,
    DowntimePage,
    DowntimeView,
    Drain,
    HealthReport,
    ImportReport,
    ImportRequest,
    NewBan,
    NewDowntime,
    OwnSite,
    Site,
    SitePage,
)

T = TypeVar("T")
PATIENCE_S = 10.0
"""How long a request that may be repeated is repeated before the server counts as away."""
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
LONG_POLL_SLACK_S = 15.0
RESUME_BYTES = 8 * 1024**2
"""Of larger files the server keeps what came when an upload breaks off."""
OFFSET = "jobs.offset"
NOT_FOUND = "kernel.not_found"

Note = Callable[[str], None]


@dataclass
class Trying:
    """How patient to be, and who hears of it."""

    patience_s: float = PATIENCE_S
    note: Note | None = None
    is_noted: bool = field(default=False, init=False)


def call(request: Request, trying: Trying | None = None) -> Operation[Response]:
    """Ask until there is an answer: refused and broken connections and 503 are repeated with back-off.

    Raises ServerAway when patience ends, HansaError for an answer that is an error.
    """
    how = trying or Trying()
    began: float = yield Now()
    delay = FIRST_DELAY_S
    while True:
        cause: Exception | None = None
        try:
            response: Response = yield request
        except Unreachable as error:
            cause, arrived, wait_s = error, error.arrived, delay
        else:
            if response.status != 503:
                return _checked(request, response)
            arrived, wait_s = False, _retry_after(response, delay)
        now: float = yield Now()
        left = how.patience_s - (now - began)
        if left <= 0 or (arrived and not request.repeatable):
            raise _away(request, cause, response if cause is None else None) from cause
        _tell(how)
        if request.restart is not None and request.repeatable:
            request.restart()
        if cause is not None:
            yield Reconnect()
        yield Pause(min(wait_s, max(left, 0.01)))
        delay = min(delay * 2, LAST_DELAY_S)


def _tell(how: Trying) -> None:
    if how.note is not None and not how.is_noted:
        how.is_noted = True
        how.note("the server does not answer; trying again (what it has accepted goes on)")


def _checked(request: Request, response: Response) -> Response:
    if response.status >= 400:
        raise of_response(response.status, response.body, f"{request.method} {request.path}")
    return response


def _retry_after(response: Response, default_s: float) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", default_s)))
    except ValueError:
        return default_s


def _away(request: Request, cause: Exception | None, response: Response | None) -> HansaError:
    if response is not None:
        return of_response(response.status, response.body, f"{request.method} {request.path}")
    return ServerAway(
        SERVER_AWAY,
        f"The server does not answer: {cause}.",
        hint="Look at: hansa status. An embedded server starts with: hansa up.",
    )


def get(kind: type[T], path: str, trying: Trying | None = None, **query: Any) -> Operation[T]:
    """GET an object of the API."""
    response = yield from call(Request("GET", path, query), trying)
    return _read(kind, response)


def post(kind: type[T], path: str, body: Any, headers: dict[str, str] | None = None) -> Operation[T]:
    """POST an object; all our POSTs do no harm when repeated, those that create carry a key."""
    request = Request("POST", path, body=_json(body), headers=headers or {}, timeout_s=120.0)
    response = yield from call(request)
    return _read(kind, response)


def send(kind: type[T], method: str, path: str, body: Any = None, *, repeatable: bool = True) -> Operation[T]:
    """Change something by an object; not sent twice where that would make two, or fail the second time."""
    content = _json({} if body is None else body)
    response = yield from call(Request(method, path, body=content, timeout_s=120.0, repeatable=repeatable))
    return _read(kind, response)


def raw(method: str, path: str, body: Any = None) -> Operation[Any]:
    """Any call of the API; sent once, as nobody knows what it does."""
    content = None if body is None else _json(body)
    response = yield from call(Request(method.upper(), path, body=content, timeout_s=120.0, repeatable=False))
    return json.loads(response.body) if response.body else None


def _json(body: Any) -> bytes:
    return json.dumps(encode(body), separators=(",", ":"), ensure_ascii=False).encode()


def _read(kind: type[T], response: Response) -> T:
    try:
        return decode(kind, json.loads(response.body))
    except (ValueError, KeyError, TypeError) as error:
        raise HansaError(
            NOT_HANSA,
            f"The answer of the server is not what was expected ({error}).",
            hint="Check the address (HANSA_SERVER), and the server's version: hansa status.",
        ) from error


def health() -> Operation[dict[str, Any]]:
    """How the server is; needs no token."""
    return (yield from get(dict, "/health"))


def submit(spec: JobSpec, key: str | None = None) -> Operation[Job]:
    """Submit a job. The Idempotency-Key makes it safe to repeat."""
    return (yield from post(Job, "/jobs", spec, {"Idempotency-Key": key or uuid.uuid4().hex}))


def job(number: int | str) -> Operation[Job]:
    return (yield from get(Job, f"/jobs/{quote(str(number), safe='')}"))


def jobs(
    phase: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    after: str | None = None,
    query: str | None = None,
) -> Operation[JobPage]:
    return (yield from get(JobPage, "/jobs", phase=phase, name=name, q=query or None, limit=limit, after=after))


def follow(
    number: int,
    cursor: str,
    wait_s: float,
    *,
    logs: bool,
    trying: Trying | None = None,
    since: datetime | None = None,
) -> Operation[Following]:
    """The job and what is new since the cursor; held by the server for up to ``wait_s``."""
    query = {"cursor": cursor or None, "wait_s": f"{wait_s:.3f}", "logs": None if logs else "false"}
    query["since"] = since.isoformat() if since else None
    request = Request("GET", f"/jobs/{number}/follow", query, timeout_s=wait_s + LONG_POLL_SLACK_S)
    response = yield from call(request, trying)
    return _read(Following, response)


def tasks(
    number: int,
    after: str | None = None,
    limit: int | None = None,
    phase: str | None = None,
    task: int | None = None,
) -> Operation[TaskPage]:
    path = f"/jobs/{number}/tasks"
    return (yield from get(TaskPage, path, after=after, limit=limit, phase=phase, task=task))


def task_files(
    number: int, task: int | None = None, after: str | None = None, limit: int | None = None
) -> Operation[TaskFilePage]:
    return (yield from get(TaskFilePage, f"/jobs/{number}/files", task=task, after=after, limit=limit))


def download(
    number: int, index: int, path: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int = 0
) -> Operation[None]:
    """The content of an output file from ``start`` on; see :func:`download_from`."""
    yield from download_from(f"/jobs/{number}/tasks/{index}/files/{quote(path)}", sink, restart, start)


def content(
    digest: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int = 0
) -> Operation[None]:
    """A content that the caller has uploaded, in the same way."""
    yield from download_from(f"/files/{quote(digest)}", sink, restart, start)


def inputs(number: int, task: int | None = None) -> Operation[list[File]]:
    """The input files of a job; with those of one of its tasks."""
    return (yield from get(JobInputs, f"/jobs/{number}/inputs", task=task)).items


def history(number: int) -> Operation[list[HistoryEntry]]:
    """What has happened to a job, the oldest first."""
    return (yield from get(History, f"/jobs/{number}/history")).items


def download_from(
    address: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int
) -> Operation[None]:
    """A content from ``start`` on, piece by piece; where the connection breaks it goes on there.

    ``restart`` is called where it begins anew after all.
    """
    at = _Position(start, sink, restart)
    moved: float = yield Now()
    delay = FIRST_DELAY_S
    while True:
        before = at.bytes
        headers = {"Range": f"bytes={before}-"} if before else {}
        try:
            yield from call(Request("GET", address, {}, None, headers, None, False, at.add, at.restart))
            return
        except ServerAway:
            now: float = yield Now()
            moved = now if at.bytes > before else moved
            if now - moved > PATIENCE_S:
                raise
        yield Reconnect()
        yield Pause(delay)
        delay = min(delay * 2, LAST_DELAY_S)


class _Position:
    """How far a download has come."""

    def __init__(self, start: int, sink: Callable[[bytes], None], restart: Callable[[], object]) -> None:
        self.bytes = start
        self._sink = sink
        self._restart = restart

    def add(self, piece: bytes) -> None:
        self._sink(piece)
        self.bytes += len(piece)

    def restart(self) -> None:
        self._restart()
        self.bytes = 0


def log(
    number: int,
    task: int | None,
    stream: str,
    sink: Callable[[bytes], None],
    tail_bytes: int | None = None,
    attempt: int | None = None,
    *,
    tail_lines: int | None = None,
    since: datetime | None = None,
    grep: str | None = None,
) -> Operation[tuple[int, int]]:
    """One stream of one task, piece by piece; of which attempt that is, and at which offset it began."""
    query: dict[str, str | int | None] = {"task": task, "stream": stream, "attempt": attempt}
    query |= {"tail_bytes": tail_bytes, "tail_lines": tail_lines, "since": since.isoformat() if since else None}
    query["grep"] = grep
    response = yield from call(Request("GET", f"/jobs/{number}/logs", query, sink=sink, repeatable=False))
    return int(response.headers.get("x-log-attempt", 0)), int(response.headers.get("x-log-start", 0))


def lines(
    number: int, grep: str, stream: str, hear: Callable[[LogLine], None], since: datetime | None = None
) -> Operation[None]:
    """Lines of all tasks of a job in which a regular expression is found, as they came."""
    rest = b""

    def sink(piece: bytes) -> None:
        nonlocal rest
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line:
                hear(decode(LogLine, json.loads(line)))

    query = {"grep": grep, "stream": stream, "since": since.isoformat() if since else None}
    yield from call(Request("GET", f"/jobs/{number}/lines", query, sink=sink, repeatable=False))


def kill(number: int, tasks: list[int] | None = None) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/kill", Selection(tasks)))


def retry(number: int, tasks: list[int] | None = None) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/retry", Selection(tasks), {"Idempotency-Key": uuid.uuid4().hex}))


def hold(number: int) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/hold", {}))


def release(number: int) -> Operation[Job]:
    return (yield from send(Job, "POST", f"/jobs/{number}/release", repeatable=False))


def explain(number: int, task: int | None = None) -> Operation[Explanation]:
    return (yield from get(Explanation, f"/jobs/{number}/explain", task=task))


def task_usage(number: int, task: int, attempt: int | None = None) -> Operation[TaskUsage]:
    return (yield from get(TaskUsage, f"/jobs/{number}/tasks/{task}/usage", attempt=attempt))


def job_usage(number: int) -> Operation[JobUsage]:
    return (yield from get(JobUsage, f"/jobs/{number}/usage"))


def missing(keys: list[FileKey]) -> Operation[list[str]]:
    """Which of these contents the server lacks."""
    found = yield from post(MissingFiles, "/files/missing", FileKeys(keys))
    return found.missing


def upload(digest: str, body: FileBody | bytes) -> Operation[None]:
    """Send one content. Repeating it does no harm: it is named by its digest."""
    query = {"offset": body.offset or None} if isinstance(body, FileBody) else {}
    yield from call(Request("PUT", f"/files/{digest}", query, body=body, timeout_s=300.0))


def upload_file(digest: str, body: FileBody) -> Operation[None]:
    """Send one file; a large one goes on where an earlier upload of it, or this one, broke off."""
    sent = 0

    def count(number: int) -> None:
        nonlocal sent
        sent += number
        if body.progress is not None:
            body.progress(number)

    best = -1
    moved: float = yield Now()
    while True:
        offset = (yield from _received(digest, body.size)) if body.size > RESUME_BYTES else 0
        count(offset - sent)
        now: float = yield Now()
        moved, best = (now, offset) if offset > best else (moved, best)
        rest = FileBody(body.path, body.size, count, offset)
        query = {"offset": offset or None}
        try:
            yield from call(Request("PUT", f"/files/{digest}", query, rest, timeout_s=300.0, repeatable=False))
            return
        except ServerAway:
            now = yield Now()
            if now - moved > PATIENCE_S:
                raise
            yield Reconnect()
            yield Pause(FIRST_DELAY_S * 5)
        except HansaError as error:
            if error.code.code != OFFSET or offset == best == 0:
                raise


def _received(digest: str, size: int) -> Operation[int]:
    """How much of it the server has; 0 where it does not know that question."""
    try:
        return (yield from get(Received, f"/files/{digest}/received", size=size)).received
    except HansaError as error:
        if error.code.code != NOT_FOUND:
            raise
        return 0


def sites(after: str | None = None) -> Operation[SitePage]:
    return (yield from get(SitePage, "/sites", after=after))


def site(name: str) -> Operation[Site]:
    return (yield from get(Site, f"/sites/{quote(name, safe='')}"))


def add_site(site: dict[str, Any]) -> Operation[Site]:
    """Join a site; ``site`` is what its file says. The server looks at it."""
    return (yield from send(Site, "POST", "/sites", site, repeatable=False))


def check_site(site: dict[str, Any]) -> Operation[CheckReport]:
    """What joining the site would meet; nothing is joined."""
    return (yield from send(CheckReport, "POST", "/sites/check", site))


def import_sites(documents: dict[str, Any], vo_mappings: dict[str, str]) -> Operation[ImportReport]:
    return (yield from send(ImportReport, "POST", "/sites/import", ImportRequest(documents, vo_mappings)))


def add_own_site(host: str, name: str | None = None, config: str | None = None) -> Operation[Site]:
    """A host of one's own SSH configuration, as a site of the server on this computer."""
    return (yield from send(Site, "POST", "/sites/own", OwnSite(host, name, config), repeatable=False))


def probe_site(name: str) -> Operation[None]:
    yield from call(Request("POST", f"/sites/{_part(name)}/probe"))


def change_site(name: str, site: dict[str, Any]) -> Operation[Site]:
    return (yield from send(Site, "PUT", f"/sites/{_part(name)}", site))


def remove_site(name: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{_part(name)}", repeatable=False))


def plan(request: PlanRequest) -> Operation[Plan]:
    """Where something would run now; nothing is started."""
    return (yield from send(Plan, "POST", "/plan", request))


def grants(after: str | None = None) -> Operation[GrantPage]:
    return (yield from get(GrantPage, "/grants", after=after))


def grant(vo: str, site: str) -> Operation[Grant]:
    return (yield from get(Grant, f"/grants/{_part(vo)}/{_part(site)}"))


def ask_grant(vo: str, site: str, terms: GrantTerms, note: str = "") -> Operation[Grant]:
    """Ask a site for capacity; asked twice it is asked once."""
    return (yield from send(Grant, "POST", "/grants", AskGrant(vo, site, terms, note)))


def agree_grant(vo: str, site: str, terms: GrantTerms | None = None, note: str = "") -> Operation[Grant]:
    """Agree to what was asked (None), or to other terms."""
    return (yield from send(Grant, "POST", f"/grants/{_part(vo)}/{_part(site)}/agree", AgreeGrant(terms, note)))


def refuse_grant(vo: str, site: str, why: str) -> Operation[Grant]:
    path = f"/grants/{_part(vo)}/{_part(site)}/refuse"
    return (yield from send(Grant, "POST", path, RefuseGrant(why), repeatable=False))


def cap_grant(vo: str, site: str, caps: GrantCaps) -> Operation[Grant]:
    return (yield from send(Grant, "PUT", f"/grants/{_part(vo)}/{_part(site)}/caps", caps))


def set_site_policy(name: str, policy: dict[str, Any]) -> Operation[Site]:
    return (yield from send(Site, "PUT", f"/sites/{_part(name)}/policy", policy))


def set_site_admins(name: str, users: list[str]) -> Operation[Admins]:
    return (yield from send(Admins, "PUT", f"/sites/{_part(name)}/admins", Admins(users)))


def drain_site(name: str, why: str) -> Operation[Site]:
    return (yield from send(Site, "POST", f"/sites/{_part(name)}/drain", Drain(why)))


def resume_site(name: str) -> Operation[Site]:
    return (yield from send(Site, "POST", f"/sites/{_part(name)}/resume"))


def bans(name: str) -> Operation[BanPage]:
    return (yield from get(BanPage, f"/sites/{_part(name)}/bans"))


def ban(name: str, new: NewBan) -> Operation[BanView]:
    return (yield from send(BanView, "POST", f"/sites/{_part(name)}/bans", new))


def unban(name: str, kind: str, who: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{_part(name)}/bans/{kind}/{_part(who)}"))


def downtimes(name: str, since: str | None = None) -> Operation[DowntimePage]:
    return (yield from get(DowntimePage, f"/sites/{_part(name)}/downtimes", since=since))


def announce_downtime(name: str, new: NewDowntime) -> Operation[DowntimeView]:
    path = f"/sites/{_part(name)}/downtimes"
    return (yield from send(DowntimeView, "POST", path, new, repeatable=False))


def end_downtime(name: str, downtime: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/sites/{_part(name)}/downtimes/{_part(downtime)}", repeatable=False))


def site_health(name: str, days: int = 30) -> Operation[HealthReport]:
    return (yield from get(HealthReport, f"/sites/{_part(name)}/health", days=days))


def whoami() -> Operation[User]:
    return (yield from get(User, "/whoami"))


def portal_sign_in() -> Operation[SignIn]:
    return (yield from post(SignIn, "/portal/sign-ins", None, {}))


def add_user(name: str) -> Operation[NewUserToken]:
    return (yield from post(NewUserToken, "/users", NewUser(name), {"Idempotency-Key": uuid.uuid4().hex}))


def usage(by: str | None = None, **asked: Any) -> Operation[UsagePage]:
    """Sums of usage records, ``by`` words with commas; ``asked``: since, until, vo, site, user, everybody."""
    query: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, False)}
    query |= {"everybody": "true"} if asked.get("everybody") else {}
    return (yield from get(UsagePage, "/usage", by=by, **query))


def usage_apel(since: str | None = None, until: str | None = None, site: str | None = None) -> Operation[str]:
    """Usage as APEL's summary messages."""
    response = yield from call(Request("GET", "/usage/apel", {"since": since, "until": until, "site": site}))
    return response.body.decode()


def pilots_of(job: int, limit: int | None = None) -> Operation[PilotPage]:
    """The pilots of a job, with what their batch systems were given."""
    return (yield from get(PilotPage, f"/jobs/{job}/pilots", limit=limit))


def pilots(limit: int | None = None, after: str | None = None) -> Operation[PilotPage]:
    return (yield from get(PilotPage, "/pilots", limit=limit, after=after))


def users(after: str | None = None) -> Operation[UserPage]:
    return (yield from get(UserPage, "/users", after=after))


def invite_user(name: str) -> Operation[Invitation]:
    """A link with which a user, new or not, sets a password; earlier ones are void."""
    return (yield from send(Invitation, "POST", "/users/invitations", NewUser(name)))


def suspend_user(name: str, *, suspended: bool) -> Operation[User]:
    path = f"/users/{_part(name)}/{'suspend' if suspended else 'resume'}"
    return (yield from send(User, "POST", path))


def add_client(new: NewClient) -> Operation[Client]:
    return (yield from send(Client, "POST", "/clients", new, repeatable=False))


def clients(after: str | None = None) -> Operation[ClientList]:
    return (yield from get(ClientList, "/clients", after=after))


def remove_client(name: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/clients/{_part(name)}", repeatable=False))


def rotate_key() -> Operation[RotatedKey]:
    return (yield from send(RotatedKey, "POST", "/keys/rotate", repeatable=False))


def create_vo(name: str, description: str = "", manager: str | None = None) -> Operation[Vo]:
    return (yield from send(Vo, "POST", "/vos", NewVo(name, description, manager), repeatable=False))


def vos(after: str | None = None) -> Operation[VoPage]:
    return (yield from get(VoPage, "/vos", after=after))


def vo(name: str) -> Operation[Vo]:
    return (yield from get(Vo, f"/vos/{_part(name)}"))


def describe_vo(name: str, text: str) -> Operation[Vo]:
    return (yield from send(Vo, "PATCH", f"/vos/{_part(name)}", VoChange(text)))


def suspend_vo(name: str, why: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{_part(name)}/suspend", Suspension(why)))


def resume_vo(name: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{_part(name)}/resume"))


def add_group(name: str, group: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{_part(name)}/groups", NewGroup(group)))


def invite(name: str, roles: list[Any], groups: list[str], lasts_s: int | None = None) -> Operation[Invitation]:
    """A link that makes one person a member."""
    body = NewInvitation(roles, groups, lasts_s)
    return (yield from send(Invitation, "POST", f"/vos/{_part(name)}/invitations", body, repeatable=False))


def join_vo(token: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", "/vos/join", Token(token), repeatable=False))


def members(name: str, after: str | None = None) -> Operation[MemberPage]:
    return (yield from get(MemberPage, f"/vos/{_part(name)}/members", after=after))


def change_member(name: str, member: str, roles: list[Any] | None, groups: list[str] | None) -> Operation[Member]:
    return (yield from send(Member, "PATCH", _member(name, member), MemberChange(roles, groups)))


def remove_member(name: str, member: str) -> Operation[None]:
    yield from call(Request("DELETE", _member(name, member), repeatable=False))


def suspend_member(name: str, member: str, why: str) -> Operation[Member]:
    return (yield from send(Member, "POST", f"{_member(name, member)}/suspend", Suspension(why)))


def resume_member(name: str, member: str) -> Operation[Member]:
    return (yield from send(Member, "POST", f"{_member(name, member)}/resume"))


def rule_vo(name: str, issuer: str | None, issuer_vo: str | None, assurance: list[Any]) -> Operation[Vo]:
    """Let an issuer say who is in a VO, or (None) invitations."""
    return (yield from send(Vo, "PUT", f"/vos/{_part(name)}/rule", VoRule(issuer, issuer_vo, assurance)))


def services(name: str, after: str | None = None) -> Operation[ServiceList]:
    return (yield from get(ServiceList, f"/vos/{_part(name)}/services", after=after))


def add_service(name: str, service: str, scopes: list[Any]) -> Operation[Service]:
    """A service account; its secret is shown once."""
    body = NewService(service, scopes) if scopes else NewService(service)
    return (yield from send(Service, "POST", f"/vos/{_part(name)}/services", body, repeatable=False))


def remove_service(name: str, service: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/vos/{_part(name)}/services/{_part(service)}", repeatable=False))


def site_credentials(name: str, after: str | None = None) -> Operation[AuthorityList]:
    return (yield from get(AuthorityList, f"/vos/{_part(name)}/credentials", after=after))


def set_site_credential(name: str, site: str, fields: dict[Any, Any], expires: datetime | None) -> Operation[Authority]:
    """What a VO signs in with at a site, in the place of what there was."""
    body = NewSiteCredential(fields, expires)
    return (yield from send(Authority, "PUT", f"/vos/{_part(name)}/credentials/{_part(site)}", body))


def identities(after: str | None = None) -> Operation[IdentityList]:
    return (yield from get(IdentityList, "/identities", after=after))


def unlink(identity: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/identities/{_part(identity)}", repeatable=False))


def authority(after: str | None = None) -> Operation[AuthorityList]:
    """The grants under which the server acts while the caller is away."""
    return (yield from get(AuthorityList, "/authority", after=after))


def revoke_authority(grant: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/authority/{_part(grant)}", repeatable=False))


def registry_logins() -> Operation[RegistryLoginList]:
    """Where the caller's jobs sign in to get container images."""
    return (yield from get(RegistryLoginList, "/registry-logins"))


def put_registry_login(registry: str, username: str, password: str) -> Operation[RegistryLogin]:
    """Keep a login for the caller's jobs."""
    body = NewRegistryLogin(username, password)
    return (yield from send(RegistryLogin, "PUT", f"/registry-logins/{_part(registry)}", body))


def remove_registry_login(registry: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/registry-logins/{_part(registry)}", repeatable=False))


def vm_images(after: str | None = None) -> Operation[VmImagePage]:
    return (yield from get(VmImagePage, "/vm-images", after=after))


def vm_image(name: str) -> Operation[VmImage]:
    return (yield from get(VmImage, f"/vm-images/show/{quote(name)}"))


def add_vm_image(new: NewImage) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", "/vm-images", new, repeatable=False))


def add_vm_image_version(name: str, new: NewVersion) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/versions/{quote(name)}", new, repeatable=False))


def upload_vm_image(name: str, version: str, body: FileBody) -> Operation[VmImage]:
    """The content of a version that waits for it."""
    path = f"/vm-images/upload/{_part(version)}/{quote(name)}"
    return _read(VmImage, (yield from call(Request("PUT", path, body=body, timeout_s=3600.0, repeatable=False))))


def download_vm_image(
    name: str, version: str | None, form: str | None, sink: Callable[[bytes], None], restart: Callable[[], object]
) -> Operation[None]:
    """The content of an image, piece by piece; ``restart`` is called when it begins anew."""
    query = {"version": version, "format": form}
    yield from call(Request("GET", f"/vm-images/download/{quote(name)}", query, sink=sink, restart=restart))


def withdraw_vm_image(name: str, version: str, why: str) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/withdraw/{_part(version)}/{quote(name)}", Withdrawal(why)))


def endorse_vm_image(name: str, new: NewEndorsement) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/endorse/{quote(name)}", new))


def revoke_vm_image(name: str, vo_name: str) -> Operation[VmImage]:
    return (yield from send(VmImage, "DELETE", f"/vm-images/endorse/{_part(vo_name)}/{quote(name)}"))


def image_policy(vo_name: str) -> Operation[ImagePolicy]:
    return (yield from get(ImagePolicy, f"/vos/{_part(vo_name)}/image-policy"))


def set_image_policy(vo_name: str, policy: ImagePolicy) -> Operation[ImagePolicy]:
    return (yield from send(ImagePolicy, "PUT", f"/vos/{_part(vo_name)}/image-policy", policy))


def image_places() -> Operation[ImagePlacePage]:
    """VM images at sites."""
    return (yield from get(ImagePlacePage, "/vm-image-places"))


def image_list(vo_name: str) -> Operation[dict[str, Any]]:
    return (yield from get(dict, f"/vos/{_part(vo_name)}/image-list"))


def image_subscriptions(vo_name: str) -> Operation[SubscriptionPage]:
    return (yield from get(SubscriptionPage, f"/vos/{_part(vo_name)}/image-subscriptions"))


def subscribe_images(vo_name: str, new: NewSubscription) -> Operation[Subscription]:
    return (yield from send(Subscription, "POST", f"/vos/{_part(vo_name)}/image-subscriptions", new, repeatable=False))


def unsubscribe_images(vo_name: str, subscription: str) -> Operation[None]:
    yield from send(type(None), "DELETE", f"/vos/{_part(vo_name)}/image-subscriptions/{_part(subscription)}")


def _part(text: str) -> str:
    return quote(text, safe="")


def _member(vo: str, member: str) -> str:
    return f"/vos/{_part(vo)}/members/{_part(member)}"


def open_channel(number: int, new: NewChannel) -> Operation[OpenedChannel]:
    """Open a shell or a forward beside a running task."""
    return (yield from send(OpenedChannel, "POST", f"/jobs/{number}/channels", new, repeatable=False))


def swap_channel(channel: str, body: ChannelRequest) -> Operation[ChannelReply]:
    """Say and hear what there is to say on a channel."""
    return (yield from post(ChannelReply, f"/channels/{quote(channel, safe='')}", body))
