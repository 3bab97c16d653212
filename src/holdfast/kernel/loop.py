"""Loop devices: an image file as a block device. Source: loop(4), Linux, include/uapi/linux/loop.h."""

import errno
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from holdfast.kernel.libc import StrPath
from holdfast.kernel.path import owned_fd

# Plain numbers, the same on every architecture.
_LOOP_CLR_FD: Final = 0x4C01
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82

_LO_FLAGS_READ_ONLY: Final = 1
_LO_FLAGS_AUTOCLEAR: Final = 4
_LO_FLAGS_DIRECT_IO: Final = 16

# struct loop_config: u32 fd, u32 block_size, struct loop_info64 (lo_flags at 52, 64 bytes of name at 56), u64 x 8.
_CONFIG: Final = struct.Struct("=II 52x I 64s 112x 64x")
_CLAIMS: Final = 64             # how often to try again when another program takes the free device first


class LoopDevice:
    """An attached device. It detaches by itself once this is closed and nothing has it open or mounted.

    So: attach, mount `path`, close; unmounting, or the end of the boot, then frees the device. A namespace that
    holds a copy of the mount keeps it attached; that is no error.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Let go of the device. Harmless to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def attach(path: StrPath, *, direct_io: bool = True, readonly: bool = False, block_size: int = 512) -> LoopDevice:
    """Attach the image `path` to a free device. The caller closes the result once it is mounted.

    Direct I/O spares caching everything twice; where the file system of the image cannot do it, the device
    works without. Sectors of 512 bytes suit every image whatever disk it was made on. Raises OSError.
    """
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if readonly else 0)
    access = os.O_RDONLY if readonly else os.O_RDWR
    with owned_fd(os.open(path, access | os.O_CLOEXEC)) as image:
        if direct_io:
            try:
                return _claim(path, image, flags | _LO_FLAGS_DIRECT_IO, block_size)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return _claim(path, image, flags, block_size)


def detach(device: StrPath) -> None:
    """Detach a device now, or when its last user is gone. One that is not attached is no error. Raises OSError."""
    with owned_fd(os.open(device, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        try:
            fcntl.ioctl(fd, _LOOP_CLR_FD)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise OSError(error.errno, f"LOOP_CLR_FD: {error.strerror}", os.fspath(device)) from None


def update_size(device: StrPath) -> None:
    """Tell the device that its image has grown. Raises OSError."""
    with owned_fd(os.open(device, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY)


def devices_of(image: StrPath) -> tuple[Path, ...]:
    """The devices to which the file `image` is attached. Raises OSError."""
    wanted = os.path.realpath(image)
    found: list[Path] = []
    for file in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            backing = os.fsdecode(file.read_bytes()).removesuffix("\n")
        except OSError:                         # detached while we looked
            continue
        if backing == wanted:
            found.append(Path("/dev") / file.parent.parent.name)
    return tuple(found)


def _claim(path: StrPath, image: int, flags: int, block_size: int) -> LoopDevice:
    """Configure a free device in one step; another program may take the one we were told of, then the next."""
    name = os.fsencode(path)[-63:]
    with owned_fd(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)) as control:
        for _ in range(_CLAIMS):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            access = os.O_RDONLY if flags & _LO_FLAGS_READ_ONLY else os.O_RDWR
            fd = os.open(device, access | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, _CONFIG.pack(image, block_size, flags, name))
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", os.fspath(path)) from None
                continue
            return LoopDevice(device, fd)
    raise OSError(errno.EBUSY, "LOOP_CONFIGURE: every free loop device was taken by others", os.fspath(path))
