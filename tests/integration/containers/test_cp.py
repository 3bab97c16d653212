"""`docker cp` by the stock client and by ours: what is copied where, what stays as it was, what is refused."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

Copy = Callable[..., "subprocess.CompletedProcess[str]"]
Shell = Callable[[str], str]


@pytest.fixture(params=["docker", "holdfast"])
def copy(request: pytest.FixtureRequest, engine: Engine) -> Copy:
    """`cp` by one of the two clients."""
    client = engine.docker if request.param == "docker" else engine.holdfast

    def run(*words: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        return client("cp", *words, check=check, stdin=stdin)

    return run


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Shell]:
    """A container named box with a volume at /data, and a shell of the host in the volume."""
    engine.docker("volume", "create", "boxdata")
    engine.docker("create", "--name", "box", "--network", "none", "-v", "boxdata:/data", "busybox", "sleep", "1000")
    if request.param == "running":
        engine.docker("start", "box")

    def shell(script: str) -> str:
        volume = engine.state_root / "volumes/boxdata/_data"
        done = subprocess.run(["sh", "-ec", script], cwd=volume, capture_output=True, check=True, timeout=60)
        return done.stdout.decode(errors="surrogateescape")

    yield shell
    engine.docker("rm", "-f", "box")
    engine.docker("volume", "rm", "boxdata")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A few local files."""
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/sub/deep").write_text("deep\n")
    (tmp_path / "dir/inner").write_text("inner\n")
    (tmp_path / "file").write_text("file\n")
    (tmp_path / "other").write_text("other\n")
    (tmp_path / "flink").symlink_to("file")
    (tmp_path / "dlink").symlink_to("dir")
    (tmp_path / "broken").symlink_to("nothing")
    return tmp_path


FILL = "mkdir -p have && echo old > old && find . | sort"


@pytest.mark.parametrize(
    ("source", "destination", "found"),
    [
        ("file", "new", {"new": "file\n"}),
        ("file", "old", {"old": "file\n"}),
        ("file", "have", {"have/file": "file\n"}),
        ("file", "have/", {"have/file": "file\n"}),
        ("file", "have/.", {"have/file": "file\n"}),
        ("dir", "new", {"new/inner": "inner\n", "new/sub/deep": "deep\n"}),
        ("dir", "new/", {"new/inner": "inner\n", "new/sub/deep": "deep\n"}),
        ("dir", "have", {"have/dir/inner": "inner\n", "have/dir/sub/deep": "deep\n"}),
        ("dir/", "have", {"have/dir/inner": "inner\n"}),
        ("dir/.", "new", {"new/inner": "inner\n", "new/sub/deep": "deep\n"}),
        ("dir/.", "have", {"have/inner": "inner\n", "have/sub/deep": "deep\n"}),
        ("dlink/", "have", {"have/dlink/inner": "inner\n"}),
        ("dlink/.", "have", {"have/inner": "inner\n"}),
    ],
)
def test_into(copy: Copy, box: Shell, local: Path, source: str, destination: str, found: dict[str, str]) -> None:
    box(FILL)
    copy(f"{local}/{source}", f"box:/data/{destination}")
    for name, content in found.items():
        assert box(f"cat {name}") == content


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        ("file", "new/", "no such directory"),
        ("dir", "old", "cannot copy directory"),
        ("dir/.", "old", "cannot copy directory"),
        ("file", "missing/new", "Could not find the file /data/missing in container box"),
        ("nothing", "new", "no such file or directory"),
    ],
)
def test_into_refused(copy: Copy, box: Shell, local: Path, source: str, destination: str, text: str) -> None:
    before = box(FILL)
    done = copy(f"{local}/{source}", f"box:/data/{destination}", check=False)
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert box("find . | sort") == before


FILES = (
    "mkdir -p dir/sub; echo deep > dir/sub/deep; echo inner > dir/inner; echo file > file; ln -s file flink; "
    "ln -s dir dlink"
)


@pytest.mark.parametrize(
    ("source", "destination", "found"),
    [
        ("file", "new", {"new": "file\n"}),
        ("file", "old", {"old": "file\n"}),
        ("file", "have", {"have/file": "file\n"}),
        ("file", "have/", {"have/file": "file\n"}),
        ("dir", "new", {"new/inner": "inner\n", "new/sub/deep": "deep\n"}),
        ("dir", "have", {"have/dir/inner": "inner\n", "have/dir/sub/deep": "deep\n"}),
        ("dir/", "have", {"have/dir/inner": "inner\n"}),
        ("dir/.", "new", {"new/inner": "inner\n", "new/sub/deep": "deep\n"}),
        ("dir/.", "have", {"have/inner": "inner\n", "have/sub/deep": "deep\n"}),
        ("dlink/", "have", {"have/dlink/inner": "inner\n"}),
        ("dlink/.", "have", {"have/inner": "inner\n"}),
    ],
)
def test_out_of(
    copy: Copy, box: Shell, tmp_path: Path, source: str, destination: str, found: dict[str, str]
) -> None:
    box(FILES)
    (tmp_path / "have").mkdir()
    (tmp_path / "old").write_text("old")
    copy(f"box:/data/{source}", f"{tmp_path}/{destination}")
    for name, content in found.items():
        assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        ("file", "new/", "no such directory"),
        ("dir", "old", "cannot copy directory"),
        ("nothing", "new", "Could not find the file /data/nothing in container box"),
        ("file", "missing/new", "does not exist"),
        ("file/", "new", "lstat /data/file/: not a directory"),
    ],
)
def test_out_of_refused(
    copy: Copy, box: Shell, tmp_path: Path, source: str, destination: str, text: str
) -> None:
    box(FILES)
    (tmp_path / "old").write_text("old")
    done = copy(f"box:/data/{source}", f"{tmp_path}/{destination}", check=False)
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "engine"] == ["old"]


def test_links_into(copy: Copy, box: Shell, local: Path) -> None:
    """A link is copied as one; with -L, and at the destination, it is followed."""
    box("mkdir have; ln -s have todir; ln -s target tofile; ln -s /data/have absolute; ln -s nowhere/x broken")
    copy(f"{local}/flink", "box:/data/l1")
    assert box("readlink l1") == "file\n"
    copy("-L", f"{local}/flink", "box:/data/l2")
    assert box("cat l2; readlink l2 || true") == "file\n"
    copy("-L", f"{local}/dlink", "box:/data/have")
    assert box("cat have/dlink/inner") == "inner\n"
    copy(f"{local}/dlink", "box:/data/have/asis")
    assert box("readlink have/asis") == "dir\n"
    copy(f"{local}/file", "box:/data/todir")
    copy(f"{local}/other", "box:/data/absolute/")
    copy(f"{local}/file", "box:/data/tofile")
    assert box("cat have/file have/other target; readlink tofile") == "file\nother\nfile\ntarget\n"
    assert copy(f"{local}/file", "box:/data/broken", check=False).returncode == 1


def test_links_out_of(copy: Copy, box: Shell, tmp_path: Path) -> None:
    box(FILES + "; ln -s /etc/passwd pw; ln -s ../../../../../../etc/shadow out")
    (tmp_path / "have").mkdir()
    (tmp_path / "here").symlink_to("have")
    copy("box:/data/flink", f"{tmp_path}/l1")
    assert os.readlink(tmp_path / "l1") == "file"
    copy("-L", "box:/data/flink", f"{tmp_path}/l2")
    assert (tmp_path / "l2").read_text() == "file\n"
    copy("-L", "box:/data/dlink", f"{tmp_path}/have")
    assert (tmp_path / "have/dlink/inner").read_text() == "inner\n"
    copy("-L", "box:/data/pw", f"{tmp_path}/pw")
    assert (tmp_path / "pw").read_text().startswith("root:x:0:0:root:/root:/bin/sh")
    assert copy("-L", "box:/data/out", f"{tmp_path}/shadow", check=False).returncode == 1
    copy("box:/data/file", f"{tmp_path}/here")
    assert (tmp_path / "have/file").read_text() == "file\n"


def test_streams(copy: Copy, box: Shell, engine: Engine) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a/b")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    copy("-", "box:/data", stdin=buffer.getvalue())
    assert box("cat a/b") == "abc"
    done = subprocess.run(
        [*copy("box:/data/a", "-").args], env=engine.client_environment(), capture_output=True, check=True, timeout=60
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["a", "a/b"]
    refused = copy("-", "box:/data/a/b", stdin=buffer.getvalue(), check=False)
    assert 'destination "box:/data/a/b" must be a directory' in refused.stderr


def test_attributes(copy: Copy, box: Shell, tmp_path: Path) -> None:
    """Owner, mode, times in whole seconds, hard links, empty files, and names that are no UTF-8."""
    source = tmp_path / "source"
    source.mkdir()
    odd = b"n\xff\xfe".decode("utf-8", "surrogateescape")
    (source / odd).write_bytes(b"odd")
    (source / "empty").touch()
    (source / "set").write_bytes(b"x")
    os.chown(source / "set", 1234, 5678)
    os.chmod(source / "set", 0o6755)
    os.link(source / "set", source / "twin")
    os.utime(source / "set", ns=(10**18, 10**18))
    (source / "d").mkdir(mode=0o1777)
    os.utime(source / "d", (1000, 1000))
    copy(str(source), "box:/data/in")
    seen = box("cd in; stat -c '%n %a %u %g %s %Y %h' set twin empty d; ls | LC_ALL=C tr -d '\\377\\376'")
    assert seen.splitlines()[:2] == [f"set 6755 1234 5678 1 {10**9} 2", f"twin 6755 1234 5678 1 {10**9} 2"]
    assert seen.splitlines()[2].startswith("empty 644 0 0 0 ")
    assert seen.splitlines()[3].startswith("d 1755 0 0 ")
    assert seen.splitlines()[3].split()[5] == "1000"
    assert seen.splitlines()[4:] == ["d", "empty", "n", "set", "twin"]
    copy("box:/data/in", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / odd).read_bytes() == b"odd"
    assert (back / "set").stat().st_ino == (back / "twin").stat().st_ino
    assert stat.S_IMODE((back / "set").stat().st_mode) == 0o6755
    assert (back / "set").stat().st_mtime == 10**9
    assert (back / "d").stat().st_mtime == 1000


def test_owner_by_archive_mode(copy: Copy, engine: Engine, local: Path) -> None:
    engine.docker("create", "--name", "owned", "--network", "none", "--user", "www-data", "busybox", "true")
    try:
        copy("-a", f"{local}/file", "owned:/tmp/theirs")
        copy(f"{local}/file", "owned:/tmp/ours")
        answer = engine.request("GET", "/containers/owned/archive?path=/tmp")
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            assert (archive.getmember("tmp/theirs").uid, archive.getmember("tmp/theirs").gid) == (33, 33)
            assert archive.getmember("tmp/ours").uid == os.geteuid()
    finally:
        engine.docker("rm", "-f", "owned")


def test_big_and_sparse(copy: Copy, box: Shell, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        digest = hashlib.sha256()
        for _ in range(64):
            data = os.urandom(1 << 20)
            digest.update(4 * data)
            file.write(4 * data)
    copy(str(big), "box:/data/big")
    assert box("sha256sum big").split()[0] == digest.hexdigest()
    copy("box:/data/big", str(tmp_path / "back"))
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest.hexdigest()
    box("rm big; dd if=/dev/zero of=sparse bs=1 count=1 seek=50000000 2>/dev/null; echo end >> sparse")
    copy("box:/data/sparse", str(tmp_path / "sparse"))
    assert (tmp_path / "sparse").stat().st_size == 50000005
    assert (tmp_path / "sparse").read_bytes().strip(b"\0") == b"end\n"


def test_many_files(copy: Copy, box: Shell, tmp_path: Path) -> None:
    box("mkdir many; cd many; for i in $(seq 1500); do echo $i > $i; done")
    copy("box:/data/many", str(tmp_path))
    assert {path.name: path.read_text() for path in (tmp_path / "many").iterdir()} == {
        str(number): f"{number}\n" for number in range(1, 1501)
    }
    copy(str(tmp_path / "many"), "box:/data/again")
    assert box("diff -r many again && ls again | wc -l").strip() == "1500"


def test_the_root(copy: Copy, box: Shell, tmp_path: Path) -> None:
    """All of it, with the volume's files in their place, and without the kernel's own file systems."""
    box("echo here > here")
    copy("box:/", str(tmp_path / "root"))
    assert (tmp_path / "root/data/here").read_text() == "here\n"
    assert (tmp_path / "root/bin/busybox").stat().st_size > 100_000
    assert list((tmp_path / "root/proc").iterdir()) == []
    assert list((tmp_path / "root/sys").iterdir()) == []


def test_ours_says_what_it_did(engine: Engine, box: Shell, local: Path) -> None:
    """Nothing without a terminal, as docker."""
    done = engine.holdfast("cp", f"{local}/file", "box:/data/")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_hostile_container_does_not_get_out(copy: Copy, box: Shell, tmp_path: Path) -> None:
    """What is unpacked here stays below the destination, whatever links the container has prepared here before."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "to").mkdir()
    box("mkdir -p a; ln -s .. a/up; ln -s /tmp a/abs")
    copy("box:/data/a", str(tmp_path / "to"))
    box("rm a/up; mkdir a/up; echo evil > a/up/secret")
    copy("box:/data/a", str(tmp_path / "to"), check=False)
    assert (tmp_path / "secret").read_text() == "secret"
