"""A user-mode-linux guest: boots in three seconds, needs neither KVM nor privileges, and can have its power cut.

Its kernel is Debian 12's 6.1 with cgroup v2, which is the oldest that we support. What runs in it is
`tests/vm/guest.py`; it reports through the console, one JSON object a line after `@@ `.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.engine import PROJECT

PRIVATE = PROJECT / "build" / "peers" / "root" / "usr"
SHARES = PROJECT / "build" / "peers" / "shares"
"""Servers for NFS and CIFS that the machine does not have installed."""


def find_kernel() -> tuple[Path, Path] | None:
    """The guest's kernel and the folder of its modules, where set-up or the machine has them."""
    for program, modules in (
        (PRIVATE / "bin" / "linux.uml", PRIVATE / "lib" / "uml" / "modules"),
        (Path("/usr/bin/linux.uml"), Path("/usr/lib/uml/modules")),
    ):
        if program.exists() and modules.is_dir():
            return program, modules
    return None


def architecture_has_guest() -> bool:
    """user-mode-linux exists for x86 only."""
    return platform.machine() in ("x86_64", "i686")


def make_disk(path: Path, size_mb: int = 512) -> Path:
    """An empty ext4 image for the guest's /state."""
    with path.open("wb") as image:
        image.truncate(size_mb << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, timeout=60)
    return path


class Guest:
    """One boot. Use as a context manager: whatever happens, no process of it is left."""

    def __init__(self, disk: Path, *what: str, memory_mb: int = 1024, channel: Path | None = None) -> None:
        """Boot with `disk` as its only disk and do `what`; with `channel`, do what is asked there: see `Remote`."""
        kernel = find_kernel()
        assert kernel is not None
        program, modules = kernel
        self.reports: list[dict[str, Any]] = []
        self.console: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        arguments = [
            f"mem={memory_mb}M", "rootfstype=hostfs", "rootflags=/", "rw", f"init={PROJECT}/tests/vm/guest-init.sh",
            f"ubd0={disk}", "con=null", "con0=null,fd:1", "quiet", "loglevel=3", "panic=-1",
            f"hf_modules={modules}", f"hf_project={PROJECT}", f"hf_run={','.join(what)}",
            f"hf_shares={SHARES if SHARES.is_dir() else ''}", f"hf_channel={channel or ''}",
        ]  # fmt: skip
        # A PID namespace, so that ending its first process ends every process of the guest. That process is a shell,
        # because a kernel that is PID 1 could not kill itself.
        self._process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", '"$@"; exit $?', "guest", program, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": _roomy_folder(memory_mb)},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as console:
            for line in console:
                text = line.decode(errors="replace").rstrip("\r\n")
                with self._news:
                    self.console.append(text)
                    before, mark, report = text.partition("@@ {")
                    if mark:
                        try:
                            self.reports.append(json.loads("{" + report))
                        except json.JSONDecodeError:
                            self.console.append(f"(not understood: {before}...)")
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, key: str, timeout_s: float = 90) -> Any:
        """Wait for a report with this key and return its value. AssertionError with the console if it never comes."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for report in self.reports:
                    if key in report:
                        return report[key]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    state = "ended" if self._ended else f"still runs after {timeout_s} s"
                    raise AssertionError(f"the guest {state} without saying {key!r}:\n" + "\n".join(self.console[-60:]))
                self._news.wait(left)

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def cut_power(self) -> None:
        """SIGKILL to every process of the guest at once: nothing is flushed, as when the plug is pulled."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._reader.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()


def _roomy_folder(memory_mb: int) -> str:
    """The guest's memory is a file: on a tmpfs if that is big enough, else on a disk."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free > memory_mb << 20:
        return str(shm)
    return "/tmp"
