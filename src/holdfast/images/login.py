"""`docker login`: whether a registry takes somebody's credentials, and the token that stands for them.

Source: OCI distribution specification; the token authentication of the distribution project; Docker, `loginV2`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from holdfast.errors import InvalidParameter, System, Unauthorized
from holdfast.images.reference import DEFAULT_DOMAIN
from holdfast.images.skopeo import Credentials, is_loopback
from holdfast.images.web import Unreachable, opened

HUB_SERVER: Final = "https://index.docker.io/v1/"
"""The address under which credentials for Docker Hub are kept."""

_HUB_ENDPOINT: Final = "https://registry-1.docker.io"
_TIMEOUT_S: Final = 30.0
_ANSWER_MAX_BYTES: Final = 1 << 20
_CHALLENGE: Final = re.compile(r'(?P<scheme>Basic|Bearer)\s+(?P<rest>.*)', re.IGNORECASE)
_PARAMETER: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_HOST: Final = re.compile(r"[A-Za-z0-9._\-\[\]:]+")


def log_in(server: str, credentials: Credentials) -> str:
    """Present credentials to the registry at `server`; gives an identity token, "" where it issues none.

    `server` is a host with or without scheme and path; "" or Docker Hub's old address is Docker Hub. On the loopback
    address plain HTTP will do. Raises InvalidParameter, Unauthorized (a token server refuses), System.
    """
    failures: list[Unreachable] = []
    for endpoint, verify in _endpoints(server):
        try:
            return _present(endpoint, credentials, verify=verify)
        except Unreachable as error:
            failures.append(error)
    raise failures[-1]


def domain_of(server: str) -> str:
    """The registry's name in a server address. Raises InvalidParameter in Docker's words."""
    if not server or server == HUB_SERVER:
        return DEFAULT_DOMAIN
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    if not _HOST.fullmatch(host):
        bad = next((char for char in host if not _HOST.fullmatch(char)), "")
        why = f"invalid character {json.dumps(bad, ensure_ascii=False)} in host name" if bad else "no host"
        raise InvalidParameter(f'unable to parse server address: parse "https://{host}": {why}')
    return DEFAULT_DOMAIN if host in ("docker.io", "index.docker.io", "registry-1.docker.io") else host


def challenge(header: str) -> tuple[str, Mapping[str, str]]:
    """Take a `WWW-Authenticate` header apart: the scheme, "" for an unknown one, and its parameters. Pure."""
    match = _CHALLENGE.match(header.strip())
    if match is None:
        return "", {}
    return match["scheme"].lower(), {key.lower(): value for key, value in _PARAMETER.findall(match["rest"])}


def _endpoints(server: str) -> Iterator[tuple[str, bool]]:
    domain = domain_of(server)
    if domain == DEFAULT_DOMAIN:
        yield _HUB_ENDPOINT, True
    elif is_loopback(domain):
        yield f"https://{domain}", False
        yield f"http://{domain}", False
    else:
        yield f"https://{domain}", True


def _present(endpoint: str, credentials: Credentials, *, verify: bool) -> str:
    url = f"{endpoint}/v2/"
    with opened(url, timeout_s=_TIMEOUT_S, verify=verify) as response:
        status, asked = response.status, response.headers.get("WWW-Authenticate", "")
    scheme, parameters = challenge(asked)
    token = ""
    if status == HTTPStatus.UNAUTHORIZED:
        if scheme == "bearer":
            access, token = _fetch_token(url, parameters, credentials, verify=verify)
            authorization = f"Bearer {access}"
        elif credentials.username or credentials.password:
            authorization = f"Basic {_basic(credentials)}"
        else:
            raise System(f'Get "{url}": no basic auth credentials')
        with opened(url, headers={"Authorization": authorization}, timeout_s=_TIMEOUT_S, verify=verify) as response:
            status = response.status
    if status != HTTPStatus.OK:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
        raise System(f"login attempt to {url} failed with status: {status} {phrase}".rstrip())
    return token


def _fetch_token(url: str, parameters: Mapping[str, str], credentials: Credentials, *, verify: bool) -> tuple[str, str]:
    """Ask the token server that a registry names; gives the access token and, if it issues one, the identity token."""
    realm = parameters.get("realm", "")
    # The registry says where the password goes: not to a place where anybody can listen, unless it is there itself.
    if urlsplit(realm).scheme != "https" and not is_loopback(urlsplit(realm).netloc):
        raise System(f'Get "{url}": token server {realm!r} is not reached by https')
    service = {"service": parameters["service"]} if "service" in parameters else {}
    if credentials.identity_token:
        form = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token, "client_id": "holdfast"}
        answer = _ask(url, realm, {}, urlencode(form | service).encode(), verify=verify)
    else:
        query = {"account": credentials.username, "client_id": "holdfast", "offline_token": "true", **service}
        headers = {"Authorization": f"Basic {_basic(credentials)}"} if credentials.username else {}
        separator = "&" if urlsplit(realm).query else "?"
        answer = _ask(url, f"{realm}{separator}{urlencode(query)}", headers, None, verify=verify)
    access = answer.get("token") or answer.get("access_token")
    if not isinstance(access, str):
        raise System(f'Get "{url}": authorization server did not include a token in the response')
    refresh = answer.get("refresh_token")
    return access, refresh if isinstance(refresh, str) else ""


def _ask(
    url: str, realm: str, headers: Mapping[str, str], data: bytes | None, *, verify: bool
) -> Mapping[str, Any]:
    with opened(realm, headers=headers, data=data, timeout_s=_TIMEOUT_S, verify=verify) as response:
        status, text = response.status, response.read(_ANSWER_MAX_BYTES)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Unauthorized(f'Get "{url}": unauthorized: incorrect username or password')
    try:
        answer = json.loads(text) if status == HTTPStatus.OK else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise System(f'Get "{url}": token server answered with status {status}')
    return answer


def _basic(credentials: Credentials) -> str:
    return base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
