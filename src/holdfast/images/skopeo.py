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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import DeadlineExceeded, NotFound, System, Unauthorized
from holdfast.images.reference import DEFAULT_DOMAIN, Reference
from holdfast.process.run import CLEAN_ENVIRONMENT, run, spawn

VERSION_FILE: Final = b"Directory Transport Version: 1.1\n"

_INSPECT_TIMEOUT_S: Final = 60.0
_STALL_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.1
_MANIFEST_MAX_BYTES: Final = 4 << 20
_SAID_BYTES: Final = 8000
_PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_POLICY: Final = Path("/etc/containers/policy.json")
_UNKNOWN: Final = ("manifest unknown", "name unknown", "repository name not known")
_DENIED: Final = ("denied", "unauthorized", "authentication required")
_FATAL: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks a registry: a user's name and password, or a token that stands for both; empty for nobody."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

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
        raise failure(done.stderr.decode(errors="replace"), wanted)
    if len(done.stdout) > _MANIFEST_MAX_BYTES:
        raise System(f"manifest of {wanted.familiar} has {len(done.stdout)} bytes, at most {_MANIFEST_MAX_BYTES}")
    return done.stdout


def fetch_image(
    wanted: Reference, credentials: Credentials, directory: Path, received: Callable[[Mapping[str, int], int], None]
) -> None:
    """Copy an image, by digest, to `directory`, which must not exist.

    `received` is told now and then the sizes of the blobs that are complete, by their names, and the number of bytes of
    those still on their way. Raises as `fetch_manifest`; given up when nothing moves for five minutes.
    """
    with _authfile(credentials, wanted) as (fd, path):
        options = ["--remove-signatures", f"--src-authfile={path}", _tls("src-", wanted)]
        _copy([*options, _docker(wanted), f"dir:{directory}"], fd, directory, received, wanted)


def send_image(
    directory: Path,
    destination: Reference,
    credentials: Credentials,
    received: Callable[[Mapping[str, int], int], None],
) -> str:
    """Copy the image in `directory` to its registry; gives the digest of the manifest as it is there now.

    Raises Unauthorized, System, DeadlineExceeded.
    """
    digest_file = directory.parent / "digest"
    with _authfile(credentials, destination) as (fd, path):
        options = [f"--dest-authfile={path}", f"--digestfile={digest_file}", _tls("dest-", destination)]
        _copy([*options, f"dir:{directory}", _docker(destination)], fd, directory, received, destination)
    return digest_file.read_text().strip()


def failure(said: str, wanted: Reference) -> NotFound | Unauthorized | System:
    """Turn what skopeo said last into an error, in Docker's words where it has some. Pure."""
    text = _fatal_message(said)
    low = text.lower()
    if any(words in low for words in _UNKNOWN):
        return NotFound(f"manifest for {wanted.familiar} not found: manifest unknown: manifest unknown")
    if any(words in low for words in _DENIED):
        if "incorrect username or password" in low or "invalid username/password" in low:
            return Unauthorized(f"unauthorized: {text.rpartition(': ')[2]}")
        return NotFound(
            f"pull access denied for {wanted.familiar_name}, repository does not exist or may require 'docker login':"
            " denied: requested access to the resource is denied"
        )
    place = text.find('Get "http')
    return System(text[place:] if place >= 0 else text or "skopeo failed")


def is_loopback(domain: str) -> bool:
    """Whether a registry is on this machine; plain HTTP is allowed there. Source: Docker, `insecure-registries`."""
    host = domain[1 : domain.find("]")] if domain.startswith("[") else domain.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _copy(
    arguments: Sequence[str],
    auth_fd: int,
    directory: Path,
    received: Callable[[Mapping[str, int], int], None],
    wanted: Reference,
) -> None:
    with tempfile.TemporaryFile(dir=directory.parent) as said:
        child = spawn(
            ["skopeo", *_policy(), "copy", "--quiet", *arguments],
            env=_environment(directory.parent),
            pass_fds=(auth_fd,),
            stderr=said,
        )
        try:
            _watch(child, directory, received)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if child.returncode != 0:
            said.seek(0, os.SEEK_END)
            said.seek(max(0, said.tell() - _SAID_BYTES))
            raise failure(said.read().decode(errors="replace"), wanted)


def _watch(
    child: subprocess.Popen[bytes], directory: Path, received: Callable[[Mapping[str, int], int], None]
) -> None:
    """Wait for the copy and tell how far it is, by the sizes of files."""
    last, moved_at = -1, time.monotonic()
    ended = False
    while not ended:
        try:
            child.wait(_POLL_S)
            ended = True
        except subprocess.TimeoutExpired:
            pass
        complete, partial = _sizes(directory)
        received(complete, partial)
        amount = sum(complete.values()) + partial
        activity = amount + _cpu_ticks(child.pid)
        if activity != last:
            last, moved_at = activity, time.monotonic()
        elif time.monotonic() - moved_at > _STALL_TIMEOUT_S:
            raise DeadlineExceeded(f"registry: nothing came for {_STALL_TIMEOUT_S:g} s")


def _sizes(directory: Path) -> tuple[dict[str, int], int]:
    complete: dict[str, int] = {}
    partial = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat(follow_symlinks=False).st_size
                if len(entry.name) == 64:
                    complete[entry.name] = size
                elif entry.name.startswith("dir-put-blob"):
                    partial += size
    return complete, partial


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
