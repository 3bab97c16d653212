"""From one set of limits to another."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.runtime.host import HostFacts
from holdfast.runtime.limits import Resources, changed_resources, lifted

V1 = HostFacts(
    "x86_64", (6, 1), cgroup_v2=False, controllers=frozenset({"memory", "pids", "cpu", "cpuset"}),
    capabilities=frozenset(), cpuset_cpus="0-3", cpuset_mems="0",
)  # fmt: skip
V2 = dataclasses.replace(V1, cgroup_v2=True)
NONE = Resources()
SOME = Resources(memory_bytes=64, memory_swap_bytes=128, nano_cpus=500_000_000, pids_limit=9)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (NONE, NONE, {}),
        (SOME, SOME, {}),
        (NONE, Resources(pids_limit=9), {"pids": {"limit": 9}}),
        (SOME, dataclasses.replace(SOME, pids_limit=0), {"pids": {"limit": -1}}),
        (SOME, dataclasses.replace(SOME, memory_bytes=32), {"memory": {"limit": 32, "swap": 128}}),
        (SOME, dataclasses.replace(SOME, memory_swap_bytes=-1), {"memory": {"limit": 64, "swap": -1}}),
        (NONE, Resources(cpu_quota_us=5000), {"cpu": {"quota": 5000}}),
        (SOME, NONE, {
            "memory": {"limit": -1, "swap": -1}, "cpu": {"period": 100_000, "quota": -1}, "pids": {"limit": -1},
        }),
        (Resources(cpuset_cpus="1", cpu_shares=2), NONE, {"cpu": {"cpus": "0-3", "shares": 1024}}),
        (Resources(memory_reservation_bytes=5), NONE, {"memory": {"reservation": -1}}),
    ],
)  # fmt: skip
def test_changes(before: Resources, after: Resources, expected: dict[str, object]) -> None:
    assert changed_resources(before, after, V1) == expected


def test_no_reservation_is_none_at_all_on_v2() -> None:
    assert changed_resources(Resources(memory_reservation_bytes=5), NONE, V2) == {"memory": {"reservation": 0}}


@pytest.mark.parametrize(("host", "file"), [(V1, ("cpu.cfs_quota_us", "-1")), (V2, ("cpu.max", "max"))])
def test_what_the_runtime_cannot_lift(host: HostFacts, file: tuple[str, str]) -> None:
    changed = changed_resources(SOME, NONE, host)
    assert lifted(changed, host) == [("pids.max", "max"), file]
    assert changed == {"memory": {"limit": -1, "swap": -1}, "cpu": {"period": 100_000}}
