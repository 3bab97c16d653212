"""What this machine can and cannot do for the engine, each finding with its fix. Nothing is changed or left behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.config import Config
from holdfast.errors import EngineError
from holdfast.kernel import cgroup, identity, loop, mount, mountinfo
from holdfast.kernel.nft import Nft
from holdfast.kernel.path import open_beneath, owned_fd
from holdfast.network.forwarding import Chain, closed_chains, is_owned
from holdfast.runtime import probe, seccomp
from holdfast.runtime.facts import gather, parse_release

OLDEST_KERNEL = (6, 1)
_CONTROLLERS = ("cpu", "memory", "pids")
_PROGRAMS = {
    "conmon": ("conmon", True, "containers cannot be started"),
    "skopeo": ("skopeo", False, "images cannot be pulled"),
    "buildah": ("buildah", False, "images cannot be built"),
    "tar": ("tar", True, "images cannot be unpacked"),
    "gzip": ("gzip", True, "compressed images cannot be loaded"),
    "zstd": ("zstd", False, "images compressed with zstd cannot be loaded"),
    "catatonit": ("catatonit", False, "--init does not work"),
}
_NEEDED_CAPABILITIES = {
    "CAP_SYS_ADMIN": "nothing works without it",
    "CAP_NET_ADMIN": "no container gets a network",
    "CAP_MKNOD": "device nodes in images are not made",
    "CAP_SYS_RESOURCE": "--privileged, limits above the engine's own and negative OOM scores are refused",
    "CAP_SYS_CHROOT": "images cannot be unpacked",
    "CAP_DAC_OVERRIDE": "files of other users cannot be copied",
    "CAP_CHOWN": "owners of files are lost",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `level` is `ok`, `note` (works without it) or `problem` (does not)."""

    level: str
    subject: str
    what: str
    fix: str = ""


def examine(config: Config) -> Iterator[Finding]:
    """Look at everything, one finding at a time as it is known. A check that breaks is a finding too."""
    checks: tuple[Callable[[Config], Iterator[Finding]], ...] = (
        _user,
        _kernel,
        _cgroups,
        _programs,
        _seccomp,
        _apparmor,
        _overlay,
        _mounts,
        _runtimes,
        _loop_devices,
        _firewall,
        _storage,
    )
    for check in checks:
        try:
            yield from check(config)
        except (OSError, EngineError) as error:
            yield Finding("problem", check.__name__.strip("_"), f"cannot be checked: {error}", "run it as root")


def _user(_config: Config) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            "problem", "user", "not root: mounts and namespaces are refused", "run as root: sudo holdfast doctor"
        )
    missing = _NEEDED_CAPABILITIES.keys() - identity.own_capabilities()
    for name in sorted(missing):
        level = "note" if name in ("CAP_SYS_RESOURCE", "CAP_MKNOD") else "problem"
        yield Finding(
            level,
            "capabilities",
            f"{name} is missing: {_NEEDED_CAPABILITIES[name]}",
            "start the engine outside of a container",
        )
    if not missing:
        yield Finding("ok", "capabilities", "all that the engine uses are there")


def _kernel(_config: Config) -> Iterator[Finding]:
    release = identity.kernel_release()
    if parse_release(release) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        yield Finding(
            "problem", "kernel", f"{release} is older than {oldest}", "boot Debian 12's kernel or a newer one"
        )
    else:
        yield Finding("ok", "kernel", release)
    known = Path("/proc/filesystems").read_text(encoding="ascii").split()
    for name, use in (
        ("overlay", "root file systems of containers"),
        ("tmpfs", "tmpfs mounts"),
        ("mqueue", "/dev/mqueue"),
    ):
        if name not in known:
            yield Finding(
                "problem", "kernel", f"no {name}: needed for {use}", f"modprobe {name}, or a kernel that has it"
            )
    for kind in ("mnt", "net", "pid", "ipc", "uts"):
        if not Path(f"/proc/self/ns/{kind}").exists():
            yield Finding("problem", "kernel", f"no {kind} namespaces", "a kernel with CONFIG_NAMESPACES")
    with owned_fd(os.open("/proc", os.O_PATH)) as proc:
        try:
            os.close(open_beneath(proc, "sys", os.O_PATH))
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            yield Finding(
                "problem", "kernel", "openat2(2) is missing", "a newer kernel, or a sandbox that allows the call"
            )


def _cgroups(_config: Config) -> Iterator[Finding]:
    layout = cgroup.layout()
    found = {controller for hierarchy in layout.hierarchies for controller in hierarchy.controllers}
    missing = [name for name in _CONTROLLERS if name not in found]
    yield Finding("ok", "cgroups", f"{layout.kind}, controllers: {', '.join(sorted(found)) or 'none'}")
    if missing:
        yield Finding(
            "note",
            "cgroups",
            f"limits of {', '.join(missing)} cannot be set",
            "boot with cgroup_enable=memory systemd.unified_cgroup_hierarchy=1",
        )
    if cgroup.crun_needs_hiding(layout) is not None:
        yield Finding(
            "note",
            "cgroups",
            "hybrid with v2 controllers: crun runs in a mount namespace that hides them",
            "none needed; booting with systemd.unified_cgroup_hierarchy=1 makes starts a little faster",
        )


def _programs(_config: Config) -> Iterator[Finding]:
    present = []
    for program, (package, needed, without) in _PROGRAMS.items():
        if shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
            present.append(program)
        else:
            level = "problem" if needed else "note"
            fix = f"apt-get install --no-install-recommends {package}"
            yield Finding(level, "programs", f"{program} is missing: {without}", fix)
    yield Finding("ok", "programs", ", ".join(present))


def _seccomp(_config: Config) -> Iterator[Finding]:
    if seccomp.default_profile() is None:
        yield Finding(
            "note",
            "seccomp",
            "no default profile: containers may make any system call",
            "apt-get install --no-install-recommends golang-github-containers-common",
        )
    else:
        yield Finding("ok", "seccomp", "default profile found")


def _apparmor(_config: Config) -> Iterator[Finding]:
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if enabled.exists() and enabled.read_text(encoding="ascii").startswith("Y"):
        yield Finding("note", "apparmor", "in the kernel, but no profile is applied to containers yet", "none needed")
    else:
        yield Finding(
            "note", "apparmor", "not in this kernel: one fence fewer around containers", "a kernel with AppArmor"
        )


def _overlay(config: Config) -> Iterator[Finding]:
    where = config.state_root if config.state_root.is_dir() else config.state_root.parent
    while not where.is_dir():
        where = where.parent
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=where) as folder:
        lower, upper, work, merged = (Path(folder, name) for name in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        try:
            mount.overlay(merged, [lower], upper, work)
        except OSError as error:
            fix = "put the state root on ext4, xfs or btrfs"
            yield Finding("problem", "overlayfs", f"cannot be mounted below {where}: {error}", fix)
        else:
            mount.umount2(merged)
            yield Finding("ok", "overlayfs", f"works below {where}")


def _mounts(_config: Config) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="holdfast-doctor-") as folder:
        source, destination = Path(folder, "source"), Path(folder, "destination")
        source.mkdir()
        destination.mkdir()
        try:
            mount.bind(source, destination, readonly=True)
        except OSError as error:
            yield Finding(
                "problem", "mounts", f"open_tree/mount_setattr/move_mount fail: {error}", "a kernel from 5.12 on"
            )
        else:
            mount.umount2(destination)
            yield Finding("ok", "mounts", "detached and read-only binds work")


def _runtimes(config: Config) -> Iterator[Finding]:
    layout = cgroup.layout()
    with tempfile.TemporaryDirectory(prefix="holdfast-doctor-", dir="/run") as run_root:
        mount.make_shared(run_root)
        try:
            for name in ("crun", "runc"):
                if shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin") is None:
                    yield Finding(
                        "note", "runtime", f"{name} is not installed", f"apt-get install --no-install-recommends {name}"
                    )
                    continue
                tried = replace(
                    config, runtime=name, run_root=Path(run_root), cgroup_parent=f"/holdfast-doctor-{os.getpid()}"
                )
                controllers = cgroup.prepare(layout, tried.cgroup_parent)
                try:
                    facts = probe.probe(tried, layout, gather(layout, controllers, tried.cgroup_parent))
                    yield Finding("ok", "runtime", f"{name} {facts.version} ran a container")
                except EngineError as error:
                    level = "problem" if config.runtime == name else "note"
                    yield Finding(
                        level,
                        "runtime",
                        f"{name} cannot run a container: {error}",
                        "use the other one, or a newer version",
                    )
                finally:
                    cgroup.remove(layout, tried.cgroup_parent)
        finally:
            for entry in reversed(mountinfo.mounts_below(run_root)):
                mount.umount2(entry.mount_point)


def _loop_devices(_config: Config) -> Iterator[Finding]:
    with tempfile.NamedTemporaryFile(prefix="holdfast-doctor-") as image:
        image.truncate(1 << 20)
        try:
            with loop.attach(image.name) as device:
                yield Finding("ok", "loop devices", f"{device.path} could be attached")
        except OSError as error:
            yield Finding(
                "note",
                "loop devices",
                f"not usable: {error}",
                "modprobe loop, and let the engine see /dev/loop-control",
            )


def _firewall(config: Config) -> Iterator[Finding]:
    try:
        with Nft() as nft:
            closed = closed_chains(nft.run("list chains"), config.nft_table, lambda chain: _rules_of(nft, chain))
            owned = {each for each in closed if is_owned(nft.run(f"list table {each.chain.family} {each.chain.table}"))}
    except OSError as error:
        yield Finding(
            "note",
            "nftables",
            f"not usable: {error}; containers get no NAT and cannot publish ports",
            "apt-get install --no-install-recommends libnftables1, and a kernel with nf_tables",
        )
        return
    yield Finding("ok", "nftables", "usable")
    for each in closed:
        what = f"another program drops what this host forwards, in the chain {each.chain}: {each.by}"
        if each in owned:
            yield Finding(
                "problem",
                "nftables",
                f"{what}; it lets nobody add rules there",
                "allow each bridge in that program; firewalld: "
                f"firewall-cmd --permanent --zone=trusted --add-interface={config.bridge_name}, then --reload",
            )
        else:
            fix = f"none needed: the engine adds accept rules for its bridges, tagged {config.nft_table}"
            yield Finding("note", "nftables", what, fix)


def _rules_of(nft: Nft, chain: Chain) -> str:
    return nft.run(f"list chain {chain}")


def _storage(config: Config) -> Iterator[Finding]:
    where = config.state_root
    while not where.is_dir():
        where = where.parent
    free_gb = shutil.disk_usage(where).free / 1e9
    if free_gb < 2:
        yield Finding(
            "note", "disk", f"only {free_gb:.1f} GB free below {where}", "make room, or set state_root elsewhere"
        )
    else:
        yield Finding("ok", "disk", f"{free_gb:.0f} GB free below {where}")
