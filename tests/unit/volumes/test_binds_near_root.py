"""Binds of the engine's own root, and the depth of read-only by API version."""

from __future__ import annotations

import pytest

from holdfast.errors import InvalidParameter
from holdfast.volumes.mounts import MountRequest, MountSpec, parse

ROOT = "/var/lib/holdfast"


def propagation(spec: str, root: str = ROOT) -> str:
    (point,) = parse(MountRequest(binds=[spec], daemon_root=root))
    return point.propagation


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/srv:/b", "rprivate"),
        ("/srv:/b:rprivate", "rprivate"),
        ("/:/b", "rslave"),
        ("/var:/b:ro", "rslave"),
        (f"{ROOT}:/b", "rslave"),
        (f"{ROOT}/volumes/x/_data:/b:z", "rslave"),
        ("/var/lib/holdfast-other:/b", "rslave"),  # the comparison is one of texts, as Docker's
        (f"{ROOT}:/b:rshared", "rshared"),
        (f"{ROOT}:/b:rslave,ro", "rslave"),
        ("volume:/b", ""),
    ],
)
def test_propagation(spec: str, expected: str) -> None:
    assert propagation(spec) == expected


@pytest.mark.parametrize("word", ["private", "rprivate", "slave", "shared"])
def test_other_words_are_refused(word: str) -> None:
    for request in (
        MountRequest(binds=[f"/var:/b:{word}"], daemon_root=ROOT),
        MountRequest(mounts=[MountSpec("bind", source="/var", target="/b", propagation=word)], daemon_root=ROOT),
    ):
        with pytest.raises(InvalidParameter) as refused:
            parse(request)
        assert str(refused.value) == (
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{ROOT}", bind mount source: "/var", propagation: "{word}"'
        )


@pytest.mark.parametrize(("version", "deep"), [((1, 43), False), ((1, 44), True), ((1, 51), True)])
def test_read_only_depth(version: tuple[int, int], deep: bool) -> None:
    mount = MountSpec("bind", source="/srv", target="/m", read_only=True)
    points = parse(MountRequest(binds=["/srv:/b:ro", "volume:/v:ro"], mounts=[mount], api_version=version))
    assert [point.read_only_recursive for point in points] == [deep, deep, True]
