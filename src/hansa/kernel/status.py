"""A status is never just a word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Party(StrEnum):
    """Who must act for a thing to go on."""

    NOBODY = "nobody"
    USER = "user"
    VO_MANAGER = "vo_manager"
    SITE = "site"
    HANSA = "hansa"


@dataclass(frozen=True)
class Status:
    """Phase, why (a stable code), a sentence with numbers and names, who must act, since when."""

    phase: str
    reason: str
    message: str
    waiting_on: Party
    since: datetime
