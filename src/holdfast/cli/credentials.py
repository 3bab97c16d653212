"""Credentials for registries, kept where Docker's client keeps them, so that a login with either serves both.

    $DOCKER_CONFIG/config.json, else ~/.docker/config.json
        auths         server → {"auth": base64 of user:password, "identitytoken"}
        credHelpers   server → NAME: the program docker-credential-NAME keeps that one
        credsStore    NAME for all others

Source: docker/cli, `configfile`; docker-credential-helpers, its protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast.cli.reference import full
from holdfast.cli.session import Refused
from holdfast.errors import EngineError
from holdfast.process.run import run

HUB: Final = "https://index.docker.io/v1/"
"""The name of Docker Hub in the file."""

_HELPER_TIMEOUT_S: Final = 60.0
_TOKEN_USER: Final = "<token>"


@dataclass(frozen=True, slots=True)
class Login:
    """Who somebody is at a registry: name and password, or a token that stands for both."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def document(self, server: str) -> dict[str, str]:
        """The AuthConfig of the API."""
        secret = {"identitytoken": self.identity_token} if self.identity_token else {"password": self.password}
        return {"username": self.username, **secret, "serveraddress": server}


class CredentialFile:
    """The file, read when it is made. Raises Refused for one that cannot be read or is no JSON."""

    def __init__(self, folder: str | None = None) -> None:
        home = folder or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        self.path = Path(home) / "config.json"
        self._document = self._read()

    def get(self, server: str) -> Login | None:
        """Give what is kept for a server. Raises Refused if a helper fails."""
        helper = self._helper(server)
        if helper:
            return _from_helper(helper, server)
        entry = self._auths().get(server)
        return _decode(entry) if isinstance(entry, dict) else None

    def store(self, server: str, login: Login) -> bool:
        """Keep a login; True if it now lies in the file itself, where it can be read. Raises Refused."""
        helper = self._helper(server)
        if helper:
            secret = {"Secret": login.identity_token or login.password}
            user = _TOKEN_USER if login.identity_token else login.username
            _ask_helper(helper, "store", json.dumps({"ServerURL": server, "Username": user, **secret}))
            self._auths()[server] = {}
            self._write()
            return False
        password = "" if login.identity_token else login.password
        entry = {"auth": base64.b64encode(f"{login.username}:{password}".encode()).decode()}
        if login.identity_token:
            entry["identitytoken"] = login.identity_token
        self._auths()[server] = entry
        self._write()
        return True

    def erase(self, server: str) -> bool:
        """Forget a login; False if there was none. Raises Refused."""
        known = server in self._auths()
        helper = self._helper(server)
        if helper:
            known = _from_helper(helper, server) is not None or known
            _ask_helper(helper, "erase", server)
        if self._auths().pop(server, None) is not None:
            self._write()
        return known

    def servers(self) -> list[str]:
        """The servers that somebody logged in to."""
        return sorted(self._auths())

    def _auths(self) -> dict[str, Any]:
        found = self._document.setdefault("auths", {})
        if not isinstance(found, dict):
            raise Refused(f"{self.path}: auths is no object")
        return found

    def _helper(self, server: str) -> str:
        helpers = self._document.get("credHelpers")
        own = helpers.get(server) if isinstance(helpers, dict) else None
        found = own or self._document.get("credsStore")
        return found if isinstance(found, str) else ""

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise Refused(f"{self.path}: {error}") from error
        if not isinstance(document, dict):
            raise Refused(f"{self.path}: no object")
        return document

    def _write(self) -> None:
        """Write it whole under another name first: nobody ever reads half of it, or with a wider mode."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self.path.parent, prefix=".config-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._document, file, indent="\t")
            os.replace(draft, os.path.realpath(self.path))
        except OSError as error:
            raise Refused(f"{self.path}: {error.strerror or error}") from error


def server_of(repository: str) -> str:
    """The server, as the file names it, that a repository lies on."""
    domain = full(repository).partition("/")[0]
    return HUB if domain == "docker.io" else domain


def normal_server(text: str) -> str:
    """The server as the file names it: without scheme and path; Docker Hub has a name of its own."""
    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0]
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def auth_header(repository: str) -> str:
    """`X-Registry-Auth` for a repository; "" where nobody logged in. Raises Refused."""
    server = server_of(repository)
    login = CredentialFile().get(server)
    if login is None:
        return ""
    return base64.urlsafe_b64encode(json.dumps(login.document(server)).encode()).decode()


def config_header() -> str:
    """`X-Registry-Config` for a build, which may need several registries; "" where nobody logged in. Raises Refused."""
    known = CredentialFile()
    logins = {server: login.document(server) for server in known.servers() if (login := known.get(server)) is not None}
    return base64.urlsafe_b64encode(json.dumps(logins).encode()).decode() if logins else ""


def _decode(entry: Mapping[str, Any]) -> Login | None:
    token = entry.get("identitytoken")
    try:
        username, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        username = password = ""
    login = Login(username, password.rstrip("\0"), token if isinstance(token, str) else "")
    return None if login == Login() else login


def _from_helper(helper: str, server: str) -> Login | None:
    said = _ask_helper(helper, "get", server)
    try:
        answer = json.loads(said)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return None  # it has none: helpers say so in words of their own
    return Login(identity_token=secret) if user == _TOKEN_USER else Login(user, secret)


def _ask_helper(helper: str, verb: str, text: str) -> str:
    program = f"docker-credential-{helper}"
    try:
        done = run([program, verb], timeout_s=_HELPER_TIMEOUT_S, env=os.environ, stdin=text.encode(), check=False)
    except EngineError as error:
        raise Refused(f"error getting credentials: {error}") from error
    if done.returncode != 0 and verb == "store":
        said = (done.stdout or done.stderr).decode(errors="replace").strip()
        raise Refused(f"error saving credentials: {program}: {said}")
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
