"""The C library by ctypes: declared functions, numbered syscalls, and errno turned into OSError.

The only file that imports ctypes, but for `storage_worker`, which must start fast. Others in this room declare what
they call with `function` or `numbered`, using the type names below, and pass plain ints and bytes.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any, Final, TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]

INT: Final = ctypes.c_int
UINT: Final = ctypes.c_uint
LONG: Final = ctypes.c_long
ULONG: Final = ctypes.c_ulong
SIZE: Final = ctypes.c_size_t
STRING: Final = ctypes.c_char_p
POINTER: Final = ctypes.c_void_p

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
AT_NO_AUTOMOUNT: Final = 0x800
AT_RECURSIVE: Final = 0x8000

libc: Final = ctypes.CDLL(None, use_errno=True)


def function(name: str, *argtypes: Any, restype: Any = ctypes.c_int) -> Callable[..., Any]:
    """Declare the C library's function `name`. Raises AttributeError if the library lacks it."""
    declared = libc[name]
    declared.argtypes = argtypes
    declared.restype = restype
    return declared


def numbered(number: int, *argtypes: Any) -> Callable[..., Any]:
    """Declare a syscall that the C library does not wrap, by its number.

    Only for numbers from 424 on, which are the same on every architecture.
    Source: Linux, scripts/syscall.tbl; syscall(2).
    """
    assert number >= 424, "older syscalls have numbers of their own on each architecture"
    declared = libc["syscall"]                 # by item: a fresh object each time, so argtypes are not shared
    declared.argtypes = (ctypes.c_long, *argtypes)
    declared.restype = ctypes.c_long

    def call(*arguments: Any) -> Any:
        return declared(number, *arguments)

    return call


def library(soname: str) -> Any:
    """Load another C library, such as `libnftables.so.1`. Raises OSError if it is not installed."""
    return ctypes.CDLL(soname, use_errno=True)


def buffer(size_bytes: int) -> Any:
    """A zeroed block of memory that a syscall may fill; `bytes(block)` reads it."""
    return ctypes.create_string_buffer(size_bytes)


def check(syscall: str, path: StrPath | int | None, result: int) -> int:
    """Return `result`, or raise the OSError that errno stands for, naming the syscall and what it was about.

    A descriptor number is shown as `fd N`.
    """
    if result >= 0:
        return result
    number = ctypes.get_errno()
    text = f"{syscall}: {os.strerror(number)}"
    if path is None:
        raise OSError(number, text)
    raise OSError(number, text, f"fd {path}" if isinstance(path, int) else os.fspath(path))


# Architectures whose ioctl numbers have three direction bits. Source: Linux, arch/*/include/uapi/asm/ioctl.h.
_THREE_DIRECTION_BITS: Final = ("ppc", "powerpc", "mips", "sparc", "alpha")


def ioctl_number(kind: str, group: int, number: int, size_bytes: int, *, machine: str = platform.machine()) -> int:
    """Encode an ioctl number as the kernel's `_IO`, `_IOR`, `_IOW` and `_IOWR` do.

    `kind` is "", "R", "W" or "RW", seen from the program. Source: Linux, include/uapi/asm-generic/ioctl.h.
    """
    if machine.startswith(_THREE_DIRECTION_BITS):
        none, read, write, shift = 1, 2, 4, 29
    else:
        none, read, write, shift = 0, 2, 1, 30
    direction = (read if "R" in kind else 0) | (write if "W" in kind else 0) or none
    return direction << shift | size_bytes << 16 | group << 8 | number
