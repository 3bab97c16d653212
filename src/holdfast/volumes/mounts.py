"""What a container's mount requests mean. Pure: no disk, no kernel, no catalogue.

Five fields of the Docker Engine API ask for mounts; `parse` folds them into one tuple of MountPoints:

    VolumesFrom  <  Binds, Mounts  <  Config.Volumes (the request's and the image's)

A later one wins over `VolumesFrom` at an equal destination, two of `Binds` and `Mounts` at one destination are an
error, and `Config.Volumes` yields to everything, `Tmpfs` included.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from holdfast.errors import InvalidParameter

_PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_MODE_CLASSES: Mapping[str, str] = {
    "ro": "access",
    "rw": "access",
    "readonly": "access",
    "z": "label",
    "Z": "label",
    "nocopy": "copy",
    "volume-nocopy": "copy",
    "consistent": "consistency",
    "cached": "consistency",
    "delegated": "consistency",
    **dict.fromkeys(_PROPAGATIONS, "propagation"),
}
DEFAULT_DRIVER = "local"


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One entry of `HostConfig.Mounts`. `given` names the options objects that the request carried."""

    type: str
    source: str = ""
    target: str = ""
    read_only: bool = False
    given: frozenset[str] = frozenset()
    """Of `BindOptions`, `VolumeOptions`, `TmpfsOptions`, `ImageOptions`, `ClusterOptions`."""
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    no_copy: bool = False
    labels: Mapping[str, str] | None = None
    driver: str = ""
    driver_options: Mapping[str, str] | None = None
    subpath: str = ""
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    tmpfs_options: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount of one container, as `inspect` shows it and as the engine makes it.

    `source` is a host path (a volume's once it is attached, a bind's always). `anonymous` means that the request named
    no volume: `rm -v` and `--rm` may remove it. `mount_id` identifies one mount/unmount pair while it is active.
    """

    type: str
    destination: str
    name: str = ""
    source: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    copy_data: bool = False
    subpath: str = ""
    labels: Mapping[str, str] | None = None
    options: Mapping[str, str] | None = None
    create_source: bool = False
    must_exist: bool = False
    recursive: bool = True
    read_only_recursive: bool = True
    tmpfs_options: tuple[str, ...] = ()
    mount_id: str = ""
    image_id: str = ""
    """Of type `image`: the image that `name` stood for when the container was made."""

    def encode(self) -> dict[str, Any]:
        """Give a plain dictionary for a container's record."""
        return asdict(self)

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> MountPoint:
        """Make the mount point that `encode` described."""
        return cls(**{**record, "tmpfs_options": tuple(record["tmpfs_options"])})


@dataclass(frozen=True, slots=True)
class MountRequest:
    """Everything in a create request, and in its image, that asks for mounts.

    `volumes_from` pairs each `VolumesFrom` entry's mode (see `parse_volumes_from`) with that container's mount points.
    """

    binds: Sequence[str] = ()
    mounts: Sequence[MountSpec] = ()
    volumes: Iterable[str] = ()
    image_volumes: Iterable[str] = ()
    volumes_from: Sequence[tuple[str, Sequence[MountPoint]]] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    volume_driver: str = ""
    api_version: tuple[int, int] = (1, 51)
    daemon_root: str = ""
    """Where the engine keeps its state; mounts of it must not stay in containers."""


def parse(request: MountRequest) -> tuple[MountPoint, ...]:
    """Fold a request into mount points, in destination order of depth, then name.

    Volumes that the request did not name have an empty `name`; `Volumes.attach` gives them one. Raises
    InvalidParameter in Docker's words. Source: Docker Engine API 1.51, `HostConfig` and `Mount`.
    """
    points: dict[str, MountPoint] = {}
    for mode, inherited in request.volumes_from:
        for point in inherited:
            if point.type == "tmpfs":
                continue
            points[point.destination] = replace(
                point, rw=point.rw and mode != "ro", mode="", copy_data=False, mount_id=""
            )
    own: dict[str, MountPoint] = {}
    tmpfs = {_tmpfs_destination(path) for path in request.tmpfs}
    for spec in request.binds:
        point = _settle_bind(parse_bind(spec, request.volume_driver), request, asked=_asks_propagation(spec))
        if point.destination in own or point.destination in tmpfs:
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        own[point.destination] = point
    for mount in request.mounts:
        point = _settle_bind(parse_mount(mount, request.api_version), request, asked=bool(mount.propagation))
        if point.destination in own:
            raise InvalidParameter(f"Duplicate mount point: {mount.target}")
        own[point.destination] = point
    points.update(own)
    for path in (*request.volumes, *request.image_volumes):
        destination = _config_volume_destination(path)
        if destination not in points and destination not in tmpfs:
            points[destination] = MountPoint(
                "volume",
                destination,
                driver=request.volume_driver or DEFAULT_DRIVER,
                anonymous=True,
                copy_data=True,
            )
    return tuple(sorted(points.values(), key=lambda point: (point.destination.count("/"), point.destination)))


def parse_bind(spec: str, volume_driver: str = "") -> MountPoint:
    """Parse one `HostConfig.Binds` entry: `[SOURCE:]DESTINATION[:MODE]`.

    SOURCE is an absolute host path or a volume name; without it the volume is anonymous. MODE is a comma list with at
    most one word of each class: ro|rw|readonly, z|Z, nocopy|volume-nocopy, a propagation, a consistency (ignored).
    `readonly` and `volume-nocopy` are what Docker's guide promises, though its engine refuses them. Raises
    InvalidParameter in Docker's words. Source: Docker Engine API, `HostConfig.Binds`.
    """
    invalid = InvalidParameter(f"invalid volume specification: '{spec}'")
    parts = spec.split(":")
    if not 1 <= len(parts) <= 3 or not parts[0]:
        raise invalid
    source, destination, mode = "", parts[0], ""
    if len(parts) == 2:
        if _is_mode(parts[1]):
            raise invalid
        source, destination = parts
    elif len(parts) == 3:
        source, destination, mode = parts
        if not _is_mode(mode):
            raise InvalidParameter(f"invalid mode: {mode}")
    words = frozenset(filter(None, mode.split(",")))
    propagation = next(iter(words & _PROPAGATIONS), "")
    nocopy = bool(words & {"nocopy", "volume-nocopy"})
    kind = "bind" if source.startswith("/") else "volume"
    wrong = f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": "
    cleaned = _destination(destination, wrong)
    rw = not words & {"ro", "readonly"}
    if kind == "bind":
        if nocopy:
            raise InvalidParameter(wrong + "field VolumeOptions must not be specified")
        return MountPoint(
            "bind",
            cleaned,
            source=clean(source),
            mode=mode,
            rw=rw,
            propagation=propagation or "rprivate",
            create_source=True,
        )
    if propagation:
        raise InvalidParameter(wrong + "field BindOptions must not be specified")
    driver = volume_driver or DEFAULT_DRIVER
    named = bool(source)
    return MountPoint(
        "volume",
        cleaned,
        name=source,
        driver=driver,
        mode=mode or ("z" if named and driver == DEFAULT_DRIVER else ""),
        rw=rw,
        anonymous=not named,
        copy_data=not nocopy,
    )


def parse_mount(mount: MountSpec, api_version: tuple[int, int] = (1, 51)) -> MountPoint:
    """Parse one `HostConfig.Mounts` entry; the order of the checks is Docker's, as the first failure is what users see.

    A `subpath` with a leading slash is taken from the volume's root, as Docker's guide writes it. Raises
    InvalidParameter. Source: Docker Engine API 1.51, `Mount`.
    """
    _check_version(mount, api_version)
    wrong = f'invalid mount config for type "{mount.type}": '
    if mount.type not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidParameter(wrong + "mount type unknown")
    own_options = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}
    for options in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
        if options in mount.given and options != own_options[mount.type]:
            raise InvalidParameter(wrong + f"field {options} must not be specified")
    if not mount.target:
        raise InvalidParameter(wrong + "field Target must not be empty")
    destination = _destination(mount.target, wrong)
    if mount.type == "bind":
        return _bind_mount(mount, destination, wrong)
    if mount.type == "volume":
        return _volume_mount(mount, destination, wrong)
    if mount.type == "tmpfs":
        return _tmpfs_mount(mount, destination, wrong)
    if not mount.source:
        raise InvalidParameter(wrong + "field Source must not be empty")
    return MountPoint(
        "image",
        destination,
        name=mount.source,
        rw=False,
        propagation="rprivate",
        subpath=_subpath(mount.subpath, wrong),
    )


def parse_volumes_from(spec: str) -> tuple[str, str]:
    """Parse `CONTAINER[:MODE]` into the container and `ro` or `rw`. Raises InvalidParameter in Docker's words."""
    if not spec:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    container, _, mode = spec.partition(":")
    words = [word for word in mode.split(",") if word]
    if not _is_mode(mode) or any(_MODE_CLASSES[word] in ("propagation", "copy") for word in words):
        raise InvalidParameter(f"invalid mode: {mode}")
    return container, "ro" if "ro" in words or "readonly" in words else "rw"


def clean(path: str) -> str:
    """Give the shortest equal path, lexically; `//a/../b/` is `/b`."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def near_root(source: str, daemon_root: str) -> bool:
    """Tell whether a bind's source lies within the engine's root or the root within it, as Docker does: textually."""
    return bool(daemon_root) and (source.startswith(daemon_root) or daemon_root.startswith(source))


def _settle_bind(point: MountPoint, request: MountRequest, *, asked: bool) -> MountPoint:
    """Give a bind the propagation that the engine's root needs, and the depth of read-only that its client knew.

    Before API 1.44 a read-only bind left the mounts below it writable. Raises InvalidParameter in Docker's words.
    Source: moby, daemon/volumes_unix.go, validateBindDaemonRoot and registerMountPoints.
    """
    if point.type != "bind":
        return point
    if request.api_version < (1, 44):
        point = replace(point, read_only_recursive=False)
    if near_root(point.source, request.daemon_root) and point.propagation not in ("rslave", "rshared"):
        if asked:
            raise InvalidParameter(
                'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
                f'within the daemon root, daemon root: "{request.daemon_root}", bind mount source: "{point.source}", '
                f'propagation: "{point.propagation}"'
            )
        point = replace(point, propagation="rslave")
    return point


def _asks_propagation(spec: str) -> bool:
    mode = spec.split(":")[2:]
    return bool(mode) and bool(_PROPAGATIONS & frozenset(mode[0].split(",")))


def _is_mode(mode: str) -> bool:
    if not mode:
        return True
    classes = [_MODE_CLASSES.get(word) for word in mode.split(",")]
    return None not in classes and len(set(classes)) == len(classes)


def _destination(path: str, wrong: str) -> str:
    cleaned = clean(path.replace("\\", "/"))
    if cleaned == "/":
        raise InvalidParameter(wrong + "invalid specification: destination can't be '/'")
    if not (cleaned.startswith("/") and path.startswith("/")):
        raise InvalidParameter(wrong + f"invalid mount path: '{path}' mount path must be absolute")
    return clean(path)


def _tmpfs_destination(path: str) -> str:
    return _destination(path, "")


def _config_volume_destination(path: str) -> str:
    return _destination(path, 'invalid mount config for type "volume": ')


def _check_version(mount: MountSpec, version: tuple[int, int]) -> None:
    if version >= (1, 42):
        for options, kind in (("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")):
            if options in mount.given and mount.type != kind:
                raise InvalidParameter(f'{options} must not be specified on mount type "{mount.type}"')
    if version < (1, 44) and mount.read_only_force_recursive:
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 45) and mount.type == "volume" and mount.subpath:
        raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if version < (1, 48) and mount.type == "image":
        raise InvalidParameter('Mount type "Image" needs API v1.48 or newer')


def _bind_mount(mount: MountSpec, destination: str, wrong: str) -> MountPoint:
    if not mount.source:
        raise InvalidParameter(wrong + "field Source must not be empty")
    if mount.propagation and mount.propagation not in _PROPAGATIONS:
        raise InvalidParameter(wrong + f"invalid propagation mode: {mount.propagation}")
    if not mount.source.startswith("/"):
        raise InvalidParameter(wrong + f"invalid mount path: '{mount.source}' mount path must be absolute")
    if not mount.read_only and mount.read_only_non_recursive:
        raise InvalidParameter("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
    if mount.read_only_non_recursive and mount.read_only_force_recursive:
        raise InvalidParameter("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
    if not mount.read_only and mount.read_only_force_recursive:
        raise InvalidParameter("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
    return MountPoint(
        "bind",
        destination,
        source=clean(mount.source),
        rw=not mount.read_only,
        propagation=mount.propagation or "rprivate",
        create_source=mount.create_mountpoint,
        must_exist=not mount.create_mountpoint,
        recursive=not mount.non_recursive,
        read_only_recursive=not mount.read_only_non_recursive,
    )


def _volume_mount(mount: MountSpec, destination: str, wrong: str) -> MountPoint:
    if not mount.source and mount.subpath:
        raise InvalidParameter(wrong + "must not set Subpath when using anonymous volumes")
    driver = mount.driver or DEFAULT_DRIVER
    return MountPoint(
        "volume",
        destination,
        name=mount.source,
        driver=driver,
        mode="z" if driver == DEFAULT_DRIVER else "",
        rw=not mount.read_only,
        anonymous=not mount.source,
        copy_data=not mount.no_copy,
        subpath=_subpath(mount.subpath, wrong),
        labels=mount.labels,
        options=mount.driver_options,
    )


def _subpath(subpath: str, wrong: str) -> str:
    if not subpath:
        return ""
    cleaned = posixpath.normpath(subpath.lstrip("/") or ".")
    if cleaned == ".." or cleaned.startswith("../") or "\0" in cleaned:
        raise InvalidParameter(wrong + "subpath must be a relative path within the volume")
    return "" if cleaned == "." else cleaned


def _tmpfs_mount(mount: MountSpec, destination: str, wrong: str) -> MountPoint:
    if mount.source:
        raise InvalidParameter(wrong + "field Source must not be specified")
    options: list[str] = []
    if mount.tmpfs_mode:
        options.append(f"mode={mount.tmpfs_mode:o}")
    if mount.tmpfs_size_bytes:
        options.append(f"size={_size(mount.tmpfs_size_bytes)}")
    for option in mount.tmpfs_options:
        if len(option) not in (1, 2):
            raise InvalidParameter(wrong + "invalid option array length")
        if option not in (("exec",), ("noexec",)):
            raise InvalidParameter(wrong + f"invalid option: {option[0]}")
        options.append(option[0])
    return MountPoint("tmpfs", destination, rw=not mount.read_only, tmpfs_options=tuple(options))


def _size(size_bytes: int) -> str:
    for shift, suffix in ((30, "g"), (20, "m"), (10, "k")):
        if size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return str(size_bytes)
