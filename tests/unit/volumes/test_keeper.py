"""What leaves the trash when."""

from __future__ import annotations

from holdfast.store.volumes import TrashRecord, VolumeRecord
from holdfast.volumes.keeper import expired
from holdfast.volumes.model import TrashPolicy

NOW = 1_000_000.0
POLICY = TrashPolicy(keep_s=1000, limit_bytes=100, grace_s=10)


def entry(name: str, age_s: float, size_bytes: int | None = 0, keep_s: float = 1000) -> TrashRecord:
    record = VolumeRecord(name, name, "local", "default", None, None, 0)
    return TrashRecord(record, NOW - age_s, NOW - age_s + keep_s, size_bytes)


def names(*trash: TrashRecord, capacity_bytes: int = 1 << 40) -> list[str]:
    return [gone.volume.name for gone in expired(trash, NOW, POLICY, capacity_bytes)]


def test_time() -> None:
    assert names(entry("young", 999), entry("old", 1000), entry("older", 5000)) == ["old", "older"]


def test_what_is_not_kept_goes_at_once() -> None:
    assert names(entry("scratch", 0, keep_s=0)) == ["scratch"]


def test_the_oldest_go_when_it_is_too_much() -> None:
    assert names(entry("a", 20, 60), entry("b", 30, 60), entry("c", 40, 40)) == ["b"]


def test_a_large_one_goes_only_after_the_grace_time() -> None:
    assert names(entry("large", 9, 1000)) == []
    assert names(entry("large", 10, 1000)) == ["large"]


def test_the_limit_follows_the_file_system() -> None:
    trash = (entry("a", 20, 60),)
    policy = TrashPolicy(keep_s=1000, limit_bytes=0, grace_s=10)
    assert expired(trash, NOW, policy, 599) == [*trash]
    assert expired(trash, NOW, policy, 600) == []
