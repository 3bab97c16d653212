"""What runs inside the guest, as `python -m tests.vm.guest WHAT...`; reports go to the console, see support/guest.py.

`core` runs every check and reports its outcome. `before` prepares a machine whose power is about to be cut, and says
what it was told is safe; `after` reports what it finds at the next boot.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support import fates
from tests.support.engine import Engine
from tests.support.images import busybox_image, docker_archive, file_entry, image, layer
from tests.vm import servers

STATE = Path("/state")
CGROUPS = Path("/sys/fs/cgroup")
MOUNT_TIMEOUT_S = 8
_ALL_ARE_THERE_S = 3
"""How long fifty requests need until all of them wait for storage, on the guest's one slow processor."""
CHECKS: dict[str, Callable[[Engine], None]] = {}
SHARE_CHECKS: dict[str, Callable[[Engine], None]] = {}


def report(**facts: Any) -> None:
    """One line for the host."""
    print("\n@@ " + json.dumps(facts), flush=True)


def check(function: Callable[[Engine], None]) -> Callable[[Engine], None]:
    """Register a check under its name."""
    CHECKS[function.__name__] = function
    return function


def share_check(function: Callable[[Engine], None]) -> Callable[[Engine], None]:
    """Register a check that needs the servers."""
    SHARE_CHECKS[function.__name__] = function
    return function


def create(engine: Engine, name: str, command: list[str], *, image: str = "busybox", **host: Any) -> str:
    """Create a container; returns its id."""
    body = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
    identity: str = engine.call("POST", f"/containers/create?name={name}", body)["Id"]
    return identity


def start(engine: Engine, identity: str) -> None:
    """Start a container."""
    engine.call("POST", f"/containers/{identity}/start")


def run(engine: Engine, command: list[str], **options: Any) -> tuple[int, str]:
    """Run a container to its end; returns its exit code and what it printed."""
    name = f"run-{time.monotonic_ns()}"
    identity = create(engine, name, command, **options)
    start(engine, identity)
    code = int(engine.call("POST", f"/containers/{identity}/wait")["StatusCode"])
    raw = engine.request("GET", f"/containers/{identity}/logs?stdout=1&stderr=1").body
    text, at = "", 0
    while at + 8 <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "big")
        text += raw[at + 8 : at + 8 + size].decode(errors="replace")
        at += 8 + size
    engine.call("DELETE", f"/containers/{identity}?v=1")
    return code, text


def cgroup_of(engine: Engine, identity: str) -> Path:
    """The container's cgroup, by its first process."""
    pid = engine.call("GET", f"/containers/{identity}/json")["State"]["Pid"]
    return CGROUPS / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


@check
def machine_has_only_cgroup_v2(engine: Engine) -> None:
    """The guest is what we want to test on, and the engine knows it."""
    assert {"cpu", "io", "memory", "pids"} <= set((CGROUPS / "cgroup.controllers").read_text().split())
    assert engine.call("GET", "/info")["CgroupVersion"] == "2"


@check
def a_container_runs(engine: Engine) -> None:
    """Output and exit code come back."""
    assert run(engine, ["sh", "-c", "echo hello; exit 3"]) == (3, "hello\n")


@check
def a_bridge_works_without_nf_tables(engine: Engine) -> None:
    """A bridge needs no NAT; a container on it has an address."""
    code, text = run(engine, ["ip", "addr", "show", "eth0"], NetworkMode="bridge")
    assert code == 0, text
    assert "inet " in text, text


@check
def publishing_without_nf_tables_is_refused_clearly(engine: Engine) -> None:
    """A port that cannot be published is an error that says why, not silence."""
    identity = create(
        engine, "published", ["true"], NetworkMode="bridge", PortBindings={"80/tcp": [{"HostPort": "8080"}]}
    )
    answer = engine.request("POST", f"/containers/{identity}/start")
    engine.call("DELETE", f"/containers/{identity}?force=1")
    assert answer.status >= 400, answer.status
    assert "nftables" in answer.json()["message"], answer.body


@check
def many_layers_make_one_root(engine: Engine) -> None:
    """This kernel has no lowerdir+: 60 layers must all be there, and what a layer takes away must be gone."""
    layers = list(busybox_image().layers)
    layers += [layer([file_entry(f"many/layer-{number}", str(number).encode())]) for number in range(60)]
    layers.append(layer([file_entry("many/.wh.layer-7"), file_entry("many/layer-8", b"changed")]))
    archive = docker_archive([image(layers, tags=["many:latest"])])
    engine.call("POST", "/images/load?quiet=1", raw=archive)
    code, text = run(engine, ["sh", "-c", "ls /many; cat /many/layer-8"], image="many")
    assert code == 0, text
    names = text.splitlines()
    assert names[-1] == "changed", names
    assert sorted(names[:-1]) == sorted(f"layer-{number}" for number in range(60) if number != 7), names


@check
def volumes_keep_data_and_are_filled(engine: Engine) -> None:
    """A new volume gets the image's content, and keeps what a container writes."""
    code, text = run(engine, ["sh", "-c", "cat /etc/passwd && echo kept > /etc/mine"], Binds=["filled:/etc"])
    assert code == 0, text
    assert "root:x:0:0" in text, text
    assert run(engine, ["cat", "/data/mine"], Binds=["filled:/data:ro"]) == (0, "kept\n")
    code, text = run(engine, ["touch", "/data/other"], Binds=["filled:/data:ro"])
    assert code == 1, text
    assert "Read-only file system" in text, text


@check
def limits_reach_the_cgroup(engine: Engine) -> None:
    """Memory, processes and CPU time, as the kernel has them."""
    identity = create(engine, "limited", ["sleep", "60"], Memory=32 << 20, PidsLimit=17, NanoCpus=500_000_000)
    start(engine, identity)
    cgroup = cgroup_of(engine, identity)
    values = {name: (cgroup / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
    engine.call("DELETE", f"/containers/{identity}?force=1")
    assert values == {"memory.max": str(32 << 20), "pids.max": "17", "cpu.max": "50000 100000"}, values


@check
def limits_change_and_are_lifted(engine: Engine) -> None:
    """An update reaches the cgroup, is on record, and can take limits away again."""
    identity = create(engine, "changed", ["sleep", "60"], Memory=32 << 20, PidsLimit=17)
    start(engine, identity)
    cgroup = cgroup_of(engine, identity)
    changes = {"Memory": 48 << 20, "MemorySwap": 64 << 20, "MemoryReservation": 16 << 20, "NanoCpus": 250_000_000}
    assert engine.call("POST", f"/containers/{identity}/update", changes) == {"Warnings": None}
    names = ("memory.max", "memory.low", "pids.max", "cpu.max")
    values = {name: (cgroup / name).read_text().strip() for name in names}
    expected = {"memory.max": str(48 << 20), "memory.low": str(16 << 20), "pids.max": "17", "cpu.max": "25000 100000"}
    assert values == expected, values
    engine.call("POST", f"/containers/{identity}/update", {"PidsLimit": -1, "MemorySwap": -1})
    assert (cgroup / "pids.max").read_text() == "max\n"
    shown = engine.call("GET", f"/containers/{identity}/json")["HostConfig"]
    assert (shown["Memory"], shown["MemorySwap"], shown["PidsLimit"]) == (48 << 20, -1, None), shown
    quota = create(engine, "quota", ["sleep", "60"], CpuQuota=20_000)
    start(engine, quota)
    engine.call("POST", f"/containers/{quota}/update", {"CpuQuota": -1})
    assert (cgroup_of(engine, quota) / "cpu.max").read_text() == "max 100000\n"
    for one in (identity, quota):
        engine.call("DELETE", f"/containers/{one}?force=1")


@check
def usage_is_counted(engine: Engine) -> None:
    """Processor time, memory, processes and network, by the names that cgroup v2 has for them."""
    busy = ["sh", "-c", "sleep 1000 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; wait"]
    identity = create(engine, "used", busy, Memory=32 << 20, PidsLimit=17, NetworkMode="bridge")
    start(engine, identity)
    shown = engine.call("GET", f"/containers/{identity}/stats?stream=0")
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] < shown["cpu_stats"]["cpu_usage"]["total_usage"], shown
    assert "percpu_usage" not in shown["cpu_stats"]["cpu_usage"]
    assert shown["memory_stats"]["limit"] == 32 << 20
    assert 0 < shown["memory_stats"]["usage"] < 32 << 20
    assert {"anon", "file", "inactive_file"} <= shown["memory_stats"]["stats"].keys()
    assert shown["pids_stats"] == {"current": 2, "limit": 17}
    assert list(shown["networks"]) == ["eth0"]
    assert shown["blkio_stats"]["io_serviced_recursive"] is None
    engine.call("DELETE", f"/containers/{identity}?force=1")


@check
def changes_and_exports(engine: Engine) -> None:
    """What a container changed is told from what its image has, and its files can be had."""
    identity = create(engine, "changing", ["sh", "-c", "mkdir /d; echo 1 > /d/f; rm /bin/vi; rm -r /tmp; mkdir /tmp"])
    start(engine, identity)
    engine.call("POST", f"/containers/{identity}/wait")
    found = [(change["Path"], change["Kind"]) for change in engine.call("GET", f"/containers/{identity}/changes")]
    assert [one for one in found if one[0] != "/tmp"] == [("/bin", 0), ("/bin/vi", 2), ("/d", 1), ("/d/f", 1)], found
    with tarfile.open(fileobj=io.BytesIO(engine.request("GET", f"/containers/{identity}/export").body)) as archive:
        names = archive.getnames()
    assert {"d/f", "bin/busybox", ".dockerenv"} <= set(names)
    assert "bin/vi" not in names
    engine.call("DELETE", f"/containers/{identity}")


@check
def too_much_memory_ends_a_container(engine: Engine) -> None:
    """The kernel kills it; the engine says so."""
    identity = create(engine, "greedy", ["tail", "/dev/zero"], Memory=16 << 20, MemorySwap=16 << 20)
    start(engine, identity)
    code = engine.call("POST", f"/containers/{identity}/wait")["StatusCode"]
    state = engine.call("GET", f"/containers/{identity}/json")["State"]
    engine.call("DELETE", f"/containers/{identity}?force=1")
    assert (code, state["OOMKilled"]) == (137, True), (code, state)


@check
def too_many_processes_are_refused(engine: Engine) -> None:
    """fork fails inside at the limit, and nowhere else."""
    code, text = run(engine, ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"], PidsLimit=4)
    assert code != 0, text
    assert "fork" in text, text


@check
def an_image_is_built(engine: Engine) -> None:
    """By buildah, with limits and in a control group of the build's own, which goes with it."""
    text = b"FROM busybox\nRUN cat /proc/self/cgroup; id -u >/made\n"
    context = layer([file_entry("Dockerfile", text)])
    answer = engine.request("POST", "/build?t=built&memory=50000000&networkmode=none", raw=context)
    assert b"Successfully tagged built:latest" in answer.body, answer.body
    assert run(engine, ["cat", "/made"], image="built") == (0, "0\n")
    left = [path.name for path in Path("/sys/fs/cgroup").glob("*/build-*")]
    assert left == []


@check
def fields_are_at_work_with_version_2(engine: Engine) -> None:
    """What docs/compatibility.toml calls honoured, as far as one container shows it."""
    folder = STATE / "bound"
    folder.mkdir()
    (folder / "file").write_text("bound\n")
    made: list[str] = []
    fates.check(engine, made, fates.main_proofs(folder))
    for key in made:
        engine.call("DELETE", f"/containers/{key}?v=1")


@check
def containers_survive_the_engine(engine: Engine) -> None:
    """kill -9 of the engine harms no container; the next engine finds it and collects its end."""
    identity = create(engine, "survivor", ["sh", "-c", "read line < /data/pipe; exit 5"], Binds=["surviving:/data"])
    mountpoint = Path(engine.call("GET", "/volumes/surviving")["Mountpoint"])
    assert run(engine, ["mkfifo", "/data/pipe"], Binds=["surviving:/data"])[0] == 0
    start(engine, identity)
    pid = engine.call("GET", f"/containers/{identity}/json")["State"]["Pid"]
    engine.kill()
    assert Path(f"/proc/{pid}").exists()
    engine.start()
    state = engine.call("GET", f"/containers/{identity}/json")["State"]
    assert (state["Running"], state["Pid"]) == (True, pid), state
    (mountpoint / "pipe").write_text("go\n")
    assert engine.call("POST", f"/containers/{identity}/wait")["StatusCode"] == 5
    engine.call("DELETE", f"/containers/{identity}")


def mounts_at(path: str) -> list[list[str]]:
    """The machine's mounts on a place: device, place, type, options."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [fields[:4] for fields in lines if fields[1] == path]


def remote_volume(engine: Engine, name: str, kind: str, device: str, options: str) -> str:
    """Create a volume on a server; returns its mountpoint."""
    body = {"Name": name, "DriverOpts": {"type": kind, "device": device, "o": options}}
    mountpoint: str = engine.call("POST", "/volumes/create", body)["Mountpoint"]
    return mountpoint


def reaches_the_server(engine: Engine, kind: str, device: str, options: str, server_side: Path) -> list[str]:
    """Write through a container, find it on the server, and see the mount come and go; returns the mount's fields."""
    mountpoint = remote_volume(engine, "remote", kind, device, options)
    assert mounts_at(mountpoint) == [], "mounted before it was used"
    identity = create(engine, "holder", ["sleep", "60"], Binds=["remote:/data"])
    start(engine, identity)
    seen = mounts_at(mountpoint)
    code, text = run(engine, ["sh", "-c", "echo through > /data/file; cat /data/file"], Binds=["remote:/data"])
    assert (code, text) == (0, "through\n"), text
    assert len(mounts_at(mountpoint)) == 1, "one mount for all its containers"
    assert (server_side / "file").read_text() == "through\n"
    engine.call("DELETE", f"/containers/{identity}?force=1")
    assert mounts_at(mountpoint) == [], "still mounted after the last container"
    engine.call("DELETE", "/volumes/remote")
    assert (server_side / "file").read_text() == "through\n", "removing the volume must not touch the server's data"
    (server_side / "file").unlink()
    assert len(seen) == 1, seen
    return seen[0]


def refused(engine: Engine, kind: str, device: str, options: str) -> str:
    """The message of a start that must fail because of the volume."""
    remote_volume(engine, "refused", kind, device, options)
    identity = create(engine, "refused", ["true"], Binds=["refused:/data"])
    answer = engine.request("POST", f"/containers/{identity}/start")
    engine.call("DELETE", f"/containers/{identity}?force=1")
    engine.call("DELETE", "/volumes/refused")
    assert answer.status >= 400, answer.status
    message: str = answer.json()["message"]
    return message


@share_check
def nfs_3(engine: Engine) -> None:
    """The kernel's default where only the address is given."""
    mount = reaches_the_server(engine, "nfs", ":/var/docker-nfs", "addr=127.0.0.1", servers.NFS)
    assert mount[2] == "nfs", mount
    assert "vers=3" in mount[3], mount


@share_check
def nfs_4(engine: Engine) -> None:
    """The documented line."""
    mount = reaches_the_server(engine, "nfs", ":/var/docker-nfs", "addr=127.0.0.1,rw,nfsvers=4,async", servers.NFS)
    assert mount[2] == "nfs4", mount


@share_check
def nfs_by_name(engine: Engine) -> None:
    """A server by its name."""
    mount = reaches_the_server(engine, "nfs", ":/var/docker-nfs", "addr=localhost,nfsvers=4", servers.NFS)
    assert "addr=127.0.0.1" in mount[3], mount


@share_check
def nfs_path_that_is_not_there(engine: Engine) -> None:
    """The kernel's words reach the caller."""
    message = refused(engine, "nfs", ":/nonexistent", "addr=127.0.0.1,nfsvers=4")
    assert "failed to mount local volume" in message, message
    assert message.endswith("no such file or directory"), message


@share_check
def cifs(engine: Engine) -> None:
    """A Windows share, with a password."""
    options = f"addr=127.0.0.1,username={servers.USER},password={servers.PASSWORD},file_mode=0777,dir_mode=0777"
    mount = reaches_the_server(engine, "cifs", "//127.0.0.1/backup", options, servers.SMB)
    assert mount[2] == "cifs", mount


@share_check
def cifs_password_that_is_wrong(engine: Engine) -> None:
    """Refused, and the password is nowhere in the message."""
    options = f"addr=127.0.0.1,username={servers.USER},password=not-the-secret"
    message = refused(engine, "cifs", "//127.0.0.1/backup", options)
    assert message.endswith("permission denied"), message
    assert "not-the-secret" not in message, message


@share_check
def nfs_in_the_words_of_mount_nfs(engine: Engine) -> None:
    """One string as the documentation has it, with words that only mount.nfs knows."""
    options = "addr=127.0.0.1,vers=4,soft,timeo=180,bg,tcp,rw"
    mount = reaches_the_server(engine, "nfs", ":/var/docker-nfs", options, servers.NFS)
    assert {"soft", "timeo=180", "proto=tcp", "rw"} <= set(mount[3].split(",")), mount


@share_check
def cifs_with_credentials_in_a_file(engine: Engine) -> None:
    """The password is in a file of the host, and in no option."""
    file = Path("/run/credentials")
    file.write_text(f"username={servers.USER}\npassword={servers.PASSWORD}\n")
    file.chmod(0o600)
    reaches_the_server(
        engine, "cifs", "//localhost/backup", f"credentials={file},file_mode=0777,dir_mode=0777", servers.SMB
    )


@share_check
def checks_name_the_step(engine: Engine) -> None:
    """What `holdfast volume check` finds, for each thing that can be wrong."""
    secret = f"username={servers.USER},password={servers.PASSWORD}"
    found = {}
    for name, (kind, device, options) in {
        "good-3": ("nfs", ":/var/docker-nfs", "addr=127.0.0.1"),
        "good-4": ("nfs", "localhost:/var/docker-nfs", "nfsvers=4"),
        "good-smb": ("cifs", "//127.0.0.1/backup", secret),
        "name": ("nfs", ":/var/docker-nfs", "addr=no.such.host.invalid"),
        "route": ("nfs", ":/var/docker-nfs", "addr=127.0.0.1,port=9"),
        "export": ("nfs", ":/nonexistent", "addr=127.0.0.1"),
        "export-4": ("nfs", ":/nonexistent", "addr=127.0.0.1,nfsvers=4"),
        "share": ("cifs", "//127.0.0.1/nonexistent", secret),
        "password": ("cifs", "//127.0.0.1/backup", f"username={servers.USER},password=wrong"),
        "words": ("nfs", ":/var/docker-nfs", "addr=127.0.0.1,bogus"),
    }.items():
        remote_volume(engine, name, kind, device, options)
        checked = engine.call("POST", f"/holdfast/volumes/{name}/check")
        last = checked["Steps"][-1]
        found[name] = "ok" if checked["OK"] else last["Step"]
        assert servers.PASSWORD not in str(checked)
        engine.call("DELETE", f"/volumes/{name}")
    assert found == {
        "good-3": "ok", "good-4": "ok", "good-smb": "ok", "name": "name", "route": "route", "export": "export",
        "export-4": "export", "share": "export", "password": "credentials", "words": "options",
    }, found  # fmt: skip


def timed(engine: Engine, method: str, path: str) -> tuple[int, float]:
    """A request's status and how long it took."""
    began = time.monotonic()
    status = engine.request(method, path).status
    return status, time.monotonic() - began


@share_check
def a_server_that_dies_in_the_middle(engine: Engine) -> None:
    """Of a copy from an image, of `docker cp`: what waits for NFS is given up, and all is well later."""
    remote_volume(engine, "dying", "nfs", ":/var/docker-nfs", "addr=127.0.0.1,nfsvers=3,actimeo=0,nolock")
    create(engine, "dying", ["sleep", "600"], Binds=["dying:/elsewhere"])
    big = layer([file_entry("big", os.urandom(48 << 20))])
    filling = {"Image": "filling", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Binds": ["dying:/data"]}}
    entries = [file_entry(f"data/{number:03}", os.urandom(200_000)) for number in range(60)]
    archive = docker_archive([image([*busybox_image().layers, layer(entries)], tags=["filling:latest"])])
    engine.call("POST", "/images/load?quiet=1", raw=archive)
    found = {}
    for method, path, more in (
        ("POST", "/containers/create?name=filled", {"body": filling}),
        ("PUT", "/containers/dying/archive?path=/elsewhere", {"raw": big}),
    ):
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(engine.request, method, path, **more)
            beginning = ".fill-" if method == "POST" else "big"
            while not asked.done() and not any(name.startswith(beginning) for name in os.listdir(servers.NFS)):
                time.sleep(0.005)
            servers.cut_cable()
            began = time.monotonic()
            status, seconds = timed(engine, "GET", "/volumes")
            assert (status, seconds < 0.5) == (200, True), seconds
            answer = asked.result()
            found[path] = (answer.status, time.monotonic() - began, answer.body.decode())
        servers.mend_cable()
    report(deaths=found)
    for status, seconds, text in found.values():
        assert (status, seconds < MOUNT_TIMEOUT_S + 4) == (500, True), found
        assert "connection timed out" in text, found
    for file in servers.NFS.iterdir():
        if not file.name.startswith("."):
            file.unlink()
    start(engine, "dying")
    assert os.listdir(servers.NFS) == [], "what was left of the copy from the image is gone before its first use"
    engine.call("POST", "/containers/create?name=filled", filling)
    assert len(os.listdir(servers.NFS)) == 60
    for name in ("dying", "filled"):
        engine.call("DELETE", f"/containers/{name}?force=1")
    engine.call("DELETE", "/volumes/dying")
    for file in servers.NFS.iterdir():
        file.unlink()


@share_check
def a_dead_server_holds_up_nobody_else(engine: Engine) -> None:
    """It goes away with containers on it. Fifty calls wait for it, and everything else goes on; then it is back."""
    servers.appear()
    for version in (3, 4):
        remote_volume(engine, f"away-{version}", "nfs", ":/var/docker-nfs", f"addr={servers.MOVING},nfsvers={version}")
    for number in range(20):
        engine.call("POST", "/volumes/create", {"Name": f"near-{number}"})
    create(engine, "on-it", ["sleep", "600"], Binds=["away-3:/x"], RestartPolicy={"Name": "always"})
    start(engine, "on-it")
    for number in range(36):
        create(engine, f"waits-{number}", ["sleep", "600"], Binds=[f"away-{3 + number % 2}:/x"])
    create(engine, "plain", ["sleep", "600"], Binds=["near-0:/x"])
    healthy = [("GET", "/volumes"), ("GET", "/volumes/away-3"), ("GET", "/system/df"), ("GET", "/_ping")]
    healthy += [("GET", "/containers/json?all=1"), ("GET", "/containers/waits-1/json")]
    touching = [("POST", f"/containers/waits-{number}/start") for number in range(20)]
    touching += [("HEAD", f"/containers/waits-{number}/archive?path=/x") for number in range(20, 30)]
    touching += [("GET", f"/containers/waits-{number}/archive?path=/x") for number in range(30, 36)]
    touching += [("POST", f"/holdfast/volumes/away-{3 + number % 2}/check") for number in range(8)]
    touching += [("DELETE", f"/volumes/away-{3 + number % 2}") for number in range(6)]
    assert len(touching) == 50
    servers.vanish()
    with ThreadPoolExecutor(50) as clients:
        waiting = [clients.submit(timed, engine, *call) for call in touching]
        time.sleep(_ALL_ARE_THERE_S)
        hanging = sum(not call.done() for call in waiting)
        took = [(path, *timed(engine, method, path)) for method, path in healthy * 3]
        removed = [timed(engine, "DELETE", f"/volumes/near-{number}") for number in range(10, 20)]
        plain = timed(engine, "POST", "/containers/plain/start")
        still_hanging = sum(not call.done() for call in waiting)
        failed = [call.result() for call in waiting]
    report(dead_server={"took": took, "removed": removed, "plain": plain, "failed": failed})
    assert hanging == 50
    assert still_hanging, "all that while the others wait"
    assert all(status == 200 and seconds < 0.2 for _, status, seconds in took), took
    assert all(status == 204 and seconds < 0.2 for status, seconds in removed), removed
    assert plain[0] == 204, plain
    late = [call for call, (_, seconds) in zip(touching, failed, strict=True) if seconds > 2 * MOUNT_TIMEOUT_S + 5]
    assert late == []
    assert {status for _, (status, _) in zip(touching[:36], failed, strict=False)} == {500}, failed
    for number in range(36):
        engine.call("DELETE", f"/containers/waits-{number}")

    # The one that runs loses its engine and its life while the server is away.
    pid = engine.call("GET", "/containers/on-it/json")["State"]["Pid"]
    engine.kill()
    os.kill(pid, signal.SIGKILL)
    engine.start(wait_s=60)
    status, seconds = timed(engine, "GET", "/volumes")
    assert (status, seconds < 1) == (200, True), seconds
    wait_until(lambda: "while mounting volume" in engine.call("GET", "/containers/on-it/json")["State"]["Error"])
    servers.appear()
    wait_until(lambda: engine.call("GET", "/containers/on-it/json")["State"]["Pid"] != 0)
    for version in (3, 4):
        assert run(engine, ["sh", "-c", "echo back > /x/file"], Binds=[f"away-{version}:/x"]) == (0, "")
        assert (servers.NFS / "file").read_text() == "back\n"
        (servers.NFS / "file").unlink()
    for name in ("on-it", "plain"):
        engine.call("DELETE", f"/containers/{name}?force=1")
    for version in (3, 4):
        engine.call("DELETE", f"/volumes/away-{version}")
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if "/_data " in line]
    workers = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"storage_worker" in entry.read_bytes()]
    assert len(workers) <= 2, "none is stuck once the server is back"


def wait_until(what: Callable[[], bool], within_s: float = 60) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def core(engine: Engine) -> None:
    """Every check, each reported on its own."""
    run_checks(engine, CHECKS)


def shares(engine: Engine) -> None:
    """Servers, then every check of NFS and CIFS volumes."""
    servers.start()
    run_checks(engine, SHARE_CHECKS)


def run_checks(engine: Engine, checks: Mapping[str, Callable[[Engine], None]]) -> None:
    """Run and report."""
    for name, function in checks.items():
        began = time.monotonic()
        try:
            function(engine)
        except Exception as error:  # noqa: BLE001  # whatever went wrong is this check's outcome
            where = traceback.format_exc().splitlines()[-6:]
            report(check=name, error=f"{type(error).__name__}: {error}", where=where)
        else:
            report(check=name, error="", seconds=round(time.monotonic() - began, 1))


def before(engine: Engine) -> None:
    """Fill a machine and say what is safe. What was acknowledged must be there after the power cut."""
    for name in ("first", "second"):
        engine.call("POST", "/volumes/create", {"Name": name, "Labels": {"made": "before"}})
    synced = ["sh", "-c", "echo safe > /data/file && sync"]
    assert run(engine, synced, Binds=["first:/data"]) == (0, "")
    policies = {"again": "always", "never": "no", "held": "unless-stopped", "twice": "unless-stopped"}
    for name, policy in policies.items():
        volume = "first" if name == "again" else "second"
        identity = create(
            engine, name, ["sleep", "600"], Binds=[f"{volume}:/data"], RestartPolicy={"Name": policy}, StopTimeout=1
        )
        start(engine, identity)
    engine.call("POST", "/containers/held/stop?t=1")
    removed = create(engine, "removed", ["true"], Binds=["gone:/data"])
    engine.call("DELETE", f"/containers/{removed}?force=1")
    engine.call("DELETE", "/volumes/gone")
    report(safe=True)
    # The end of the power comes while the engine is at work: volumes are made until then, each acknowledged one named.
    for number in range(10_000):
        engine.call("POST", "/volumes/create", {"Name": f"late-{number}"})
        report(acknowledged=number)


def after(engine: Engine) -> None:
    """Report what the next boot finds."""
    deadline = time.monotonic() + 20
    states: dict[str, Any] = {}
    while time.monotonic() < deadline:
        listed = engine.call("GET", "/containers/json?all=1")
        states = {entry["Names"][0].lstrip("/"): entry["State"] for entry in listed}
        if states.get("again") == states.get("twice") == "running":
            break
        time.sleep(0.2)
    processes = {}
    for name in states:
        state = engine.call("GET", f"/containers/{name}/json")["State"]
        pid = state["Pid"]
        processes[name] = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[0] if pid else ""
    volumes = engine.call("GET", "/volumes")["Volumes"]
    code, text = run(engine, ["cat", "/data/file"], Binds=["first:/data"])
    second_in_use = engine.request("DELETE", "/volumes/second").status
    report(
        found={
            "states": states,
            "processes": processes,
            "volumes": {volume["Name"]: volume["Labels"] for volume in volumes},
            "folders": sorted(
                volume["Name"] for volume in volumes if Path(volume["Mountpoint"]).is_dir()
            ),
            "first": [code, text],
            "second_in_use": second_in_use,
        }
    )
    for name in states:
        engine.call("DELETE", f"/containers/{name}?force=1")


def main() -> int:
    """Boot an engine on /state and do what the arguments say."""
    from tests.vm import reboot  # which needs what is defined here

    what = sys.argv[1:]
    report(up=float(Path("/proc/uptime").read_text().split()[0]))
    environment = {"HOLDFAST_MOUNT_TIMEOUT_S": str(MOUNT_TIMEOUT_S)}
    engine = Engine(STATE / "engine", isolated=False, environment=environment)
    engine.run_root = Path("/run/holdfast")
    engine.socket_path = engine.run_root / "holdfast.sock"
    engine.run_root.mkdir(exist_ok=True)
    try:
        engine.start(wait_s=60)
        report(engine=True)
        if not (STATE / "image-loaded").exists():
            engine.load_busybox()
            (STATE / "image-loaded").touch()
        for name in what:
            todo = {"core": core, "shares": shares, "before": before, "after": after}
            todo |= {"reboot-before": reboot.before, "reboot-after": reboot.after}
            todo[name](engine)
    except Exception:
        traceback.print_exc()
        print(engine.log_tail(60), flush=True)
        raise
    report(log=engine.log_tail(40).splitlines())
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
