"""Headers of a tar archive, byte for byte as Docker writes them: POSIX ustar, and a pax header where that is too small.

Source: POSIX.1-2001, pax interchange format; recordings of Docker Engine.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
XATTR: Final = "SCHILY.xattr."

FILE: Final = b"0"
HARD_LINK: Final = b"1"
SYMBOLIC_LINK: Final = b"2"
CHARACTER_DEVICE: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
_PAX: Final = b"x"

_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMBOLIC_LINK,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
_NAME_BYTES: Final = 100
_PREFIX_BYTES: Final = 155
_ID_LIMIT: Final = 8**7
_SIZE_LIMIT: Final = 8**11


@dataclass(frozen=True, slots=True)
class Header:
    """One entry. Names are bytes as the file system has them; `mtime` is in whole seconds."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def kind_of(mode: int) -> bytes | None:
    """Give the kind of entry for a file mode; None for a socket, which no archive can hold. Pure."""
    return _KINDS.get(stat.S_IFMT(mode))


def padding(size_bytes: int) -> int:
    """Give the number of zero bytes after so much data. Pure."""
    return -size_bytes % BLOCK


def encode(header: Header) -> bytes:
    """Give the header's block, with a pax header before it where a field does not fit. Pure."""
    records = {f"{XATTR}{name}".encode(): value for name, value in header.xattrs.items()}
    name, prefix = header.name, b""
    if not _fits(name):
        split = _split(name)
        if split is None:
            records[b"path"] = name
        else:
            prefix, name = split
    if not _fits(header.link):
        records[b"linkpath"] = header.link
    for key, value, limit in (
        (b"uid", header.uid, _ID_LIMIT),
        (b"gid", header.gid, _ID_LIMIT),
        (b"size", header.size_bytes, _SIZE_LIMIT),
        (b"mtime", header.mtime, _SIZE_LIMIT),
    ):
        if not 0 <= value < limit:
            records[key] = b"%d" % value
    block = _block(header, name, prefix)
    return _pax(header.name, records) + block if records else block


def _pax(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = name.rstrip(b"/").rpartition(b"/")
    header = Header(_ascii(directory + b"/PaxHeaders.0/" + base).lstrip(b"/"), _PAX, 0, size_bytes=len(data))
    return _block(header, header.name, b"") + data + bytes(padding(len(data)))


def _record(key: bytes, value: bytes) -> bytes:
    """Give `LENGTH KEY=VALUE\\n`, where the length counts itself."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%b" % (length, rest)


def _block(header: Header, name: bytes, prefix: bytes) -> bytes:
    major, minor = header.device
    start = b"".join(
        (
            _text(_ascii(name), _NAME_BYTES),
            _octal(stat.S_IMODE(header.mode), 8),
            _octal(header.uid, 8),
            _octal(header.gid, 8),
            _octal(header.size_bytes, 12),
            _octal(header.mtime, 12),
        )
    )
    end = b"".join(
        (
            header.kind,
            _text(_ascii(header.link), _NAME_BYTES),
            b"ustar\00000",
            bytes(64),  # names of owner and group: nobody's on another machine
            _octal(major, 8),
            _octal(minor, 8),
            _text(prefix, _PREFIX_BYTES),
            bytes(12),
        )
    )
    checksum = sum(start) + sum(end) + 8 * 0x20
    return start + b"%06o\0 " % checksum + end


def _fits(name: bytes) -> bool:
    return len(name) <= _NAME_BYTES and name.isascii()


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a long name at a slash into prefix and name, if ustar can hold it so."""
    if not name.isascii() or len(name) > _NAME_BYTES + _PREFIX_BYTES + 1:
        return None
    slash = name.rfind(b"/", 0, min(_PREFIX_BYTES, len(name.rstrip(b"/"))) + 1)
    if slash <= 0 or not 0 < len(name) - slash - 1 <= _NAME_BYTES:
        return None
    return name[:slash], name[slash + 1 :]


def _ascii(name: bytes) -> bytes:
    return name if name.isascii() else bytes(byte for byte in name if byte < 0x80)


def _text(value: bytes, width: int) -> bytes:
    return value[:width].ljust(width, b"\0")


def _octal(value: int, width: int) -> bytes:
    """Give octal digits and a zero byte; what does not fit stands in the pax header."""
    digits = width - 1
    return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)
