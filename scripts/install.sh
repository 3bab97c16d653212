#!/bin/bash
# usage: install.sh install|uninstall PREFIX
# DESTDIR is honoured for packagers: nothing outside it is touched then, and no user, group or daemon either.
# Uninstalling refuses while containers run; with FORCE=1 it stops them.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
action=$1 prefix=$2 root=${DESTDIR:-}
units=$root/etc/systemd/system
cd "$project"

reload() { if [ -z "$root" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi; }

install_all() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "installing needs root"
    [ -n "$root" ] || scripts/setup.sh run
    local venv=$root$prefix
    mkdir -p "$venv"
    /usr/bin/python3 -m venv --clear "$venv"
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-input)
    "${pip[@]}" --require-hashes --no-deps -r requirements/runtime.txt
    "${pip[@]}" --no-index --no-build-isolation --no-deps .
    # The scripts name their interpreter by its path, which is the final one.
    [ -z "$root" ] || grep -lIZ "^#!$root" "$venv"/bin/* | xargs -0r sed -i "1s|^#!$root|#!|"
    mkdir -p "$units" "$root/usr/local/bin" "$root/etc/holdfast" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
    ln -sfn "$prefix/bin/holdfast" "$root/usr/local/bin/holdfast"
    local unit
    for unit in holdfast.service holdfast.socket; do
        sed "s|/opt/holdfast|$prefix|g" "packaging/$unit" >"$units/$unit"
    done
    install -m 644 packaging/holdfast.sysusers "$root/usr/lib/sysusers.d/holdfast.conf"
    install -m 644 packaging/holdfast.tmpfiles "$root/usr/lib/tmpfiles.d/holdfast.conf"
    # A configuration that is there is somebody's work.
    [ -e "$root/etc/holdfast/holdfast.toml" ] || install -m 644 packaging/holdfast.toml "$root/etc/holdfast/holdfast.toml"
    if [ -z "$root" ]; then getent group holdfast >/dev/null || groupadd --system holdfast; fi
    reload
    cat <<TEXT
Installed into $prefix; the command is /usr/local/bin/holdfast.
Nothing was enabled. To start it now and at every boot: systemctl enable --now holdfast.socket holdfast.service
Who may use the socket without root: usermod -aG holdfast USER (a member can become root; see README.md).
TEXT
}

# What the engine's configuration says: state_root run_root socket_path bridge_name cgroup_parent, one a line.
settings() {
    "$prefix/bin/python" -I -c 'from holdfast.config import load
c = load({})
print(c.state_root, c.run_root, c.socket_path, c.bridge_name, c.cgroup_parent, sep="\n")'
}

# The ids of containers whose first process lives; needs no engine.
running() {
    local folder pid
    for folder in "$run_root"/containers/*/; do
        pid=$(cat "$folder/pid" 2>/dev/null) || continue
        ! grep -q "$(basename "$folder")" "/proc/$pid/cgroup" 2>/dev/null || basename "$folder"
    done
}

# The engine holds this lock for as long as it lives.
engine_lives() { [ -e "$state_root/holdfast.lock" ] && ! flock -n "$state_root/holdfast.lock" true; }

start_engine() {
    ! engine_lives || return 0
    setsid "$prefix/bin/holdfast" daemon >/dev/null 2>&1 </dev/null &
    for _ in $(seq 300); do
        if "$prefix/bin/holdfast" ps -q >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    die "the engine does not start; see what it says: $prefix/bin/holdfast daemon"
}

stop_engine() {
    if [ -d /run/systemd/system ]; then systemctl disable --now holdfast.socket holdfast.service 2>/dev/null || true; fi
    engine_lives || return 0
    kill "$(cat "$state_root/holdfast.lock")"
    for _ in $(seq 600); do
        engine_lives || return 0
        sleep 0.1
    done
    die "the engine still runs after a minute; nothing was removed"
}

# An engine that is stopped while nothing runs leaves nothing in the kernel; one that was killed does.
clear_engine() {
    local state_root run_root socket bridge cgroup found
    { read -r state_root; read -r run_root; read -r socket; read -r bridge; read -r cgroup; } < <(settings)
    [ -n "${cgroup:-}" ] || die "the configuration cannot be read: $prefix/bin/holdfast daemon --help"
    export HOLDFAST_HOST=unix://$socket
    mapfile -t found < <(running)
    if [ ${#found[@]} -gt 0 ]; then
        if [ "${FORCE:-}" != 1 ]; then
            die "${#found[@]} container(s) run: ${found[*]:0:12}
Stop them first (holdfast ps, holdfast stop), or let this do it with FORCE=1. Nothing was removed."
        fi
        start_engine
        say "Stopping ${#found[@]} container(s) ..."
        "$prefix/bin/holdfast" stop "${found[@]}" >/dev/null
    fi
    stop_engine
    if [ -e "/proc/sys/net/ipv4/conf/$bridge" ] || mountpoint -q "$state_root" || mountpoint -q "$run_root"; then
        start_engine
        stop_engine
    fi
    for found in /sys/fs/cgroup"$cgroup" /sys/fs/cgroup/*"$cgroup"; do rmdir "$found" 2>/dev/null || true; done
}

uninstall_all() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "uninstalling needs root"
    if [ -z "$root" ]; then
        if [ -x "$prefix/bin/holdfast" ]; then clear_engine; fi
        if [ -d /run/systemd/system ]; then systemctl disable --now holdfast.socket holdfast.service 2>/dev/null || true; fi
    fi
    rm -f "$units/holdfast.service" "$units/holdfast.socket" "$root/usr/lib/sysusers.d/holdfast.conf" "$root/usr/lib/tmpfiles.d/holdfast.conf"
    [ "$(readlink "$root/usr/local/bin/holdfast")" != "$prefix/bin/holdfast" ] || rm -f "$root/usr/local/bin/holdfast"
    # Only a folder that install made: a virtual environment with our package in it.
    if [ -e "$root$prefix/pyvenv.cfg" ] && [ -e "$root$prefix/bin/holdfast" ]; then rm -rf --one-file-system "${root}${prefix:?}"; fi
    reload
    say "Removed. Kept: /var/lib/holdfast (volumes, images, containers), /etc/holdfast and the group holdfast."
}

case $action in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) die "usage: install.sh install|uninstall PREFIX" ;;
esac
