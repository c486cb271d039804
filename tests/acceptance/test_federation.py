"""What a VO manager, a site's administrator and a researcher do about capacity, usage and plans: by the command line
and in Python, on a shared server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hansa import AsyncHansa, Hansa
from tests.support.cli import Desk
from tests.support.identity import Server

DATA = Path(os.environ.get("HANSA_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "egi-sites"
VO, SITE, GRANTED = "vo.example.org", "NEBULA", "ORION"
SITE_FILE = f"""\
name: SITE
admins: [adam]
endpoints:
- kind: ssh
  settings: {{host: login.nebula.example.org, user: hansa}}
vos: {{{VO}: project-7}}
policy: {{demands_grant: true, price_per_core_hour: 0.01}}
"""


@dataclass
class Community:
    """A server with a VO (manager vera, member mia) and two sites of adam's that demand a grant; one has given it."""

    server: Server
    folder: Path
    tokens: dict[str, str]

    def desk(self, name: str) -> Desk:
        where = {"HANSA_SERVER": self.server.url, "HANSA_TOKEN": self.tokens[name]}
        return Desk(self.folder / name, self.folder, where)


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("community")
    server = Server(folder / "home").start()
    try:
        tokens = {name: server.account(name).tokens()["access_token"] for name in ("vera", "adam", "mia")}
        with server.operator() as operator:
            operator.post("/vos", json={"name": VO, "manager": "vera"}).raise_for_status()
        with server.api(tokens["vera"]) as vera, server.api(tokens["mia"]) as mia:
            invited = vera.post(f"/vos/{VO}/invitations", json={})
            invited.raise_for_status()
            mia.post("/vos/join", json={"token": invited.json()["link"].partition("=")[2]}).raise_for_status()
        tokens["root"] = str(server.info["token"])
        found = Community(server, folder, tokens)
        for site in (SITE, GRANTED):
            (folder / f"{site}.yaml").write_text(SITE_FILE.replace("SITE", site))
            found.desk("root").hansa("site", "add", f"{site}.yaml")
        with server.api(tokens["vera"]) as vera, server.api(tokens["adam"]) as adam:
            terms = {"core_hours": 500}
            vera.post("/grants", json={"vo": VO, "site": GRANTED, "terms": terms}).raise_for_status()
            adam.post(f"/grants/{VO}/{GRANTED}/agree", json={}).raise_for_status()
            vera.put(f"/grants/{VO}/{GRANTED}/caps", json={"users": {"mia": 5}}).raise_for_status()
        yield found
    finally:
        server.close()


def test_a_grant_from_the_question_to_the_caps(community: Community) -> None:
    vera, adam, mia = (community.desk(name) for name in ("vera", "adam", "mia"))
    assert SITE not in vera.hansa("grant", "list").out
    assert "has no grant at NEBULA that you can see" in vera.hansa("grant", "show", SITE, "--vo", VO, code=4).err
    until = f"{datetime.now(UTC) + timedelta(days=400):%Y-%m-%d}"
    asked = vera.hansa(
        *("grant", "ask", SITE, "--vo", VO, "--core-hours", "1000", "--cores", "64", "--until", until),
        *("--note", "dwarfs", "-o", "json"),
    ).json()
    assert (asked["status"]["phase"], asked["status"]["waiting_on"]) == ("asked", "site")
    assert "Only administrators" in vera.hansa("grant", "agree", SITE, "--vo", VO, code=5).err
    agreed = adam.hansa("grant", "agree", SITE, "--vo", VO, "--core-hours", "500", "--note", "welcome").out
    assert "in_force" in agreed
    assert "welcome" in agreed
    vera.hansa("grant", "cap", SITE, "--vo", VO, "--each", "100", "--user", "mia=5")
    shown = mia.hansa("grant", "show", SITE, "--vo", VO, "-o", "json").json()
    assert (shown["left_h"], shown["caps"]["users"]) == (500, {"mia": 5})
    vera.hansa("grant", "ask", SITE, "--vo", VO, "--core-hours", "9999")
    adam.hansa("grant", "refuse", SITE, "--vo", VO, "--why", "We are full")
    assert f"{VO}@{SITE}" in adam.hansa("grant", "list", "-o", "id").out.split()
    wrong = vera.hansa("grant", "cap", SITE, "--vo", VO, "--user", "mia", code=2).err
    assert "NAME=HOURS" in wrong
    assert "NAME=HOURS" in vera.hansa("grant", "cap", SITE, "--vo", VO, "--user", "mia=-1", code=2).err
    assert "-5" in vera.hansa("grant", "ask", SITE, "--vo", VO, "--core-hours", "-5", code=2).err


def test_a_plan_says_where_it_would_run_and_what_would_change_a_refusal(community: Community) -> None:
    mia = community.desk("mia")
    table = mia.hansa("plan", "--site", GRANTED, "--cores", "2", "--time", "2h").out
    assert GRANTED in table
    assert mia.hansa("plan", "--site", GRANTED, "--cores", "2", "--time", "2h", "-o", "json").json()[0]["rank"] == 1
    none = mia.hansa("plan", "--site", GRANTED, "--cores", "2", "--time", "10h", "--why", code=5)
    assert "Your cap does not suffice: 20.0 core hours asked, 5.0 left." in none.out
    assert f"ask a manager of {VO} for more" in none.out
    assert "It can run nowhere now" in none.err
    other = mia.hansa("plan", "--site", "elsewhere", code=5)
    assert "Only elsewhere will do." in other.out
    assert "cannot run" not in mia.hansa("plan", "--machine", "--cores", "1", code=5).out  # it has no cloud
    community.desk("adam").hansa("site", "drain", GRANTED, "--why", "New switches")
    assert "New switches" in mia.hansa("plan", "--site", GRANTED, code=5).out
    community.desk("adam").hansa("site", "resume", GRANTED)


def test_wishes_decide_and_explain_says_so(community: Community) -> None:
    """What a plan says, a job is given: two sites of equal worth, and a wish for the second of them."""
    mia = community.desk("mia")
    for site in ("EAST", "WEST"):
        tag = ", tags: [data:k2]" if site == "EAST" else ""
        settings = f"{{host: login.example.org, user: hansa{tag}}}"
        text = f"name: {site}\ncountry: IT\nvos: {{{VO}: }}\nendpoints:\n- kind: ssh\n  settings: {settings}\n"
        (community.folder / f"{site}.yaml").write_text(text)
        community.desk("root").hansa("site", "add", f"{site}.yaml")
    try:
        words = ("--site", "EAST", "--site", "WEST")
        assert _first(mia.hansa("plan", *words, "-o", "json").json()) == "EAST", "equal places go by name"
        wish = mia.hansa("plan", *words, "--prefer-site", "WEST", "--why")
        assert "1. WEST" in wish.out
        assert "Your choice number 1." in wish.out
        near = mia.hansa("plan", *words, "--near-data", "k2", "--why").out
        assert "It has 1 of 1 data sets." in near
        assert "It has 0 of 1 data sets, 1 more is in its country." in near
        job = mia.hansa("job", "submit", "-q", *words, "--prefer-site", "WEST", "--", "true").out.strip()
        said = mia.hansa("explain", job).out
        assert "number 1 of 2" in said
        assert said.index("Your choice number 1.") < said.index("You did not name it.")
        mia.hansa("job", "kill", job)
    finally:
        for site in ("EAST", "WEST"):
            community.desk("root").hansa("site", "remove", site)


def _first(items: list[dict[str, object]]) -> object:
    return next(item["site"] for item in items if item["rank"] == 1)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no files of the federation at {DATA} (HANSA_SHARED_DATA)")
def test_the_files_of_the_egi_federation_are_imported_with_the_mappings_beside_them(community: Community) -> None:
    """All 25; twice is once. Members of their VOs see them, others do not."""
    root = community.desk("root")
    first = root.hansa("site", "import", str(DATA / "sites"), "-o", "json")
    names = [one["site"] for one in first.json()]
    try:
        assert sum(one["endpoints"] for one in first.json()) == 25
        assert {one["outcome"] for one in first.json()} == {"added"}
        again = root.hansa("site", "import", str(DATA / "sites"), "-o", "json").json()
        assert {one["outcome"] for one in again} == {"unchanged"}
        assert set(names) <= set(root.hansa("site", "list", "-o", "id").out.split())
        assert not set(names) & set(community.desk("mia").hansa("site", "list", "-o", "id").out.split())
        assert "Only operators" in community.desk("mia").hansa("site", "import", str(DATA / "sites"), code=5).err
    finally:
        with community.server.operator() as api:
            for name in names:
                api.delete(f"/sites/{name}").raise_for_status()


def test_usage_in_every_form(community: Community) -> None:
    mia = community.desk("mia")
    said = mia.hansa("usage")
    assert (said.out, "nothing was used yet" in said.err) == ("", True)
    assert mia.hansa("usage", "--by", "site,month", "-o", "csv").out == ""
    assert mia.hansa("usage", "-o", "apel").out.startswith("APEL-summary-job-message: v0.2")
    assert "By one or some of: vo,group," in mia.hansa("usage", "--by", "site,colour", code=2).err
    swapped = mia.hansa("usage", "--since", "2026-12-01", "--until", "2026-11-01", code=2)
    assert "is after the last" in swapped.err


def test_the_same_in_python(community: Community) -> None:
    with Hansa(community.server.url, community.tokens["mia"]) as hansa:
        assert [vo.name for vo in hansa.vos()] == [VO]
        assert hansa.site(GRANTED).policy.demands_grant
        assert GRANTED in [grant.site for grant in hansa.grants()]
        assert hansa.grant(VO, GRANTED).terms.core_hours == 500
        assert hansa.usage("site,month", everybody=True) == []
        plan = hansa.plan(cores=2, sites=[GRANTED])
        assert plan.message == f"It would run at {GRANTED}."
        assert (plan.items[0].site, plan.items[0].rank) == (GRANTED, 1)


async def test_the_same_in_async_python(community: Community) -> None:
    async with AsyncHansa(community.server.url, community.tokens["mia"]) as hansa:
        assert [vo.name for vo in await hansa.vos()] == [VO]
        assert (await hansa.site(GRANTED)).name == GRANTED
        assert (await hansa.grant(VO, GRANTED)).site in [grant.site for grant in await hansa.grants()]
        assert await hansa.usage() == []
        plan = await hansa.plan(wall_time_s=36_000, sites=[GRANTED])
        assert (plan.items[0].site, plan.items[0].findings[0].reason) == (GRANTED, "placement.grant_used_up")
