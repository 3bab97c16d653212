"""The archive calls of the API, row by row as Docker Engine 28.5.2 answered them, and what attackers would try."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import os
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.engine import Answer, Engine
from tests.support.images import busybox_entries, docker_archive, file_entry, image, layer, symlink_entry

pytestmark = pytest.mark.kernel

F, D, S, H, C, P = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
)  # fmt: skip
Entry = tuple[str, bytes, dict[str, Any]]

SCRIPT = (
    "cd /data; mkdir d d/e; echo hi>f; echo e>d/e/x; ln f hl; ln -s f link; ln -s d dlink; ln -s /data/d alink; "
    "ln -s nowhere/x broken; ln -s /etc/passwd pw; chmod 4755 f; chmod 2750 d; mkfifo p; ln -s a b; ln -s b a; "
    "touch /scratch/t /mounted/t; echo ready; exec sleep 1000"
)


def tar(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, fields in entries:
            fields = dict(fields)
            data = fields.pop("data", b"")
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


X = tar(("x", F, {"data": b"abc", "uid": 5, "gid": 6, "mtime": 1, "mode": 0o4711}))


def archive(
    engine: Engine, method: str, path: str, raw: bytes | None = None, *, name: str = "kk", more: str = ""
) -> Answer:
    return engine.request(method, f"/containers/{name}/archive?path={quote(path)}{more}", raw=raw)


def put(engine: Engine, path: str, raw: bytes, *, name: str = "kk", more: str = "") -> tuple[int, str]:
    answer = archive(engine, "PUT", path, raw, name=name, more=more)
    return answer.status, answer.json()["message"] if answer.body else ""


def look(engine: Engine, path: str, *, name: str = "kk") -> dict[str, Any]:
    answer = archive(engine, "HEAD", path, name=name)
    assert answer.status == 200, path
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    return found


def members(answer: Answer) -> list[tarfile.TarInfo]:
    assert answer.status == 200, answer.body
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as opened:
        return opened.getmembers()


@pytest.fixture(scope="module")
def box(engine: Engine) -> Iterator[Engine]:
    """A running container kk: a volume at /data, a read-only one at /ro, two tmpfs, and things to look at."""
    for name in ("vol", "rov"):
        engine.docker("volume", "create", name)
    engine.docker(
        "run", "-d", "--name", "kk", "--network", "none", "-v", "vol:/data", "-v", "rov:/ro:ro", "--tmpfs", "/scratch",
        "--mount", "type=tmpfs,dst=/mounted", "busybox", "sh", "-c", SCRIPT,
    )  # fmt: skip
    while "ready" not in engine.docker("logs", "kk").stdout:
        time.sleep(0.02)
    yield engine
    engine.docker("rm", "-f", "-v", "kk")


# --- looked at ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "size", "mode", "link"),
    [
        ("/", "/", None, 2147484141, ""),
        ("/data", "data", None, 2147484141, ""),
        ("/data/", "data", None, 2147484141, ""),
        ("/data/.", ".", None, 2147484141, ""),
        ("data", "data", None, 2147484141, ""),
        ("/data/f", "f", 3, 8389101, ""),
        ("/data/link", "link", 1, 134218239, "/data/f"),
        ("/data/dlink", "dlink", 1, 134218239, "/data/d"),
        ("/data/dlink/", "dlink", None, 2151678440, ""),
        ("/data/dlink/.", ".", None, 2151678440, ""),
        ("/data/broken", "broken", 9, 134218239, "/data/nowhere/x"),
        ("/data/pw", "pw", 11, 134218239, "/etc/passwd"),
        ("../../etc/passwd", "passwd", None, 420, ""),
        ("/data/p", "p", 0, 33554852, ""),
        ("/data/d/..", "..", None, 2147484141, ""),
        (".", ".", None, 2147484141, ""),
        ("//", "/", None, 2147484141, ""),
        ("/data/dlink/../f", "f", 3, 8389101, ""),
    ],
)
def test_head(box: Engine, path: str, name: str, size: int | None, mode: int, link: str) -> None:
    found = look(box, path)
    assert list(found) == ["name", "size", "mode", "mtime", "linkTarget"]
    assert (found["name"], found["mode"], found["linkTarget"]) == (name, mode, link)
    assert size is None or found["size"] == size
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", found["mtime"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/data/f/", 500), ("/data/f/x", 500), ("/data/a", 500), ("/nope", 404), ("/data/nope", 404), ("/proc/1", 404),
        ("", 400),
    ],
)  # fmt: skip
def test_head_refused(box: Engine, path: str, status: int) -> None:
    answer = archive(box, "HEAD", path)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/data/d", ["d/", "d/e/", "d/e/x"]),
        ("/data/d/", ["d/", "d/e/", "d/e/x"]),
        ("/data/d/.", ["./", "./e/", "./e/x"]),
        ("/data/dlink", ["dlink -> d"]),
        ("/data/dlink/", ["dlink/", "dlink/e/", "dlink/e/x"]),
        ("/data/dlink/.", ["./", "./e/", "./e/x"]),
        ("/data/f", ["f"]),
        ("/data/link", ["link -> f"]),
        ("/data/d/../d", ["d/", "d/e/", "d/e/x"]),
        ("/data/d/./", ["./", "./e/", "./e/x"]),
    ],
)
def test_get(box: Engine, path: str, names: list[str]) -> None:
    answer = archive(box, "GET", path)
    assert answer.headers["Content-Type"] == "application/x-tar"
    shown = [
        each.name + ("/" if each.isdir() else f" -> {each.linkname}" if each.issym() else "")
        for each in members(answer)
    ]
    assert shown == names
    described = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    assert described["name"] == names[0].split(" ")[0].rstrip("/")


def test_get_kinds(box: Engine) -> None:
    found = {each.name: each for each in members(archive(box, "GET", "/data"))}
    assert list(found)[:5] == ["data", "data/a", "data/alink", "data/b", "data/broken"]
    assert (found["data/hl"].type, found["data/hl"].linkname, found["data/hl"].size) == (H, "data/f", 0)
    assert found["data/p"].type == P
    assert (found["data/f"].mode, found["data/f"].uid, found["data/f"].uname) == (0o4755, 0, "")
    assert found["data/d"].mode == 0o2750


def test_get_the_root(box: Engine) -> None:
    body = archive(box, "GET", "/").body
    assert body[:2] == b"/\0"
    names = {each.name for each in members(archive(box, "GET", "/"))}
    assert {"/bin/[", "/data/d/e/x", "/scratch/t", "/mounted/t", "/etc/hosts"} <= names
    assert not any(name.startswith(("/proc/", "/sys/")) for name in names)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/data/f/", 500, "lstat /data/f/: not a directory"),
        ("/data/a", 500, "evalSymlinksInScope: too many links in /data/a"),
        ("/nope", 404, "Could not find the file /nope in container kk"),
        ("", 400, "bad parameter: pathcannot be empty"),
    ],
)
def test_get_refused(box: Engine, path: str, status: int, text: str) -> None:
    answer = archive(box, "GET", path)
    assert (answer.status, answer.json()["message"]) == (status, text)


def test_no_container(box: Engine) -> None:
    for method in ("GET", "PUT"):
        answer = box.request(method, "/containers/nope/archive?path=/", raw=b"" if method == "PUT" else None)
        assert (answer.status, answer.json()["message"]) == (404, "No such container: nope")
    assert box.request("HEAD", "/containers/nope/archive?path=/").status == 404


@pytest.mark.parametrize(("accepted", "coded"), [("gzip", "gzip"), ("deflate", "deflate"), ("identity", None)])
def test_get_compressed(box: Engine, accepted: str, coded: str | None) -> None:
    import zlib

    answer = box.request("GET", "/containers/kk/archive?path=/data/f", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == coded
    bits = {"gzip": 31, "deflate": -15}
    plain = zlib.decompress(answer.body, bits[coded]) if coded else answer.body
    assert plain == archive(box, "GET", "/data/f").body


def test_tmpfs_of_a_running_container(box: Engine) -> None:
    """Docker shows what lies below; here the container's own is read and written."""
    assert look(box, "/scratch/t")["name"] == look(box, "/mounted/t")["name"] == "t"
    assert put(box, "/scratch", X) == put(box, "/mounted", X) == (200, "")
    assert box.docker("exec", "kk", "cat", "/scratch/x", "/mounted/x").stdout == "abcabc"


# --- unpacked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/data", 200, ""),
        ("/data/", 200, ""),
        ("/data/dlink", 200, ""),
        ("/data/alink", 200, ""),
        ("/tmp", 200, ""),
        ("/data/f", 400, "extraction point is not a directory"),
        ("/data/pw", 400, "extraction point is not a directory"),
        ("/data/f/", 500, "lstat /data/f/: not a directory"),
        ("/data/f/x", 500, "not a directory"),
        ("/nope", 404, "Could not find the file /nope in container kk"),
        ("/data/broken", 404, "Could not find the file /data/broken in container kk"),
        ("/ro", 400, "mounted volume is marked read-only"),
        ("/ro/", 400, "mounted volume is marked read-only"),
        ("/data/a", 500, "EvalSymlinks: too many links"),
        ("", 400, "bad parameter: pathcannot be empty"),
    ],
)
def test_put(box: Engine, path: str, status: int, text: str) -> None:
    assert put(box, path, X) == (status, text)


def test_put_is_what_was_sent(box: Engine) -> None:
    assert put(box, "/data/dlink", X) == (200, "")
    found = members(archive(box, "GET", "/data/d/x"))[0]
    assert (found.uid, found.gid, found.mtime, found.mode, found.size) == (5, 6, 1, 0o4711, 3)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 200, ""),
        (bytes(1024), 200, ""),
        (X + b"junk" * 300, 200, ""),
        (b"garbage" * 200, 500, "archive/tar: invalid tar header"),
        (X[:512] + b"j" * 512 + b"j" * 512, 500, "archive/tar: invalid tar header"),
        (b"short", 500, "unexpected EOF"),
        (bytes(300), 500, "unexpected EOF"),
        (X[:513], 500, "unexpected EOF"),
        (b"\x1f\x8bgarbage" * 20, 500, "unexpected EOF"),
        (tar(("../esc", F, {"data": b"1"})), 500, 'invalid entry name "../esc"'),
        (tar(("a/../../esc", F, {"data": b"1"})), 500, 'invalid entry name "a/../../esc"'),
        (tar(("/abs", F, {"data": b"1"})), 200, ""),
        (tar(("sl", S, {"linkname": "../../etc"})), 200, ""),
        (tar(("h1", H, {"linkname": "../etc/passwd"})), 500, 'invalid hardlink target "../etc/passwd"'),
        (tar(("h2", H, {"linkname": "/etc/passwd"})), 404, "Could not find the file /data in container kk"),
        (tar(("h3", H, {"linkname": "missing"})), 404, "Could not find the file /data in container kk"),
        (tar(("c", C, {"devmajor": 1, "devminor": 3}), ("ff", P, {})), 200, ""),
        (tar(("imp/a/b", F, {"data": b"1"})), 200, ""),
        (tar(("u", b"Z", {})), 500, "unhandled tar header type 90"),
        (tar((".", D, {"mode": 0o700})), 200, ""),
        (
            tar(("xa", F, {"pax_headers": {"SCHILY.xattr.com.apple.x": "1"}})),
            500,
            'lsetxattr /data/xa: xattr "com.apple.x": operation not supported',
        ),
    ],
)
def test_put_archives(box: Engine, body: bytes, status: int, text: str) -> None:
    assert put(box, "/data", body) == (status, text)
    assert look(box, "/data")["mode"] == 2147484141


def test_put_over_other_kinds(box: Engine) -> None:
    keep = "&noOverwriteDirNonDir=true"
    assert put(box, "/data", tar(("hl", D, {})), more=keep) == (
        500, 'cannot overwrite non-directory "hl" with directory "/data"',
    )  # fmt: skip
    assert put(box, "/data", tar(("d", F, {})), more=keep) == (
        500, 'cannot overwrite directory "d" with non-directory "/data"',
    )  # fmt: skip
    assert put(box, "/tmp", tar(("k", F, {}))) == put(box, "/tmp", tar(("k", D, {"mode": 0o755}))) == (200, "")
    assert look(box, "/tmp/k")["mode"] == 1 << 31 | 0o755
    assert put(box, "/tmp", tar(("k", F, {"mode": 0o600}))) == (200, "")
    assert look(box, "/tmp/k")["mode"] == 0o600


def test_put_over_mounts(box: Engine) -> None:
    """They stay, in the container too: elsewhere than in one's own namespace the kernel would unmount them."""
    before = box.docker("exec", "kk", "cat", "/proc/mounts").stdout
    assert put(box, "/etc", tar(("hosts", F, {}))) == (500, "RemoveAll hosts: device or resource busy")
    assert put(box, "/", tar(("data", F, {}))) == (500, "RemoveAll data: device or resource busy")
    assert put(box, "/", tar(("ro/x", F, {"data": b"1"}))) == (500, "openat ro/x: read-only file system")
    assert box.docker("exec", "kk", "cat", "/proc/mounts").stdout == before
    assert look(box, "/data/f")["size"] == 3


def test_put_xattrs_and_capabilities(box: Engine) -> None:
    value = "\1\0\0\2\0\4\0\0" + 12 * "\0"
    body = tar(("cap", F, {"pax_headers": {"SCHILY.xattr.security.capability": value, "SCHILY.xattr.user.foo": "bar"}}))
    assert put(box, "/data", body) == (200, "")
    path = box.state_root / "volumes/vol/_data/cap"
    assert os.getxattr(path, "user.foo") == b"bar"
    assert os.getxattr(path, "security.capability") == value.encode()
    headers = members(archive(box, "GET", "/data/cap"))[0].pax_headers
    assert headers == {"SCHILY.xattr.security.capability": value}


def test_read_only_root(engine: Engine) -> None:
    words = ("--read-only", "--network", "none", "-v", "vol2:/data", "-v", "vol3:/data/ro:ro", "--tmpfs", "/scratch")
    engine.docker("create", "--name", "readonly", *words, "busybox", "sleep", "1000")
    try:
        for started in (False, True):
            if started:
                engine.docker("start", "readonly")
            for path in ("/", "/etc", "/tmp"):
                refused = (400, "container rootfs is marked read-only")
                assert put(engine, path, X, name="readonly") == refused
            assert put(engine, "/data", X, name="readonly") == (200, "")
            assert put(engine, "/data/ro", X, name="readonly") == (400, "mounted volume is marked read-only")
            assert archive(engine, "HEAD", "/etc/passwd", name="readonly").status == 200
        assert put(engine, "/scratch", X, name="readonly") == (200, "")
    finally:
        engine.docker("rm", "-f", "readonly")


def test_one_that_never_ran(engine: Engine) -> None:
    """Destinations are made as at a start, tmpfs is not there, and the engine's own files are the image's."""
    words = ("--network", "none", "-v", "vol2:/newdir/sub", "-v", "vol2:/var/run/below", "--tmpfs", "/tt")
    engine.docker("create", "--name", "never", *words, "busybox", "true")
    try:
        assert look(engine, "/newdir/sub", name="never")["mode"] >> 31
        assert archive(engine, "HEAD", "/tt", name="never").status == 404
        assert look(engine, "/etc/hosts", name="never")["size"] == 0
        assert put(engine, "/newdir/sub", X, name="never") == (200, "")
        assert (engine.state_root / "volumes/vol2/_data/x").read_bytes() == b"abc"
        engine.docker("start", "never")
    finally:
        engine.docker("rm", "-f", "never")


def test_destination_through_an_absolute_link(engine: Engine) -> None:
    """The fix of CVE-2026-42306 in Docker broke `/var/run -> /run`; links lead on inside the root."""
    entries = [*busybox_entries(), symlink_entry("var/run", "/run/real"), file_entry("run/real/keep")]
    engine.call("POST", "/images/load", raw=docker_archive([image([layer(entries)], tags=["linked:latest"])]))
    words = ("--network", "none", "-v", "vol4:/var/run/sock", "linked", "sleep", "1000")
    engine.docker("create", "--name", "linked", *words)
    try:
        for started in (False, True):
            if started:
                engine.docker("start", "linked")
            assert put(engine, "/var/run/sock", X, name="linked") == (200, "")
            assert look(engine, "/run/real/sock/x", name="linked")["size"] == 3
        assert (engine.state_root / "volumes/vol4/_data/x").read_bytes() == b"abc"
    finally:
        engine.docker("rm", "-f", "linked")


def test_engine_files(box: Engine) -> None:
    """resolv.conf, hosts and hostname are those that the container sees."""
    for name in ("hosts", "hostname", "resolv.conf"):
        inside = box.docker("exec", "kk", "cat", f"/etc/{name}").stdout.encode()
        body = archive(box, "GET", f"/etc/{name}").body
        assert body[512 : 512 + len(inside)] == inside


# --- around it ----------------------------------------------------------------------------------------------------


def test_events(box: Engine) -> None:
    since = time.time()
    archive(box, "HEAD", "/data")
    archive(box, "GET", "/data/f")
    put(box, "/data", X)
    answer = box.request("GET", f"/events?since={since}&until={time.time()}")
    told = [json.loads(line) for line in answer.body.splitlines()]
    shown = [
        (event["Type"], event["Action"], event["Actor"]["ID"] if event["Type"] == "volume" else "") for event in told
    ]
    mounts = [("volume", "mount", "vol"), ("volume", "mount", "rov")]
    unmounts = [("volume", "unmount", "rov"), ("volume", "unmount", "vol")]
    assert shown == [
        *mounts, *unmounts,
        *mounts, ("container", "archive-path", ""), *unmounts,
        *mounts, ("container", "extract-to-dir", ""), *unmounts,
    ]  # fmt: skip
    first = told[0]["Actor"]["Attributes"]
    assert (first["destination"], first["read/write"], first["propagation"]) == ("/data", "true", "")


def test_nothing_stays_mounted_or_open(engine: Engine) -> None:
    assert engine.process is not None
    engine.docker("create", "--name", "leaks", "--network", "none", "-v", "vol2:/data", "busybox", "sleep", "1000")
    try:
        fds = Path(f"/proc/{engine.process.pid}/fd")
        for started in (False, True):
            if started:
                engine.docker("start", "leaks")
            archive(engine, "HEAD", "/data", name="leaks")
            mounts = engine.inside("cat", "/proc/self/mountinfo").stdout
            before = len(list(fds.iterdir()))
            for _ in range(10):
                archive(engine, "HEAD", "/data", name="leaks")
                archive(engine, "GET", "/bin", name="leaks")
                put(engine, "/data", X, name="leaks")
                put(engine, "/data", b"garbage" * 200, name="leaks")
                archive(engine, "GET", "/nope", name="leaks")
            assert engine.inside("cat", "/proc/self/mountinfo").stdout == mounts
            assert len(list(fds.iterdir())) <= before + 2
    finally:
        engine.docker("rm", "-f", "leaks")
    engine.docker("volume", "rm", "vol2")


def test_a_client_that_goes_away(box: Engine) -> None:
    """In the middle of sending, or without reading: the container is as free as before."""
    for request in (
        b"PUT /containers/kk/archive?path=/data HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + X[:700],
        b"PUT /containers/kk/archive?path=/data HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nx",
        b"GET /containers/kk/archive?path=/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(box.socket_path))
            client.sendall(request)
            time.sleep(0.2)
    assert look(box, "/data/f")["size"] == 3


def test_a_slow_reader_does_not_hold_a_running_container(engine: Engine) -> None:
    """It can be stopped, and starts again on the root that is still looked at; it is removed when nobody looks."""
    engine.docker("run", "-d", "--name", "held", "--network", "none", "--init", "busybox", "sleep", "1000")
    engine.docker("exec", "held", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket_path))
        client.sendall(b"GET /containers/held/archive?path=/big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        engine.docker("stop", "-t", "5", "held")
        engine.docker("start", "held")
        engine.docker("exec", "held", "sh", "-c", "echo 1 > /new")
        assert look(engine, "/new", name="held")["size"] == 2
        removing = threading.Thread(target=lambda: engine.docker("rm", "-f", "held"))
        removing.start()
        removing.join(0.7)
        assert removing.is_alive()
    removing.join(20)
    assert engine.docker("inspect", "held", check=False).returncode == 1


def test_keep_alive(box: Engine) -> None:
    """Several calls on one connection, the next behind a body that was read by a worker."""
    head = "PUT /containers/kk/archive?path=/data HTTP/1.1\r\nHost: x\r\n"
    by_length = f"{head}Content-Length: {len(X)}\r\n\r\n".encode() + X
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(X):x}\r\n".encode() + X + b"\r\n0\r\n\r\n"
    ping = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(box.socket_path))
        client.settimeout(20)
        client.sendall(by_length[:100])
        time.sleep(0.1)
        client.sendall(by_length[100:] + chunked)
        client.sendall(ping)
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.endswith(b"OK")


# --- attacks ------------------------------------------------------------------------------------------------------


def test_no_program_of_the_container_is_run(engine: Engine) -> None:
    """CVE-2026-41567: the decompressor is not looked for in there. CVE-2019-14271: nor any library."""
    trap = b"#!/bin/sh\ntouch /data/trapped\n"
    names = ("xz", "unxz", "gzip", "gunzip", "unpigz", "zstd", "bzip2", "tar", "setpriv")
    entries = [entry for entry in busybox_entries() if entry[0].name.rpartition("/")[2] not in names]
    places = [f"{folder}/{name}" for name in names for folder in ("usr/bin", "usr/sbin")]
    entries += [file_entry(place, trap, mode=0o755) for place in places]
    engine.call("POST", "/images/load", raw=docker_archive([image([layer(entries)], tags=["trap:latest"])]))
    engine.docker("run", "-d", "--name", "trap", "--network", "none", "-v", "vol5:/data", "trap", "sleep", "1000")
    try:
        for body in (lzma.compress(X), gzip.compress(X)):
            assert put(engine, "/data", body, name="trap", more="&copyUIDGID=1") == (200, "")
        archive(engine, "GET", "/usr/bin", name="trap")
        assert sorted(os.listdir(engine.state_root / "volumes/vol5/_data")) == ["x"]
    finally:
        engine.docker("rm", "-f", "trap")


SWAP = """
cd /data
while true; do
    rm -rf real real.away way; mkdir real; echo mine > real/secret; ln -s {outside} way
    for turn in 1 2 3 4 5 6 7 8 9; do mv real real.away; mv way real; mv real way; mv real.away real; done
done 2>/dev/null
"""


def test_exchanged_while_it_is_copied(engine: Engine, tmp_path: Path) -> None:
    """CVE-2018-15664, 200 times each way: `real` is now a directory, now a link to a directory of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("the host's")
    before = (outside.stat().st_mtime_ns, outside.stat().st_mode)
    swap = SWAP.format(outside=outside)
    engine.docker("run", "-d", "--name", "swap", "--network", "none", "-v", "vol6:/data", "busybox", "sh", "-c", swap)
    owned = tar(("owned", F, {"data": b"!"}), ("sub", D, {"mode": 0o777}), ("sub/x", F, {}))
    through = tar(("real/owned", F, {"data": b"!"}), ("real", D, {"mode": 0o777, "uid": 1234}))
    seen: set[int] = set()
    try:
        for number in range(200):
            answer = archive(engine, "GET", "/data/real/secret", name="swap")
            assert b"the host's" not in answer.body
            seen.add(answer.status)
            assert b"the host's" not in archive(engine, "GET", "/data", name="swap").body
            put(engine, "/data/real", owned, name="swap")
            put(engine, "/data", through, name="swap")
            if number % 10 == 0:
                engine.docker("cp", "swap:/data/real/.", str(tmp_path / f"out{number}"), check=False)
                secret = tmp_path / f"out{number}" / "secret"
                assert not secret.exists() or secret.read_text() != "the host's"
        assert seen >= {200, 404}, seen
    finally:
        engine.docker("rm", "-f", "swap")
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_text() == "the host's"
    assert (outside.stat().st_mtime_ns, outside.stat().st_mode) == before


def test_destinations_exchanged_while_a_view_is_made(engine: Engine, tmp_path: Path) -> None:
    """CVE-2026-42306: a destination inside a volume that another container rewrites; nothing appears on the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    swap = SWAP.format(outside=outside)
    engine.docker("run", "-d", "--name", "swap", "--network", "none", "-v", "vol7:/data", "busybox", "sh", "-c", swap)
    words = ("-v", "vol7:/shared", "-v", "vol8:/shared/real/made/here", "-v", f"{tmp_path}:/shared/real/bound")
    engine.docker("create", "--name", "victim", "--network", "none", *words, "busybox", "true")
    try:
        for _ in range(200):
            archive(engine, "HEAD", "/shared/real", name="victim")
            put(engine, "/shared/real/made/here", X, name="victim")
    finally:
        engine.docker("rm", "-f", "swap", "victim")
    assert os.listdir(outside) == []
    assert "outside" not in engine.inside("cat", "/proc/self/mountinfo").stdout


def test_an_archive_that_swaps_its_own_links(box: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's")
    for target in (str(tmp_path), "/proc/1/root", "/proc/self/cwd", "../../../../../../../../.."):
        body = tar(("way", S, {"linkname": target}), ("way/secret", F, {"data": b"!"}), ("way", D, {}), ("way", F, {}))
        put(box, "/tmp", body)
        put(box, "/", tar(("tmp/way", S, {"linkname": target}), ("tmp/way/secret", F, {"data": b"!"})))
    assert (tmp_path / "secret").read_text() == "the host's"
    assert subprocess.run(["ls", "/secret"], capture_output=True, check=False).returncode != 0
