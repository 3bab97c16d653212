"""The stock docker client and ours, asked the same of the same engine: same output, same exit code, same request.

What differs on purpose is not here: the name of the program, hints, and what docker gets wrong.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Holdfast
from tests.unit.cli.fake_engine import FakeEngine, Hijacked, Raw, frame

_ID = "31e1c564708d3d42e10c31ff9617478eacd136b59b1d46f1b5f020c525bc31aa"
_NOW = int(time.time())
_DOCKER = shutil.which("docker")

pytestmark = pytest.mark.skipif(_DOCKER is None, reason="this machine has no docker client to compare with")

_CONTAINER = {
    "Id": _ID,
    "Names": ["/devtest", "/other/alias"],
    "Image": "alpine:latest",
    "ImageID": "sha256:" + "a" * 64,
    "Command": "sh -c 'echo \"hi\"; sleep 1000'",
    "Created": _NOW - 200,
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
        {"PrivatePort": 444, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 90, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 91, "Type": "tcp"},
    ],
    "Labels": {"a": "b"},
    "State": "running",
    "Status": "Up 3 minutes",
    "NetworkSettings": {"Networks": {"bridge": {}}},
    "Mounts": [
        {"Type": "volume", "Name": "a-volume-with-a-long-name", "Source": "/x", "Destination": "/y", "Driver": "local"}
    ],
    "SizeRw": 1234,
    "SizeRootFs": 7654321,
}
_INSPECTED = {
    "Id": _ID,
    "Name": "/devtest",
    "State": {"Status": "running", "Running": True},
    "Config": {"Tty": False, "Env": ["A=b"], "Labels": {"q": "r"}, "OpenStdin": False},
    "HostConfig": {"AutoRemove": False},
    "Mounts": _CONTAINER["Mounts"],
    "NetworkSettings": {
        "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
        "Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
            "81/tcp": None,
        },
    },
}
_STATS = {
    "name": "/devtest",
    "id": _ID,
    "read": "2026-01-01T00:00:02Z",
    "preread": "2026-01-01T00:00:01Z",
    "pids_stats": {"current": 3},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 8, "minor": 0, "op": "Read", "value": 4096},
            {"major": 8, "minor": 0, "op": "write", "value": 1234567},
        ]
    },
    "cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000}, "system_cpu_usage": 20_000_000_000, "online_cpus": 4},
    "precpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}, "system_cpu_usage": 16_000_000_000},
    "memory_stats": {"usage": 5_000_000, "limit": 64 << 20, "stats": {"total_inactive_file": 1_000_000}},
    "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 20}, "eth1": {"rx_bytes": 1, "tx_bytes": 2_000_000}},
}
_IMAGES = [
    {
        "Containers": 2,
        "Created": _NOW - 1000,
        "Id": "sha256:059de34600180c720622a8f4a1151d3d145f016c4c05e077aa5e7cb91cadc38a",
        "RepoDigests": ["alpine@sha256:" + "c" * 64],
        "RepoTags": ["alpine:3.10", "alpine:latest"],
        "SharedSize": 1000,
        "Size": 1986312,
    },
    {
        "Containers": -1,
        "Created": _NOW - 100_000,
        "Id": "sha256:106eb560892760a84a6980ccd9e83344964b99e1fb92da79a5728323d56a14b5",
        "RepoDigests": [],
        "RepoTags": [],
        "SharedSize": -1,
        "Size": 116667347,
    },
]


def _volume(name: str, **more: object) -> dict[str, object]:
    base: dict[str, object] = {"CreatedAt": "2026-11-23T14:32:40Z", "Driver": "local", "Labels": None}
    return base | {"Mountpoint": f"/m/{name}", "Name": name, "Options": None, "Scope": "local"} | more


_VOLUMES = [_volume(name) for name in ("v10", "a" * 64, "v-b", "v1b", "v01")] + [_volume("v2", Labels={"x": "y"})]
_EVENTS = [
    {
        "status": "start", "id": "x", "from": "alpine", "Type": "container", "Action": "start",
        "Actor": {"ID": "x", "Attributes": {"image": "alpine", "name": "n"}},
        "scope": "local", "time": 1795443457, "timeNano": 1795443457123456789,
    },
    {
        "Type": "volume", "Action": "prune", "Actor": {"ID": "", "Attributes": {"reclaimed": "0"}},
        "scope": "local", "time": 1795443457, "timeNano": 1795443457000000000,
    },
]  # fmt: skip
_NETWORK = {
    "Name": "net", "Id": "b" * 64, "Created": "2026-01-02T03:04:05.678Z", "Scope": "local", "Driver": "bridge",
    "EnableIPv4": True, "EnableIPv6": False, "Internal": False, "Labels": {},
    "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.5.0.0/16"}]}, "Containers": {},
}  # fmt: skip
_PULL = (
    b'{"status":"Pulling from library/gone","id":"latest"}\r\n{"status":"Pulling fs layer","id":"abc"}\r\n'
    b'{"status":"Downloading","progressDetail":{"current":1,"total":2},"progress":"[=> ] 1B/2B","id":"abc"}\r\n'
    b'{"status":"Digest: sha256:11"}\r\n{"status":"Status: Downloaded newer image for gone:latest"}\r\n'
)


def _fill(engine: FakeEngine) -> None:
    """Teach the engine everything that the commands below ask."""
    answers = engine.answers
    answers["GET /volumes"] = (200, {"Volumes": _VOLUMES, "Warnings": None})
    answers["GET /volumes/v2"] = (200, _VOLUMES[-1])
    answers["GET /volumes/nope"] = (404, {"message": "get nope: no such volume"})
    answers["POST /volumes/create"] = lambda call: (201, _volume(call.document.get("Name") or "f" * 64))
    answers["DELETE /volumes/v2"] = (204, None)
    answers["DELETE /volumes/nope"] = (404, {"message": "get nope: no such volume"})
    answers["POST /volumes/prune"] = (200, {"VolumesDeleted": ["x", "y"], "SpaceReclaimed": 123456})
    answers["GET /containers/json"] = (200, [_CONTAINER])
    for name in ("devtest", _ID):
        answers[f"GET /containers/{name}/json"] = (200, _INSPECTED)
        answers[f"POST /containers/{name}/attach"] = (101, Hijacked(frame(1, b"hello\n") + frame(2, b"oops\n")))
        answers[f"POST /containers/{name}/wait"] = (200, {"StatusCode": 3})
        answers[f"POST /containers/{name}/start"] = (204, None)
        answers[f"GET /containers/{name}/logs"] = (200, Raw(frame(1, b"out\n") + frame(2, b"err\n")))
    for verb in ("stop", "kill", "restart", "pause", "unpause"):
        answers[f"POST /containers/devtest/{verb}"] = (204, None)
    for verb in ("start", "stop", "kill", "restart", "pause", "unpause"):
        answers[f"POST /containers/nope/{verb}"] = (404, {"message": "No such container: nope"})
    answers["POST /containers/same/start"] = answers["POST /containers/same/stop"] = (304, None)
    answers["DELETE /containers/devtest"] = (204, None)
    answers["DELETE /containers/nope"] = (404, {"message": "No such container: nope"})
    answers["POST /containers/create"] = lambda call: (
        (404, {"message": "No such image: gone:latest"})
        if call.document["Image"] == "gone"
        else (201, {"Id": _ID, "Warnings": ["careful"]})
    )
    answers["GET /containers/devtest/top"] = (
        200, {"Titles": ["PID", "CMD"], "Processes": [["12", "sh -c x"], ["1", ""]]},
    )  # fmt: skip
    answers["GET /containers/devtest/changes"] = (
        200, [{"Path": "/a", "Kind": 1}, {"Path": "/b", "Kind": 0}, {"Path": "/b/c", "Kind": 2}],
    )  # fmt: skip
    answers["POST /containers/devtest/update"] = (200, {"Warnings": ["careful"]})
    for name in ("devtest", _ID):
        answers[f"GET /containers/{name}/stats"] = (200, _STATS)
    for call in ("top", "changes", "stats", "export"):
        answers[f"GET /containers/nope/{call}"] = (404, {"message": "No such container: nope"})
    answers["POST /containers/nope/update"] = (404, {"message": "No such container: nope"})
    answers["GET /info"] = (200, {"Swarm": {"LocalNodeState": "inactive"}})
    for kind in ("containers/nope/json", "images/nope/json", "networks/nope", "plugins/nope/json"):
        answers[f"GET /{kind}"] = (404, {"message": "nothing of that name"})
    answers["POST /containers/devtest/exec"] = (201, {"Id": "ex1"})
    answers["POST /exec/ex1/start"] = lambda call: (
        (200, None) if call.document.get("Detach") else (101, Hijacked(frame(1, b"hi\n")))
    )
    answers["GET /exec/ex1/json"] = (200, {"ID": "ex1", "ExitCode": 5, "Running": False, "ContainerID": _ID})
    answers["POST /containers/prune"] = (200, {"ContainersDeleted": ["q"], "SpaceReclaimed": 10})
    answers["GET /images/json"] = (200, _IMAGES)
    answers["GET /images/alpine/json"] = (200, {"Id": "sha256:abc", "RepoTags": ["alpine:latest"]})
    answers["POST /images/alpine/tag"] = (201, None)
    answers["DELETE /images/alpine"] = (200, [{"Untagged": "alpine:latest"}, {"Deleted": "sha256:abc"}])
    answers["DELETE /images/nope"] = (404, {"message": "No such image: nope:latest"})
    answers["POST /images/create"] = (200, Raw(_PULL))
    answers["POST /images/load"] = (200, Raw(b'{"stream":"Loaded image: x:latest\\n"}\r\n'))
    answers["POST /images/prune"] = (
        200,
        {"ImagesDeleted": [{"Untagged": "a"}, {"Deleted": "sha256:1"}], "SpaceReclaimed": 10},
    )
    answers["GET /networks"] = (200, [_NETWORK, {**_NETWORK, "Name": "a", "EnableIPv6": True, "Labels": {"x": "y"}}])
    answers["GET /networks/net"] = (200, _NETWORK)
    answers["POST /networks/create"] = (201, {"Id": _NETWORK["Id"], "Warning": ""})
    answers["DELETE /networks/net"] = (204, None)
    for path in ("DELETE /networks/nope", "POST /networks/nope/disconnect"):
        answers[path] = (404, {"message": "network nope not found"})
    answers["POST /networks/prune"] = (200, {"NetworksDeleted": ["x", "y"]})
    answers["POST /networks/net/connect"] = answers["POST /networks/net/disconnect"] = (200, None)
    answers["GET /events"] = (200, Raw("".join(json.dumps(event) + "\n" for event in _EVENTS).encode()))
    answers["GET /system/df"] = (
        200,
        {
            "LayersSize": 118_653_659,
            "Images": _IMAGES,
            "Containers": [_CONTAINER],
            "Volumes": [
                _volume("v1", UsageData={"RefCount": 1, "Size": 1000}),
                _volume("v2", UsageData={"RefCount": 0, "Size": 5000}),
            ],
            "BuildCache": [],
        },
    )


def _ask_docker(engine: FakeEngine, folder: Path, words: list[str]) -> tuple[int, str, str]:
    assert _DOCKER
    done = subprocess.run(
        [_DOCKER, "-H", engine.url, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, _renamed(done.stdout), _renamed(done.stderr)


def _renamed(text: str) -> str:
    """Docker's text with our name in it, and without the slips of some of its versions."""
    text = (
        text.replace("docker:", "holdfast:")
        .replace("'docker ", "'holdfast ")
        .replace("Usage:  docker", "Usage: holdfast")
    )
    return (
        text.replace("See 'holdfast", "Run 'holdfast")
        .replace("SRun", "Run")
        .replace("command: docker", "command: holdfast")
        .replace("holdfast: Invalid ip address", "holdfast: invalid IP address")  # Debian builds with older words
        .replace("holdfast: Invalid", "holdfast: invalid")
    )


_COMMANDS = r"""
volume ls
volume ls -q
volume ls --format json
volume ls --format '{{.Name}} {{.Labels}} {{.Label "x"}}'
volume ls --format 'table {{.Name}}\t{{.Mountpoint}}'
volume ls --format '{{json .}}'
volume ls --format '{{upper .Name}}|{{len .Name}}'
volume ls -f bad
volume inspect v2 nope
volume inspect -f '{{.Name}} {{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}' v2
volume inspect -f '{{json .Labels}}' v2
volume inspect -f json v2
volume create
volume create x -d local -o a=b --label q=r
volume rm v2 nope
volume prune -f
volume prune -af
volume prune
ps
ps -a --no-trunc
ps -q
ps -s
ps --format json
ps --format 'table {{.ID}}\t{{.Label "a"}}\t{{.Labels}}'
ps --format '{{.Mounts}} {{.LocalVolumes}} {{.Networks}} {{.Size}} {{.Ports}}'
ps -l -q
images
images -q
images --no-trunc
images --digests
images alpine
images --format json
images --format '{{.Repository}}:{{.Tag}}@{{.Digest}}'
start devtest nope
start same
start -a devtest
stop devtest nope
stop -t 3 same
kill -s HUP devtest nope
restart -t 1 devtest
pause devtest
unpause nope
rm devtest nope
rm -f devtest nope
wait devtest
rmi alpine nope
rmi -f nope
logs -f --tail 5 -t devtest
run alpine echo hello
run --rm alpine echo hello
run -d alpine echo hello
run --pull never gone
run -d gone
create alpine
create gone
exec devtest echo hi
exec -d devtest echo hi
events --since 1h --until 0s
events --format '{{.Type}} {{.Action}} {{.ID}} {{.Actor.Attributes.reclaimed}}'
events --format json
system df
system df -v
system df --format '{{.Type}} {{.Size}} {{.Reclaimable}}'
system df --format json
network ls
network ls -q
network ls --no-trunc -f driver=bridge
network ls --format '{{.Name}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Label "x"}} {{.Labels}} {{.CreatedAt}}'
network ls --format json
network inspect net nope
network create net
network create --subnet 10.5.0.0/16 --gateway 10.6.0.1 net
network create --gateway 10.5.0.1 net
network create --subnet 10.5.0.0/16 --subnet 10.5.1.0/24 net
network rm net nope
network rm -f nope
network prune -f
network prune
network connect --alias a --ip 10.5.0.9 net devtest
network disconnect -f net devtest
network disconnect nope devtest
inspect devtest v2 alpine nope
inspect --type volume v2 nope
inspect -f '{{.State.Status}} {{range .Mounts}}{{.Destination}}{{end}}' devtest
inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}} {{index .Config.Labels "q"}}' devtest
inspect -f '{{if .State.Running}}yes{{else}}no{{end}}' devtest
tag alpine foo
container prune -f
top devtest
top devtest -o pid,args
top nope
diff devtest
diff nope
port devtest
port devtest 80
port devtest 53/udp
port devtest 81
update --memory 64m devtest nope
update devtest
update --restart :3 devtest
stats --no-stream devtest
stats --no-stream --no-trunc --format '{{.Container}} {{.ID}} {{.Name}} {{.CPUPerc}} {{.MemPerc}} {{.BlockIO}}' devtest
stats --no-stream nope
export nope
image prune -f
image prune -af
pull gone
pull -q gone
load
volume rm
volume create a b
volume ls x
ps -z
run --rm=maybe x
run --memory=foo x
run --mount foo x
run --mount type=bind,src=./x,dst=/a,foo=1 x
run --mount '"ab' x
run --mount type=bind,volume-nocopy,src=/x,dst=/y x
run --mount type=tmpfs,tmpfs-size=zz,dst=/y x
run --mount type=bind,src=/a,dst=/b,bind-recursive=readonly x
run -p abc x
run -p 1.2.3:80:80 x
run -p 80-82:80-81 x
run --rm --restart always x
run --restart on-failure:x x
run --env-file nope x
run --ulimit nope x
run --add-host foo x
run -d -a stdin x
run --blkio-weight-device /dev/x:5 x
run --blkio-weight-device x:50 x
run --device-read-bps /dev/x:z x
run --device-write-bps /dev/x x
run --device-read-iops /dev/x:1mb x
run --gpus foo=bar x
run --gpus x=1,count=z x
"""


@pytest.mark.parametrize("line", _COMMANDS.strip().splitlines())
def test_output(engine: FakeEngine, holdfast: Holdfast, tmp_path: Path, line: str) -> None:
    _fill(engine)
    words = shlex.split(line)
    expected = _ask_docker(engine, tmp_path, words)
    done = holdfast(*words)
    assert (done.code, done.out, done.err) == expected


_CREATIONS = r"""
alpine
alpine echo -v a --rm
--name n --platform linux/amd64 alpine
-it alpine sh
-i -a stdin alpine
-v vol:/x -v /anon -v ./rel:/r:ro -v /abs:/a -v ../up:/u -v .:/src alpine
--mount src=logs,dst=/x,volume-subpath=app1,readonly alpine
--mount 'source=nfs,target=/app,volume-driver=local,volume-opt=type=nfs,"volume-opt=o=addr=127.0.0.1,rw"' alpine
--mount type=bind,src=./x,dst=/a,bind-propagation=rshared,consistency=cached alpine
--mount type=bind,src=/x,dst=/a,ro,bind-recursive=writable --mount type=bind,src=.,dst=/b,bind-recursive=disabled alpine
--mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770 alpine
--mount TYPE=Volume,src=a,dst=/t,volume-nocopy,volume-label=a=b,volume-label=c alpine
--mount type=image,src=alpine,dst=/t,image-subpath=x alpine
-p 80 -p 8080:80 -p 127.0.0.1:53:53/udp -p '[::1]:81:81' -p 9000-9002:90-92 -p 7000-7005:70 -p 127.0.0.1::99 alpine
-P --expose 443 --expose 10-12/udp alpine
-e A=b -e OURS -e NOT_OURS alpine
-w /w -u 1:2 --entrypoint /bin/x alpine a b
--entrypoint '' alpine a b
-h host --domainname d --network none alpine
--network mynet --network-alias x --link a:b --ip 1.2.3.4 --ip6 ::1 --mac-address 02:42:ac:11:00:02 alpine
--network name=mynet,alias=q,ip=1.2.3.5 alpine
--network name=mynet,driver-opt=a=b,gw-priority=3 --network other alpine
--restart on-failure:3 alpine
--rm --read-only --init --privileged alpine
--tmpfs /run --tmpfs /x:size=1m,mode=1777 alpine
--volumes-from a --volumes-from b:ro --volume-driver d alpine
-l a=b --label c -l d=e=f alpine
-m 512m --memory-swap -1 --memory-reservation 64k --cpus 1.5 --pids-limit 100 -c 5 --cpuset-cpus 0-1 alpine
--cap-add CAP_NET_ADMIN --cap-drop ALL --stop-signal SIGINT --stop-timeout 3 alpine
--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt systempaths=unconfined alpine
--ulimit nofile=10:20 --ulimit nproc=5 --shm-size 64m alpine
--dns 1.1.1.1 --dns-search x --dns-option y --add-host a:1.2.3.4 --add-host b=::1 alpine
--log-driver local --log-opt max-size=1m alpine
--pid host --ipc host --uts host --userns host --cgroupns host --cgroup-parent /x --runtime r alpine
--group-add a --device /dev/null --device /dev/zero:/dev/z:rw --device /dev/null:r alpine
--annotation x=y --storage-opt size=1g --oom-score-adj 5 --oom-kill-disable alpine
--blkio-weight 300 --blkio-weight-device /dev/x:200 --device-cgroup-rule 'c 1:* r' --memory-swappiness 0 alpine
--device-read-bps /dev/x:1mb --device-write-bps /dev/x:5 --device-read-iops /dev/x:7 --device-write-iops /dev/y:8 alpine
--cpu-rt-period 5 --cpu-rt-runtime 4 --isolation default --link a:b --link-local-ip 169.254.1.1 alpine
--gpus all --gpus 2 --gpus '"device=0,1",driver=d,"capabilities=compute,utility","options=a=b"' alpine
--gpus device=GPU-1 --gpus count=3 alpine
--health-cmd 'x y' --health-interval 5s --health-retries 3 --health-timeout 1m30s alpine
--no-healthcheck alpine
-p=80:80 -v=ab:/b -e=A=B --rm=true --privileged=false -m=5m alpine
-itvab:/b -w/x alpine
-- alpine --rm
"""


@pytest.mark.parametrize("line", _CREATIONS.strip().splitlines())
def test_request(
    engine: FakeEngine, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    _fill(engine)
    monkeypatch.setenv("OURS", "1")
    words = ["create", *shlex.split(line)]
    assert _DOCKER
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OURS": "1"}
    subprocess.run([_DOCKER, "-H", engine.url, *words], env=environment, check=True, capture_output=True, timeout=60)
    assert holdfast(*words).code == 0
    theirs, ours = engine.asked("POST /containers/create")
    assert ours.query == theirs.query
    assert _essential(ours.document) == _essential(theirs.document)


def _essential(body: dict[str, Any]) -> Any:
    """A request without what says nothing: docker sends every field, we send those that were asked for."""
    body = _pruned(body)
    if body["HostConfig"].get("MemorySwappiness") == -1:
        del body["HostConfig"]["MemorySwappiness"]
    body["HostConfig"].get("Binds", []).sort()  # docker's order is random, here and below
    body.get("Env", []).sort()
    return body


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if not isinstance(value, dict):
        return value
    pruned = {key: _pruned(item) for key, item in value.items()}
    return {key: item for key, item in pruned.items() if item not in (None, "", 0, False, {}, [], [0, 0])}
