# Shared by the scripts beside it: where things are, and how we speak. Sourced, never run.
# shellcheck shell=bash
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers=$project/build/peers

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Private programs come last, so that what the machine has wins.
use_paths() {
    export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$peers/root/usr/bin:$peers/root/usr/sbin"
    export HOLDFAST_STATE_ROOT=${HOLDFAST_STATE_ROOT:-/var/lib/holdfast}
    export HOLDFAST_RUN_ROOT=${HOLDFAST_RUN_ROOT:-/run/holdfast}
    export HOLDFAST_SOCKET=${HOLDFAST_SOCKET:-$HOLDFAST_RUN_ROOT/holdfast.sock}
}

# An installed package, by dpkg's own record ("rc", removed but configured, is not installed).
is_installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = 'ii ' ]; }
