"""The engine killed in the middle of a commit: the container goes on, and there is no image."""

from __future__ import annotations

import contextlib
import http.client
from pathlib import Path

import pytest

from tests.support.engine import engine_below

pytestmark = [pytest.mark.fault, pytest.mark.kernel]


def test_killed_while_committing(tmp_path: Path) -> None:
    with engine_below(tmp_path) as engine:
        engine.docker("run", "-d", "--name", "worked", "busybox", "sh", "-c", "echo new >/new; sleep 1000")
        for point in ("commit-paused", "commit-read-not-resumed", "image-placed-not-recorded"):
            engine.stop()
            engine.start(faults=point)
            with contextlib.suppress(OSError, http.client.HTTPException):
                engine.request("POST", "/commit?container=worked&repo=made")
            assert engine.wait_dead() == -9, point
            engine.start()
            assert engine.call("GET", "/containers/worked/json")["State"]["Status"] == "running", point
            assert engine.docker("exec", "worked", "cat", "/new").stdout == "new\n", point
            names = [each["RepoTags"] for each in engine.call("GET", "/images/json?all=1")]
            assert names == [["busybox:latest"]], point
            assert not list((engine.state_root / "images" / "tmp").iterdir()), point
        engine.call("POST", "/commit?container=worked&repo=made")
        assert engine.docker("run", "--rm", "made", "cat", "/new").stdout == "new\n"
