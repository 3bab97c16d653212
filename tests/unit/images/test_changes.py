"""Dockerfile instructions on a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images.changes import apply_changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (["cmd echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['ENTRYPOINT ["/x"]'], {"Entrypoint": ["/x"]}),
        (["ENV A=b C='d e'", "ENV A=z"], {"Env": ["A=z", "C=d e"]}),
        (["ENV A some words"], {"Env": ["A=some words"]}),
        (["EXPOSE 80 53/udp 90-91"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}}),
        (["LABEL a=b", 'LABEL "c"="d e"'], {"Labels": {"a": "b", "c": "d e"}}),
        (["USER 1:2", "STOPSIGNAL SIGINT"], {"User": "1:2", "StopSignal": "SIGINT"}),
        (['VOLUME ["/a","/b"]', "VOLUME /c"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (['SHELL ["/bin/bash", "-c"]'], {"Shell": ["/bin/bash", "-c"]}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=2 CMD true"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Retries": 2}},
        ),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["USER a\nUSER b", "# nothing", ""], {"User": "b"}),
    ],
)
def test_apply(changes: list[str], expected: dict[str, Any]) -> None:
    assert apply_changes({}, changes) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("SHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --interval=soon CMD x", 'time: invalid duration "soon"'),
    ],
)
def test_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        apply_changes({}, [change])
    assert str(refused.value) == message


def test_the_original_stays() -> None:
    original = {"Env": ["A=1"]}
    assert apply_changes(original, ["ENV A=2"]) == {"Env": ["A=2"]}
    assert original == {"Env": ["A=1"]}
