"""Choosing how an archive is sent."""

from __future__ import annotations

import pytest

from holdfast.api.archive import choose_encoding


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""), ("identity", ""), ("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate", "gzip"),
        ("deflate;q=0.9, gzip;q=0.5", "deflate"), ("gzip;q=0", ""), ("br", ""), ("*", "gzip"), ("GZIP", "gzip"),
        ("gzip;q=0.5, identity", ""), ("gzip;q=x", ""),
    ],
)  # fmt: skip
def test_encoding(accepted: str, chosen: str) -> None:
    assert choose_encoding(accepted) == chosen
