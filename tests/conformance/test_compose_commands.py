"""The commands of Docker Compose 2: what they do and say, and their exit codes."""

from __future__ import annotations

import io
import json
import shutil
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.compose import Project, fetch, installed
from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.registry import registry_for

FILES = Path(__file__).parent / "compose" / "commands"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def project(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project's folder; each test brings up what it needs."""
    made = Project(engine, tmp_path_factory.mktemp("projects") / "commands")
    shutil.copytree(FILES, made.folder, dirs_exist_ok=True)
    yield made
    made.down()


@pytest.fixture
def web(project: Project) -> Project:
    """The project, with service `web` up."""
    project.run("up", "-d", "--wait", "web")
    return project


def code(project: Project, *words: str) -> tuple[int, str]:
    """How a command ends that need not succeed, and what it wrote to stdout."""
    done = project.run(*words, check=False)
    return done.returncode, done.stdout


def states(project: Project) -> dict[str, str]:
    """The state of each container by its service."""
    rows = project.run("ps", "-a", "--format", "json").stdout.splitlines()
    return {row["Service"]: row["State"] for row in map(json.loads, rows)}


def test_up_attached(project: Project) -> None:
    done = project.run("up", "--no-color", "say")
    assert "say-1  | out\n" in done.stdout and "say-1  | err\n" in done.stderr and "exited with code 3" in done.stdout
    failing = ("--exit-code-from", "say"), ("--abort-on-container-failure",)
    for words in failing:
        assert code(project, "up", *words, "say")[0] == 3
    with project.start("up", "--no-color", "web") as running:
        assert running.stdout is not None
        assert "web-1  | started\n" in iter(running.stdout.readline, "")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130 and states(project)["web"] == "exited"


def test_looking(web: Project, engine: Engine) -> None:
    assert web.run("config", "--services").stdout.split() == ["say", "web"]
    assert web.run("port", "web", "80").stdout == "127.0.0.1:18082\n"
    assert "no port 81/tcp" in web.run("port", "web", "81", check=False).stderr
    assert fetch(engine, 18082, "/index.html", patience_s=10) == "page\n"
    assert "httpd -f -p 80" in web.run("top").stdout
    assert web.run("images", "web").stdout.splitlines()[1].split()[:3] == ["commands-web-1", "busybox", "latest"]
    shown = web.run("ps", "web").stdout.splitlines()[1]
    assert shown.split()[:2] == ["commands-web-1", "busybox"] and "127.0.0.1:18082->80/tcp" in shown
    assert json.loads(web.run("ls", "--format", "json").stdout)[0]["Name"] == "commands"
    assert web.run("stats", "--no-stream", "--format", "{{.Name}}").stdout == "commands-web-1\n"
    assert web.run("volumes", "-q").stdout == ""


def test_logs(web: Project) -> None:
    web.run("up", "-d", "--force-recreate", "web")
    while web.run("logs", "--no-color", "--no-log-prefix", "web").stdout != "started\n":
        time.sleep(0.1)
    web.run("exec", "-T", "web", "sh", "-c", "echo later >/proc/1/fd/1")
    assert web.run("logs", "--no-color", "--tail", "1", "web").stdout == "web-1  | later\n"
    stamped = web.run("logs", "--no-log-prefix", "--no-color", "-t", "web").stdout.splitlines()
    assert [line.split()[1] for line in stamped] == ["started", "later"]
    assert web.run("logs", "--no-log-prefix", "--since", stamped[1].split()[0], "web").stdout == "later\n"
    with web.start("logs", "-f", "--no-log-prefix", "--no-color", "--tail", "1", "web") as following:
        assert following.stdout is not None and following.stdout.readline() == "later\n"
        web.run("exec", "-T", "web", "sh", "-c", "echo last >/proc/1/fd/1")
        assert following.stdout.readline() == "last\n"
        web.run("stop", "-t", "0", "web")
        assert following.wait(20) == 0


def test_exec_run_and_cp(web: Project, engine: Engine) -> None:
    script = "id -u; pwd; echo $A; cat; exit 7"
    done = web.run(
        "exec", "-T", "-e", "A=b", "-w", "/tmp", "-u", "1", "web", "sh", "-c", script, check=False, stdin="in\n"
    )
    assert (done.returncode, done.stdout) == (7, "1\n/tmp\nb\nin\n")
    assert code(web, "exec", "-T", "web", "nothing-such")[0] == 127
    done = web.run(
        "run", "--rm", "-T", "-e", "B=c", "web", "sh", "-c", "echo $B; cat; exit 9", check=False, stdin="in\n"
    )
    assert (done.returncode, done.stdout) == (9, "c\nin\n")
    web.run("run", "-d", "--rm", "-p", "127.0.0.1:18083:80", "--name", "one-off", "web")
    assert fetch(engine, 18083, "/index.html", patience_s=10) == "page\n"
    engine.call("POST", "/containers/one-off/kill")
    taken = web.run("run", "--rm", "-T", "--service-ports", "--name", "late", "web", "true", check=False)
    assert taken.returncode == 1 and "Bind for 127.0.0.1:18082 failed: port is already allocated" in taken.stderr
    assert engine.request("GET", "/containers/late/json").status == 404
    web.write("copied\n", "file")
    web.run("cp", "file", "web:/tmp/there")
    web.run("cp", "web:/tmp/there", "back")
    assert (web.folder / "back").read_text() == "copied\n"
    with tarfile.open(fileobj=io.BytesIO(web.run("cp", "web:/tmp/there", "-").stdout.encode())) as tar:
        assert tar.getnames() == ["there"]
    web.run("export", "-o", "web.tar", "web")
    with tarfile.open(web.folder / "web.tar") as tar:
        assert "tmp/there" in tar.getnames()
    web.run("commit", "web", "commands-committed")
    assert engine.docker("run", "--rm", "commands-committed", "cat", "/tmp/there").stdout == "copied\n"


def test_states(web: Project) -> None:
    def after(*words: str) -> str:
        web.run(*words)
        return states(web)["web"]

    assert after("pause") == "paused"
    assert after("unpause") == "running"
    assert after("stop", "-t", "0") == "exited"
    assert after("start", "web") == "running"
    assert after("restart", "-t", "0", "web") == "running"
    with web.start("wait", "web") as waiting:
        time.sleep(0.5)  # until it waits
        assert after("kill", "web") == "exited"
        assert waiting.wait(20) == 137
    web.run("rm", "-f", "web")
    assert "web" not in states(web)
    assert after("create") == "created"
    web.run("down", "-t", "0")
    assert states(web) == {}


def test_events(web: Project) -> None:
    with web.start("events", "--json") as following:
        assert following.stdout is not None
        time.sleep(0.3)
        web.run("restart", "web")
        seen: list[dict[str, str]] = []
        while not seen or seen[-1]["action"] != "restart":
            seen.append(json.loads(following.stdout.readline()))
        following.terminate()
    assert sorted(event["action"] for event in seen) == ["die", "kill", "restart", "start", "stop"]
    assert {event["service"] for event in seen} == {"web"}


def test_build(engine: Engine, project: Project, tool: Callable[[str], Path]) -> None:
    tool("buildah")
    told = project.run("build", "built")
    assert "Successfully tagged commands-built:latest" in told.stdout + told.stderr
    assert engine.call("GET", "/images/commands-built/json")["Config"]["Labels"]["of"] == "compose"
    assert project.run("run", "--rm", "-T", "built").stdout == "given\n"
    (project.folder / "app" / "Dockerfile").write_text("FROM busybox AS last\nRUN echo again >/word\n")
    assert "built-1  | again" in project.run("up", "--build", "--no-color", "built").stdout
    (project.folder / "app" / "Dockerfile").write_text("FROM busybox AS last\nRUN exit 5\n")
    failed = project.run("build", "built", check=False)
    assert failed.returncode != 0 and "returned a non-zero code: 5" in failed.stdout + failed.stderr
    if isinstance(engine, DockerEngine):
        return
    (project.folder / "app" / "Dockerfile").write_text("FROM busybox AS last\nRUN echo own >/word\n")
    installed(Path(engine.client_environment()["DOCKER_CONFIG"]))
    file = str(project.folder / "compose.yaml")
    assert "built-1  | own" in engine.holdfast("compose", "-f", file, "up", "--build", "--no-color", "built").stdout


def test_build_by_buildkit_is_refused_in_one_line(engine: Engine, project: Project) -> None:
    if isinstance(engine, DockerEngine):
        pytest.skip("only on an engine without BuildKit")
    refused = project.run("build", "built", check=False, env={"DOCKER_BUILDKIT": ""})
    assert refused.returncode != 0
    assert "build with DOCKER_BUILDKIT=0" in refused.stderr.splitlines()[-1]
    assert not [box for box in engine.call("GET", "/containers/json?all=1") if "buildx" in box["Names"][0]]


def test_pull_and_push(engine: Engine, project: Project, tmp_path: Path) -> None:
    with registry_for(engine, tmp_path / "registry") as registry:
        missing = project.run("pull", "pulled", check=False)
        assert missing.returncode != 0 and "manifest unknown" in missing.stderr
        registry.push_busybox("team/app:1")
        project.run("pull", "pulled")
        project.run("push", "pulled")
        project.run("up", "--pull", "always", "pulled")
    offline = project.run("pull", "pulled", check=False)
    assert offline.returncode != 0 and "connection refused" in offline.stderr
    project.run("up", "pulled")


def test_down_takes_orphans(engine: Engine, web: Project) -> None:
    web.write("services: {other: {image: busybox, command: [sleep, '600'], stop_grace_period: 0s}}\n", "other.yaml")
    told = web.run("-f", "other.yaml", "up", "-d").stderr
    assert "Found orphan containers" in told
    web.run("-f", "other.yaml", "down", "--remove-orphans", "--rmi", "local")
    boxes = engine.call("GET", "/containers/json?all=1")
    assert not [box for box in boxes if box["Labels"].get("com.docker.compose.project") == "commands"]
