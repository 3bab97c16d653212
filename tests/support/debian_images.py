"""Images of whole systems, built from Debian's packages: what the guide's command lines run in.

`nginx:latest` and `ubuntu:latest` are one small Debian, made by debootstrap from the mirror of this machine's own apt
sources; `alpine:latest` is, as the real one, a busybox system. `app1:latest` and `app2:latest` write a log. Built once,
in about half a minute, and kept by a hash of the recipe.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.images import TestImage, busybox_entries, cache_directory, docker_archive, image, layer

PACKAGES = ("nginx", "python3-minimal")
"""Beside Debian's required packages: a server that has files to serve, and a program that can take locks."""
_RECIPE = "debian 1"  # another number, another build
_LEAVE_OUT = (
    "./dev/*", "./proc/*", "./run/*", "./sys/*", "./tmp/*", "./usr/share/doc/*", "./usr/share/locale/*",
    "./usr/share/man/*", "./usr/share/info/*", "./var/cache/apt/*", "./var/cache/debconf/*", "./var/lib/apt/lists/*",
    "./var/lib/dpkg/info/*", "./var/log/*.log", "./etc/nginx/sites-enabled/*",
)  # fmt: skip
_LEAVE_OUT_POSTGRESQL = (
    "./usr/lib/*/libLLVM*", "./usr/lib/*/libz3.so*", "./usr/lib/postgresql/*/lib/bitcode", "./usr/share/i18n/locales/*",
    "./var/lib/postgresql/*/*",
)  # fmt: skip
_SERVER = """server {
    listen 80;
    root /usr/share/nginx/html;
}
"""
# In memory, where unpacking 100 packages is fast, and in a mount namespace, so that nothing stays mounted.
_BUILD = """
set -eu
mount -t tmpfs -o mode=755 tmpfs "$WORK"
debootstrap --variant=minbase --include="$INCLUDE" "$SUITE" "$WORK/root" "$MIRROR" >"$LOG" 2>&1
[ ! -d "$WORK/root/etc/nginx" ] || printf '%s' "$SERVER" >"$WORK/root/etc/nginx/conf.d/default.conf"
"""


class CannotBuild(Exception):
    """This machine lacks what a build needs; the text says what."""


def guide_archives() -> tuple[Path, ...]:
    """Paths of `docker load` archives with every image that the guide names. Raises CannotBuild."""
    return (_debian_archive(), _alpine_archive())


def debian_root(*packages: str) -> Path:
    """Path of a tar with a Debian that has `packages` beside the required ones; made once. Raises CannotBuild.

    What only PostgreSQL's compiler of queries needs, and the database that its package makes, are left out.
    """
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    leave_out = (*_LEAVE_OUT, *_LEAVE_OUT_POSTGRESQL)
    path = _cached("root", f"{_RECIPE} {suite} {packages} {leave_out} {_SERVER} {_BUILD}")
    if not path.exists():
        _keep(path, _debootstrap(suite, packages, path.with_suffix(".log"), leave_out))
    return path


def load_guide_images(engine: Engine) -> None:
    """Give an engine every image that the guide names; skips the test where they cannot be built."""
    try:
        archives = guide_archives()
    except CannotBuild as error:
        pytest.skip(str(error))
    for archive in archives:
        loaded = engine.request("POST", "/images/load?quiet=1", raw=archive.read_bytes())
        assert loaded.status == 200 and b"error" not in loaded.body, loaded.body


def debian_image(root: bytes, tag: str) -> TestImage:
    """The Debian root file system as `ubuntu:latest` or `nginx:latest`, with the configuration that those have."""
    if tag.startswith("nginx"):
        config = {"Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}
        return image([root], tags=[tag], config=config)
    return image([root], tags=[tag], config={"Cmd": ["/bin/bash"]})


def _debian_archive() -> Path:
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    path = _cached("debian", f"{_RECIPE} {suite} {PACKAGES} {_LEAVE_OUT} {_SERVER} {_BUILD}")
    if not path.exists():
        root = _debootstrap(suite, PACKAGES, path.with_suffix(".log"))
        _keep(path, docker_archive([debian_image(root, tag) for tag in ("nginx:latest", "ubuntu:latest")]))
    return path


def _alpine_archive() -> Path:
    base = layer(busybox_entries())
    path = _cached("alpine", f"{_RECIPE} {hashlib.sha256(base).hexdigest()}")
    if not path.exists():
        log = "while sleep 0.1; do echo line from {0} >>/var/log/{0}/log; done"
        images = [image([base], tags=["alpine:latest"], config={"Cmd": ["/bin/sh"]})]
        images += [
            image([base], tags=[f"{name}:latest"], config={"Cmd": ["sh", "-c", log.format(name)]})
            for name in ("app1", "app2")
        ]
        _keep(path, docker_archive(images))
    return path


def _debootstrap(suite: str, packages: Sequence[str], log: Path, leave_out: Sequence[str] = _LEAVE_OUT) -> bytes:
    """A Debian root file system as a tar."""
    mirror = _mirror()
    if shutil.which("debootstrap") is None:
        raise CannotBuild("needs debootstrap: scripts/setup.sh test")
    if not mirror or not suite:
        raise CannotBuild("this machine has no Debian mirror among its apt sources")
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="holdfast-debian-") as work:
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "INCLUDE": ",".join(packages), "SUITE": suite, "WORK": work,
            "MIRROR": mirror, "LOG": str(log), "SERVER": _SERVER,
            **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
        }  # fmt: skip
        pack = ["tar", "--numeric-owner", "--sort=name", "--one-file-system", "--anchored", "-cf", "-"]
        pack += [*(f"--exclude={pattern}" for pattern in leave_out), "-C", f"{work}/root", "."]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{_BUILD}exec "$@"', "sh", *pack],
            env=environment, capture_output=True, check=False, timeout=600,
        )  # fmt: skip
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-10:]) if log.exists() else ""
        raise AssertionError(f"debootstrap failed:\n{end}\n{done.stderr.decode(errors='replace')[-2000:]}")
    log.unlink()
    return done.stdout


def _mirror() -> str:
    """The address that this machine takes Debian from, by apt's own account."""
    words = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(COMPONENT)", "Created-By: Packages"]
    if shutil.which("apt-get") is None:
        return ""
    lines = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout.splitlines()
    for origin, address, component in (line.split(" ") for line in lines if line.count(" ") == 2):
        if origin == "Debian" and component == "main" and "security" not in address:
            return address.rstrip("/")
    return ""


def _cached(name: str, recipe: str) -> Path:
    return cache_directory() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)
