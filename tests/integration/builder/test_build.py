"""`docker build` by the stock client and over the API: what it says and makes, what it cannot reach, how it ends."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holdfast.builder import buildah
from holdfast.errors import Unsupported
from tests.support import images as make
from tests.support.engine import Engine
from tests.support.registry import PASSWORD, USER, registry_for
from tests.support.state import assert_consistent

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", autouse=True)
def _buildah(tool: Callable[[str], Path]) -> None:
    tool("buildah")


def context(files: Mapping[str, str | bytes | make.Entry]) -> bytes:
    """A build's tar."""
    entries = []
    for name, data in files.items():
        if isinstance(data, tuple):
            entries.append(data)
        else:
            entries.append(make.file_entry(name, data.encode() if isinstance(data, str) else data))
    return make.layer(entries)


def messages(engine: Engine, dockerfile: str, query: str = "", **files: Any) -> list[Any]:
    """Build over the API; every message."""
    answer = engine.request("POST", f"/build?{query}", raw=context({"Dockerfile": dockerfile, **files}))
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.split(b"\r\n") if line]


def said(found: list[Any]) -> str:
    """What a client prints of messages, ids made equal."""
    text = "".join(message.get("stream", "") or message.get("error", "") for message in found)
    return re.sub(r"(?<= )[0-9a-f]{12}\b", "ID", text)


def refused(engine: Engine, query: str = "", **files: Any) -> tuple[int, str]:
    answer = engine.request("POST", f"/build?{query}", raw=context(files))
    return answer.status, answer.json()["message"]


def run(engine: Engine, image: str, *command: str) -> str:
    return engine.docker("run", "--rm", "--network", "none", image, *command).stdout


def docker_build(engine: Engine, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "build", *arguments, str(folder)],
        env={**engine.client_environment(), "DOCKER_BUILDKIT": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_stock_client(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo out; echo err >&2\nCOPY . /all/\nCMD cat /all/kept\n")
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "left").write_text("left")
    (tmp_path / ".dockerignore").write_text("left\nDockerfile\n.dockerignore\n")
    first = docker_build(engine, tmp_path, "-t", "stock:1", "-t", "stock:2", "--iidfile", str(tmp_path.parent / "iid"))
    assert first.returncode == 0, first.stderr
    assert "Step 2/4 : RUN echo out; echo err >&2\n" in first.stdout
    assert "\nout\n" in first.stdout
    assert re.search(
        r"\nSuccessfully built [0-9a-f]{12}\nSuccessfully tagged stock:1\nSuccessfully tagged stock:2\n", first.stdout
    )
    image = engine.call("GET", "/images/stock:2/json")
    assert image["Id"] == (tmp_path.parent / "iid").read_text()
    assert run(engine, "stock:1", "ls", "-a", "/all").split() == [".", "..", "kept"]
    assert run(engine, "stock:1") == "kept"
    again = docker_build(engine, tmp_path, "-q", "-t", "stock:1")
    assert again.stdout.strip() == image["Id"]
    (tmp_path / "Dockerfile").write_text("FROM stock:1\nRUN exit 3\n")
    failed = docker_build(engine, tmp_path)
    assert failed.returncode == 3
    assert failed.stderr.endswith("The command '/bin/sh -c exit 3' returned a non-zero code: 3\n")


def test_messages_and_cache(engine: Engine) -> None:
    text = 'FROM busybox\nARG X=1\nRUN echo hi $X\nCOPY f /\nCMD ["sh"]\n'
    steps = (
        "Step 1/5 : FROM busybox\n ---> ID\nStep 2/5 : ARG X=1\n{0} ---> ID\nStep 3/5 : RUN echo hi $X\n{1} ---> ID\n"
        'Step 4/5 : COPY f /\n{0} ---> ID\nStep 5/5 : CMD ["sh"]\n{0} ---> ID\nSuccessfully built ID\n'
    )
    query = "t=cached&buildargs=" + quote('{"X":"2","UNUSED":"x"}')
    unused = "[Warning] One or more build-args [UNUSED] were not consumed\n"
    ends = ("Successfully built ID\n", unused + "Successfully built ID\nSuccessfully tagged cached:latest\n")
    first = messages(engine, text, query, f="x")
    assert said(first) == steps.format("", "hi 2\n").replace(*ends)
    second = messages(engine, text, query, f="x")
    used = " ---> Using cache\n"
    assert said(second) == steps.format(used, used).replace(*ends)
    ids = [next(message["aux"]["ID"] for message in found if "aux" in message) for found in (first, second)]
    assert ids[0] == ids[1] == engine.call("GET", "/images/cached/json")["Id"]
    third = messages(engine, text, query + "&nocache=1", f="x")
    assert used not in said(third)
    fourth = messages(engine, text, query, f="changed")
    assert said(fourth).count(used) == 2


def test_stages_triggers_and_what_docker_keeps(engine: Engine) -> None:
    text = (
        "ARG BASE=busybox\nFROM ${BASE} AS one\nRUN echo made >/made\n"
        "FROM busybox\nCOPY --from=one /made /made\nCOPY --from=busybox:latest /etc/group /copied\nENV A=b\nUSER 33\n"
        'WORKDIR /w\nVOLUME /v\nEXPOSE 80\nHEALTHCHECK --interval=5s CMD true\nSHELL ["/bin/ash", "-c"]\n'
        'ONBUILD RUN echo triggered\nONBUILD ENV LEFT=yes\nENTRYPOINT ["id", "-u"]\n'
    )
    found = messages(engine, text, "t=kept&labels=" + quote(json.dumps({"l": 'v "$x"'})))
    assert 'Step 17/17 : LABEL l=v "$x"\n' in said(found)
    config = engine.call("GET", "/images/kept/json")["Config"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert config["OnBuild"] == ["RUN echo triggered", "ENV LEFT=yes"]
    assert (config["Shell"], config["User"], config["WorkingDir"]) == (["/bin/ash", "-c"], "33", "/w")
    assert (config["Labels"], config["Volumes"], config["ExposedPorts"]) == (
        {"l": 'v "$x"'}, {"/v": {}}, {"80/tcp": {}}
    )  # fmt: skip
    assert run(engine, "kept") == "33\n"
    assert engine.docker("run", "--rm", "--entrypoint", "cat", "kept", "/made").stdout == "made\n"
    built = messages(engine, "FROM kept\nUSER 0\nRUN exit 9\n")
    assert "# Executing 2 build triggers\ntriggered\n ---> ID\nStep 2/3 : USER 0\n" in said(built)
    assert built[-1]["errorDetail"] == {
        "code": 9,
        "message": "The command '/bin/ash -c exit 9' returned a non-zero code: 9",
    }
    target = messages(engine, text, "target=one&q=1")
    assert [list(message) for message in target] == [["stream"]]
    assert target[0]["stream"].startswith("sha256:")


def test_limits_network_and_hosts(engine: Engine) -> None:
    text = "FROM busybox\nRUN cat /etc/hosts; ip -4 addr show eth0; ulimit -n; df -k /dev/shm; cat /proc/self/cgroup\n"
    limits = "shmsize=10485760&memory=100000000&ulimits=" + quote('[{"Name":"nofile","Soft":99,"Hard":100}]')
    shown = said(messages(engine, text, f"nocache=1&extrahosts=here:host-gateway&{limits}"))
    bridge = engine.call("GET", "/networks/bridge")["IPAM"]["Config"][0]
    assert re.search(rf"{re.escape(bridge['Gateway'])}\s+here", shown)
    assert bridge["Subnet"].rpartition(".")[0].rpartition(".")[0] in shown.partition("inet ")[2]
    assert "\n99\n" in shown
    assert "10240" in shown
    assert engine.cgroup_parent in shown
    none = said(messages(engine, "FROM busybox\nRUN ls /sys/class/net\n", "networkmode=none"))
    assert "\nlo\n" in none
    assert "eth0" not in none
    assert engine.call("GET", "/networks/bridge")["Containers"] == {}


def test_programs_are_confined_as_in_a_container(engine: Engine) -> None:
    probe = (
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; mknod /tmp/d b 254 0; cat /tmp/d;"
        " mount -t tmpfs x /tmp; cat /proc/kcore | head -c1 | wc -c; cat /proc/keys | wc -c;"
        " cat /proc/interrupts | wc -c; echo x >/proc/sys/kernel/domainname"
    )
    answer = messages(engine, f"FROM busybox\nRUN {probe}; true\n", "nocache=1")
    between = said(answer).partition("; true\n")[2].partition(" ---> ID")[0]
    built = sorted(re.sub(r"\x1b\[\d*m", "", between).split("\n"))
    shown = engine.docker("run", "--rm", "busybox", "/bin/sh", "-c", f"{probe}; true")
    contained = sorted((shown.stdout + shown.stderr).split("\n"))
    assert [line for line in built if line] == [line for line in contained if line]


def test_a_hostile_context_finds_nothing(engine: Engine, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    links: dict[str, Any] = {
        "link": make.symlink_entry("link", str(secret)),
        "root": make.symlink_entry("root", "/"),
        "up": make.symlink_entry("up", "../../../../../.." + str(tmp_path)),
    }
    for source in ("link", "root" + str(secret), "up/secret"):
        answer = messages(engine, f"FROM busybox\nCOPY {source} /x\n", **links)
        assert "error" in answer[-1], source
        assert "COPY failed" in answer[-1]["error"]
    mount = f"FROM busybox\nRUN --mount=type=bind,source=root,target=/m cat /m{secret} || ls /m\n"
    shown = said(messages(engine, mount, **links))
    assert "secret\n" not in shown
    assert refused(engine, "dockerfile=link", **links) == (500, "Cannot locate specified Dockerfile: link")
    assert refused(engine, "dockerfile=up/secret", **links) == (500, "Cannot locate specified Dockerfile: up/secret")
    outside = {"Dockerfile": "FROM busybox\n", "../../escaped": "x"}
    assert engine.request("POST", "/build", raw=context(outside)).status in (200, 400)
    assert not list(engine.state_root.glob("**/escaped"))


def test_what_is_refused_before_a_step(engine: Engine) -> None:
    good = {"Dockerfile": "FROM busybox\n"}
    assert refused(engine, "", f="") == (500, "Cannot locate specified Dockerfile: Dockerfile")
    assert refused(engine, "dockerfile=../y", **good) == (500, "forbidden path outside the build context: ../y ()")
    assert refused(engine, "t=FOO", **good)[0] == 400
    assert refused(engine, "", Dockerfile="FROM busybox\n\nFOO\n") == (
        400, "dockerfile parse error on line 3: unknown instruction: FOO (did you mean FROM?)"
    )  # fmt: skip
    assert refused(engine, "networkmode=nope", Dockerfile="FROM busybox\nRUN a")[0] == 404
    assert refused(engine, "remote=git://x/y", **good)[0] == 501
    broken = engine.request("POST", "/build", raw=b"x" * 3000)
    assert (broken.status, broken.json()["message"].partition(":")[0]) == (400, "build context")
    assert said(messages(engine, "FROM localhost:1/nope:1\n")).startswith(
        'Step 1/1 : FROM localhost:1/nope:1\nGet "http'
    )
    assert said(messages(engine, "FROM scratch\n")).endswith("No image was generated. Is your Dockerfile empty?")
    for path in ("/session", "/grpc"):
        answer = engine.request("POST", path)
        assert (answer.status, "DOCKER_BUILDKIT=0" in answer.json()["message"]) == (501, True)


def test_archives_and_compressed_contexts(engine: Engine) -> None:
    inner = context({"inner": "in the archive\n"})
    whole = context({"Dockerfile": "FROM busybox\nADD t.tar /t/\nRUN cat /t/inner\n", "t.tar": inner})
    answer = engine.request("POST", "/build", raw=gzip.compress(whole))
    assert b'"in the archive\\n"' in answer.body


def running_programs(engine: Engine) -> list[str]:
    """The programs of builds that run now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{engine.cgroup_parent}/build-" in (entry / "cgroup").read_text():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command]  # those without one have ended


def wait_until(condition: Callable[[], bool], what: str, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_client_that_vanishes_ends_its_build(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 987\n")
    for end in (signal.SIGKILL, signal.SIGINT):
        client = subprocess.Popen(
            ["docker", "build", "--no-cache", str(tmp_path)],
            env={**engine.client_environment(), "DOCKER_BUILDKIT": "0"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: any("sleep 987" in name for name in running_programs(engine)), "the step does not begin")
        client.send_signal(end)
        client.wait(10)
        wait_until(lambda: not running_programs(engine), "programs stay")
        assert_consistent(engine)
        containers = engine.state_root / "build-cache" / "overlay-containers"
        assert not [entry for entry in containers.iterdir() if entry.is_dir()], "working containers stay"


def test_an_engine_that_stops_ends_its_builds(fresh_engine: Engine) -> None:
    raw = context({"Dockerfile": "FROM busybox\nRUN sleep 985\n"})

    def build() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            fresh_engine.request("POST", "/build", raw=raw)

    client = threading.Thread(target=build)
    client.start()
    wait_until(lambda: any("sleep 985" in name for name in running_programs(fresh_engine)), "the step does not begin")
    fresh_engine.stop()
    assert running_programs(fresh_engine) == []
    client.join(10)
    fresh_engine.start()
    assert_consistent(fresh_engine)


def test_cancel_by_name(engine: Engine) -> None:
    answers: list[bytes] = []
    raw = context({"Dockerfile": "FROM busybox\nRUN sleep 986\n"})

    def build() -> None:
        answers.append(engine.request("POST", "/build?buildid=mine", raw=raw).body)

    client = threading.Thread(target=build)
    client.start()
    wait_until(lambda: any("sleep 986" in name for name in running_programs(engine)), "the step does not begin")
    assert engine.request("POST", "/build/cancel").status == 400
    assert engine.request("POST", "/build/cancel?id=mine").status == 200
    client.join(15)
    assert b"build canceled" in answers[0]
    assert_consistent(engine)


def test_builds_at_the_same_time_and_the_cache(engine: Engine) -> None:
    clients = [
        subprocess.Popen(
            ["docker", "build", "--no-cache", "-q", "-t", f"many:{number}", "-"],
            env={**engine.client_environment(), "DOCKER_BUILDKIT": "0"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for number in range(3)
    ]  # fmt: skip
    for number, client in enumerate(clients):
        client.communicate(f"FROM busybox\nRUN echo {number} >/n\n".encode(), timeout=60)
        assert client.returncode == 0
    assert [run(engine, f"many:{number}", "cat", "/n") for number in range(3)] == ["0\n", "1\n", "2\n"]
    usage = engine.call("GET", "/system/df?type=build-cache")
    assert (usage["Images"], len(usage["BuildCache"]) > 1) == (None, True)
    size = sum(record["Size"] for record in usage["BuildCache"])
    assert size > 1_000_000
    assert engine.call("GET", "/v1.41/system/df")["BuilderSize"] == size
    assert engine.request("POST", "/build/prune?keep-storage=x").status == 400
    assert engine.call("POST", "/build/prune?filters=" + quote('{"until":["24h"]}'))["SpaceReclaimed"] == 0
    pruned = engine.call("POST", "/build/prune?all=1")
    assert (pruned["SpaceReclaimed"], len(pruned["CachesDeleted"])) == (size, len(usage["BuildCache"]))
    assert engine.call("GET", "/system/df")["BuildCache"] == []
    assert run(engine, "many:0", "cat", "/n") == "0\n"
    assert "Using cache" not in said(messages(engine, "FROM many:0\nRUN true\n"))


def test_our_command(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG A\nCOPY . /all\nRUN echo $A >/a; exit $B\n")
    (tmp_path / ".dockerignore").write_text("left\n")
    (tmp_path / "left").touch()
    words = ("build", "-t", "ours:1", "--build-arg", "A=given", "--label", "l=v", "-m", "100m", str(tmp_path))
    built = engine.holdfast(*words, "--iidfile", str(tmp_path / "id"))
    assert built.stdout.endswith("Successfully tagged ours:1\n")
    image = engine.call("GET", "/images/ours:1/json")
    assert (image["Id"], image["Config"]["Labels"]) == ((tmp_path / "id").read_text(), {"l": "v"})
    assert run(engine, "ours:1", "sh", "-c", "cat /a; ls /all") == "given\nDockerfile\n"
    failed = engine.holdfast("build", "-q", "-", stdin=b"FROM busybox\nRUN exit 7\n", check=False)
    assert (failed.returncode, failed.stderr) == (7, "The command '/bin/sh -c exit 7' returned a non-zero code: 7\n")
    archive = context({"Dockerfile": "FROM busybox\n"})
    assert engine.holdfast("build", "-q", "-", stdin=archive).stdout.startswith("sha256:")
    assert "Total reclaimed space: " in engine.holdfast("builder", "prune", "-f").stdout


def test_bases_come_from_registries(engine: Engine, tmp_path: Path) -> None:
    with registry_for(engine, tmp_path / "registry", closed=True) as closed:
        name = f"{closed.address}/base:1"
        engine.docker("tag", "busybox", name)
        engine.docker("login", "-u", USER, "--password-stdin", closed.address, stdin=PASSWORD.encode())
        engine.docker("push", name)
        engine.docker("rmi", name)
        assert re.fullmatch(
            rf"Step 1/1 : FROM {name}\n.*no basic auth credentials", said(messages(engine, f"FROM {name}\n"))
        )
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={name} /bin/busybox /busybox\n")
        built = docker_build(engine, tmp_path, "-t", "from-registry")
        assert built.returncode == 0, built.stderr
        assert "1: Pulling from base\n" in built.stdout
        again = engine.holdfast("build", "--pull", str(tmp_path)).stdout
        assert f"Status: Image is up to date for {name}\n" in again
        engine.docker("logout", closed.address)
    assert engine.docker("run", "--rm", "from-registry", "/busybox", "echo", "ran").stdout == "ran\n"


def test_without_buildah(tmp_path: Path) -> None:
    """Programs are looked for in fixed places, so this asks without an engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buildah, "CLEAN_ENVIRONMENT", {"PATH": str(tmp_path)})
        with pytest.raises(Unsupported, match="apt install --no-install-recommends buildah"):
            buildah.find()
