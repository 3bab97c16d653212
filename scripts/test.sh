#!/bin/bash
# usage: test.sh all|unit [PYTEST ARGUMENT...]
# The last line is pytest's summary. A linter that complains fails the run as well, after the tests have run.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
cd "$project" || exit
goal=$1
shift
case $goal in
    all)
        [ "$(id -u)" = 0 ] || warn "not root: tests that need mounts, namespaces and containers are skipped; make unit is meant for that"
        scripts/setup.sh test || exit
        folders=(tests)
        ;;
    unit)
        scripts/setup.sh unit || exit
        folders=(tests/unit)
        ;;
    *) die "usage: test.sh all|unit [PYTEST ARGUMENT...]" ;;
esac
lint=0
scripts/lint.sh || lint=$?
[ "$lint" = 0 ] || warn "the linters complain (above); the tests run all the same"
# An engine of the user's must not leak into the tests.
unset HOLDFAST_STATE_ROOT HOLDFAST_RUN_ROOT HOLDFAST_SOCKET HOLDFAST_CONFIG DOCKER_HOST DOCKER_CONTEXT
.venv/bin/python -m pytest "${folders[@]}" "$@"
tests=$?
[ "$lint" = 0 ] || printf 'The linters failed before the tests ran.\n' >&2
[ "$tests" = 0 ] && [ "$lint" = 0 ]
