"""Debian's own ufw and firewalld, beside an engine: both deny what the host forwards.

They are unpacked, not installed: the engine's mount namespace has them laid over its /usr and /etc, and a /run and a
/var/log of its own. A neighbour of the host, which no engine opens a way for, shows that the firewall does its work.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.daemon.doctor import examine
from holdfast.kernel.nft import Nft
from tests.support.engine import PATH, PROGRAM, PROJECT, Engine
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import machine

pytestmark = pytest.mark.kernel

FIREWALLS = PROJECT / "build" / "peers" / "firewalls"
HOST, OUTSIDE = "192.0.2.2", "192.0.2.1"

_MACHINE = f"""
set -e
etc=/etc
if [ -d {FIREWALLS}/usr ]; then
    mount -t overlay -o lowerdir={FIREWALLS}/usr:/usr overlay /usr
    etc={FIREWALLS}/etc:/etc
fi
mkdir -p "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=$etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir /run/docker /run/dbus
cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/ufw.conf /etc/ufw/
cat >/run/bus.conf <<'END'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
END
echo 1 >/proc/sys/net/ipv4/ip_forward
for side in "up0 $2 192.0.2 198.51.100" "lan0 $3 198.51.100 192.0.2"; do
    set -- $side
    ip link add $1 type veth peer name eth0 netns $2
    ip addr add $3.2/24 dev $1
    ip link set $1 up
    nsenter --target $2 --net sh -e -c "
        ip addr add $3.1/24 dev eth0
        ip link set eth0 up
        ip route add $4.0/24 via $3.2"
done
"""


class Firewall:
    """One of the programs, in the engine's namespaces. The base is ufw."""

    chain = "ip filter FORWARD: policy drop"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def start(self) -> None:
        """Put it in force."""
        self.engine.inside("ufw", "--force", "enable")
        status = self.engine.inside("ufw", "status", "verbose").stdout
        assert "deny (incoming), allow (outgoing), deny (routed)" in status

    def stop(self) -> None:
        """End it."""
        self.engine.inside("ufw", "disable")

    def reload(self) -> None:
        """Let it write its rules anew."""
        self.engine.inside("ufw", "reload")

    def close(self) -> None:
        """End the processes; the rules go with the namespace."""


class Firewalld(Firewall):
    """With a bus of its own and the uplink in the zone work: within one zone it denies nothing, between two all."""

    chain = "inet firewalld filter_FORWARD: reject with icmpx admin-prohibited"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._run("dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile")
        eventually(lambda: engine.inside("test", "-S", "/run/dbus/system_bus_socket", check=False).returncode == 0)
        engine.inside("firewall-offline-cmd", "--zone=work", "--add-interface=up0")

    def start(self) -> None:
        self._run("firewalld", "--nofork", "--nopid")
        eventually(lambda: self.engine.inside("firewall-cmd", "--state", check=False).returncode == 0)

    def stop(self) -> None:
        process = self.processes.pop()
        process.terminate()
        process.wait(20)

    def reload(self) -> None:
        self.engine.inside("firewall-cmd", "--reload")

    def close(self) -> None:
        while self.processes:
            self.stop()

    def _run(self, *words: str) -> None:
        self.processes.append(
            subprocess.Popen(
                [*self.engine.enter(), *words],
                env={"PATH": PATH, "LANG": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
        )


def eventually(holds: Callable[[], bool], timeout_s: float = 15) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)


@contextlib.contextmanager
def world(engine: Engine, folder: Path) -> Iterator[tuple[int, int]]:
    """The programs in place, and two namespaces on the host's wires: outside, which serves at port 80, and lan."""
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("outside\n")
    with contextlib.ExitStack() as ends:
        pids = []
        for command in (f"busybox httpd -f -p 80 -h {folder}/www", "sleep infinity"):
            process = subprocess.Popen(
                [*engine.enter(), "unshare", "--net", "sh", "-c", f"echo ready; exec {command}"],
                env={"PATH": PATH}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
            )
            ends.callback(process.wait)
            ends.callback(process.kill)
            assert process.stdout is not None
            ends.enter_context(process.stdout)
            assert process.stdout.readline() == b"ready\n"
            pids.append(process.pid)
        engine.inside("sh", "-c", _MACHINE, "sh", str(folder / "etc"), *map(str, pids))
        yield pids[0], pids[1]


def in_network_of(pid: int) -> tuple[str, ...]:
    """The words that put a program into that process's network."""
    return ("nsenter", "--target", str(pid), "--net")


def fetched(engine: Engine, *where: str, address: str) -> str:
    """What the HTTP server there says, nothing if it cannot be reached; `where` are words before wget's."""
    fetch = ("busybox", "timeout", "1", "busybox", "wget", "-q", "-O", "-", f"http://{address}/")
    return engine.inside(*where, *fetch, check=False).stdout


@pytest.mark.parametrize("kind", [Firewall, Firewalld], ids=["ufw", "firewalld"])
def test_both_ways_are_open_beside_a_firewall(kind: type[Firewall], tmp_path: Path) -> None:
    if not (FIREWALLS / "usr").is_dir() and not all(map(shutil.which, ("ufw", "firewalld", "dbus-daemon"))):
        pytest.skip("needs ufw and firewalld: scripts/setup.sh test")
    engine = Engine(tmp_path / "engine")
    with contextlib.ExitStack() as ends:
        ends.callback(engine.close)
        outside, lan = ends.enter_context(world(engine, tmp_path))
        from_lan = in_network_of(lan)
        pids: dict[str, int] = {}

        def both_ways() -> bool:
            """For a container of each network: it reaches the world, and the world its published port."""
            return all(
                fetched(engine, *in_network_of(pids[name]), address=OUTSIDE) == "outside\n"
                and fetched(engine, *in_network_of(outside), address=f"{HOST}:{port}") == f"{name}\n"
                for name, port in (("one", 8080), ("two", 8081))
            )

        assert fetched(engine, *from_lan, address=OUTSIDE) == "outside\n"
        firewall = kind(engine)
        ends.callback(firewall.close)
        firewall.start()
        assert fetched(engine, *from_lan, address=OUTSIDE) == "", "the firewall denies"
        engine.start()
        engine.load_busybox()
        engine.holdfast("network", "create", "own")
        for name, network, port in (("one", "bridge", 8080), ("two", "own", 8081)):
            serve = f"mkdir /www && echo {name} >/www/index.html && exec httpd -f -p 80 -h /www"
            engine.holdfast(
                "run", "-d", "--name", name, "--network", network, "-p", f"{port}:80", "busybox", "sh", "-c", serve
            )
            pids[name] = engine.call("GET", f"/containers/{name}/json")["State"]["Pid"]
        eventually(both_ways)
        firewall.reload()
        eventually(both_ways)
        firewall.stop()
        firewall.start()
        eventually(both_ways)
        assert fetched(engine, *from_lan, address=OUTSIDE) == "", "the way is for our bridges alone"
        said = engine.inside(str(PROGRAM), "doctor", check=False).stdout
        assert firewall.chain in " ".join(said.split()), said

        if kind is Firewalld:
            engine.inside("firewall-cmd", "--zone=trusted", "--add-interface=lan0")
            assert fetched(engine, *from_lan, address=OUTSIDE) == "outside\n", "the line in docs/networks.md works"
        engine.holdfast("rm", "-f", "one", "two")
        assert engine.stop() == 0
        assert "holdfast" not in engine.inside("nft", "list", "ruleset").stdout


@in_mount_and_network_namespace
def test_firewall_that_lets_nobody_change_its_table(tmp_path: Path) -> None:
    """As newer firewalld does: doctor says what to do, and another firewall's chain gets its rules all the same."""
    with Nft() as firewall, machine(tmp_path) as host:
        firewall.run(
            """
            table inet firewalld { flags owner; chain filter_FORWARD {
                type filter hook forward priority 10; policy accept; reject with icmpx admin-prohibited; }; }
            table ip other { chain forward { type filter hook forward priority 0; policy drop; }; }
            """
        )
        host.network.connect("a" * 64, host.network.make_namespace("a" * 64))
        assert firewall.run("list chain ip other forward").count('comment "holdfast"') == 2
        assert "holdfast" not in firewall.run("list table inet firewalld")
        found = {finding.level: finding for finding in examine(host.config) if "forwards" in finding.what}
        assert "inet firewalld filter_FORWARD: reject with icmpx admin-prohibited" in found["problem"].what
        assert "firewall-cmd --permanent --zone=trusted --add-interface=holdfast0" in found["problem"].fix
        assert "ip other forward: policy drop" in found["note"].what
