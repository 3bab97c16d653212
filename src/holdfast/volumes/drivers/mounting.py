"""What the options `type`, `o` and `device` of a local volume mean, as calls of mount(2). Pure.

No mount.nfs or mount.cifs runs, as with Docker: `o` is split into the kernel's flags and the file system's own words.
What those programs would do and the kernel does not is done here: words that only they know are dropped, host names
become addresses (the caller resolves them), a credentials file becomes words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import unquote

from holdfast.errors import InvalidParameter
from holdfast.kernel.mount import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

_MS_SYNCHRONOUS = 0x10
_MS_MANDLOCK = 0x40
_MS_DIRSYNC = 0x80
_MS_NODIRATIME = 0x800
_MS_RELATIME = 1 << 21
_MS_STRICTATIME = 1 << 24

# Word → flag and whether it is set. Source: moby/sys, mount/flags_linux.go.
_FLAGS: Mapping[str, tuple[int, bool]] = {
    "async": (_MS_SYNCHRONOUS, False),
    "atime": (MS_NOATIME, False),
    "bind": (MS_BIND, True),
    "dev": (MS_NODEV, False),
    "diratime": (_MS_NODIRATIME, False),
    "dirsync": (_MS_DIRSYNC, True),
    "exec": (MS_NOEXEC, False),
    "mand": (_MS_MANDLOCK, True),
    "noatime": (MS_NOATIME, True),
    "nodev": (MS_NODEV, True),
    "nodiratime": (_MS_NODIRATIME, True),
    "noexec": (MS_NOEXEC, True),
    "nomand": (_MS_MANDLOCK, False),
    "norelatime": (_MS_RELATIME, False),
    "nostrictatime": (_MS_STRICTATIME, False),
    "nosuid": (MS_NOSUID, True),
    "private": (MS_PRIVATE, True),
    "rbind": (MS_BIND | MS_REC, True),
    "relatime": (_MS_RELATIME, True),
    "remount": (MS_REMOUNT, True),
    "ro": (MS_RDONLY, True),
    "rprivate": (MS_PRIVATE | MS_REC, True),
    "rshared": (MS_SHARED | MS_REC, True),
    "rslave": (MS_SLAVE | MS_REC, True),
    "runbindable": (MS_UNBINDABLE | MS_REC, True),
    "rw": (MS_RDONLY, False),
    "shared": (MS_SHARED, True),
    "slave": (MS_SLAVE, True),
    "strictatime": (_MS_STRICTATIME, True),
    "suid": (MS_NOSUID, False),
    "sync": (_MS_SYNCHRONOUS, True),
    "unbindable": (MS_UNBINDABLE, True),
}
_PROPAGATION = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE
_RESTRICTIONS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | _MS_NODIRATIME
"""What the kernel ignores when it binds, and takes when the bind is mounted again. mount(2)."""

NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3"})
MEMORY_TYPES = frozenset({"tmpfs", "ramfs"})
"""Types that never hang and that the engine mounts itself."""
_CIFS = frozenset({"cifs", "smb3"})
# Words of mount(8), nfs(5) and mount.cifs(8) that no kernel knows.
_USERLAND = frozenset({"defaults"})
_USERLAND_NETWORK = _USERLAND | {"_netdev", "auto", "noauto", "nofail", "bg", "fg", "user", "nouser", "users"}
_USERLAND_PREFIXES = ("retry=", "x-", "X-", "comment=")

OPTIONS = ("type", "o", "device", "size")
_NEEDS: Mapping[str, Sequence[str]] = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
_SECRETS = re.compile(r"(?i)(^|(?<=,))((?:pass(?:word|wd)?2?|secret|key|cred(?:entials)?)=)(?:[^,]|,,)*")
_USER_IN_DEVICE = re.compile(r"(?<=//)([^/@:]*):[^/]*@")
_HIDDEN = "********"
_SIZE_SUFFIXES = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be mounted: the three options of a volume, texts without a default."""

    type: str
    device: str
    o: str

    @property
    def is_network(self) -> bool:
        """Tell whether a server is asked."""
        return self.type in NETWORK_TYPES

    @property
    def words(self) -> list[str]:
        """Give the words of `o` in their order. An empty one is half of the kernel's escape for a comma."""
        return self.o.split(",") if self.o else []


@dataclass(frozen=True, slots=True)
class Call:
    """One call of mount(2). `verb` is what Docker's error text calls it."""

    verb: str
    source: str
    fstype: str
    flags: int
    data: str

    def describe(self, target: str, why: str) -> str:
        """Give Docker's words for its failure; secrets are not in them. Source: moby/sys, mount/errors.go."""
        where = f"{mask_device(self.source)}:{target}" if self.source else target
        flags = f", flags: {self.flags:#x}" if self.flags else ""
        data = f", data: {mask(self.data)}" if self.data else ""
        return f"{self.verb} {where}{flags}{data}: {why}"


def source_of(options: Mapping[str, str] | None) -> Source | None:
    """Give what a volume of these options mounts, None if it is a plain directory."""
    options = options or {}
    source = Source(options.get("type", ""), options.get("device", ""), options.get("o", ""))
    return source if source.type or source.device else None


def validate(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter, in Docker's words, for options that could never be mounted.

    Nothing is looked at: neither the device, nor the server, nor whether the kernel knows the type. Source: moby,
    volume/local, `LocalVolume.setOpts` and `validateOpts`.
    """
    for name in options:
        if name not in OPTIONS:
            raise InvalidParameter(f"invalid option: {json.dumps(name, ensure_ascii=False)}")
    if options.get("type") == "cifs":
        _check_cifs_device(options.get("device", ""))
    if "size" in options and parse_size(options["size"]) > 0:
        raise InvalidParameter("quota size requested but no quota support")
    for name, needed in _NEEDS.items():
        for other in needed:
            if name in options and other not in options:
                raise InvalidParameter(f'missing required option: "{other}"')


def parse_size(text: str) -> int:
    """Parse a size such as `10m`, `1.5GiB`, into bytes. Raises InvalidParameter. Source: go-units, RAMInBytes."""
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?([a-zA-Z]*)", text)
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    suffix = match[2].lower()
    unit = re.fullmatch(r"(?:([kmgtp])(?:i?b)?|b)?", suffix)
    if unit is None:
        raise InvalidParameter(f"invalid suffix: '{suffix}'")
    return int(float(match[1]) * 1024 ** _SIZE_SUFFIXES.get(unit[1] or "", 0))


def host_to_resolve(source: Source) -> str:
    """Give the host name that must become an address before the mount, empty if none must.

    That is the one in `addr=`, else of CIFS and NFS the one in the device. Source: moby, volume/local, `mount`.
    """
    if not source.is_network:
        return ""
    address = _field(source, "addr")
    if address:
        if not is_address(address):
            return address
        if source.type not in _CIFS:
            return ""
    host = device_host(source)
    return "" if is_address(host) else host


def with_address(source: Source, address: str) -> Source:
    """Put the address of the host that `host_to_resolve` gave in its place. `clientaddr=` and the like stay."""
    named = _field(source, "addr")
    if named and not is_address(named):
        words = source.words
        words[words.index(f"addr={named}")] = f"addr={address}"
        return replace(source, o=",".join(words))
    if source.type in _CIFS:
        share = unquote(source.device).removeprefix("//").partition("/")[2]
        shown = f"[{address}]" if ":" in address else address
        return replace(source, device=f"//{shown}/{share}")
    return replace(source, o=",".join([*source.words, f"addr={address}"]))


def with_known_address(source: Source) -> Source:
    """Give NFS the address that its device names, where `addr=` does not: the kernel looks nowhere else."""
    if source.type in ("nfs", "nfs4") and not _field(source, "addr"):
        host = device_host(source)
        if host and is_address(host):
            return with_address(source, host)
    return source


def device_host(source: Source) -> str:
    """Give the host in `//host/share` or `host:/path`, without brackets; empty if there is none."""
    if source.type in _CIFS:
        match = re.match(r"(?:cifs:|smb:)?//(?:[^/@]*@)?(\[[^]/]*\]|[^/:]*)", source.device)
    else:
        match = re.match(r"(\[[^]/]*\]|[^/:]*):", source.device)
    return match[1].strip("[]") if match else ""


def server_of(source: Source) -> tuple[str, int]:
    """Give the server of NFS or CIFS, as the options name it, and its TCP port."""
    port = _field(source, "port")
    default = 445 if source.type in _CIFS else 2049
    host = _field(source, "addr") or _field(source, "ip") or device_host(source)
    return host, int(port) if port.isascii() and port.isdigit() else default


def credentials_file(source: Source) -> str:
    """Give the path in `credentials=` of CIFS, empty if there is none. Source: mount.cifs(8)."""
    return (_field(source, "credentials") or _field(source, "cred")) if source.type in _CIFS else ""


def with_credentials(source: Source, text: str) -> Source:
    """Put in what a credentials file says, lines `username=`, `password=`, `domain=`, instead of its path."""
    words = [word for word in source.words if not word.startswith(("credentials=", "cred="))]
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        key = {"user": "username", "pass": "password", "dom": "domain"}.get(key.strip(), key.strip())
        if equals and key in ("username", "password", "domain"):
            words.append(f"{key}={value.replace(',', ',,')}")
    return replace(source, o=",".join(words))


def plan(source: Source) -> tuple[Call, ...]:
    """Give the calls of mount(2), in their order, that mount a source whose addresses are known.

    The kernel changes propagation only alone, and restricts a bind only once it is there. Source: moby/sys,
    mount/mounter_linux.go; mount(2).
    """
    flags, words = 0, []
    dropped = _USERLAND_NETWORK if source.is_network else _USERLAND
    for word in source.words:
        if word in _FLAGS:
            flag, is_set = _FLAGS[word]
            flags = flags | flag if is_set else flags & ~flag
        elif word not in dropped and not (source.is_network and word.startswith(_USERLAND_PREFIXES)):
            words.append(word)
    first = flags & ~_PROPAGATION
    calls = [Call("mount", source.device, source.type, first, ",".join(words))]
    if flags & _PROPAGATION:
        calls.append(Call("remount", "", "", flags & (_PROPAGATION | MS_REC), ""))
    if flags & MS_BIND and flags & _RESTRICTIONS:
        calls.append(Call("remount-ro", "", "", first | MS_REMOUNT, ""))
    return tuple(calls)


def mask(o: str) -> str:
    """Hide the secrets in mount options: passwords, keys, where credentials lie."""
    return _SECRETS.sub(rf"\1\2{_HIDDEN}", o)


def mask_device(device: str) -> str:
    """Hide the password in `//user:password@host/share`."""
    return _USER_IN_DEVICE.sub(rf"\1:{_HIDDEN}@", device)


def is_address(text: str) -> bool:
    """Tell whether a text is an IPv4 or IPv6 address rather than a name; the empty text counts as one."""
    if not text:
        return True
    try:
        ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def _field(source: Source, key: str) -> str:
    prefix = key + "="
    return next((word.removeprefix(prefix) for word in source.words if word.startswith(prefix)), "")


def _check_cifs_device(device: str) -> None:
    """Raise InvalidParameter for a device that is no URL or has a port. Source: Go, net/url.Parse."""
    parsed = f"parse {json.dumps(mask_device(device), ensure_ascii=False)}"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in device):
        raise InvalidParameter(f"error parsing mount device url: {parsed}: net/url: invalid control character in URL")
    escape = re.search(r"%(?![0-9a-fA-F]{2}).{0,2}", device)
    if escape:
        raise InvalidParameter(f"error parsing mount device url: {parsed}: invalid URL escape {json.dumps(escape[0])}")
    match = re.match(r"(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//(?:[^/@]*@)?(\[[^]/]*\]|[^/:]*)(:[^/]*)?", device)
    port = match[2] if match else None
    if port is None:
        return
    if not re.fullmatch(r":[0-9]*", port):
        raise InvalidParameter(
            f"error parsing mount device url: {parsed}: invalid port {json.dumps(port, ensure_ascii=False)} after host"
        )
    if port != ":":
        raise InvalidParameter("port not allowed in CIFS device URL, include 'port' in 'o='")
