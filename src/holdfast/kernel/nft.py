"""nftables through libnftables: a text of commands, applied whole or not at all. Source: libnftables(3), nft(8)."""

import errno
import os
import socket
import threading
from types import TracebackType
from typing import Any, Final, Self

from holdfast.kernel.libc import INT, POINTER, STRING, UINT, library

_SONAME: Final = "libnftables.so.1"
_NETLINK_NETFILTER: Final = 12          # Source: Linux, include/uapi/linux/netlink.h
_OUTPUT_HANDLE: Final = 1 << 3          # Source: nftables/libnftables.h
_OUTPUT_JSON: Final = 1 << 4
_KNOWN_ERRORS: Final = (errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EPERM, errno.EOPNOTSUPP, errno.ENOMEM)


class NftError(OSError):
    """libnftables refused. `strerror` is what it said; `errno` the kernel's reason if it named one, else EINVAL."""

    def __init__(self, said: str) -> None:
        text = said.strip() or "nft: no reason given"
        named = (number for number in _KNOWN_ERRORS if os.strerror(number) in text)
        super().__init__(next(named, errno.EINVAL), text)


class Nft:
    """A libnftables context. It belongs to the network namespace of the thread that makes it; any thread may use it."""

    def __init__(self) -> None:
        """Raises OSError if the library is not installed or the kernel has no netfilter netlink.

        The library ends the whole process when it cannot open its socket, so we try that first.
        """
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER).close()
        self._library = _declared(library(_SONAME))
        self._lock = threading.Lock()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.ENOMEM, "nft_ctx_new: no context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, json: bool = False, handles: bool = False) -> str:
        """Apply `commands` in one transaction and return what they print, as JSON or with rule handles if asked.

        Raises NftError, of which nothing was applied.
        """
        flags = (_OUTPUT_JSON if json else 0) | (_OUTPUT_HANDLE if handles else 0)
        with self._lock:
            assert self._context, "the context is closed"
            self._library.nft_ctx_output_set_flags(self._context, flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Reading a buffer also empties it, so both are read whatever happened.
            printed: bytes = self._library.nft_ctx_get_output_buffer(self._context)
            said: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(said.decode(errors="replace"))
        return printed.decode(errors="replace")

    def close(self) -> None:
        """Free the context and its socket. Harmless to repeat."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _declared(lib: Any) -> Any:
    """Set the types of the few functions we call; without them a context pointer would be cut to an int."""
    for name, restype, argtypes in (
        ("nft_ctx_new", POINTER, (UINT,)),
        ("nft_ctx_free", None, (POINTER,)),
        ("nft_ctx_buffer_output", INT, (POINTER,)),
        ("nft_ctx_buffer_error", INT, (POINTER,)),
        ("nft_ctx_output_set_flags", None, (POINTER, UINT)),
        ("nft_ctx_get_output_buffer", STRING, (POINTER,)),
        ("nft_ctx_get_error_buffer", STRING, (POINTER,)),
        ("nft_run_cmd_from_buffer", INT, (POINTER, STRING)),
    ):
        declared = getattr(lib, name)
        declared.restype = restype
        declared.argtypes = argtypes
    return lib
