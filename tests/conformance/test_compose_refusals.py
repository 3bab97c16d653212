"""What cannot be, asked for by Docker Compose: Docker's error, nothing left over, no data lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.compose import Project, Projects
from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

_BOX = "image: busybox, command: [sleep, '600'], stop_grace_period: 0s"


def one(more: str = "", below: str = "") -> str:
    """A compose file with one service, which has `more`; `below` stands at the file's top level."""
    return f"services: {{a: {{{_BOX}{', ' if more else ''}{more}}}}}\n{below}\n"


def subnet(*subnets: str) -> str:
    """Networks n0, n1 ... with these subnets."""
    listed = (f"n{number}: {{ipam: {{config: [{{{text}}}]}}}}" for number, text in enumerate(subnets))
    return f"networks: {{{', '.join(listed)}}}"


REFUSED = {
    "overlap": (
        one("networks: [n0, n1]", subnet("subnet: 10.92.0.0/24", "subnet: 10.92.0.128/25")),
        "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space",
    ),
    "no-subnet": (
        one("networks: [n0]", subnet("subnet: 10.92.0.300/24")),
        "invalid subnet 10.92.0.300/24: invalid CIDR block notation",
    ),
    "gateway": (
        one("networks: [n0]", subnet("subnet: 10.92.0.0/24, gateway: 10.93.0.1")),
        "invalid gateway 10.93.0.1: parent subnet 10.92.0.0/24 doesn't contain this address",
    ),
    "address": (
        one("networks: {n0: {ipv4_address: 10.93.0.4}}", subnet("subnet: 10.92.0.0/24")),
        "no configured subnet or ip-range contain the IP address 10.93.0.4",
    ),
    "address-chosen": (
        one("networks: {n0: {ipv4_address: 10.93.0.4}}", "networks: {n0: {}}"),
        "user specified IP address is supported only when connecting to networks with user configured subnets",
    ),
    "address-twice": (
        f"services: {{a: {{{_BOX}, networks: &n {{n0: {{ipv4_address: 10.92.0.4}}}}}}, "
        f"b: {{{_BOX}, networks: *n, depends_on: [a]}}}}\n" + subnet("subnet: 10.92.0.0/24"),
        "Error response from daemon: failed to set up container networking: Address already in use",
    ),
    "port": (one("ports: ['127.0.0.1:18084:80']"), "Bind for 127.0.0.1:18084 failed: port is already allocated"),
    "external-volume": (
        one("volumes: ['data:/data']", "volumes: {data: {external: true}}"),
        'external volume "data" not found',
    ),
    "external-network": (
        one("networks: [x]", "networks: {x: {external: true}}"),
        "network x declared as external, but could not be found",
    ),
    "network-driver": (one("networks: [x]", "networks: {x: {driver: none-such}}"), 'plugin "none-such" not found'),
    "volume-driver": (one("volumes: ['data:/data']", "volumes: {data: {driver: none-such}}"), "none-such"),
    "log-driver": (
        one("logging: {driver: none-such}"),
        'error looking up logging plugin none-such: plugin "none-such" not found',
    ),
    "image": (one().replace("busybox", "127.0.0.1:1/none-such"), "dial tcp 127.0.0.1:1: connect: connection refused"),
    "program": (one().replace("sleep", "none-such"), 'exec: "none-such": executable file not found in $PATH'),
    "container": (one("network_mode: 'container:none-such'"), "No such container: none-such"),
    "subpath": (
        one("volumes: [{type: volume, source: x, target: /x, volume: {subpath: none-such}}]", "volumes: {x: {}}"),
        "_data/none-such: no such file or directory",
    ),
    "bind": (
        one("volumes: [{type: bind, source: ./none-such, target: /x, bind: {create_host_path: false}}]"),
        'invalid mount config for type "bind": bind source path does not exist: ',
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _port_taken(engine: Engine) -> Iterator[None]:
    engine.docker("run", "-d", "--name", "holder", "-p", "127.0.0.1:18084:80", "busybox", "sleep", "600")
    yield
    engine.docker("rm", "-f", "holder")


def left(engine: Engine) -> list[str]:
    """The names of all that is there beside what every engine has."""
    networks = {each["Name"] for each in engine.call("GET", "/networks")} - {"bridge", "host", "none"}
    volumes = {each["Name"] for each in engine.call("GET", "/volumes")["Volumes"]}
    containers = {each["Names"][0] for each in engine.call("GET", "/containers/json?all=1")} - {"/holder"}
    return sorted(networks | volumes | containers)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(engine: Engine, projects: Projects, name: str) -> None:
    text, message = REFUSED[name]
    project = projects(name)
    project.write(text)
    refused = project.run("up", "-d", check=False)
    assert refused.returncode != 0
    assert message in refused.stderr.splitlines()[-1]
    project.run("down", "-v", "-t", "0")
    assert left(engine) == []


def test_waiting_for_what_is_not_well(engine: Engine, projects: Projects) -> None:
    project = projects("unwell")
    project.write(one("healthcheck: {test: 'false', interval: 300ms, retries: 1}"))
    refused = project.run("up", "-d", "--wait", check=False)
    assert refused.returncode == 1 and "container unwell-a-1 is unhealthy" in refused.stderr
    project.run("down")
    assert left(engine) == []


def test_network_in_use_stays(engine: Engine, projects: Projects) -> None:
    project = projects("held")
    project.write(one())
    project.run("up", "-d")
    engine.docker("run", "-d", "--name", "guest", "--network", "held_default", "busybox", "sleep", "600")
    assert "Network held_default  Resource is still in use" in project.run("down").stderr
    assert left(engine) == ["/guest", "held_default"]
    engine.docker("rm", "-f", "guest")
    project.run("down")
    assert left(engine) == []


def test_network_is_made_anew_when_its_options_change(projects: Projects) -> None:
    project = projects("changed")
    project.write(one("networks: [n]", "networks: {n: {}}"))
    project.run("up", "-d")
    project.write(one("networks: [n]", "networks: {n: {driver_opts: {com.docker.network.driver.mtu: '1400'}}}"))
    project.run("up", "-d")
    assert project.run("exec", "-T", "a", "cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"


def content(project: Project) -> str:
    """The files of the volume."""
    return project.run("exec", "-T", "a", "ls", "/data").stdout


def test_volume_with_other_options_is_not_lost(engine: Engine, projects: Projects) -> None:
    project = projects("options")
    project.write(one("volumes: ['data:/data']", "volumes: {data: {}}"))
    project.run("up", "-d")
    project.run("exec", "-T", "a", "touch", "/data/file")
    project.write(one("volumes: ['data:/data']", "volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs}}}"))
    asked = project.run("up", "-d", stdin="n\n")
    assert "exists but doesn't match configuration in compose file. Recreate (data will be lost)?" in asked.stdout
    assert content(project) == "file\n"
    project.run("up", "-d", "-y")
    assert content(project) == ""
    if isinstance(engine, DockerEngine):
        return
    engine.holdfast("volume", "trash", "restore", "--name", "back", "options_data")
    assert engine.docker("run", "--rm", "-v", "back:/data", "busybox", "ls", "/data").stdout == "file\n"
    engine.call("DELETE", "/volumes/back")
