"""Waiting for a container, attaching to it, and finding it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.containers.alarm import Alarm
from holdfast.containers.container import CONDITIONS, Condition, Container, Registry
from holdfast.containers.model import (
    ContainerConfig,
    ContainerRecord,
    HostConfig,
    PortBinding,
    State,
    decode_row,
    encode_row,
    now,
)
from holdfast.errors import Conflict, InvalidParameter, NotFound
from holdfast.runtime.runtime import Task
from holdfast.store import Store
from holdfast.volumes.mounts import MountPoint

TASK = Task(1, 2, 3, 4)


def record(key: str, name: str, **more: Any) -> ContainerRecord:
    return ContainerRecord(
        id=key, name=name, created_at=now(), image_id="sha256:1", layers=("l1",), config=ContainerConfig(image="x"),
        host_config=HostConfig(), **more,
    )


def running() -> Container:
    return Container(record("a" * 64, "web"), State(status="running", task=TASK))


@pytest.mark.parametrize(
    ("condition", "state", "at_once"),
    [
        ("not-running", State(), True),
        ("not-running", State(status="exited", exit_code=3), True),
        ("not-running", State(status="running"), False),
        ("not-running", State(status="restarting"), False),
        ("next-exit", State(), False),
        ("removed", State(status="exited"), False),
    ],
)
def test_conditions_at_once(condition: Condition, state: State, at_once: bool) -> None:
    codes: list[int] = []
    Container(record("a" * 64, "web"), state).wait(condition, codes.append)
    assert codes == ([state.exit_code] if at_once else [])


def test_an_exit_wakes_all_but_those_who_wait_for_the_removal() -> None:
    container = running()
    codes: dict[str, list[int]] = {}
    for condition in CONDITIONS:
        container.wait(condition, codes.setdefault(condition, []).append)
    container.state = State(status="exited", exit_code=7)
    container.tell_exit()
    assert codes == {"not-running": [7], "next-exit": [7], "removed": []}
    container.tell_exit()
    container.tell_removal()
    assert codes == {"not-running": [7], "next-exit": [7], "removed": [7]}


def test_a_removal_wakes_everybody() -> None:
    container = Container(record("a" * 64, "web"), State())
    codes: list[int] = []
    sockets: list[object] = []
    container.wait("next-exit", codes.append)
    container.add_attacher(sockets.append)
    container.tell_removal()
    assert (codes, sockets) == ([0], [None])


def test_waiting_can_be_given_up() -> None:
    container = running()
    codes: list[int] = []
    cancel = container.wait("next-exit", codes.append)
    cancel()
    cancel()
    container.tell_exit()
    assert codes == []


def test_attachers_are_taken_once() -> None:
    container = running()
    cancel = container.add_attacher(lambda _: None)
    assert len(container.take_attachers()) == 1
    assert container.take_attachers() == []
    cancel()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    point = MountPoint("volume", "/data", name="vol", labels={"a": "b"}, tmpfs_options=("x",))
    whole = ContainerRecord(
        id="a" * 64, name="web", created_at=now(), image_id="sha256:1", layers=("l1", "l2"),
        config=ContainerConfig(image="x", cmd=("a", "b"), volumes={"/v": {}}),
        host_config=HostConfig(port_bindings={"80/tcp": (PortBinding(host_port="80"),)}, mounts=({"Type": "bind"},)),
        mounts=(point,),
    )
    state = State(status="running", task=TASK, started_at=now(), mounted=(point,))
    store.containers.add(encode_row(whole, state))
    assert decode_row(store.containers.all()[0]) == (whole, state)
    store.close()


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    store = Store(tmp_path / "db")
    yield Registry(store.containers)
    store.close()


def test_finding(registry: Registry) -> None:
    first = Container(record("abc1" + "0" * 60, "web"), State())
    second = Container(record("abc2" + "0" * 60, "abc1"), State())
    registry.add(first)
    registry.add(second)
    assert registry.get("web") is registry.get("/web") is registry.get(first.id) is first
    assert registry.get("abc1") is second, "a name comes before the beginning of an id"
    assert registry.get("abc10") is first
    with pytest.raises(InvalidParameter, match="multiple IDs found with provided prefix: abc"):
        registry.get("abc")
    with pytest.raises(NotFound, match="No such container: nope"):
        registry.get("nope")
    with pytest.raises(InvalidParameter):
        registry.get("")


def test_names_are_taken_once(registry: Registry) -> None:
    registry.reserve("web", "a" * 64)
    with pytest.raises(Conflict) as refused:
        registry.reserve("web", "b" * 64)
    owner = "a" * 64
    assert f'The container name "/web" is already in use by container "{owner}". You' in str(refused.value)
    registry.free("web", "b" * 64)
    assert registry.has_name("web")
    registry.free("web", "a" * 64)
    assert not registry.has_name("web")


def test_a_removed_container_cannot_be_held(registry: Registry) -> None:
    container = Container(record("a" * 64, "web"), State())
    registry.add(container)
    with registry.hold(container):
        registry.remove(container)
    with pytest.raises(NotFound), registry.hold(container):
        pytest.fail("held")


def test_alarm_calls_in_order_and_not_after_close() -> None:
    alarm = Alarm()
    called: list[int] = []
    done = threading.Event()
    alarm.after(0.03, lambda: called.append(2))
    alarm.after(0.04, done.set)
    alarm.after(0.01, lambda: called.append(1))
    assert done.wait(5)
    assert called == [1, 2]
    alarm.after(0.01, lambda: called.append(3))
    alarm.close()
    alarm.after(0, lambda: called.append(4))
    time.sleep(0.05)
    assert called == [1, 2]
