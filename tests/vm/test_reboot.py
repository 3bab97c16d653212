"""A machine whose power is cut comes back with exactly the containers that should run, file servers included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.guest import Guest, architecture_has_guest, find_kernel, make_disk
from tests.support.images import busybox_archive
from tests.vm.reboot import CONTAINERS, NFS_VOLUMES, RUN_AGAIN

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.mark.skipif(not architecture_has_guest(), reason="this machine's architecture has no user-mode-linux")
@pytest.mark.skipif(find_kernel() is None, reason="needs user-mode-linux: scripts/setup.sh test")
def test_ten_containers_on_three_nfs_volumes(tmp_path: Path) -> None:
    busybox_archive()
    disk = make_disk(tmp_path / "disk", size_mb=768)
    with Guest(disk, "reboot-before") as guest:
        left = guest.wait_for("rebooting", timeout_s=150)
        guest.cut_power()
    assert {name for name, state in left.items() if state == "running"} == {
        name for name, (_, _, command, held) in CONTAINERS.items() if command != "true" and not held
    }
    os.sync()
    with Guest(disk, "reboot-after") as guest:
        found = guest.wait_for("rebooted", timeout_s=150)
        last = next(report for report in guest.reports if "rebooted" in report)
    assert found == {name: "running" if name in RUN_AGAIN else "exited" for name in CONTAINERS}
    assert last["early"]["always"] != "running", "its server was away"
    assert last["texts"] == {volume: [0, f"{volume}\n"] for volume in NFS_VOLUMES}
    assert [Path(mount).parent.name for mount in last["mounts"]] == sorted(NFS_VOLUMES), "each once"
