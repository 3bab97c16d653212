"""NFS and CIFS servers inside the guest, on its loopback."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import time
from pathlib import Path

NFS = Path("/var/docker-nfs")
SMB = Path("/srv/smb")
USER = "smbu"
MOVING = "10.99.0.1"
"""An address of the servers that can vanish, as a machine does that is switched off."""
PASSWORD = "s3cret"  # of a server that lives for a minute inside a guest

_SMB_CONFIGURATION = """
[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
disable netbios = yes
smb ports = 445
private dir = /tmp/smb/private
pid directory = /tmp/smb/run
state directory = /tmp/smb/state
cache directory = /tmp/smb/cache
lock directory = /tmp/smb/lock
ncalrpc dir = /tmp/smb/run/ncalrpc
log file = /tmp/smb/log
load printers = no
printcap name = /dev/null
[backup]
path = /srv/smb
read only = no
force user = root
"""


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode} {done.stdout}{done.stderr}")


def _add_user(name: str, number: int) -> None:
    for file, line in (("passwd", f"{name}:x:{number}:{number}::/:/bin/sh"), ("group", f"{name}:x:{number}:")):
        path = Path("/etc", file)
        if f"\n{name}:" not in path.read_text():
            path.write_text(path.read_text() + line + "\n")


def appear() -> None:
    """Give the servers the address MOVING."""
    subprocess.run(["ip", "link", "del", "nowhere"], capture_output=True, check=False)
    _run("ip", "address", "replace", f"{MOVING}/32", "dev", "lo")


def vanish() -> None:
    """Take it away again: what is sent there is lost without a word."""
    _run("ip", "link", "add", "nowhere", "type", "veth", "peer", "name", "nobody")
    for device in ("nowhere", "nobody"):
        _run("ip", "link", "set", device, "up")
    _run("ip", "address", "add", "10.98.0.1/32", "dev", "nowhere")
    _run("ip", "address", "del", f"{MOVING}/32", "dev", "lo")
    _run("ip", "route", "add", f"{MOVING}/32", "dev", "nowhere")
    _run("ip", "neighbour", "replace", MOVING, "lladdr", "02:00:00:00:00:01", "dev", "nowhere", "nud", "permanent")


def cut_cable() -> None:
    """Have nothing reach the servers any more, at once: other than `vanish`, this takes no time."""
    _set_loopback(up=False)


def mend_cable() -> None:
    """Undo `cut_cable`."""
    _set_loopback(up=True)


def _set_loopback(*, up: bool) -> None:
    # Source: Linux, include/uapi/linux/sockios.h and if.h: SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = struct.unpack("=16sh22x", fcntl.ioctl(control, 0x8913, struct.pack("=16sh22x", b"lo", 0)))
        fcntl.ioctl(control, 0x8914, struct.pack("=16sh22x", name, flags | 1 if up else flags & ~1))


def start(exported: Path = Path("/tmp/exported.img")) -> None:
    """Start both; returns when they listen. `exported` holds what NFS serves, and is made if it is not there."""
    _start_nfs(exported)
    _start_smb()


def _start_nfs(image: Path) -> None:
    # Neither hostfs nor overlayfs can be exported, so the exported folders lie on an ext4 of their own. NFSv4 needs a
    # root that is exported as well (fsid=0), NFSv3 the real path; the bind mount makes both the same to a client.
    exported = Path("/srv/nfs")
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-F", str(image))
    exported.mkdir(parents=True, exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(exported))
    inner = exported / NFS.relative_to("/")
    inner.mkdir(parents=True, exist_ok=True)
    NFS.mkdir(parents=True, exist_ok=True)
    for folder in (exported, inner):
        folder.chmod(0o777)
    _run("mount", "--bind", str(inner), str(NFS))
    state = Path("/var/lib/nfs")
    state.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", str(state))
    for name in ("rpc_pipefs", "v4recovery", "sm", "sm.bak"):
        (state / name).mkdir()
    for name in ("etab", "rmtab"):
        (state / name).touch()
    options = "rw,no_root_squash,insecure,no_subtree_check"
    Path("/etc/exports").write_text(f"{exported} *({options},fsid=0)\n{NFS} *({options})\n")
    for module in ("nfsd", "nfsv3", "nfsv4"):
        _run("modprobe", module)
    _run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    _run("mount", "-t", "rpc_pipefs", "rpc_pipefs", str(state / "rpc_pipefs"))
    # The packages were not installed but laid over the root, so their users are missing.
    _add_user("_rpc", 4322)
    _add_user("statd", 4323)
    Path("/run/rpcbind").mkdir(exist_ok=True)
    _run("rpcbind", "-w")
    _run("exportfs", "-ra")
    # Without this the first write waits 90 seconds for clients of an earlier life.
    _run("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "2")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")
    _run("rpc.mountd")
    _run("rpc.statd")


def _start_smb() -> None:
    _run("modprobe", "cifs")
    for name in ("private", "run", "state", "cache", "lock"):
        Path("/tmp/smb", name).mkdir(parents=True)
    SMB.mkdir(parents=True, exist_ok=True)
    SMB.chmod(0o777)
    configuration = Path("/tmp/smb/smb.conf")
    configuration.write_text(_SMB_CONFIGURATION)
    _add_user(USER, 4321)
    _run("smbpasswd", "-c", str(configuration), "-s", "-a", USER, text=f"{PASSWORD}\n{PASSWORD}\n")
    _run("smbd", "-D", "-s", str(configuration))
    deadline = time.monotonic() + 20
    while ":01BD " not in Path("/proc/net/tcp").read_text():
        if time.monotonic() > deadline:
            raise RuntimeError("smbd does not listen")
        time.sleep(0.1)
