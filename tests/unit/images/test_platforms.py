"""Platforms and the choice among them."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images.platforms import Platform, choose, parse_platform


def offer(architecture: str, variant: str = "", system: str = "linux") -> dict[str, Any]:
    platform = {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}
    return {"digest": f"{system}/{architecture}/{variant}", "platform": platform}


@pytest.mark.parametrize(
    ("wanted", "offers", "chosen"),
    [
        (Platform("linux", "amd64"), [offer("arm64"), offer("amd64")], "linux/amd64/"),
        (Platform("linux", "amd64"), [offer("amd64", system="windows"), offer("amd64")], "linux/amd64/"),
        (Platform("linux", "amd64"), [offer("amd64", "v3"), offer("amd64")], "linux/amd64/"),
        (Platform("linux", "arm64", "v8"), [offer("arm64"), offer("arm64", "v8")], "linux/arm64/v8"),
        (Platform("linux", "arm64", "v8"), [offer("arm64")], "linux/arm64/"),
        (Platform("linux", "arm", "v7"), [offer("arm", "v5"), offer("arm", "v6"), offer("arm", "v8")], "linux/arm/v6"),
        (Platform("linux", "riscv64"), [offer("amd64")], None),
        (Platform("linux", "amd64"), [{"digest": "only"}], "only"),
        (Platform("linux", "amd64"), [{"digest": "one"}, {"digest": "two"}], None),
        (Platform("linux", "amd64"), ["junk", {"platform": 3}], None),
    ],
)
def test_choose(wanted: Platform, offers: list[Any], chosen: str | None) -> None:
    found = choose(offers, wanted)
    assert (None if found is None else found["digest"]) == chosen


@pytest.mark.parametrize(
    ("text", "shown"),
    [("linux/amd64", "linux/amd64"), ("linux/arm/v6", "linux/arm/v6"), ("linux/x86_64", "linux/amd64"),
     ("windows/amd64", "windows/amd64")],
)  # fmt: skip
def test_parse(text: str, shown: str) -> None:
    assert str(parse_platform(text)).startswith(shown)


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "li!nux", "nothing"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid argument"):
        parse_platform(text)
