"""What is asked of Slurm for a pilot, and what its words mean."""

from __future__ import annotations

import pytest

from hansa.jobs.drivers.base import Life, PilotOrder
from hansa.jobs.drivers.places import _fingerprint
from hansa.jobs.drivers.slurm import Entry, judge, options_of
from hansa.sites.kinds.base import Target
from hansa.sites.kinds.slurm import SlurmSettings, sbatch_words
from hansa.sites.model import VoAccess

SITE = {"host": "login", "partition": "short", "extra": ["--licenses=matlab"]}


def order(*options: str) -> PilotOrder:
    labels = {"user": "ada", "vo": "vo.example.org", "job": "12"}
    return PilotOrder("pilot_1", "secret", 2, 1000, [], 60.0, 3600.0, labels, options=options)


def test_a_batch_job_says_whose_it_is_and_never_the_token() -> None:
    words = options_of(order(), "/scratch/hansa/pilots/pilot_1")
    assert "--comment=hansa job=12 user=ada vo=vo.example.org pilot=pilot_1" in words
    assert "--job-name=pilot_1" in words
    assert not [word for word in words if "secret" in word]


def test_options_of_the_site_its_vo_and_the_job_come_in_this_order_and_ours_rule() -> None:
    site = SlurmSettings(**SITE)
    assert sbatch_words(site, None) == ("--partition=short", "--licenses=matlab")
    of_vo = SlurmSettings(**{**SITE, "partition": "long", "qos": "gold"})
    words = sbatch_words(of_vo, VoAccess("vo.example.org", "proj-7"))
    assert words == ("--partition=long", "--account=proj-7", "--qos=gold", "--licenses=matlab")
    all_words = options_of(order(*words, "--nice=7", "--nodes=9"), "/f")
    assert all_words.index("--qos=gold") < all_words.index("--nice=7")
    assert all_words.index("--nodes=9") < all_words.index("--nodes=1"), "Slurm takes the last one"


def test_who_has_a_node_to_itself_has_its_memory_too() -> None:
    assert "--mem=1128M" in options_of(order(), "/f")
    assert "--mem=1128M" in options_of(order("--exclusive=user"), "/f")
    assert "--mem=0" in options_of(order("--exclusive"), "/f")


def test_what_vos_ask_for_differently_shares_a_connection() -> None:
    def target(**settings: object) -> Target:
        return Target("e", "cluster", "slurm", None, SlurmSettings(**{**SITE, **settings}))

    assert _fingerprint(target()) == _fingerprint(target(partition="long", account="proj-7", extra=[]))
    assert _fingerprint(target()) != _fingerprint(target(transport="https"))


@pytest.mark.parametrize(
    ("state", "life", "is_blameless"),
    [
        ("PENDING", Life.QUEUED, False),
        ("SUSPENDED", Life.QUEUED, False),
        ("REQUEUE_HOLD", Life.QUEUED, False),
        ("RUNNING", Life.ALIVE, False),
        ("COMPLETING", Life.ALIVE, False),
        ("PREEMPTED", Life.ENDED, True),
        ("TIMEOUT", Life.ENDED, True),
        ("NODE_FAIL", Life.ENDED, True),
        ("CANCELLED", Life.ENDED, True),
        ("OUT_OF_MEMORY", Life.ENDED, False),
        ("FAILED", Life.ENDED, False),
    ],
)
def test_what_slurms_word_means_for_a_pilot(state: str, life: Life, is_blameless: bool) -> None:
    seen = judge(Entry("7", state, "None", "n1"))
    assert (seen.life, seen.is_blameless) == (life, is_blameless)
