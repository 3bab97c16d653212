"""Limits and privileges on a machine that has everything and on one that lacks much; engines are in test_fates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.containers.limits import parse_numbers, settle_limits
from holdfast.containers.model import HostConfig, ThrottleDevice, Ulimit, WeightDevice
from holdfast.containers.security import SecurityOptions, check_security, parse_security_options, with_labels
from holdfast.containers.settle import settle
from holdfast.errors import InvalidParameter, NotFound
from holdfast.kernel.identity import CAPABILITIES
from holdfast.runtime.host import HostFacts

RICH = HostFacts(
    machine="x86_64", kernel=(6, 1), cgroup_v2=False,
    controllers=frozenset({"cpu", "cpuset", "memory", "pids", "blkio"}), capabilities=frozenset(CAPABILITIES),
    hard_limits={"nofile": 20}, swappiness=True, cpu_realtime=True, cpu_count=4, cpuset_cpus="0-3", cpuset_mems="0",
    blkio_weight_device=True,
)  # fmt: skip
POOR = replace(
    RICH, cgroup_v2=True, controllers=frozenset(), capabilities=RICH.capabilities - {"CAP_SYS_RESOURCE"},
    swap_limit=False, swappiness=False, cpu_realtime=False, blkio_weight=False, blkio_weight_device=False,
    blkio_throttle=False,
)  # fmt: skip
EVERYTHING = HostConfig(
    memory=64 << 20,
    memory_reservation=32 << 20,
    memory_swappiness=10,
    oom_kill_disable=True,
    pids_limit=5,
    cpu_shares=2,
    cpu_period=1000,
    cpuset_cpus="0,2-3",
    cpuset_mems="0",
    blkio_weight=10,
    blkio_weight_device=(WeightDevice(path="/dev/x", weight=10),),
    blkio_device_read_bps=(ThrottleDevice(path="/dev/x", rate=1),),
)


def test_what_the_machine_can_do_stays() -> None:
    assert settle_limits(EVERYTHING, RICH) == (EVERYTHING, ())


def test_what_it_cannot_do_is_said_and_taken_out() -> None:
    settled, warnings = settle_limits(EVERYTHING, POOR)
    assert settled == HostConfig(
        memory_swap=-1, oom_kill_disable=None, blkio_weight_device=(), blkio_device_read_bps=(), memory_swappiness=None
    )
    assert len(warnings) == 11
    assert all(warning.endswith("discarded.") for warning in warnings)
    with pytest.raises(InvalidParameter, match="does not support CPU CFS scheduler or the cgroup"):
        settle_limits(HostConfig(nano_cpus=10**9), POOR)
    with pytest.raises(InvalidParameter, match="kernel does not support CPU real-time scheduler"):
        settle_limits(HostConfig(cpu_realtime_period=1), POOR)


@pytest.mark.parametrize("text", ["a", "1-", "-1", "2-1", ",", "0,,1", " 0", "+1"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="invalid format"):
        parse_numbers(text)


def test_numbers() -> None:
    assert parse_numbers("") == frozenset()
    assert parse_numbers("0-2,5,1") == {0, 1, 2, 5}
    with pytest.raises(ValueError, match="maximum is 8192"):
        parse_numbers("0-9999999")


def test_security_options() -> None:
    assert parse_security_options(["seccomp=builtin", "label:disable"]) == SecurityOptions("builtin")
    assert parse_security_options(["no-new-privileges", "writable-cgroups:false", "apparmor=a", "seccomp=b"]) == (
        SecurityOptions("b", "a", no_new_privileges=True)
    )
    assert with_labels(HostConfig(pid_mode="host")) == ("label=disable",)
    assert with_labels(HostConfig(privileged=True, security_opt=("label=x",))) == ("label=x",)
    assert with_labels(HostConfig()) is None


def test_what_the_engine_lacks() -> None:
    with pytest.raises(InvalidParameter, match='not available in the current environment: "CAP_SYS_RESOURCE"'):
        check_security(HostConfig(cap_add=("SYS_RESOURCE",)), POOR)
    for host in (
        HostConfig(privileged=True),
        HostConfig(cap_add=("ALL",)),
        HostConfig(oom_score_adj=-5),
        HostConfig(ulimits=(Ulimit(name="nofile", soft=30, hard=-1),)),
        HostConfig(security_opt=("apparmor=docker-default",)),
    ):
        assert len(check_security(host, POOR)) == 1
    assert check_security(HostConfig(privileged=True, oom_score_adj=-5), RICH) == ()


def test_settled_references_and_runtimes() -> None:
    def find(name: str) -> str:
        if name != "peer":
            raise NotFound(f"No such container: {name}")
        return "f" * 64

    settled, warnings = settle(HostConfig(ipc_mode="container:peer", network_mode="container:peer"), RICH, "crun", find)
    assert {settled.ipc_mode, settled.network_mode} == {"container:" + "f" * 64}
    assert (settled.runtime, settled.shm_size, warnings) == ("crun", 64 << 20, ())
    assert settle(HostConfig(network_mode="container:later"), RICH, "crun", find)[0].network_mode == "container:later"
    with pytest.raises(InvalidParameter, match="No such container: other"):
        settle(HostConfig(pid_mode="container:other"), RICH, "crun", find)
    assert settle(HostConfig(runtime="runc"), RICH, "crun", find)[1] == (
        "The runtime here is crun; the container does not run with runc.",
    )
    assert settle(HostConfig(memory=1 << 62), RICH, "crun", find)[0].memory_swap == (1 << 63) - 1
