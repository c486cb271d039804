"""HEPiX image lists are read and written; one that does not pin its images is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.images.hepix import BadListError, ImageList, ListedImage, parse, render

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ONE = ListedImage("id-1", "Debian 12", "20261101", "https://example.org/d.qcow2", "sha512:" + "ab" * 64, "qcow2", 1000)
LIST = ImageList("list-1", "Images", "3", NOW, NOW + timedelta(days=7), (ONE,), vo="vo.example.org", endorser="CN=Ada")

words = st.text(min_size=1, max_size=20)
images = st.lists(
    st.builds(
        ListedImage,
        identifier=words, title=words, version=words, uri=words.map(lambda word: f"https://example.org/{word}"),
        checksum=st.sampled_from(["sha256:" + "0f" * 32, "sha512:" + "a1" * 64]),
        format=st.sampled_from(["qcow2", "raw"]),
        size_bytes=st.none() | st.integers(1, 10**12), description=words, os_name=words, os_version=words,
    ),
    max_size=5, unique_by=lambda one: one.identifier,
)  # fmt: skip


@given(images)
def test_what_is_written_is_read_again(found: list[ListedImage]) -> None:
    written = ImageList("l", "t", "1", NOW, NOW + timedelta(days=1), tuple(found), vo="vo.a", endorser="CN=A")
    assert parse(json.loads(json.dumps(render(written)))) == written


def spoilt(**changes: Any) -> dict[str, Any]:
    document = render(LIST)
    image = document["hv:imagelist"]["hv:images"][0]["hv:image"]
    for key, value in changes.items():
        image[key.replace("__", ":")] = value
    return document


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (None, "the document"),
        ({}, "hv:imagelist"),
        ({"hv:imagelist": {"hv:images": "all"}}, "hv:images"),
        (spoilt(**{"sl__checksum__sha512": None}), "neither"),
        (spoilt(**{"sl__checksum__sha512": "abc"}), "not sha512"),
        (spoilt(hv__uri="file:///etc/shadow"), "address of the web"),
        (spoilt(dc__identifier=""), "dc:identifier is missing"),
    ],
)
def test_a_list_that_cannot_be_trusted_to_mean_something_is_refused(document: Any, why: str) -> None:
    with pytest.raises(BadListError, match=why):
        parse(document)


def test_two_images_with_one_identifier_and_a_date_without_zone_are_refused() -> None:
    twins = render(LIST)
    twins["hv:imagelist"]["hv:images"] *= 2
    with pytest.raises(BadListError, match="Two images"):
        parse(twins)
    undated = render(LIST)
    undated["hv:imagelist"]["dc:date:expires"] = "2026-11-01T12:00:00"
    with pytest.raises(BadListError, match="without a time zone"):
        parse(undated)
