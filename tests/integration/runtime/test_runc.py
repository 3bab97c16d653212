"""The second choice: runc, which is released by its own `start`."""

from __future__ import annotations

import signal

import pytest

from holdfast.runtime.attach import PACKET_BYTES, STDOUT, split_packet
from holdfast.runtime.messages import StartFailed
from holdfast.runtime.spec import SpecInput, build_spec
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.kernel


def test_life(runc_box: Box) -> None:
    box = runc_box
    facts = box.runtime.probe()
    assert (facts.name, facts.release, facts.namespace) == ("runc", "start", None)
    assert box.run("r1", "sh", "-c", "echo hello; exit 7") == (7, "hello\n")
    assert "Seccomp:\t2\n" in box.run("r1", "cat", "/proc/self/status")[1]
    for command, code in (("nosuch", 127), ("/no/such", 127), ("/etc", 126)):
        with pytest.raises(StartFailed, match="OCI runtime create failed: runc create failed: ") as failed:
            box.create("bad", command)
        assert failed.value.exit_code == code, str(failed.value)
    task = box.start("r2", "sleep", "60")
    spec, _ = build_spec(
        SpecInput(id="x", rootfs=box.rootfs, args=("sh", "-c", "echo inside; exit 3"), cgroups_path="/x"),
        box.runtime.host_facts(),
    )
    process = spec["process"]
    assert isinstance(process, dict)
    with box.runtime.exec_start("r2", "e1", process) as inside:
        assert inside.socket is not None
        assert split_packet(inside.socket.recv(PACKET_BYTES)) == (STDOUT, b"inside\n")
        assert inside.wait(10) == 3
    process["args"] = ["nosuch"]
    with pytest.raises(StartFailed) as failed:
        box.runtime.exec_start("r2", "e2", process)
    assert failed.value.exit_code == 127, str(failed.value)
    box.runtime.pause("r2")
    box.runtime.resume("r2")
    box.runtime.signal(task, "r2", signal.SIGKILL)
    assert box.ended("r2").exit_code == 137
    box.remove("r2")
