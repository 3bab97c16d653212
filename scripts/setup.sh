#!/bin/bash
# Make this folder ready to work: Debian packages that are missing, the virtual environment, private test programs.
#
# usage: setup.sh unit|run|test|bench|lock
#   unit   the virtual environment with the checkers and pytest; needs no root where python3-venv is there
#   run    what the engine itself needs
#   test   run, and what the tests need; servers and clients of others are unpacked below build/peers, never installed
#   bench  test, and a newer Docker Engine below build/peers to measure against
#   lock   write requirements/*.txt anew from requirements/*.in
#
# Does no harm: installs only what is missing, never removes or upgrades anything, starts no service, and can be
# repeated. When nothing is to be done it takes a fraction of a second. Debian 12 and 13.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
cd "$project"
goal=${1:?usage: setup.sh unit|run|test|bench|lock}

# Debian packages, each with the reason why it is here.
packages_unit=(python3 python3-venv ca-certificates)
packages_run=(
    crun conmon                       # OCI runtime and its monitor
    skopeo                            # registries
    golang-github-containers-common   # seccomp profile, registry configuration
    catatonit                         # docker run --init
    libnftables1 nftables iproute2    # networks
    busybox-static                    # an image without a registry
    util-linux mount                  # nsenter, unshare, losetup
    tar gzip bzip2 xz-utils zstd      # unpacking layers, however they are compressed
    e2fsprogs xfsprogs btrfs-progs    # volumes with a size, block devices
)
packages_test=(kmod procps iptables make git shellcheck debootstrap)
# Downloaded and unpacked, not installed: they would start services on people's machines, or are big.
private_test=(docker-registry rclone fuse3)
private_guest=(user-mode-linux)   # exists for x86 only

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"; }

# Lists that are younger than a day, or were just fetched, are good enough.
lists_fresh=
refresh_lists() {
    [ -z "$lists_fresh" ] || return 0
    lists_fresh=yes
    if [ "${1:-}" != force ] && [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit 2>/dev/null)" ]; then
        return 0
    fi
    say "Refreshing the package lists ..."
    apt_get -q update >"$project/build/apt.log" 2>&1 || warn "apt-get update had errors, see build/apt.log; trying with what there is"
}

install_missing() {
    local missing=() package
    for package in "$@"; do is_installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing, and installing them needs root: ${missing[*]}"
    refresh_lists
    local plan
    if ! plan=$(apt_get -s install --no-install-recommends "${missing[@]}" 2>&1); then
        lists_fresh=; refresh_lists force
        plan=$(apt_get -s install --no-install-recommends "${missing[@]}" 2>&1) || die "apt cannot install ${missing[*]}:
$(tail -n 5 <<<"$plan")"
    fi
    local removed
    removed=$(sed -n 's/^Remv \([^ ]*\).*/\1/p' <<<"$plan" | paste -sd' ')
    [ -z "$removed" ] || die "installing ${missing[*]} would remove $removed; nothing was changed. Install them by hand if that is what you want."
    say "Installing ${missing[*]} ..."
    apt_get -qq install -y --no-install-recommends --no-remove --no-upgrade "${missing[@]}" >"$project/build/apt.log" 2>&1 </dev/null ||
        { tail -n 15 "$project/build/apt.log" >&2; die "apt-get install failed; the whole log is build/apt.log"; }
}

# crun is the runtime; runc is the second choice where crun refuses the machine's cgroups. containerd.io brings a runc
# of its own and Debian's package would push it out, so there it is left alone.
install_runc() {
    [ -z "$(command -v runc)" ] || return 0
    local other
    for other in containerd.io docker-ce; do
        if is_installed "$other"; then
            say "runc: left out, because $other is installed and Debian's runc would conflict with it. crun is used."
            return 0
        fi
    done
    install_missing runc
}

# docker build. The engine does without, so what stands in its way stops nothing else.
install_buildah() {
    [ -z "$(command -v buildah)" ] || return 0
    [ -n "$(command -v dpkg-query)" ] || { warn "buildah is missing: images cannot be built"; return 0; }
    (install_missing buildah) || warn "without buildah images cannot be built; everything else works"
}

system_packages() {
    if [ -z "$(command -v dpkg-query)" ]; then
        warn "not a Debian system: make sure that these are there by other means: $*"
        return 0
    fi
    install_missing "$@"
}

# The virtual environment, from the system's Python: exactly the locked files, each checked against its hashes. Where
# the checkers or the tests' clients are installed too, that is as good.
make_venv() {
    local names=(runtime dev test) files=() name stamp=.venv/.holdfast-lock wanted now present
    wanted=$(venv_state "$@")
    present=$(cat "$stamp" 2>/dev/null || true)
    [ "$present" != "$wanted" ] || return 0
    for name in "${names[@]}"; do
        files+=("requirements/$name.txt")
        if [ ${#files[@]} -gt $# ] && [ "$present" = "$(venv_state "${files[@]}")" ]; then return 0; fi
    done
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        say "Making the virtual environment ..."
        /usr/bin/python3 -m venv --clear .venv || die "python3 -m venv failed; is python3-venv installed?"
    fi
    say "Installing the locked Python packages ..."
    local lock pip=(.venv/bin/python -m pip --disable-pip-version-check install -qq --no-input) locks=()
    for lock in "$@"; do locks+=(-r "$lock"); done
    "${pip[@]}" --require-hashes --no-deps "${locks[@]}"
    "${pip[@]}" --no-index --no-build-isolation --no-deps -e .
    now=$(venv_state "$@")
    printf '%s\n' "$now" >"$stamp"
}

venv_state() { { readlink -f /usr/bin/python3; cat pyproject.toml "$@"; } | sha256sum | cut -d' ' -f1; }

lock() {
    /usr/bin/python3 -m venv build/lock-venv
    build/lock-venv/bin/pip -q install pip-tools
    local name
    for name in runtime dev test; do
        CUSTOM_COMPILE_COMMAND='make lock' build/lock-venv/bin/pip-compile -q --upgrade --generate-hashes --strip-extras \
            --allow-unsafe --no-emit-options -o "requirements/$name.txt" "requirements/$name.in"
    done
    # All of Ansible's collections weigh half a gigabyte: they are fetched, not installed.
    sed -n '/^ansible==/,/# via/p' requirements/test.txt >requirements/collections.txt
    sed -i '/^ansible==/,/# via/d' requirements/test.txt
    scripts/peers.sh npm install --prefix requirements/npm --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts
    /usr/bin/python3 - <<'END'
import json, pathlib

path = pathlib.Path("requirements/npm/package-lock.json")
lock = json.loads(path.read_text())
for package in lock["packages"].values():
    package.pop("funding", None)
path.write_text(json.dumps(lock, indent=2) + "\n")
END
}

mkdir -p build
case $goal in
    unit | run | test | bench)
        if [ ! -x .venv/bin/python ] && ! /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; then
            system_packages "${packages_unit[@]}"
        fi
        ;;&
    run) system_packages "${packages_run[@]}" && install_runc && install_buildah && make_venv requirements/runtime.txt ;;
    unit) make_venv requirements/runtime.txt requirements/dev.txt ;;
    test | bench)
        system_packages "${packages_run[@]}" "${packages_test[@]}"
        install_runc
        install_buildah
        make_venv requirements/runtime.txt requirements/dev.txt requirements/test.txt
        scripts/peers.sh clients
        if [ -n "$(command -v dpkg)" ]; then
            scripts/peers.sh private "${private_test[@]}"
            scripts/peers.sh firewalls
            case $(dpkg --print-architecture) in
                amd64 | i386) scripts/peers.sh private "${private_guest[@]}" && scripts/peers.sh shares ;;
            esac
        fi
        [ -n "$(command -v docker)" ] || scripts/peers.sh client
        scripts/peers.sh compose
        ;;&
    bench) scripts/peers.sh engine ;;
    test) ;;
    lock) lock ;;
    *) die "unknown goal $goal: unit, run, test, bench or lock" ;;
esac
