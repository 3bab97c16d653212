#!/bin/bash
# mypy, ruff and shellcheck over everything; goes on after a failure, so that one run shows all.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
cd "$project" || exit
failed=0
check() { say "== $1"; "${@:2}" || failed=1; }
check "ruff" .venv/bin/ruff check --quiet .
check "mypy" .venv/bin/python -m mypy --no-error-summary
if command -v shellcheck >/dev/null; then
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run 2>/dev/null)
    [ ${#scripts[@]} = 0 ] || check "shellcheck" shellcheck -x -P scripts -e SC1091 "${scripts[@]}"
elif [ "${CI:-}" = true ]; then
    warn "shellcheck is missing"; failed=1
fi
exit $failed
