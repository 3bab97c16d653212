"""Docker Engine in an engine's place, for asking it whether our transcripts tell the truth.

It is unpacked below build/peers by `scripts/setup.sh bench`, and runs in the same namespaces as ours would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.engine import PROJECT, Engine

_ROOT = PROJECT / "build" / "peers" / "root" / "usr"
_PATH = f"{_ROOT}/bin:{_ROOT}/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class DockerEngine(Engine):
    """A dockerd with everything below `folder`."""

    def start(self, *, faults: str = "", wait_s: float = 60) -> None:
        """Start it and wait until it answers; it has no fault points."""
        assert not faults
        run = self.run_root
        configuration = run / "daemon.json"
        configuration.write_text("{}")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.enter(), "dockerd", "--config-file", str(configuration), "--data-root", str(self.state_root),
                 "--exec-root", str(run / "exec"), "--pidfile", str(run / "pid"), "--host", f"unix://{self.socket_path}",
                 "--init-path", "/usr/bin/catatonit"],
                env={"PATH": _PATH, "HOME": str(self.folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + wait_s
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log_tail()
            time.sleep(0.05)

    def _kill_leftovers(self) -> None:
        """Its shims stay in a session of their own, and name its folder."""
        own = str(self.run_root).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if own in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
