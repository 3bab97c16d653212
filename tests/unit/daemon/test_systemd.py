"""What the engine and systemd say to each other."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from holdfast.daemon import systemd


def test_notify_reaches_the_manager(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        systemd.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"


def test_notify_without_a_manager_is_silent() -> None:
    systemd.notify("READY=1", {})


def test_sockets_for_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
    assert systemd.activation_sockets(environment) == []
    assert environment == {}
