#!/bin/bash
# usage: bench.sh [OPTION of bench/peers.py...]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
cd "$project"
[ "$(id -u)" = 0 ] || die "engines need root: sudo make bench"
scripts/setup.sh bench
unset HOLDFAST_STATE_ROOT HOLDFAST_RUN_ROOT HOLDFAST_SOCKET HOLDFAST_CONFIG
exec .venv/bin/python -m bench.peers "$@"
