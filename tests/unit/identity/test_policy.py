"""Who may do what."""

from __future__ import annotations

import pytest

from hansa.identity.model import Caller, Membership, Role
from hansa.identity.policy import POLICY, Permission, VoAct, choose_vo, may_in_vo, permits
from hansa.kernel.errors import Fault

USER = Caller("u1", "ada")
OPERATOR = Caller("u2", "olga", is_operator=True)
PILOT = Caller("u1", "ada", pilot="p1")


def test_the_policy_names_every_permission() -> None:
    assert set(POLICY) == set(Permission)


def test_a_scope_limits_what_a_token_may_do() -> None:
    def may(scopes: set[str], permission: Permission, *, operator: bool = True) -> bool:
        return permits(permission, Caller("u", "n", is_operator=operator, scopes=frozenset(scopes)))

    assert may({"hansa"}, Permission.JOBS_WRITE)
    assert may({"hansa"}, Permission.USERS_WRITE)
    assert not may({"hansa"}, Permission.USERS_WRITE, operator=False)
    assert may({"hansa.read"}, Permission.JOBS_READ)
    assert not may({"hansa.read"}, Permission.JOBS_WRITE)
    assert not may({"openid", "profile"}, Permission.SELF_READ)
    assert may({"openid"}, Permission.PUBLIC)


def test_a_pilot_does_nothing_but_its_exchange() -> None:
    allowed = {permission for permission in Permission if permits(permission, PILOT)}
    assert allowed == {Permission.PUBLIC, Permission.CLIENT, Permission.PILOT_EXCHANGE, Permission.PILOT_PROGRAM}


MEMBER = Membership("vo")
MANAGER = Membership("vo", frozenset({Role.MANAGER}))
GONE = Membership("vo", frozenset({Role.MANAGER}), suspended=True)


@pytest.mark.parametrize(
    ("caller", "membership", "allowed"),
    [
        (USER, None, set()),
        (USER, MEMBER, {VoAct.SEE, VoAct.SEE_MEMBERS}),
        (USER, MANAGER, {VoAct.SEE, VoAct.SEE_MEMBERS, VoAct.MANAGE}),
        (USER, GONE, {VoAct.SEE}),
        (OPERATOR, None, set(VoAct)),
    ],
)
def test_who_may_do_what_in_a_vo(caller: Caller, membership: Membership | None, allowed: set[VoAct]) -> None:
    assert {act for act in VoAct if may_in_vo(caller, act, membership)} == allowed


A, B = Membership("vo.a"), Membership("vo.b")


@pytest.mark.parametrize(
    ("mine", "asked", "result"),
    [
        ([], None, None),
        ([A], None, "vo.a"),
        ([A, B], "vo.b", "vo.b"),
        ([A, B], None, "identity.vo_ambiguous"),
        ([], "vo.a", "identity.no_vo"),
        ([A], "vo.b", "identity.no_vo"),
        ([Membership("vo.a", suspended=True)], "vo.a", "identity.vo_suspended"),
        ([Membership("vo.a", vo_suspended=True)], None, "identity.vo_suspended"),
        ([Membership("vo.a", vo_suspended=True), B], "vo.b", "vo.b"),
    ],
)
def test_the_vo_of_new_work(mine: list[Membership], asked: str | None, result: str | None) -> None:
    try:
        assert choose_vo(mine, asked) == result
    except Fault as fault:
        assert fault.code.code == result  # noqa: PT017 - one table for both
        assert fault.hint  # noqa: PT017
