"""A registry of images in an engine's network namespace: Debian's docker-registry, closed and with TLS where asked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import PATH, Engine
from tests.support.images import busybox_archive

_CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http: {{addr: 127.0.0.1:{port}{tls}}}
{auth}"""

USER, PASSWORD = "me", "secret"
_HTPASSWD = "me:$2b$05$3gKmlMcPLPB5XZZMeg4eiesSmvZXm28Ug2xgGEkiR577Roh8561ZC"

TLS_HOST = "registry.test"
"""The name in a registry's certificate; `/etc/hosts` of the engine's namespace leads to it."""

_CERTIFICATES = """
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=test-ca \
    -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$1 -keyout key -out request
printf 'subjectAltName=DNS:%s\\n' "$1" >extensions
openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out certificate
"""
_KNOWN_TO_THE_ENGINE = """
set -e
cp /etc/hosts "$2/hosts" && echo "127.0.0.1 $1" >>"$2/hosts" && mount --bind "$2/hosts" /etc/hosts
mkdir -p "$2/docker/certs.d/$1:$3" && cp "$2/ca.crt" "$2/docker/certs.d/$1:$3/ca.crt"
mkdir -p /etc/docker && mount --bind "$2/docker" /etc/docker
"""


class Registry:
    """A running registry, reached as `address` from inside the engine's namespace."""

    def __init__(self, engine: Engine, port: int, host: str = "127.0.0.1") -> None:
        self.engine, self.address = engine, f"{host}:{port}"

    def push_busybox(self, name: str = "busybox:latest") -> None:
        """Put the busybox archive there under `name`, with skopeo and no engine."""
        self.engine.inside(
            "skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false",
            f"docker-archive:{busybox_archive()}", f"docker://{self.address}/{name}",
        )  # fmt: skip


@contextlib.contextmanager
def registry_for(
    engine: Engine, folder: Path, port: int = 5000, *, closed: bool = False, tls: bool = False
) -> Iterator[Registry]:
    """A registry for the time of a `with`, its data below `folder`.

    A `closed` one knows USER with PASSWORD alone. One with `tls` is called TLS_HOST, and its authority is made known to
    the engine, whose namespace keeps that.
    """
    program = shutil.which("docker-registry", path=PATH)
    if program is None or shutil.which("skopeo", path=PATH) is None:
        pytest.skip("needs docker-registry and skopeo: scripts/setup.sh test")
    folder.mkdir(parents=True, exist_ok=True)
    auth = secured = ""
    if closed:
        (folder / "htpasswd").write_text(_HTPASSWD + "\n")
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    if tls:
        argv = ["bash", "-c", _CERTIFICATES, "bash", TLS_HOST]
        made = subprocess.run(argv, cwd=folder, capture_output=True, check=False)
        assert made.returncode == 0, made.stderr.decode()
        engine.inside("sh", "-c", _KNOWN_TO_THE_ENGINE, "sh", TLS_HOST, str(folder), str(port))
        secured = f", tls: {{certificate: {folder}/certificate, key: {folder}/key}}"
    configuration = folder / "config.yml"
    configuration.write_text(_CONFIGURATION.format(folder=folder / "data", port=port, tls=secured, auth=auth))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*engine.enter(), program, "serve", str(configuration)],
            env={"PATH": PATH, "OTEL_TRACES_EXPORTER": "none"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
        while engine.inside(*probe, check=False).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text(errors="replace")
            time.sleep(0.05)
        yield Registry(engine, port, TLS_HOST if tls else "127.0.0.1")
    finally:
        process.terminate()
        process.wait(10)
