"""The volume option `subpath-create`."""

from __future__ import annotations

import pytest

from holdfast.errors import InvalidParameter
from holdfast.volumes.subpath import SubpathCreate, of_options, parse_subpath_create


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("true", SubpathCreate(0, 0, 0o755)),
        ("false", None),
        ("1000:1001:0750", SubpathCreate(1000, 1001, 0o750)),
        ("0:0:2775", SubpathCreate(0, 0, 0o2775)),
        ("4294967294:4294967294:7777", SubpathCreate(4294967294, 4294967294, 0o7777)),
    ],
)
def test_good(value: str, parsed: SubpathCreate | None) -> None:
    assert parse_subpath_create(value) == parsed
    assert of_options({"subpath-create": value, "type": "tmpfs"}) == parsed


@pytest.mark.parametrize(
    "value",
    ["", "yes", "True", "1000", "1000:1000", "1000:1000:", ":1000:755", "a:0:755", "0:0:888", "0:0:17777", "-1:0:755",
     "4294967295:0:755", "0:0:755:0", "0:0: 755", "٣:0:755"],
)  # fmt: skip
def test_bad(value: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_subpath_create(value)
    assert str(refused.value) == (
        f'invalid option: "subpath-create={value}": it is true, false or UID:GID:MODE, such as 1000:1000:0755'
    )


def test_unset() -> None:
    assert of_options(None) is None and of_options({}) is None
