"""On the oldest kernel we support, with cgroup v2 alone; and what is left after the power is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest import Guest, architecture_has_guest, find_kernel, make_disk
from tests.support.images import busybox_archive
from tests.vm.guest import CHECKS, SHARE_CHECKS

pytestmark = [pytest.mark.vm, pytest.mark.timeout(450)]


@pytest.fixture(scope="module", autouse=True)
def guest_kernel() -> None:
    """The guest's kernel, or a skip; and an image that need not be made slowly inside."""
    if not architecture_has_guest():
        pytest.skip("this machine's architecture has no user-mode-linux")
    if find_kernel() is None:
        pytest.skip("needs user-mode-linux: scripts/setup.sh test")
    busybox_archive()


@pytest.fixture(scope="module")
def core_reports(tmp_path_factory: pytest.TempPathFactory, guest_kernel: None) -> Iterator[list[dict[str, Any]]]:
    """One boot for all checks; the reports, and the end of the engine's log for failures."""
    with Guest(make_disk(tmp_path_factory.mktemp("core") / "disk"), "core", "shares") as guest:
        guest.wait_for("exit", timeout_s=420)
        yield guest.reports


@pytest.mark.parametrize("name", [*CHECKS, *SHARE_CHECKS])
def test_core_in_the_guest(core_reports: list[dict[str, Any]], name: str) -> None:
    found = [report for report in core_reports if report.get("check") == name]
    log = [report["log"] for report in core_reports if "log" in report]
    assert found, f"the guest never came to {name}"
    assert found[0]["error"] == "", "\n".join([found[0]["error"], *found[0].get("where", []), *(log[0] if log else [])])


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk")
    with Guest(disk, "before") as guest:
        guest.wait_for("safe", timeout_s=120)
        guest.wait_for("acknowledged", timeout_s=30)
        guest.cut_power()
        acknowledged = {f"late-{report['acknowledged']}" for report in guest.reports if "acknowledged" in report}
    assert acknowledged
    os.sync()
    with Guest(disk, "after") as guest:
        found = guest.wait_for("found", timeout_s=180)

    volumes = found["volumes"]
    assert volumes["first"] == volumes["second"] == {"made": "before"}
    assert "gone" not in volumes
    assert acknowledged <= set(volumes)
    assert sorted(volumes) == found["folders"], "every volume has its folder"
    assert found["first"] == [0, "safe\n"]

    assert found["states"] == {"again": "running", "never": "exited", "held": "exited", "twice": "running"}
    for name, state in found["states"].items():
        # busybox calls itself by its applet's name
        assert found["processes"][name] == ("sleep" if state == "running" else ""), (name, found["processes"])
    assert found["second_in_use"] == 409
