"""docker-archives made on the spot, for tests that need an image of a certain shape."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Layer = Mapping[str, bytes]
"""Path to content. A path that ends with `/` is a folder; `.wh.` names take away, as in any image layer."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def busybox_layer(applets: Sequence[str] = ()) -> bytes:
    """A layer with /bin/busybox and a link for each applet (all of them if none is named)."""
    program = Path("/bin/busybox")
    names = applets or subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(program, arcname="bin/busybox")
        for name in names:
            if name != "busybox":
                info = tarfile.TarInfo(f"bin/{name}")
                info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
                tar.addfile(info)
    return out.getvalue()


def layer(content: Layer, *, uid: int = 0, gid: int = 0, mode: int = 0o644) -> bytes:
    """The tar of one layer, in the order given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in content.items():
            info = tarfile.TarInfo(path.rstrip("/"))
            info.uid, info.gid, info.size, info.mode = uid, gid, len(data), mode
            if path.endswith("/"):
                info.type, info.size, info.mode = tarfile.DIRTYPE, 0, 0o755
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def docker_archive(tag: str, layers: Sequence[bytes], config: Mapping[str, Any] | None = None) -> bytes:
    """An archive for `docker load` with one image."""
    image = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]},
    }
    encoded = json.dumps(image).encode()
    name = hashlib.sha256(encoded).hexdigest() + ".json"
    files = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": files}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in [(name, encoded), *zip(files, layers, strict=True), ("manifest.json", manifest)]:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
