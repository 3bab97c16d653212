"""Restart policies, and what request and image come to."""

from __future__ import annotations

import pytest

from holdfast.containers import merge, policy
from holdfast.containers.model import ContainerConfig, Healthcheck, RestartPolicy
from holdfast.errors import InvalidParameter

IMAGE = {
    "config": {
        "Env": ["PATH=/bin", "A=image", "B=image"], "Cmd": ["image-cmd"], "Entrypoint": ["/entry"], "User": "1000",
        "WorkingDir": "/work", "Volumes": {"/data": {}}, "Labels": {"a": "image", "b": "image"},
        "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5, "Retries": 3},
    }
}
KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "maximum", "auto_remove", "text"),
    [
        ("sometimes", 0, False, "unknown policy 'sometimes'"),
        ("always", 3, False, "maximum retry count can only be used with 'on-failure'"),
        ("on-failure", -1, False, "maximum retry count cannot be negative"),
        ("always", 0, True, "can't create 'AutoRemove' container with restart policy"),
    ],
)
def test_refused_policies(name: str, maximum: int, auto_remove: bool, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        policy.check(RestartPolicy(name=name, maximum_retry_count=maximum), auto_remove=auto_remove)


@pytest.mark.parametrize(
    ("name", "maximum", "code", "count", "stopped", "again", "with_engine"),
    [
        ("no", 0, 1, 0, False, False, False),
        ("always", 0, 0, 99, False, True, True),
        ("always", 0, 0, 0, True, False, True),
        ("unless-stopped", 0, 0, 0, False, True, True),
        ("unless-stopped", 0, 0, 0, True, False, False),
        ("on-failure", 0, 0, 0, False, False, False),
        ("on-failure", 0, 1, 50, False, True, True),
        ("on-failure", 2, 1, 1, False, True, True),
        ("on-failure", 2, 1, 2, False, False, False),
        ("on-failure", 0, 1, 0, True, False, False),
    ],
)
def test_restart(name: str, maximum: int, code: int, count: int, stopped: bool, again: bool, with_engine: bool) -> None:
    wanted = RestartPolicy(name=name, maximum_retry_count=maximum)
    facts = {"exit_code": code, "restart_count": count, "stopped_by_user": stopped}
    assert policy.wants_restart(wanted, **facts) is again  # type: ignore[arg-type]
    assert policy.wants_start_with_engine(wanted, **facts) is with_engine  # type: ignore[arg-type]


def test_delays_double_up_to_a_minute_and_start_over() -> None:
    delays = [0.0]
    for _ in range(12):
        delays.append(policy.next_delay_s(delays[-1], 0.1))
    assert delays[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert policy.next_delay_s(60, 10) == 0.1


def test_the_image_fills_what_is_open() -> None:
    merged = merge.merge(ContainerConfig(image="x"), IMAGE, KEY)
    assert (merged.entrypoint, merged.cmd, merged.user) == (("/entry",), ("image-cmd",), "1000")
    assert (merged.working_dir, merged.stop_signal, merged.hostname) == ("/work", "SIGQUIT", KEY[:12])
    assert merged.env == ("PATH=/bin", "A=image", "B=image")
    assert merged.volumes == {"/data": {}}
    assert merged.exposed_ports == {"80/tcp": {}}
    assert merged.healthcheck == Healthcheck(test=("CMD", "true"), interval=5, retries=3)


def test_the_request_wins() -> None:
    request = ContainerConfig(
        image="x", env=("A=mine", "C=mine"), cmd=("sh",), labels={"a": "mine"}, volumes={"/more": {}}, user="0",
        hostname="web", healthcheck=Healthcheck(retries=9),
    )
    merged = merge.merge(request, IMAGE, KEY)
    assert (merged.entrypoint, merged.cmd) == (("/entry",), ("sh",))
    assert merged.env == ("A=mine", "C=mine", "PATH=/bin", "B=image")
    assert merged.labels == {"a": "mine", "b": "image"}
    assert merged.volumes == {"/data": {}, "/more": {}}
    assert (merged.user, merged.hostname) == ("0", "web")
    assert merged.healthcheck == Healthcheck(test=("CMD", "true"), interval=5, retries=9)


def test_an_entrypoint_drops_the_images_command() -> None:
    merged = merge.merge(ContainerConfig(image="x", entrypoint=("/mine",)), IMAGE, KEY)
    assert (merged.entrypoint, merged.cmd) == (("/mine",), None)


def test_an_empty_entrypoint_takes_the_images_away() -> None:
    merged = merge.merge(ContainerConfig(image="x", entrypoint=("",), cmd=("ls",)), IMAGE, KEY)
    assert (merged.entrypoint, merged.cmd) == (None, ("ls",))


@pytest.mark.parametrize("document", [{}, {"config": None}, {"config": {"Cmd": None}}])
def test_nothing_to_run(document: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter, match="no command specified"):
        merge.merge(ContainerConfig(image="x"), document, KEY)


def test_there_is_always_a_path() -> None:
    merged = merge.merge(ContainerConfig(image="x", cmd=("a",)), {}, KEY)
    assert merged.env == (merge.DEFAULT_PATH,)
    assert merge.image_volumes({}) == ()
    assert merge.image_volumes(IMAGE) == ("/data",)
