from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from holdfast.containers.logconfig import LogRules, details, parse_size, rules_of, settle
from holdfast.containers.model import ContainerConfig, ContainerRecord, HostConfig, LogConfig
from holdfast.errors import System
from holdfast.runtime.logfiles import SLACK_BYTES, Rotation

RECORD = ContainerRecord(
    id="ab" * 32, name="web", created_at=datetime(2026, 1, 1, tzinfo=UTC), image_id="sha256:" + "cd" * 32, layers=(),
    config=ContainerConfig(image="busybox", cmd=("echo", "hi"), env=("A=1", "AB=2", "C"), labels={"x": "1", "xy": "2"}),
    host_config=HostConfig(),
)


def with_log(driver: str, **options: str) -> ContainerRecord:
    config = {key.replace("_", "-"): value for key, value in options.items()}
    host = dataclasses.replace(RECORD.host_config, log_config=LogConfig(type=driver, config=config))
    return dataclasses.replace(RECORD, host_config=host)


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("10", 1000, 10), ("10k", 1000, 10_000), ("10k", 1024, 10_240), ("1.5m", 1000, 1_500_000),
        ("2 GB", 1000, 2 * 10**9), ("3KiB", 1024, 3072), ("7b", 1000, 7), ("0", 1000, 0),
    ],
)  # fmt: skip
def test_sizes(text: str, base: int, size: int) -> None:
    assert parse_size(text, base) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "10x", "1 0k", "10kk", "0x10", "1e3", "٣k"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=f"invalid size: '{text}'"):
        parse_size(text, 1000)


@pytest.mark.parametrize(
    ("record", "rules"),
    [
        (with_log("json-file"), LogRules(is_kept=True)),
        (with_log("json-file", max_file="3"), LogRules(is_kept=True)),
        (with_log("json-file", max_size="1m"), LogRules(is_kept=True, rotation=Rotation(10**6))),
        (
            with_log("json-file", max_size="1m", max_file="3", compress="true"),
            LogRules(is_kept=True, rotation=Rotation(10**6, 3, compress=True)),
        ),
        (with_log("local"), LogRules(is_kept=True, rotation=Rotation(20 << 20, 5, compress=True))),
        (
            with_log("local", max_size="1m", max_file="1", compress="0"),
            LogRules(is_kept=True, rotation=Rotation(1 << 20)),
        ),
        (with_log("none", odd="1"), LogRules(is_kept=False)),
    ],
)
def test_rules(record: ContainerRecord, rules: LogRules) -> None:
    assert settle(record) == rules
    assert rules_of(record) == rules


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (with_log("json-file"), ""),
        (with_log("json-file", env="A,C,", labels_regex="^x"), "A=1,x=1,xy=2"),
        (with_log("local", env_regex="(B|Z)$", labels="x"), "AB=2,x=1"),
        (with_log("local", env_regex="-"), ""),
        (with_log("json-file", tag="{{.Name}}{{ .ID }}-x"), "tag=webabababababab-x"),
        (with_log("none", tag="x", env="A"), ""),
    ],
)
def test_details(record: ContainerRecord, text: str) -> None:
    assert details(record) == text


@pytest.mark.parametrize("expression", ["(", "[", "a\0"])
def test_expressions_that_are_none(expression: str) -> None:
    with pytest.raises(System, match="failed to initialize logging driver: error parsing regexp: "):
        details(with_log("json-file", env_regex=expression))


@pytest.mark.parametrize("tag", ["{{", "{{.Odd}}", "{{.ExtraAttributes nil}}", '{{printf "%s" .Name}}', "a {{"])
def test_tags_that_are_none(tag: str) -> None:
    record = with_log("json-file", tag=tag)
    with pytest.raises(System, match="failed to initialize logging driver: template: log-tag:1:"):
        details(record)


def test_a_container_that_cannot_start_has_a_log_all_the_same() -> None:
    record = with_log("json-file", max_size="odd")
    with pytest.raises(System, match="invalid size: 'odd'"):
        settle(record)
    assert rules_of(record) == LogRules(is_kept=True)


def test_how_far_a_monitor_goes_alone() -> None:
    assert Rotation(10).monitor_bytes == 10
    assert Rotation(10, 2).monitor_bytes == 10 + SLACK_BYTES
