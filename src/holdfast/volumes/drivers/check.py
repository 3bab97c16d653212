"""Which step between a local volume's options and its data fails: name, route, kernel, export, credentials, ...

    directory   the volume's own directory is there
    credentials the file that `credentials=` names can be read, and later the server accepts who we are
    name        the server's name has an address
    route       the server answers on its port
    kernel      the kernel knows the file system
    device      what `device` names is there: a block device, a directory
    export      the server has what `device` names, and lets this machine in
    options     the kernel accepts the words of `o`
    mount       anything else that mount(2) says
    answer      the storage lists what it has

The steps are taken in an order in which each needs those before it; the first that fails is the last.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.kernel.storage_worker import Failed
from holdfast.volumes.drivers import mounting
from holdfast.volumes.drivers.mounter import Mounter, is_mount_point, why
from holdfast.volumes.drivers.mounting import Source
from holdfast.volumes.drivers.workers import Workers

_FILESYSTEMS = Path("/proc/filesystems")
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTDOWN}
_REFUSED = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: whether it went well, and what was found. Secrets are not in it."""

    name: str
    ok: bool
    detail: str


class _Stop(Exception):
    """A step has failed: those after it make no sense."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.detail)
        self.step = step


class Checker:
    """Takes the steps for one volume, whose lock is held. What it mounts it unmounts again."""

    def __init__(self, workers: Workers, mounter: Mounter) -> None:
        self._workers = workers
        self._mounter = mounter

    def check(self, source: Source, directory: int, name: str, target: str) -> list[Step]:
        """Take every step up to the first that fails. Raises OSError if the volume's directory is damaged."""
        steps: list[Step] = []
        try:
            steps.extend(self._steps(source, directory, name, target))  # those before a _Stop are kept
        except _Stop as stop:
            steps.append(stop.step)
        return steps

    def _steps(self, source: Source, directory: int, name: str, target: str) -> Iterator[Step]:
        in_use = is_mount_point(directory, name)
        if not source.device:
            raise _Stop(Step("options", False, "the option `device` is empty"))
        if source.is_network:
            source = yield from self._network(source)
        if not in_use:
            yield from self._kernel(source)
            yield from self._mount(source, directory, name, target)
        try:
            yield from self._answer(directory, name, in_use)
        finally:
            if not in_use:
                self._mounter.unmount(source, directory, name, target)

    def _network(self, source: Source) -> Generator[Step, None, Source]:
        path = mounting.credentials_file(source)
        if path:
            try:
                source = mounting.with_credentials(source, self._workers.read_text(path))
            except Failed as error:
                raise _Stop(Step("credentials", False, f"the credentials file cannot be read: {why(error)}")) from None
            yield Step("credentials", True, "the credentials file can be read")
        host, port = mounting.server_of(source)
        if not host:
            raise _Stop(Step("name", False, "neither `addr=` nor `device` names a server"))
        address = host
        if mounting.is_address(host):
            yield Step("name", True, f"{host} is an address")
        else:
            address = self._resolve(host)
            yield Step("name", True, f"{host} has the address {address}")
        wanted = mounting.host_to_resolve(source)
        if wanted:
            source = mounting.with_address(source, address if wanted == host else self._resolve(wanted))
        source = mounting.with_known_address(source)
        try:
            self._workers.connect(address, port)
        except Failed as error:
            raise _Stop(Step("route", False, f"{address} port {port}: {why(error)}")) from None
        yield Step("route", True, f"{address} answers on port {port}")
        return source

    def _resolve(self, host: str) -> str:
        try:
            return self._workers.resolve(host)[0]
        except Failed as error:
            raise _Stop(Step("name", False, f"lookup {host}: {why(error)}")) from None

    def _kernel(self, source: Source) -> Iterator[Step]:
        known = {line.split("\t")[1] for line in _FILESYSTEMS.read_text(encoding="ascii").splitlines()}
        if source.type in known:
            yield Step("kernel", True, f"the kernel knows {source.type}")

    def _mount(self, source: Source, directory: int, name: str, target: str) -> Iterator[Step]:
        calls = mounting.plan(source)
        try:
            self._workers.mount(directory, name, [(call.source, call.fstype, call.flags, call.data) for call in calls])
        except Failed as error:
            step, detail = diagnose(source, error)
            if is_mount_point(directory, name):
                self._mounter.unmount(source, directory, name, target)
                step, detail = "answer", f"it was mounted but does not answer: {why(error)}"
            raise _Stop(Step(step, False, detail)) from None
        yield Step("mount", True, f"{mounting.mask_device(source.device)} can be mounted")

    def _answer(self, directory: int, name: str, in_use: bool) -> Iterator[Step]:
        try:
            self._workers.look(directory, name)
        except Failed as error:
            raise _Stop(Step("answer", False, f"it does not list what it has: {why(error)}")) from None
        yield Step("answer", True, "it lists what it has" + (", and is in use now" if in_use else ""))


def diagnose(source: Source, error: Failed) -> tuple[str, str]:
    """Give the step that an error of mount(2) belongs to, and what it means there. Pure."""
    number, text = error.number, why(error)
    device = mounting.mask_device(source.device)
    if error.at == "wait" and source.is_network:
        return "route", f"the server does not answer: {text}"
    if number == errno.ENODEV:
        return "kernel", f"this kernel has no file system of the type {source.type}, nor a module for it"
    if source.is_network:
        if number in _UNREACHABLE:
            return "route", f"the server cannot be reached: {text}"
        if number in _REFUSED and source.type in ("cifs", "smb3"):
            return "credentials", f"the server refuses user or password: {text}"
        if number in _REFUSED:
            return "export", f"the server does not export {device} to this machine: {text}"
        if number == errno.ENOENT:
            return "export", f"the server has no {device}: {text}"
    elif number in (errno.ENOENT, errno.ENOTDIR, errno.ENOTBLK, errno.ENXIO):
        return "device", f"{device}: {text}"
    elif number == errno.EBUSY:
        return "device", f"{device} is in use otherwise: {text}"
    if number == errno.EINVAL:
        damaged = "" if source.is_network else f", or {device} holds no {source.type}"
        return "options", f"the kernel does not accept the options{damaged}: {text}"
    return "mount", text
