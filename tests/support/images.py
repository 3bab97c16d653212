"""Images for tests, made from Debian packages, the same digests for the same packages.

`busybox_archive()` is what most tests run: the static busybox in a `docker save` archive, tagged `busybox:latest`.
Finished archives are kept by a hash of what went into them (`build/images`, or $HOLDFAST_TEST_CACHE).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_RECIPE = "busybox 3"
_CREATED = "2024-01-01T00:00:00Z"
_MTIME = 1704067200
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le"}

Entry = tuple[tarfile.TarInfo, bytes]


@dataclass(frozen=True)
class TestImage:
    """An image before it is packed: layer tars as they shall be stored, lowest first, and its configuration."""

    __test__ = False

    config: bytes
    layers: tuple[bytes, ...]
    tags: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        """The image's id."""
        return digest(self.config)


def digest(data: bytes) -> str:
    """The sha256 digest of `data` as images spell it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def architecture() -> str:
    """This machine's architecture in the words of image configurations."""
    return _ARCHITECTURES.get(os.uname().machine, os.uname().machine)


def file_entry(name: str, data: bytes = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0, **more: Any) -> Entry:
    """A regular file."""
    return _entry(name, tarfile.REGTYPE, mode, data=data, uid=uid, gid=gid, **more)


def dir_entry(name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """A directory."""
    return _entry(name, tarfile.DIRTYPE, mode, uid=uid, gid=gid)


def symlink_entry(name: str, target: str) -> Entry:
    """A symbolic link."""
    return _entry(name, tarfile.SYMTYPE, 0o777, linkname=target)


def hardlink_entry(name: str, target: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """A hard link to an earlier entry."""
    return _entry(name, tarfile.LNKTYPE, mode, uid=uid, gid=gid, linkname=target)


def device_entry(name: str, major: int, minor: int) -> Entry:
    """A character device."""
    return _entry(name, tarfile.CHRTYPE, 0o666, devmajor=major, devminor=minor)


def layer(entries: Iterable[Entry], *, compress: bool = False) -> bytes:
    """Pack entries, in this order, into a layer's tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0) if compress else buffer.getvalue()


def image(
    layers: Sequence[bytes],
    *,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    created: str = _CREATED,
    **more: Any,
) -> TestImage:
    """Make an image of layer tars; `config` is what containers start from, `more` goes into the whole configuration."""
    plain = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in layers]
    document = {
        "architecture": architecture(),
        "config": {"Env": [_PATH], "Cmd": ["sh"], **(config or {})},
        "created": created,
        "history": [{"created": created, "created_by": f"layer {number}"} for number in range(len(layers))],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in plain]},
        **more,
    }
    return TestImage(json.dumps(document, separators=(",", ":")).encode(), tuple(layers), tuple(tags))


def docker_archive(images: Sequence[TestImage], *, manifest: Any = None, leave_out: Sequence[str] = ()) -> bytes:
    """Pack images as `docker save` did before version 25. `manifest` replaces manifest.json."""
    files: dict[str, bytes] = {}
    entries = []
    for each in images:
        files[f"{each.id[7:]}.json"] = each.config
        names = []
        for data in each.layers:
            names.append(f"{hashlib.sha256(data).hexdigest()}/layer.tar")
            files[names[-1]] = data
        entries.append({"Config": f"{each.id[7:]}.json", "RepoTags": list(each.tags) or None, "Layers": names})
    files["manifest.json"] = json.dumps(entries if manifest is None else manifest).encode()
    return layer(file_entry(name, data) for name, data in files.items() if name not in leave_out)


def oci_archive(each: TestImage, *, name: str = "") -> bytes:
    """Pack an image as an OCI image layout without Docker's manifest.json."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(each.config, "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(data, "application/vnd.oci.image.layer.v1.tar") for data in each.layers],
    }
    descriptor = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    if name:
        descriptor["annotations"] = {"io.containerd.image.name": name}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    return layer(file_entry(path, data) for path, data in files.items())


def busybox_entries(program: Path | None = None) -> list[Entry]:
    """The files of a small system around one static program."""
    path = program or _busybox()
    applets = subprocess.run([path, "--list"], capture_output=True, check=True, text=True).stdout.split()
    entries = [dir_entry("./"), dir_entry("bin"), file_entry("bin/busybox", path.read_bytes(), mode=0o755)]
    entries += [hardlink_entry(f"bin/{applet}", "bin/busybox") for applet in applets if applet != "busybox"]
    entries += [dir_entry(name) for name in ("dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "usr/sbin", "var")]
    entries += [dir_entry("root", mode=0o700), dir_entry("tmp", mode=0o1777), dir_entry("var/spool")]
    entries += [hardlink_entry("usr/bin/env", "bin/busybox"), symlink_entry("lib", "usr/lib"), dir_entry("usr/lib")]
    entries += [
        file_entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
                                 b"www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"),
        file_entry("etc/group", b"root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n"),
        file_entry("etc/hostname", b"busybox\n"),
    ]
    return entries


def busybox_image(*, tags: Sequence[str] = ("busybox:latest",), **more: Any) -> TestImage:
    """The static busybox as an image of one layer."""
    return image([layer(busybox_entries())], tags=tags, **more)


def busybox_archive() -> Path:
    """Path of a `docker load` archive with `busybox:latest`; made once and kept."""
    recipe = hashlib.sha256(_RECIPE.encode() + _busybox().read_bytes() + Path(__file__).read_bytes()).hexdigest()
    path = cache_directory() / f"busybox-{recipe[:16]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(docker_archive([busybox_image()]))
        draft.replace(path)
    return path


def cache_directory() -> Path:
    """Where finished archives are kept."""
    named = os.environ.get("HOLDFAST_TEST_CACHE")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "build" / "images"


def _busybox() -> Path:
    found = shutil.which("busybox")
    assert found, "the tests need Debian's busybox-static"
    return Path(found)


def _entry(name: str, kind: bytes, mode: int, *, data: bytes = b"", **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, len(data), _MTIME
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data
