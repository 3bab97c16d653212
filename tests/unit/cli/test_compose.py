"""`holdfast compose`: which Compose is found, what it is told, and what is said where there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from holdfast.cli import compose
from holdfast.cli.compose import compose_environment, find_compose
from holdfast.cli.main import main


def program(path: Path, mode: int = 0o755) -> Path:
    """A file that could be run, or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode)
    return path


@pytest.fixture(autouse=True)
def _machine_without_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "_PLUGIN_FOLDERS", ())


def test_a_plugin_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path / "config"), "PATH": str(tmp_path / "bin")}
    assert find_compose(environment) is None
    on_path = program(tmp_path / "bin" / "docker-compose")
    assert find_compose(environment) == on_path
    monkeypatch.setattr(compose, "_PLUGIN_FOLDERS", (str(tmp_path / "system"),))
    system = program(tmp_path / "system" / "docker-compose")
    own = program(tmp_path / "config" / "cli-plugins" / "docker-compose", mode=0o644)
    assert find_compose(environment) == system
    own.chmod(0o755)
    assert find_compose(environment) == own


@pytest.mark.parametrize(
    ("host", "given", "told"),
    [
        (None, {}, {"DOCKER_HOST": "unix:///run/holdfast/holdfast.sock", "DOCKER_BUILDKIT": "0"}),
        (None, {"HOLDFAST_SOCKET": "/s", "DOCKER_CONTEXT": "other"}, {"DOCKER_HOST": "unix:///s"}),
        ("tcp://there:1", {"DOCKER_HOST": "unix:///docker"}, {"DOCKER_HOST": "tcp://there:1"}),
        (None, {"DOCKER_BUILDKIT": "1"}, {"DOCKER_BUILDKIT": "1", "COMPOSE_API_VERSION": "1.44"}),
        (
            None,
            {"HOLDFAST_CERT_PATH": "/certificates"},
            {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certificates"},
        ),
    ],
)
def test_environment(host: str | None, given: Mapping[str, str], told: Mapping[str, str]) -> None:
    found = compose_environment({**given, "KEPT": "1"}, host)
    assert {name: found[name] for name in told} == told
    assert found["KEPT"] == "1" and "DOCKER_CONTEXT" not in found


def test_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Became(Exception):
        pass

    def become(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> None:
        raise Became(path, words, environment["DOCKER_HOST"])

    found = program(tmp_path / "docker-compose")
    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(Became) as became:
        main(["-H", "unix:///here", "compose", "-f", "x.yaml", "up", "--help", "-d"])
    assert became.value.args == (found, [str(found), "-f", "x.yaml", "up", "--help", "-d"], "unix:///here")


def test_certificates_are_those_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "docker-compose")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    told: list[Mapping[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, _words, environment: told.append(environment))
    assert main(["--tlscacert", "/ca.pem", "compose", "up"]) == 1
    assert "HOLDFAST_CERT_PATH" in capsys.readouterr().err and not told
    main(["--tlsverify", "-H", "tcp://there", "compose", "up"])
    assert (told[0]["DOCKER_HOST"], told[0]["DOCKER_TLS_VERIFY"]) == ("tcp://there", "1")


def test_nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert main(["compose", "up"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "there is no Docker Compose on this machine"
    assert "docker-compose" in second
