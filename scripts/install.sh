#!/bin/bash
# usage: install.sh install|uninstall PREFIX
# DESTDIR is honoured for packagers: nothing outside it is touched then, and no user, group or daemon either.
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

uninstall_all() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "uninstalling needs root"
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now holdfast.socket holdfast.service 2>/dev/null || true
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
