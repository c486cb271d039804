"""What the portal computes: pictures, forms, snippets, texts, values for people."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from hansa.client.volumes import parse_volume
from hansa.identity.model import Caller, Membership, Role
from hansa.identity.wire import Authority
from hansa.jobs.log_search import Wanted, find_lines
from hansa.jobs.overview import Bucket
from hansa.jobs.wire import After, JobSpec, Phase, Requirements, Task
from hansa.kernel import texts
from hansa.kernel.errors import Fault
from hansa.kernel.status import Party, Status
from hansa.machines.sync_wire import ImagePlace
from hansa.machines.volume_wire import MachineVolume, NewVolume
from hansa.machines.wire import Machine, MachineSize
from hansa.portal import charts, home, job_form, machine_form, results, show, site_form, snippets, volume_form
from hansa.portal.frame import templates, with_query
from hansa.portal.image_places import table_of
from hansa.portal.vo_access import read_credential
from hansa.portal.vo_members import read_rule
from hansa.portal.vos import read_subscription
from hansa.sites.capacity_wire import Grant, GrantCaps, GrantTerms
from tests.support.tools import ROOT, load_tool


def test_a_bar_shows_the_smallest_share_and_stays_inside() -> None:
    pieces = charts.stack({"done": 999_999, "failed": 1})
    assert [piece.kind for piece in pieces] == ["done", "failed"]
    assert pieces[1].width >= 0.4
    assert all(piece.x + piece.width <= 100.001 for piece in pieces)
    assert charts.stack({}) == []


def test_one_failure_among_thousands_can_be_seen_in_the_picture() -> None:
    (column,) = charts.columns([Bucket(0, 2499, 0, 0, 2499, 1, 0)])
    failed = next(piece for piece in column.pieces if piece.kind == "failed")
    assert failed.width >= 8
    assert column.title == "0 to 2,499: 2,499 done, 1 failed"
    assert len(charts.columns([Bucket(i, i, 1, 0, 0, 0, 0) for i in range(3)])) == 3


def test_a_plot_needs_two_points_and_stands_one_value() -> None:
    assert charts.dots([(1, 1, "a")]) == []
    assert {dot.y for dot in charts.dots([(1, 5, "a"), (2, 5, "b")])} == {50.0}
    assert charts.bars([2, 1, 0]) == [100.0, 50.0, 0.0]
    assert charts.bars([0.0]) == [0.0]


def form(**fields: str) -> dict[str, str]:
    return job_form.blank() | {"command": "echo 'a b'"} | fields


def test_a_form_becomes_a_job() -> None:
    spec, wrong = job_form.read(
        form(first="3", last="7", memory_gib="0,5", hours="1.5", env="A=1\nB=x=y\n", outputs="*.csv\n", name=" n ")
    )
    assert wrong == []
    assert spec == JobSpec(
        command=["echo", "a b"],
        name="n",
        array=True,
        first=3,
        count=5,
        env={"A": "1", "B": "x=y"},
        outputs=["*.csv"],
        requirements=Requirements(memory_mib=512, wall_time_s=5400),
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"command": "echo 'half"}, "command"),
        ({"command": " "}, "command"),
        ({"first": "3"}, "last"),
        ({"first": "3", "last": "2"}, "last"),
        ({"last": "ten"}, "last"),
        ({"cores": "0"}, "cores"),
        ({"cores": "9" * 50}, "cores"),
        ({"memory_gib": "much"}, "memory_gib"),
        ({"hours": "nan"}, "hours"),
        ({"env": "novalue"}, "env"),
        ({"priority": "11"}, "priority"),
    ],
)
def test_what_is_wrong_names_its_field(fields: dict[str, str], field: str) -> None:
    spec, wrong = job_form.read(form(**fields))
    assert spec is None
    assert field in {one.field for one in wrong}


def test_indices_as_people_write_them() -> None:
    assert job_form.indices(" ") is None
    assert job_form.indices("3, 7 10-12") == [3, 7, 10, 11, 12]
    for bad in ("x", "3-", "-3", "0-999999"):
        with pytest.raises(Fault):
            job_form.indices(bad)


def test_snippets_say_the_same_and_quote_it() -> None:
    spec = JobSpec(command=["echo", "a'; rm -rf b"], name="x y", array=True, count=3, env={"K": "v w"})
    found = {one.name: one.text for one in snippets.of_job(spec, "https://h.example.org")}
    words = shlex.split(found["CLI"])
    assert words[:3] == ["hansa", "job", "submit"]
    assert words[words.index("--") + 1 :] == spec.command
    assert words[words.index("--name") + 1] == "x y"
    assert "K=v w" in words
    assert "https://h.example.org/api/v1/jobs" in shlex.split(found["curl"].replace("\\\n", " "))
    compile(found["Python"], "snippet", "exec")


def test_values_for_people() -> None:
    assert doctest.testmod(show).failed == 0
    assert show.show_seconds(3725) == "1 h 02 min"
    assert show.show_hours(7200) == "2.00"
    moment = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
    assert show.show_time(moment) == '<time datetime="2026-11-25T12:30:00+00:00">2026-11-25 12:30 UTC</time>'
    assert show.show_time(None) == "–"


def test_filters_stay_in_the_address() -> None:
    assert with_query("/jobs", {"phase": "failed", "after": "x"}, after=None, q="a b") == "/jobs?phase=failed&q=a+b"
    assert with_query("/jobs", {}) == "/jobs"


def test_there_is_one_catalogue_of_texts_and_it_is_complete() -> None:
    assert load_tool("texts").main(["--check"]) == 0
    german = texts.translator({"Job {number}": "Auftrag {number}"})
    assert german("Job {number}", number=3) == "Auftrag 3"
    assert german("Files") == "Files"


def test_every_template_can_be_read() -> None:
    environment = templates()
    found = environment.list_templates()
    assert len(found) > 20
    for name in found:
        environment.get_template(name)
        source, _, _ = environment.loader.get_source(environment, name)  # type: ignore[union-attr]
        assert " style=" not in source, name
        assert "<script>" not in source, name
        assert "| safe" not in source, name


def test_a_wrong_value_never_becomes_markup() -> None:
    hostile: Any = "<script>"
    assert "<script>" not in templates().from_string("{{ value }}").render(value=hostile)


def test_a_job_is_submitted_again_as_it_was_but_for_what_was_changed() -> None:
    base = JobSpec(
        command=["fit", "{rate}"], array=True, count=2, names=["rate"], env={"A": "1"}, retry_on=[75],
        after=[After(3), After(4, "any")], labels={"k": "v"}, image="docker://python:3.12-slim",
        requirements=Requirements(cores=2, memory_mib=1000, wall_time_s=100, arch="x86_64", tags=["bigmem"]),
    )  # fmt: skip
    fields = job_form.fields_of(base, 9)
    assert job_form.like_of(fields) == 9
    assert job_form.read(fields, base) == (base, [])
    changed, _ = job_form.read(fields | {"memory_gib": "2"}, base)
    assert changed == replace(base, requirements=replace(base.requirements, memory_mib=2048))
    assert job_form.read(fields | {"last": "5"}, base)[1][0].field == "last"
    assert job_form.read(fields | {"after": "3:maybe"}, base)[1][0].field == "after"


def test_snippets_of_a_call_say_the_same_three_times() -> None:
    found = {
        one.name: one.text for one in snippets.of_call("hansa x", "POST", "/a b", {"why": "it's"}, url="https://h")
    }
    words = shlex.split(found["curl"].replace("\\\n", " "))
    assert words[words.index("-d") + 1] == '{"why": "it\'s"}'
    assert "https://h/api/v1/a b" in words
    compile(found["Python"], "snippet", "exec")


def test_a_site_file_in_a_form_is_read_or_refused_with_its_reason() -> None:
    site = site_form.read_site(site_form.EXAMPLE)
    assert (site.name, site.endpoints[0].kind) == ("NEBULA", "slurm")
    for text, said in (
        ("name: [", "not YAML in line 2"),
        ("just words", "holds no site"),
        ("name: a", "endpoints"),
        ("name: a\nendpoints: [{kind: ssh, credential_file: x}]", "credential_file"),
        ("a: &x [1]\nb: *x", "Aliases"),
        ("name: a\nendpoints: [{kind: ssh}]\nbogus: 1", "bogus"),
    ):
        with pytest.raises(Fault, match=said):
            site_form.read_site(text)


def test_terms_and_downtimes_of_forms() -> None:
    terms = site_form.read_terms({"core_hours": "1,5", "memory_gib": "2", "ends": "2027-12-31", "cores": ""})
    assert terms == GrantTerms(1.5, None, 2048, None, None, None, datetime(2027, 12, 31, tzinfo=UTC))
    for fields in ({"cores": "1.5"}, {"gpus": "-1"}, {"ends": "soon"}, {"core_hours": "nan"}):
        with pytest.raises(Fault):
            site_form.read_terms(fields)
    with pytest.raises(Fault, match="needs an end"):
        site_form.read_downtime({})


def test_pictures_of_what_tasks_used() -> None:
    assert charts.spread([]) is None
    assert charts.spread([3, 1, 2]) == charts.Spread(1, 2, 3, 3)
    dots, line = charts.lane([(0, 1), (1, 2)], 4)
    assert line is not None
    assert line < min(dot.y for dot in dots)
    assert charts.points(dots) == "".join(f"M{dot.x:g} {dot.y:g}h0" for dot in dots)
    ((kind, path),) = charts.shapes(charts.columns([Bucket(0, 9, 0, 0, 10, 0, 0)]))
    assert (kind, path) == ("done", "M0 0h100v100h-100z")
    assert charts.area([1]) == []
    assert [dot.y for dot in charts.area([0, 5])] == [100.0, 4.0]


async def test_lines_are_found_across_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one\ntw", b"o\nTWO more\n", b"x" * 70_000, b"two"):
            yield piece

    found = await find_lines(pieces(), Wanted.text("two", any_case=True))
    assert found.lines == [(2, "two"), (3, "TWO more"), (4, "two")]
    assert not found.is_cut
    assert (await find_lines(pieces(), Wanted("o"), most_lines=1)).is_cut


def test_a_wizard_asks_for_a_machine_and_says_it_in_words() -> None:
    form = machine_form.blank() | {
        "image": "debian-12",
        "flavour": "own",
        "cores": "4",
        "memory_gib": "6,5",
        "days": "0",
    }
    new = machine_form.read(form | {"ssh_keys": "ssh-ed25519 AAAA a\n\n", "ports": "443, 80", "site": "NEBULA"})
    assert (new.flavour, new.cores, new.memory_mib, new.lifetime_s) == (None, 4, 6656, 0)
    assert (new.ports, new.sites, new.ssh_keys) == (["443", "80"], ["NEBULA"], ["ssh-ed25519 AAAA a"])
    words = shlex.split(machine_form.command(new))
    assert words[words.index("--expires") + 1] == "never"
    assert words[words.index("--cpus") + 1] == "4"
    assert machine_form.body(machine_form.read(machine_form.blank() | {"image": "x"})) == {
        "image": "x",
        "flavour": "small",
        "lifetime_s": 604_800,
    }
    for bad in ({"image": ""}, {"cores": "0"}, {"memory_gib": "nan"}, {"name": "A b"}, {"days": "x"}):
        with pytest.raises(Fault):
            machine_form.read(form | bad)


def place(image: str, where: str, phase: str = "there", message: str = "It is there.") -> ImagePlace:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    status = Status(phase, "images.x", message, Party.NOBODY, now)
    return ImagePlace(image, "1", "vo.example.org", where, status, None, now)


def test_images_by_site_have_a_cell_for_each_pair_and_say_why_not() -> None:
    bad = place("tools", "NEBULA/cloud", "failed", "Glance said <no>.")
    sites, lines = table_of([place("debian", "NEBULA/cloud"), place("debian", "BARI/cloud"), bad])
    assert sites == ["BARI/cloud", "NEBULA/cloud"]
    assert [(line.image, [one and one.status.phase for one in line.cells]) for line in lines] == [
        ("debian", ["there", "there"]),
        ("tools", [None, "failed"]),
    ]
    text = (
        templates()
        .get_template("images/_places.html")
        .render(base="", sites=sites, lines=lines, there=2, number=3, asked={})
    )
    assert text.count("<tr>") == 3
    assert "Glance said &lt;no&gt;." in text
    assert "2 of 3 are there" in text


def test_a_credential_is_read_and_what_is_wrong_is_said_without_its_secret() -> None:
    form = {"id": "app", "secret": "s3cret", "more": "region = one\n\n", "expires": "2030-01-01"}
    found = read_credential(form)
    assert found.fields == {"id": "app", "secret": "s3cret", "region": "one"}
    assert found.expires is not None
    with pytest.raises(Fault) as fault:
        read_credential(form | {"more": "s3cret-token-alone"})
    assert "Line 1" in fault.value.detail
    assert "s3cret" not in fault.value.detail


def test_hours_are_shared_out_line_by_line() -> None:
    form = {"each_user": "50", "users": "maria=200,5\n\n a=b = 3", "groups": "fits=0"}
    assert site_form.read_caps(form) == GrantCaps(50.0, {"maria": 200.5, "a=b": 3.0}, {"fits": 0.0})
    assert site_form.read_caps({}) == GrantCaps()
    for users, said in (
        ("maria", "Line 1"),
        ("x=1\n=3", "Line 2"),
        ("x=many", "not negative"),
        ("x=-1", "not negative"),
    ):
        with pytest.raises(Fault, match=said):
            site_form.read_caps({"users": users})


def test_who_says_who_is_in_an_organisation_is_not_changed_by_a_slip() -> None:
    with pytest.raises(Fault, match="was not typed"):
        read_rule({"issuer": "check-in"}, "vo.lab")
    form = {"issuer": "check-in", "issuer_vo": "vo.lab", "assurance": "low  high", "sure": "vo.lab"}
    rule = read_rule(form, "vo.lab")
    assert (rule.issuer, rule.issuer_vo, rule.assurance) == ("check-in", None, ["low", "high"])
    assert read_rule({"issuer": "", "sure": "vo.lab"}, "vo.lab").issuer is None


def test_an_image_list_is_signed_or_its_address_is_trusted() -> None:
    assert read_subscription({"url": " https://h/list "}).unsigned
    signed = read_subscription(
        {"url": "https://h/list", "authorities": "-----BEGIN CERTIFICATE-----\nx", "endorser": "CN=a"}
    )
    assert (signed.unsigned, signed.endorser) == (False, "CN=a")
    with pytest.raises(Fault, match="no certificates"):
        read_subscription({"url": "https://h/list", "authorities": "my friend"})


def test_a_volume_of_a_form_and_in_words() -> None:
    new = volume_form.read({"name": "data", "size_gib": "100", "site": "NEBULA", "vo": "vo.lab"})
    assert new == NewVolume("data", 100, "vo.lab", sites=["NEBULA"])
    assert volume_form.command(new) == "hansa volume create data 100G --vo vo.lab --site NEBULA"
    assert volume_form.body(NewVolume("data", 1)) == {"name": "data", "size_gib": 1}
    for form in ({"name": "A b"}, {"size_gib": "0"}, {"size_gib": "1.5"}, {"size_gib": "1000001"}):
        with pytest.raises(Fault):
            volume_form.read({"name": "data", "size_gib": "1"} | form)


def test_what_has_happened_is_told_apart_and_without_ids() -> None:
    lines = ["It waits.", "2026-11-26 20:24:41 pilot/pilot_01a2: Tasks are given: 3."]
    waits, event = show.tell(lines)
    assert (waits.text, waits.time) == ("It waits.", None)
    assert (event.text, event.time) == ("Tasks are given: 3.", datetime(2026, 11, 26, 20, 24, 41, tzinfo=UTC))
    assert show.show_actor(event.actor) == "a pilot"
    assert show.show_thing("grant/vo.lab@BARI", {}).path == "/vos/vo.lab"
    assert show.show_thing("image/preset/debian-12", {}) == show.Thing(
        "VM image", "debian-12", "/images/show/preset/debian-12"
    )
    assert show.show_thing("image/user/user_01/mine", {}).path == "/images/show/mine"
    assert show.show_thing("pilot/pilot_01a2", {}) == show.Thing("pilot", "", "")


@pytest.mark.parametrize(("reason", "has_button"), [("identity.grant_expired", True), ("jobs.queued", False)])
def test_a_job_that_waits_for_its_users_word_has_the_button_that_gives_it(reason: str, has_button: bool) -> None:
    status = Status("waiting", reason, "It waits.", Party.USER, datetime(2026, 1, 1, tzinfo=UTC))
    html = templates().get_template("macros.html").module.renewal(status, "/auth/realms/hansa")  # type: ignore[attr-defined]
    assert ('href="/auth/realms/hansa/renew"' in html) is has_button


def test_components_use_tokens_alone_for_colours() -> None:
    style = (ROOT / "portal" / "src" / "portal.css").read_text(encoding="utf-8")
    tokens, _, components = style.partition("*, ::before")
    assert "--ground" in tokens
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgb\(|\bhsl\(", components) == []


def test_what_waits_for_a_member_is_told() -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    manager = Membership("vo.lab", frozenset({Role.MANAGER}))
    stopped = replace(manager, vo="vo.off", suspended=True)
    lapsed = Authority(
        "g", "user", "lapsed", "identity.grant_expired", "The lasting sign-in has ended.", "user", now, now, "check-in"
    )
    calm = Status("in_force", "capacity.in_force", "It is in force.", Party.NOBODY, now)
    soon = Grant("vo.lab", "BARI", calm, GrantTerms(ends=now + timedelta(days=3)))
    late = Grant("vo.lab", "ROMA", calm, GrantTerms(ends=now + timedelta(days=300)))
    spent = replace(calm, phase="used_up", message="It is used up.", waiting_on=Party.VO_MANAGER)
    used = Grant("vo.lab", "PISA", spent, GrantTerms())
    found = home.needs_of(Caller("user_me", "me"), [manager, stopped], [], [soon, late, used], [lapsed], now)
    assert [(one.title, one.about) for one in found] == [
        ("check-in", "The lasting sign-in has ended."),
        ("vo.off", "Suspended: nothing new starts for it. What runs goes on."),
        ("vo.lab, BARI", "The capacity grant ends."),
        ("vo.lab, PISA", "It is used up."),
    ]
    member = replace(manager, roles=frozenset())
    assert home.needs_of(Caller("user_me", "me"), [member], [], [soon, used], [], now) == []


def test_machines_that_need_their_owner_are_told_apart() -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    calm = Status("running", "machines.running", "It runs.", Party.NOBODY, now)
    bad = Status("failed", "machines.failed", "Its site says <no>.", Party.USER, now)
    waits = Status("waiting", "identity.grant_expired", "The lasting sign-in has ended.", Party.USER, now)
    found = home.needs_of_machines(
        [
            machine("fine", calm, now + timedelta(days=6)),
            machine("for-ever", calm, None),
            machine("brief", calm, now + timedelta(hours=5)),
            machine("broken", bad, now + timedelta(days=6)),
            machine("stuck", waits, None),
            replace(machine("leaving", bad, None), wanted="deleted"),
            machine("over", replace(calm, phase="stopped"), now + timedelta(hours=1)),
        ],
        now,
    )
    assert [(one.title, one.about, one.extend) for one in found] == [
        ("brief", "The machine is stopped then.", "brief"),
        ("broken", "Its site says <no>.", ""),
        ("stuck", "The lasting sign-in has ended.", ""),
    ]


def machine(name: str, status: Status, expires: datetime | None) -> Machine:
    size = MachineSize(1, 1024)
    return Machine(name, f"machine_{name}", "me", status, "running", "tiny", "1", size, status.since, expires=expires)


def test_a_query_is_one_word_of_the_shell() -> None:
    assert shlex.split(snippets.of_query(Phase.FAILED, "created<2d name~x y")) == [
        *("hansa", "job", "list"), "state:failed created<2d name~x y"]  # fmt: skip
    assert snippets.of_query(None, "-site:local") == "hansa job list -- -site:local"


def test_volumes_of_a_new_machine_are_read_and_written_as_words() -> None:
    form = machine_form.blank() | {"image": "debian-12", "volumes": "100G:/data, archive:/old 2T"}
    new = machine_form.read(form)
    assert new.volumes == [
        MachineVolume(100, None, "/data"), MachineVolume(None, "archive", "/old"), MachineVolume(2048)]  # fmt: skip
    words = shlex.split(machine_form.command(new))
    asked = [after for word, after in pairwise(words) if word == "--volume"]
    assert [parse_volume(one) for one in asked] == new.volumes  # as the command line reads them
    for bad in ("100", "G", "0G", "data:old", "x" * 99, "9999999T", "a " * 21):
        with pytest.raises(Fault):
            machine_form.read(form | {"volumes": bad})


def test_results_are_sorted_with_what_is_missing_last() -> None:
    def task(index: int, loss: object) -> Task:
        return Task(1, index, Phase.DONE, 1, fields=None if loss is None else {"loss": loss})

    tasks = [task(0, "b"), task(1, 10), task(2, None), task(3, 9.5), task(4, True)]
    assert [one.index for one in results.in_order(tasks, "loss", down=False)] == [4, 3, 1, 0, 2]
    assert [one.index for one in results.in_order(tasks, "loss", down=True)] == [0, 1, 3, 4, 2]
