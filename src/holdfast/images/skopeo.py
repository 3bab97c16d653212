"""Registries, by way of skopeo: manifests are fetched exactly as they are, images copied to and from directories.

skopeo's `dir:` transport keeps every byte (`oci:` rewrites Docker's configurations: HEALTHCHECK, ONBUILD and SHELL
vanish and the image's id changes):

    manifest.json   the manifest
    version         which form of the transport this is
    HEX             a blob, named by its sha256 digest; `dir-put-blob...` while it is on its way

Credentials go in a file without a name that only the child can read, never in arguments or environment.
Sources: skopeo-copy(1), containers-transports(5), containers-auth.json(5).
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from holdfast.errors import DeadlineExceeded, NotFound, System, Unauthorized, Unsupported
from holdfast.images.reference import DEFAULT_DOMAIN, DEFAULT_TAG, Reference
from holdfast.process.run import CLEAN_ENVIRONMENT, run, spawn

VERSION_FILE: Final = b"Directory Transport Version: 1.1\n"

_INSPECT_TIMEOUT_S: Final = 60.0
_STALL_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.1
_MANIFEST_MAX_BYTES: Final = 4 << 20
_SAID_BYTES: Final = 8000
_PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_POLICY: Final = Path("/etc/containers/policy.json")
_UNKNOWN_NAME: Final = ("name unknown", "repository name not known")
_UNAUTHORIZED: Final = ("unauthorized", "authentication required", "invalid username/password")
_FATAL: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry: a user's name and password, or a token that stands for both; empty for nobody.

    A registry token, which is one access alone, is known but refused: skopeo takes it as an argument, for all to see.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


def fetch_manifest(wanted: Reference, credentials: Credentials) -> bytes:
    """Get a manifest or index as the registry has it.

    Raises NotFound (no such image, or no access), Unauthorized, DeadlineExceeded, System.
    """
    with _authfile(credentials, wanted) as (fd, path):
        argv = ["skopeo", *_policy(), "inspect", "--raw", f"--authfile={path}", _tls("", wanted), _docker(wanted)]
        done = run(argv, timeout_s=_INSPECT_TIMEOUT_S, env=_environment(Path("/tmp")), pass_fds=(fd,), check=False)
    if done.returncode != 0:
        raise failure(done.stderr.decode(errors="replace"), wanted, credentials)
    if len(done.stdout) > _MANIFEST_MAX_BYTES:
        raise System(f"manifest of {wanted.familiar} has {len(done.stdout)} bytes, at most {_MANIFEST_MAX_BYTES}")
    return done.stdout


def list_tags(repository: Reference, credentials: Credentials) -> list[str]:
    """Give the tags that a registry has of a repository. Raises as `fetch_manifest`."""
    with _authfile(credentials, repository) as (fd, path):
        place = f"docker://{repository.name}"
        argv = ["skopeo", *_policy(), "list-tags", f"--authfile={path}", _tls("", repository), place]
        done = run(argv, timeout_s=_INSPECT_TIMEOUT_S, env=_environment(Path("/tmp")), pass_fds=(fd,), check=False)
    if done.returncode != 0:
        raise failure(done.stderr.decode(errors="replace"), repository, credentials)
    try:
        tags = json.loads(done.stdout)["Tags"]
    except (ValueError, KeyError, TypeError) as error:
        raise System(f"tags of {repository.familiar_name}: {error}") from error
    return [tag for tag in tags or [] if isinstance(tag, str)]


def registry_child(
    arguments: Sequence[str],
    wanted: Reference,
    credentials: Credentials,
    scratch: Path,
    *,
    stderr: IO[bytes],
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    """Start skopeo with what it needs to reach the registry of `wanted`; the caller kills and reaps it.

    Raises ProgramFailed.
    """
    with _authfile(credentials, wanted) as (fd, path):
        argv = ["skopeo", *_policy(), *arguments, f"--authfile={path}", _tls("", wanted)]
        return spawn(argv, env=_environment(scratch), pass_fds=(fd, *pass_fds), stderr=stderr)


def send_image(
    directory: Path, destination: Reference, credentials: Credentials, moved: Callable[[int], int]
) -> str:
    """Copy the image in `directory` to its registry; gives the digest of the manifest as it is there now.

    `moved` is called now and then with the child's process id and gives a number that changes while something moves.
    Raises Unauthorized, System, DeadlineExceeded, and what `moved` raises.
    """
    digest_file = directory.parent / "digest"
    with _authfile(credentials, destination) as (fd, path), tempfile.TemporaryFile(dir=directory.parent) as said:
        options = [f"--dest-authfile={path}", f"--digestfile={digest_file}", _tls("dest-", destination)]
        child = spawn(
            ["skopeo", *_policy(), "copy", "--quiet", *options, f"dir:{directory}", _docker(destination)],
            env=_environment(directory.parent),
            pass_fds=(fd,),
            stderr=said,
        )
        try:
            _watch(child, moved)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if child.returncode != 0:
            said.seek(0, os.SEEK_END)
            said.seek(max(0, said.tell() - _SAID_BYTES))
            raise failure(said.read().decode(errors="replace"), destination, credentials, pushing=True)
    return digest_file.read_text().strip()


def failure(
    said: str, wanted: Reference, credentials: Credentials | None = None, *, pushing: bool = False
) -> NotFound | Unauthorized | System:
    """Turn what skopeo said last into an error, in Docker's words where it has some. Pure."""
    text = _fatal_message(said)
    low = text.lower()
    if "incorrect username or password" in low:
        return Unauthorized(f"unauthorized: {text.rpartition(': ')[2]}")
    unknown = any(words in low for words in (*_UNKNOWN_NAME, "404 (not found)"))
    if unknown and not (wanted.tag or wanted.digest):
        return NotFound(
            f"repository {wanted.familiar_name} not found: name unknown: repository name not known to registry"
        )
    if not pushing and any(words in low for words in (*_UNKNOWN_NAME, "manifest unknown")):
        return NotFound(f"manifest for {wanted.familiar} not found: manifest unknown: manifest unknown")
    anonymous = credentials is None or credentials == Credentials()
    if any(words in low for words in _UNAUTHORIZED):
        if not anonymous:
            return Unauthorized("unauthorized: authentication required")
        if pushing:
            return System("no basic auth credentials")
        if wanted.domain != DEFAULT_DOMAIN:
            scheme = "http" if is_loopback(wanted.domain) else "https"
            place = f"{wanted.path}/manifests/{wanted.digest or wanted.tag or DEFAULT_TAG}"
            return System(f'Head "{scheme}://{wanted.domain}/v2/{place}": no basic auth credentials')
    if "denied" in low or any(words in low for words in _UNAUTHORIZED):
        denied = "denied: requested access to the resource is denied"
        if pushing:
            return System(denied)
        return NotFound(
            f"pull access denied for {wanted.familiar_name}, repository does not exist or may require 'docker login':"
            f" {denied}"
        )
    begin = text.find('Get "http')
    return System(text[begin:] if begin >= 0 else text or "skopeo failed")


def is_loopback(domain: str) -> bool:
    """Whether a registry is on this machine; plain HTTP is allowed there. Source: Docker, `insecure-registries`."""
    host = domain[1 : domain.find("]")] if domain.startswith("[") else domain.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _watch(child: subprocess.Popen[bytes], moved: Callable[[int], int]) -> None:
    """Wait for the copy to end; given up when nothing moves for five minutes."""
    last, moved_at = -1, time.monotonic()
    while True:
        try:
            child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            activity = moved(child.pid) + _cpu_ticks(child.pid)
        else:
            moved(child.pid)
            return
        if activity != last:
            last, moved_at = activity, time.monotonic()
        elif time.monotonic() - moved_at > _STALL_TIMEOUT_S:
            raise DeadlineExceeded(f"registry: nothing moved for {_STALL_TIMEOUT_S:g} s")


def _cpu_ticks(pid: int) -> int:
    """Processor time that a child used, in clock ticks: an upload moves nothing that can be seen in files."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def _authfile(credentials: Credentials, wanted: Reference) -> Iterator[tuple[int, str]]:
    """A file in memory with the credentials for one registry; without any it is empty, so that no other is read."""
    entry: dict[str, str] = {}
    if credentials.registry_token:
        raise Unsupported("a registry token cannot be handed on: use a user name and password, or an identity token")
    if credentials.username or credentials.password:
        entry["auth"] = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
        entry.setdefault("auth", base64.b64encode(b"<token>:").decode())
    fd = os.memfd_create("registry-auth")
    try:
        os.write(fd, json.dumps({"auths": {wanted.domain: entry} if entry else {}}).encode())
        yield fd, f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _docker(wanted: Reference) -> str:
    return f"docker://{wanted.with_digest(wanted.digest) if wanted.digest else wanted}"


def _tls(side: str, wanted: Reference) -> str:
    verify = wanted.domain == DEFAULT_DOMAIN or not is_loopback(wanted.domain)
    return f"--{side}tls-verify={'true' if verify else 'false'}"


def _policy() -> list[str]:
    """Signatures are asked for where the machine has a policy; Docker knows none."""
    return [] if _POLICY.exists() else ["--insecure-policy"]


def _environment(scratch: Path) -> dict[str, str]:
    passed = {
        name: os.environ[name] for key in _PASSED_ON for name in (key, key.lower()) if os.environ.get(name)
    }
    return {**CLEAN_ENVIRONMENT, "TMPDIR": str(scratch), **passed}


def _fatal_message(said: str) -> str:
    found = _FATAL.findall(said)
    if not found:
        return said.strip().rpartition("\n")[2]
    text = found[-1]
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            text = json.loads(text)
    return " ".join(text.split())
