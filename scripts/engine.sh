#!/bin/bash
# Start and stop the engine of this folder, in the background, without systemd.
#
# usage: engine.sh start|stop|image
#   start   does nothing where an engine already answers on the socket
#   stop    ends the engine; containers go on running and are found again by the next start
#   image   makes sure that busybox:latest is there: pulled where a registry answers soon, else built from busybox-static
#
# HOLDFAST_STATE_ROOT (/var/lib/holdfast), HOLDFAST_RUN_ROOT (/run/holdfast) and HOLDFAST_SOCKET choose which engine.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
holdfast=$project/.venv/bin/holdfast
log=$HOLDFAST_RUN_ROOT/engine.log
pid_file=$HOLDFAST_RUN_ROOT/engine.pid

# ask METHOD PATH: the status code of one request, empty where nothing answers.
ask() { timeout 5 "$project/.venv/bin/python" -I - "$HOLDFAST_SOCKET" "$1" "$2" <<'PYTHON' 2>/dev/null || true
import http.client, socket, sys
path, method, target = sys.argv[1:]
connection = http.client.HTTPConnection("localhost", timeout=4)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(4)
connection.sock.connect(path)
connection.request(method, target)
print(connection.getresponse().status)
PYTHON
}

answers() { [ -S "$HOLDFAST_SOCKET" ] && [ "$(ask GET /_ping)" = 200 ]; }

# The process that we started, and no other that got its number since.
our_pid() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    grep -qz 'holdfast' "/proc/$pid/cmdline" 2>/dev/null && printf '%s' "$pid"
}

start() {
    if answers; then say "The engine answers on $HOLDFAST_SOCKET."; return 0; fi
    [ "$(id -u)" = 0 ] || die "the engine needs root"
    mkdir -p "$HOLDFAST_RUN_ROOT"
    # In a session of its own: closing the terminal or stopping make does not end it.
    setsid "$holdfast" daemon >>"$log" 2>&1 </dev/null &
    local pid=$! tries
    printf '%s\n' "$pid" >"$pid_file"
    for tries in $(seq 150); do
        if answers; then say "The engine runs (pid $pid, log $log)."; return 0; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$log" >&2
    die "the engine did not start (${tries} tries); its log is $log"
}

stop() {
    local pid
    if ! pid=$(our_pid); then say "No engine of ours runs for $HOLDFAST_SOCKET."; return 0; fi
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 150); do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$pid_file"
            say "The engine is stopped; containers go on."
            return 0
        fi
        sleep 0.1
    done
    die "the engine (pid $pid) still runs after 15 seconds"
}

image() {
    [ "$(ask GET /images/busybox:latest/json)" != 200 ] || return 0
    say "Getting the image busybox ..."
    if timeout 10 "$holdfast" pull -q busybox:latest >/dev/null 2>&1; then return 0; fi
    say "No registry answers; building busybox:latest from busybox-static."
    local archive
    archive=$(mktemp)
    "$project/.venv/bin/python" "$project/scripts/busybox-image.py" "$archive"
    "$holdfast" load -q -i "$archive"
    rm -f "$archive"
}

case ${1:-} in
    start | stop | image) "$1" ;;
    *) die "usage: engine.sh start|stop|image" ;;
esac
