#!/bin/bash
# `make run`: set up, start the engine in the background, show what it does, say how to use it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
cd "$project"
[ "$(id -u)" = 0 ] || die "the engine makes mounts and namespaces, so it needs root: sudo make run"
scripts/setup.sh run
scripts/engine.sh start
scripts/engine.sh image
if [ "${HOLDFAST_DEMO:-yes}" = yes ]; then scripts/demo.sh; fi
cat <<TEXT

The engine goes on in the background. To use it:

    .venv/bin/holdfast run --rm busybox echo hello
    docker context create holdfast --docker host=unix://$HOLDFAST_SOCKET && docker --context holdfast ps
    export DOCKER_HOST=unix://$HOLDFAST_SOCKET      # docker, Compose and the SDKs

make stop ends the engine and leaves containers running.
TEXT
