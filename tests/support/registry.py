"""A registry of images on the loopback address of an engine's network namespace: Debian's docker-registry."""

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
http: {{addr: 127.0.0.1:{port}}}
"""


class Registry:
    """A running registry, reached as `address` from inside the engine's namespace."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine, self.address = engine, f"127.0.0.1:{port}"

    def push_busybox(self, name: str = "busybox:latest") -> None:
        """Put the busybox archive there under `name`, with skopeo and no engine."""
        self.engine.inside(
            "skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false",
            f"docker-archive:{busybox_archive()}", f"docker://{self.address}/{name}",
        )  # fmt: skip


@contextlib.contextmanager
def registry_for(engine: Engine, folder: Path, port: int = 5000) -> Iterator[Registry]:
    """A registry for the time of a `with`, its data below `folder`."""
    program = shutil.which("docker-registry", path=PATH)
    if program is None or shutil.which("skopeo", path=PATH) is None:
        pytest.skip("needs docker-registry and skopeo: scripts/setup.sh test")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "config.yml"
    configuration.write_text(_CONFIGURATION.format(folder=folder / "data", port=port))
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
        yield Registry(engine, port)
    finally:
        process.terminate()
        process.wait(10)
