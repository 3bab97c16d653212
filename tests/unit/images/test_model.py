"""Configurations, ids and times of images."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images import history
from holdfast.images.model import Image, chain_ids, digest_of, format_time, parse_config, parse_time
from tests.support import images

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_chain_ids() -> None:
    assert chain_ids([]) == ()
    assert chain_ids([A]) == (A,)
    assert chain_ids([A, B]) == (A, digest_of(f"{A} {B}".encode()))


def test_config() -> None:
    each = images.image([b"x"])
    config = parse_config(each.config)
    assert (config.image_id, config.diff_ids) == (each.id, (images.digest(b"x"),))
    assert config.created_at == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid image JSON"),
        ("[]", "not an object"),
        ("{}", "no RootFS key"),
        ('{"rootfs": {"diff_ids": ["sha256:../../etc"]}}', "must be a list of sha256 digests"),
        ('{"rootfs": {"diff_ids": "x"}}', "must be a list of sha256 digests"),
        ('{"rootfs": {}, "os": "windows"}', "cannot load windows image on linux"),
        ('{"rootfs": {}, "config": [1]}', "config must be an object"),
        (json.dumps({"rootfs": {"diff_ids": [A] * 501}}), "501 layers, at most 500"),
    ],
)
def test_bad_configs(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parse_config(text.encode())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ("2024-02-29T12:00:00.123456789Z", "2024-02-29T12:00:00.123456Z"),
        ("2024-02-29T12:00:00.5+02:00", "2024-02-29T10:00:00.5Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("yesterday", "1970-01-01T00:00:00Z"),
        (None, "1970-01-01T00:00:00Z"),
        ("2024-99-99T12:00:00Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_times(text: str | None, shown: str) -> None:
    assert format_time(parse_time(text)) == shown


def test_history_gives_layers_to_the_steps_that_made_them() -> None:
    steps = [
        {"created_by": "ADD", "created": "2024-01-01T00:00:00Z"},
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN", "comment": "c"},
    ]
    image = Image("sha256:id", ("a:1",), (), datetime.now(UTC), None, {"history": steps}, (), 0)
    found = history.of(image, [10, 20])
    assert [(entry.id, entry.created_by, entry.size_bytes, entry.tags) for entry in found] == [
        ("sha256:id", "RUN", 20, ("a:1",)),
        ("<missing>", "ENV", 0, ()),
        ("<missing>", "ADD", 10, ()),
    ]
