"""Commands against canned answers: what they ask, what they print where, and how they end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from holdfast.cli.main import root
from tests.unit.cli.conftest import Holdfast
from tests.unit.cli.fake_engine import Call, FakeEngine, Hijacked, Raw, frame

_ID = "31e1c564708d3d42e10c31ff9617478eacd136b59b1d46f1b5f020c525bc31aa"


def _volume(name: str, **more: object) -> dict[str, object]:
    return {
        "CreatedAt": "2026-11-23T14:32:40Z",
        "Driver": "local",
        "Labels": None,
        "Mountpoint": f"/m/{name}",
        "Name": name,
        "Options": None,
        "Scope": "local",
        **more,
    }


# -- volumes -----------------------------------------------------------------------------------------------------------


def test_volume_create(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /volumes/create"] = lambda call: (201, {"Name": call.document["Name"]})
    options = ("-o", "o=size=10m,uid=1", "--opt=type=tmpfs", "--label", "a")
    done = holdfast("volume", "create", "-d", "local", *options, "tv")
    assert (done.code, done.out, done.err) == (0, "tv\n", "")
    assert engine.calls[0].document == {
        "Driver": "local",
        "Name": "tv",
        "DriverOpts": {"o": "size=10m,uid=1", "type": "tmpfs"},
        "Labels": {"a": ""},
    }
    assert holdfast("volume", "create", "--name", "x", "y").code == 1


def test_volume_ls(engine: FakeEngine, holdfast: Holdfast) -> None:
    volumes = [_volume("v10"), _volume("v2", Labels={"b": "2", "a": "1"})]
    engine.answers["GET /volumes"] = (200, {"Volumes": volumes, "Warnings": ["list plug: VolumeDriver.List: boom"]})
    done = holdfast("volume", "ls", "-f", "dangling=true", "--filter", "label=a", "--filter=label=b")
    assert done.out == "DRIVER    VOLUME NAME\nlocal     v2\nlocal     v10\n"
    assert done.err == "WARNING: list plug: VolumeDriver.List: boom\n"
    assert json.loads(engine.calls[0].query["filters"][0]) == {"dangling": ["true"], "label": ["a", "b"]}
    assert holdfast("volume", "ls", "-q").out == "v2\nv10\n"
    assert holdfast("volume", "ls", "--format", "{{.Name}} {{.Labels}}").out == "v2 a=1,b=2\nv10 \n"
    first = holdfast("volume", "ls", "--format", "json").out.splitlines()[0]
    assert first == (
        '{"Availability":"N/A","Driver":"local","Group":"N/A","Labels":"a=1,b=2","Links":"N/A","Mountpoint":"/m/v2",'
        '"Name":"v2","Scope":"local","Size":"N/A","Status":"N/A"}'
    )


def test_an_empty_list_has_its_headings(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["GET /volumes"] = (200, {"Volumes": [], "Warnings": None})
    assert holdfast("volume", "ls").out == "DRIVER    VOLUME NAME\n"
    assert holdfast("volume", "ls", "-q").out == ""


def test_volume_inspect(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["GET /volumes/v"] = (200, _volume("v"))
    engine.answers["GET /volumes/nope"] = (404, {"message": "get nope: no such volume"})
    done = holdfast("volume", "inspect", "v", "nope")
    assert (done.code, json.loads(done.out), done.err) == (
        1,
        [_volume("v")],
        "Error response from daemon: get nope: no such volume\n",
    )
    assert done.out.startswith('[\n    {\n        "CreatedAt": "2026-')
    assert holdfast("volume", "inspect", "nope").out == "[]\n"
    assert holdfast("volume", "inspect", "-f", "{{.Mountpoint}}", "v").out == "/m/v\n"


def test_volume_rm_keeps_going(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["DELETE /volumes/a"] = engine.answers["DELETE /volumes/c"] = (204, None)
    engine.answers["DELETE /volumes/b"] = (409, {"message": f"remove b: volume is in use - [{_ID}]"})
    done = holdfast("volume", "rm", "-f", "a", "b", "c")
    assert (done.code, done.out) == (1, "a\nc\n")
    assert done.err == f"Error response from daemon: remove b: volume is in use - [{_ID}]\n"
    assert engine.calls[0].query == {"force": ["1"]}


def test_volume_prune(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /volumes/prune"] = (200, {"VolumesDeleted": ["x", "y"], "SpaceReclaimed": 134})
    done = holdfast("volume", "prune", "-af", "--filter", "label!=keep")
    assert done.out == "Deleted Volumes:\nx\ny\n\nTotal reclaimed space: 134B\n"
    assert json.loads(engine.calls[0].query["filters"][0]) == {"label!": ["keep"], "all": ["true"]}
    engine.answers["POST /volumes/prune"] = (200, {"VolumesDeleted": [], "SpaceReclaimed": 0})
    assert holdfast("volume", "prune", "-f").out == "Total reclaimed space: 0B\n"


# -- run ---------------------------------------------------------------------------------------------------------------


def _can_run(engine: FakeEngine, output: bytes = b"", code: int = 0) -> None:
    engine.answers["POST /containers/create"] = (201, {"Id": _ID, "Warnings": []})
    engine.answers[f"POST /containers/{_ID}/attach"] = (101, Hijacked(output))
    engine.answers[f"POST /containers/{_ID}/wait"] = (200, {"StatusCode": code})
    engine.answers[f"POST /containers/{_ID}/start"] = (204, None)


def test_run_in_the_foreground(engine: FakeEngine, holdfast: Holdfast) -> None:
    _can_run(engine, frame(1, b"out\n") + frame(2, b"err\n"), 7)
    done = holdfast("run", "--rm", "-v", "data:/data", "alpine", "sh", "-c", "exit 7", "--rm=false")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert [call.path.rpartition("/")[2] for call in engine.calls] == ["create", "attach", "wait", "start"]
    create, attach, wait, _ = engine.calls
    assert create.document == {
        "Image": "alpine",
        "Cmd": ["sh", "-c", "exit 7", "--rm=false"],
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "AutoRemove": True,
            "Binds": ["data:/data"],
            "NetworkMode": "default",
            "RestartPolicy": {"Name": "no"},
        },
    }
    assert attach.query == {"stderr": ["1"], "stdout": ["1"], "stream": ["1"]}
    assert wait.query == {"condition": ["removed"]}


def test_run_detached(engine: FakeEngine, holdfast: Holdfast) -> None:
    _can_run(engine)
    done = holdfast("run", "-dit", "--name", "web", "--platform", "linux/amd64", "alpine")
    assert (done.code, done.out) == (0, f"{_ID}\n")
    assert [call.path.rpartition("/")[2] for call in engine.calls] == ["create", "start"]
    assert engine.calls[0].query == {"name": ["web"], "platform": ["linux/amd64"]}
    assert engine.calls[0].document["OpenStdin"] is True
    assert "StdinOnce" not in engine.calls[0].document


def test_run_fetches_a_missing_image(engine: FakeEngine, holdfast: Holdfast) -> None:
    _can_run(engine, frame(1, b"hi\n"))
    answers = iter([(404, {"message": "No such image: gone:latest"}), (201, {"Id": _ID, "Warnings": ["careful"]})])
    engine.answers["POST /containers/create"] = lambda _: next(answers)
    engine.answers["POST /images/create"] = (
        200,
        Raw(
            b'{"status":"Pulling from library/gone","id":"latest"}\r\n'
            b'{"status":"Downloading","progressDetail":{"current":1},"progress":"[> ] 1B","id":"abc"}\r\n'
            b'{"status":"Status: Downloaded newer image for gone:latest"}\r\n'
        ),
    )
    done = holdfast("run", "gone", "echo", "hi")
    assert (done.code, done.out) == (0, "hi\n")
    assert done.err == (
        "Unable to find image 'gone:latest' locally\nlatest: Pulling from library/gone\n"
        "Status: Downloaded newer image for gone:latest\nWARNING: careful\n"
    )
    assert engine.asked("POST /images")[0].query == {"fromImage": ["docker.io/library/gone"], "tag": ["latest"]}


def test_run_never_fetches_if_told_so(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /containers/create"] = (404, {"message": "No such image: gone:latest"})
    assert holdfast("run", "--pull", "never", "gone").code == 125
    assert not engine.asked("POST /images")


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, 'exec: "nosuchcmd": executable file not found in $PATH', 127),
        (404, "cannot access path /x: lstat /x: no such file or directory", 127),
        (400, 'exec: "/etc": permission denied', 126),
        (400, 'exec: "/etc": is a directory', 126),
        (500, "boom", 125),
    ],
)
def test_run_that_cannot_start(engine: FakeEngine, holdfast: Holdfast, status: int, message: str, code: int) -> None:
    _can_run(engine, code=127)
    engine.answers[f"POST /containers/{_ID}/start"] = (status, {"message": message})
    done = holdfast("run", "--rm", "alpine", "x")
    assert (done.code, done.out) == (code, "")
    assert done.err == (
        f"holdfast: Error response from daemon: {message}\n\nRun 'holdfast run --help' for more information\n"
    )


def test_run_passes_stdin(engine: FakeEngine, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(call: Call) -> tuple[int, object]:
        connection, reader = call.raw
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        said = reader.read()
        connection.sendall(frame(1, said.upper()))
        connection.shutdown(socket.SHUT_RDWR)
        return 200, None

    _can_run(engine)
    engine.answers[f"POST /containers/{_ID}/attach"] = echo
    reading, writing = os.pipe()
    os.write(writing, b"hello\n")
    os.close(writing)
    monkeypatch.setattr("holdfast.cli.streams._STDIN", reading)
    assert holdfast("run", "-i", "alpine", "cat").out == "HELLO\n"
    os.close(reading)
    assert engine.calls[0].document["StdinOnce"] is True


def test_cidfile(engine: FakeEngine, holdfast: Holdfast, tmp_path: Path) -> None:
    _can_run(engine)
    file = tmp_path / "cid"
    assert holdfast("create", "--cidfile", str(file), "alpine").code == 0
    assert file.read_text() == _ID
    again = holdfast("create", "--cidfile", str(file), "alpine")
    assert again.code == 1
    assert "container ID file found" in again.err
    file.unlink()
    engine.answers["POST /containers/create"] = (500, {"message": "boom"})
    assert holdfast("create", "--cidfile", str(file), "alpine").code == 1
    assert not file.exists()


# -- other commands ----------------------------------------------------------------------------------------------------


def test_exec(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /containers/c/exec"] = (201, {"Id": "e"})
    engine.answers["POST /exec/e/start"] = (101, Hijacked(frame(1, b"out\n") + frame(2, b"err\n")))
    engine.answers["GET /exec/e/json"] = (200, {"ExitCode": 5, "Running": False})
    done = holdfast("exec", "-u", "root", "-w/x", "-eA=b", "c", "ls", "-l")
    assert (done.code, done.out, done.err) == (5, "out\n", "err\n")
    asked = engine.calls[0].document
    assert (asked["Cmd"], asked["User"], asked["WorkingDir"], asked["Env"]) == (["ls", "-l"], "root", "/x", ["A=b"])


def test_exec_detached(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /containers/c/exec"] = (201, {"Id": "e"})
    engine.answers["POST /exec/e/start"] = (200, None)
    assert holdfast("exec", "-d", "c", "ls").code == 0
    assert engine.calls[1].document == {"Detach": True, "Tty": False}


def test_exec_with_an_error_of_the_engine_in_the_stream(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /containers/c/exec"] = (201, {"Id": "e"})
    engine.answers["POST /exec/e/start"] = (101, Hijacked(frame(3, b"the runtime is gone")))
    done = holdfast("exec", "c", "ls")
    assert (done.code, done.err) == (1, "Error response from daemon: the runtime is gone\n")


def test_lifecycle(engine: FakeEngine, holdfast: Holdfast) -> None:
    for verb in ("start", "stop", "kill", "restart", "pause", "unpause"):
        engine.answers[f"POST /containers/c/{verb}"] = (204, None)
        engine.answers[f"POST /containers/x/{verb}"] = (404, {"message": "No such container: x"})
        done = holdfast(verb, "x", "c")
        assert (done.code, done.out) == (1, "c\n")
        assert done.err.startswith("Error response from daemon: No such container: x\n")
    engine.answers["POST /containers/c/stop"] = engine.answers["POST /containers/c/start"] = (304, None)
    assert holdfast("stop", "-t", "3", "-s", "INT", "c").out == "c\n"
    assert engine.calls[-1].query == {"t": ["3"], "signal": ["INT"]}
    assert holdfast("stop", "-t", "0", "c").code == 0
    assert engine.calls[-1].query == {"t": ["0"]}
    assert holdfast("start", "c").out == "c\n"


def test_rm(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["DELETE /containers/c"] = (204, None)
    engine.answers["DELETE /containers/x"] = (404, {"message": "No such container: x"})
    done = holdfast("rm", "-f", "-v", "x", "/c")
    assert (done.code, done.out) == (0, "/c\n")
    assert "No such container: x" in done.err
    assert engine.calls[-1].query == {"force": ["1"], "v": ["1"]}
    assert holdfast("rm", "x").code == 1


def test_wait(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /containers/c/wait"] = (200, {"StatusCode": 137})
    assert holdfast("wait", "c").out == "137\n"
    engine.answers["POST /containers/c/wait"] = (200, {"StatusCode": -1, "Error": {"Message": "lost it"}})
    assert holdfast("wait", "c").err == "Error response from daemon: lost it\n"


def test_logs(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["GET /containers/c/json"] = (200, {"Id": _ID, "Config": {"Tty": False}})
    engine.answers[f"GET /containers/{_ID}/logs"] = (200, Raw(frame(1, b"out\n") + frame(2, b"err\n")))
    done = holdfast("logs", "-n", "5", "-t", "--since", "1795443457", "c")
    assert (done.out, done.err) == ("out\n", "err\n")
    assert engine.calls[-1].query == {
        "stdout": ["1"], "stderr": ["1"], "tail": ["5"], "timestamps": ["1"], "since": ["1795443457"],
    }  # fmt: skip
    engine.answers["GET /containers/c/json"] = (200, {"Id": _ID, "Config": {"Tty": True}})
    engine.answers[f"GET /containers/{_ID}/logs"] = (200, Raw(b"raw\r\n"))
    assert "raw" in holdfast("logs", "c").out


def test_inspect_asks_each_kind_in_turn(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["GET /volumes/v"] = (200, _volume("v"))
    assert json.loads(holdfast("inspect", "v").out) == [_volume("v")]
    assert [call.path for call in engine.calls] == ["/containers/v/json", "/images/v/json", "/networks/v", "/volumes/v"]
    missing = holdfast("inspect", "nope")
    assert (missing.code, missing.out, missing.err) == (1, "[]\n", "Error: No such object: nope\n")
    engine.answers["GET /images/odd/json"] = (500, {"message": "boom"})
    assert holdfast("inspect", "odd").err == "Error response from daemon: boom\n", "only 404 means another kind"
    assert holdfast("inspect", "--type", "volume", "v").code == 0
    assert holdfast("inspect", "-f", "{{.Nope}}", "v").code == 1


def test_load_and_save(engine: FakeEngine, holdfast: Holdfast, tmp_path: Path) -> None:
    archive, copy = tmp_path / "in.tar", tmp_path / "out.tar"
    archive.write_bytes(b"tar" * 50_000)
    engine.answers["POST /images/load"] = (200, Raw(b'{"stream":"Loaded image: x:latest\\n"}\r\n'))
    engine.answers["GET /images/get"] = (200, Raw(archive.read_bytes()))
    assert holdfast("load", "-i", str(archive)).out == "Loaded image: x:latest\n"
    assert engine.calls[0].body == archive.read_bytes()
    assert holdfast("save", "-o", str(copy), "x", "y").code == 0
    assert copy.read_bytes() == archive.read_bytes()
    assert engine.calls[1].query == {"names": ["x", "y"]}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    missing = holdfast("load", "-i", str(tmp_path / "nope"))
    assert (missing.code, missing.err) == (1, f"open {tmp_path / 'nope'}: no such file or directory\n")


def test_a_failed_save_leaves_nothing(engine: FakeEngine, holdfast: Holdfast, tmp_path: Path) -> None:
    def half(call: Call) -> tuple[int, object]:
        connection, _ = call.raw
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_RDWR)
        return 200, None

    engine.answers["GET /images/get"] = half
    before = sorted(tmp_path.iterdir())
    done = holdfast("save", "-o", str(tmp_path / "out.tar"), "x")
    assert done.code == 1
    assert "before the end" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_pull_that_fails_on_the_way(engine: FakeEngine, holdfast: Holdfast) -> None:
    engine.answers["POST /images/create"] = (
        200,
        Raw(b'{"status":"Pulling"}\r\n{"errorDetail":{"message":"no space left"},"error":"no space left"}\r\n'),
    )
    done = holdfast("pull", "x")
    assert (done.code, done.out, done.err) == (1, "Using default tag: latest\nPulling\n", "no space left\n")


def test_events(engine: FakeEngine, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    event = {
        "Type": "volume",
        "Action": "mount",
        "Actor": {"ID": "v", "Attributes": {"read/write": "true", "driver": "local"}},
        "scope": "local",
        "time": 1795443457,
        "timeNano": 1795443457123456789,
    }
    engine.answers["GET /events"] = (200, Raw(json.dumps(event).encode() + b"\n"))
    line = holdfast("events", "--since", "1", "--until", "2", "-f", "type=volume").out
    assert line.endswith(" volume mount v (driver=local, read/write=true)\n")
    assert ":37.123456789" in line
    assert json.loads(holdfast("events", "--format", "json").out) == event
    assert holdfast("events", "--format", "{{.Action}} {{.Actor.Attributes.nope}}").out == "mount <no value>\n"


# -- the command line itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["volume", "rm"], 1, "holdfast: 'holdfast volume rm' requires at least 1 argument\n\nUsage: holdfast"),
        (["volume", "ls", "x"], 1, "holdfast: 'holdfast volume ls' accepts no arguments"),
        (["volume", "create", "a", "b"], 1, "holdfast: 'holdfast volume create' requires at most 1 argument"),
        (["tag", "a"], 1, "holdfast: 'holdfast tag' requires 2 arguments"),
        (["volume", "lsx"], 1, "holdfast: unknown command: holdfast volume lsx"),
        (["bogus"], 1, "holdfast: unknown command: holdfast bogus"),
        (["--bogus"], 125, "unknown flag: --bogus"),
        (["ps", "-z"], 125, "unknown shorthand flag: 'z' in -z"),
        (["run", "--tmpfs"], 125, "flag needs an argument: --tmpfs\n\nUsage: holdfast run"),
        (["run", "-e"], 125, "flag needs an argument: 'e' in -e"),
        (["run", "--rm=maybe", "x"], 125, 'invalid argument "maybe" for "--rm" flag: strconv.ParseBool'),
        (["run", "-m", "foo", "x"], 125, 'invalid argument "foo" for "-m, --memory" flag: invalid size: \'foo\''),
        (["run", "--rm", "--restart", "always", "x"], 125, "holdfast: conflicting options: cannot specify both"),
        (["run", "-d", "-a", "stdin", "x"], 1, "conflicting options: cannot specify both --attach and --detach"),
        (["volume", "ls", "-f", "bad"], 125, "bad format of filter (expected name=value)"),
        (["volume", "ls", "--format", "{{.Nope}}"], 1, "template parsing error: template: :1:2"),
        (["-H", "ftp://x", "volume", "ls"], 1, "invalid engine address 'ftp://x'"),
    ],
)
def test_misuse(engine: FakeEngine, holdfast: Holdfast, words: list[str], code: int, text: str) -> None:
    engine.answers["GET /volumes"] = (200, {"Volumes": [_volume("v")], "Warnings": None})
    done = holdfast(*words)
    assert done.code == code
    assert text in done.err
    assert done.out == ""


def test_flags_as_docker_takes_them(engine: FakeEngine, holdfast: Holdfast) -> None:
    _can_run(engine)
    flags = ("-p=80:80", "-v=ab:/b", "-e=A=B=C", "--rm=true", "--privileged=false", "-itm=5m", "-w/x")
    holdfast("create", *flags, "alpine")
    asked = engine.calls[0].document
    assert asked["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}
    assert asked["HostConfig"]["Binds"] == ["ab:/b"]
    assert asked["Env"] == ["A=B=C"]
    assert asked["HostConfig"]["AutoRemove"] is True
    assert "Privileged" not in asked["HostConfig"]
    assert (asked["Tty"], asked["OpenStdin"], asked["HostConfig"]["Memory"]) == (True, True, 5 << 20)
    assert asked["WorkingDir"] == "/x"


def test_every_command_has_a_help_page(holdfast: Holdfast) -> None:
    def walk(group: click.Group, words: tuple[str, ...]) -> None:
        ctx = click.Context(group)
        for name in group.list_commands(ctx):
            if name == "compose":
                continue  # it becomes another program, whose page that is, and this one would end here
            command = group.get_command(ctx, name)
            assert command is not None
            if name == "compose":
                continue  # its help is Compose's own
            done = holdfast(*words, name, "--help")
            assert done.code == 0, done.err
            assert done.out.startswith(f"Usage: holdfast {' '.join((*words, name))}")
            if isinstance(command, click.Group):
                walk(command, (*words, name))

    walk(root, ())
    assert holdfast("--version").out == holdfast("-v").out
    assert holdfast("volume").out.startswith("Usage: holdfast volume COMMAND")


def test_listing_volumes_loads_no_heavy_modules() -> None:
    program = (
        "import sys; from holdfast.cli.main import main; main(['-H', 'unix:///nowhere', 'volume', 'ls']);"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert loaded & {"msgspec", "asyncio", "http.client", "ssl", "pyroute2", "subprocess", "logging"} == set()
