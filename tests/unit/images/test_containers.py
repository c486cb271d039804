"""Which container registries a VO allows."""

from __future__ import annotations

import pytest

from hansa.images.containers import is_allowed, read_places
from hansa.kernel.errors import Fault


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("quay.io", "quay.io"),
        ("https://Quay.io/", "quay.io"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker://ghcr.io/biomed", "ghcr.io/biomed"),
        ("localhost", "localhost"),
        ("registry.example.org:5000/a/b/", "registry.example.org:5000/a/b"),
    ],
)
def test_registries_have_one_form(written: str, place: str) -> None:
    assert read_places([written, written]) == [place]


@pytest.mark.parametrize(
    "written", ["", "/", "quay", "quay.io/Biomed", "quay.io:port", "a b.org", "https://", "../x.y"]
)
def test_what_is_no_registry_is_refused(written: str) -> None:
    with pytest.raises(Fault) as caught:
        read_places(["quay.io", written])
    assert caught.value.code.code == "images.bad_registry"


@pytest.mark.parametrize(
    ("places", "image", "is_good"),
    [
        (None, "docker://python:3.12", True),
        ([], "docker://python:3.12", False),
        (["docker.io"], "python:3.12", True),
        (["docker.io"], "quay.io/docker.io/python", False),
        (["docker.io/library"], "python", True),
        (["docker.io/library"], "ada/python", False),
        (["quay.io"], "docker://Quay.io/biomed/tool@sha256:" + "0" * 64, True),
        (["quay.io"], "quay.io.evil.org/tool", False),
        (["quay.io"], "quay.io:8443/tool", False),
        (["ghcr.io/biomed"], "ghcr.io/biomed/tool:1", True),
        (["ghcr.io/biomed"], "ghcr.io/biomedical/tool:1", False),
        (["ghcr.io/biomed"], "ghcr.io/other/biomed/tool:1", False),
    ],
)
def test_images_are_of_a_registry_or_a_folder_of_it(places: list[str] | None, image: str, *, is_good: bool) -> None:
    assert is_allowed(places, image) is is_good
