"""A container's life through the rooms themselves: made, run, read, removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.containers.model import HostConfig
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.rooms import rooms_below

pytestmark = pytest.mark.kernel


@in_mount_and_network_namespace
def test_run_to_the_end(tmp_path: Path) -> None:
    with rooms_below(tmp_path) as rooms:
        key, code, output = rooms.run("sh", "-c", "echo out; hostname; exit 7")
        assert (code, output) == (7, f"out\n{key[:12]}\n".encode())
        assert rooms.containers.get(key).state.status == "exited"
        rooms.containers.remove(key)
        assert rooms.actions(key) == ["create", "start", "die", "destroy"]
        assert not rooms.containers.all()


@in_mount_and_network_namespace
def test_auto_remove_takes_anonymous_volumes(tmp_path: Path) -> None:
    with rooms_below(tmp_path) as rooms:
        host = HostConfig(network_mode="none", auto_remove=True, binds=("named:/named", "/anonymous"))
        gone = rooms.create("sh", "-c", "echo x >/named/x; echo y >/anonymous/y", host=host)
        assert len(rooms.volumes.list()) == 2
        ended = rooms.containers.get(gone).removed()
        rooms.containers.start(gone)
        assert ended.wait(20)
        assert [volume.record.name for volume in rooms.volumes.list()] == ["named"]
        assert (rooms.config.state_root / "volumes" / "named" / "_data" / "x").read_text() == "x\n"
        assert rooms.actions("named") == ["create", "mount", "unmount"]


@in_mount_and_network_namespace
def test_readonly_and_bind_mounts(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("data\n")
    with rooms_below(tmp_path) as rooms:
        binds = (f"{tmp_path}/source:/bound:ro", "vol:/vol:ro", f"{tmp_path}/made:/made")
        command = "cat /bound/file; touch /bound/x || touch /vol/x || echo refused; touch /made/y"
        _, code, output = rooms.run("sh", "-c", command, host=HostConfig(network_mode="none", binds=binds))
        assert code == 0
        assert output.startswith(b"data\n") and b"refused\n" in output  # stdout and stderr are two pipes
        assert os.listdir(tmp_path / "made") == ["y"]
        assert not any((tmp_path / "run" / "mounts").iterdir())
