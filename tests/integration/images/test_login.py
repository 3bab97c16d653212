"""Registries that want to know who asks: logging in, with both clients, and images there and back unchanged."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images as make
from tests.support.engine import Engine
from tests.support.registry import PASSWORD, USER, Registry, registry_for

pytestmark = pytest.mark.kernel

CONFIG = {
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/bash", "-c"],
    "Unknown": {"to": "everybody"},
}


@pytest.fixture(scope="module", params=["plain", "tls"])
def closed(
    engine: Engine, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry that knows one user."""
    tls = request.param == "tls"
    folder = tmp_path_factory.mktemp("closed")
    with registry_for(engine, folder, 5443 if tls else 5001, closed=True, tls=tls) as registry:
        yield registry


def login(engine: Engine, server: str, password: str) -> tuple[int, dict[str, str]]:
    body = {"username": USER, "password": password, "serveraddress": server}
    answer = engine.request("POST", "/auth", body)
    return answer.status, answer.json()


def test_login(engine: Engine, closed: Registry) -> None:
    scheme = "https" if "test" in closed.address else "http"
    for server in (closed.address, f"{scheme}://{closed.address}", f"{scheme}://{closed.address}/v2/"):
        assert login(engine, server, PASSWORD) == (200, {"IdentityToken": "", "Status": "Login Succeeded"})
    url = f"{scheme}://{closed.address}/v2/"
    refused = {"message": f"login attempt to {url} failed with status: 401 Unauthorized"}
    assert login(engine, closed.address, "wrong") == (500, refused)
    nobody = engine.request("POST", "/auth", {"serveraddress": closed.address})
    assert (nobody.status, nobody.json()) == (500, {"message": f'Get "{url}": no basic auth credentials'})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 500, "EOF"),
        (b"x", 500, "invalid character 'x' looking for beginning of value"),
        (b'{"serveraddress": "bad host"}', 400,
         'unable to parse server address: parse "https://bad host": invalid character " " in host name'),
        (b'{"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}', 500,
         'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'),
    ],
)  # fmt: skip
def test_bad_logins(engine: Engine, body: bytes, status: int, message: str) -> None:
    answer = engine.request("POST", "/auth", raw=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json()) == (status, {"message": message})


@pytest.mark.parametrize("client", ["docker", "holdfast"])
def test_there_and_back(engine: Engine, closed: Registry, client: str) -> None:
    ask = engine.docker if client == "docker" else engine.holdfast
    name = f"{closed.address}/{client}/odd"
    layers = [make.layer([make.file_entry(text, name.encode())]) for text in ("a", "b")]
    odd = make.image(layers, tags=["odd:1"], config=CONFIG, unheard={"of": 1})
    engine.call("POST", "/images/load?quiet=1", raw=make.docker_archive([odd]))
    first = engine.call("GET", "/images/odd:1/json")
    engine.call("POST", f"/images/odd:1/tag?repo={name}&tag=1")
    engine.call("POST", f"/images/odd:1/tag?repo={name}&tag=2")
    denied = ask("push", f"{name}:1", check=False)
    assert (denied.returncode, denied.stderr.strip()) == (1, "no basic auth credentials")
    logged_in = ask("login", "-u", USER, "--password-stdin", closed.address, stdin=PASSWORD.encode())
    assert logged_in.stdout == "Login Succeeded\n"
    pushed = ask("push", "-a", name).stdout
    assert f"The push refers to repository [{name}]\n" in pushed
    assert pushed.count(": Pushed\n") == pushed.count(": Layer already exists\n") == 2
    assert ("1: digest: sha256:" in pushed, "2: digest: sha256:" in pushed) == (True, True)
    (digest,) = engine.call("GET", f"/images/{name}:1/json")["RepoDigests"]
    engine.call("DELETE", f"/images/{odd.id}?force=1")

    pulled = ask("pull", "-a", name).stdout
    assert f"Status: Downloaded newer image for {name}\n" in pulled
    assert "Already exists" not in pulled
    for again in (f"{name}:1", digest):
        assert engine.call("GET", f"/images/{again}/json")["Id"] == odd.id
        assert f"Status: Image is up to date for {again}\n" in ask("pull", again).stdout
    archive = engine.request("GET", f"/images/get?names={name}:1").body
    engine.call("DELETE", f"/images/{odd.id}?force=1")
    engine.call("POST", "/images/load?quiet=1", raw=archive)
    last = engine.call("GET", f"/images/{name}:1/json")
    assert last["Id"] == odd.id
    assert (last["Config"], last["RootFS"]) == (first["Config"], first["RootFS"])
    engine.call("DELETE", f"/images/{odd.id}?force=1")
    ask("logout", closed.address)
    refused = ask("pull", f"{name}:1", check=False)
    assert (refused.returncode, "no basic auth credentials" in refused.stderr) == (1, True)


def test_what_the_registry_says_of_an_image(engine: Engine, closed: Registry) -> None:
    auth = base64.urlsafe_b64encode(json.dumps({"username": USER, "password": PASSWORD}).encode()).decode()
    name = f"{closed.address}/asked"
    engine.call("POST", f"/images/busybox/tag?repo={name}&tag=1")
    pushed = engine.request("POST", f"/images/{name}/push?tag=1", headers={"X-Registry-Auth": auth}).body
    said = [json.loads(line) for line in pushed.split(b"\r\n") if line]
    aux = said[-1]["aux"]
    answer = engine.request("GET", f"/distribution/{name}:1/json", headers={"X-Registry-Auth": auth})
    assert answer.json() == {
        "Descriptor": {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": aux["Digest"], "size": aux["Size"],
        },
        "Platforms": [{"architecture": make.architecture(), "os": "linux"}],
    }  # fmt: skip
    missing = engine.request("GET", f"/distribution/{name}:2/json", headers={"X-Registry-Auth": auth})
    assert (missing.status, missing.json()) == (404, {"message": "manifest unknown: manifest unknown"})
    for header, status in (("", 500), (base64.b64encode(b'{"username":"me","password":"x"}').decode(), 401)):
        answer = engine.request("GET", f"/distribution/{name}:1/json", headers={"X-Registry-Auth": header})
        assert answer.status == status
    token = base64.b64encode(b'{"registrytoken":"x"}').decode()
    assert engine.request("GET", f"/distribution/{name}:1/json", headers={"X-Registry-Auth": token}).status == 501


def test_helpers_keep_credentials(engine: Engine, tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-notes"
    kept = tmp_path / "kept"
    program.write_text(f"#!/bin/sh\ncase $1 in get) cat {kept};; store) cat >{kept};; erase) rm {kept};; esac\n")
    program.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"here:1": "notes"}, "other": 1}))
    script = (
        "from holdfast.cli.credentials import *; f = CredentialFile(); f.store('here:1', Login('u', 'p'));"
        "print(f.get('here:1'), auth_header('here:1/x') != '', f.erase('here:1'), f.get('here:1'))"
    )
    environment = [f"DOCKER_CONFIG={tmp_path}", f"PATH={tmp_path}:/usr/bin:/bin"]
    said = engine.inside("env", *environment, sys.executable, "-c", script).stdout
    assert said == "Login(username='u', password='p', identity_token='') True True None\n"
    document = json.loads((tmp_path / "config.json").read_text())
    assert (document["other"], document["auths"]) == (1, {})
