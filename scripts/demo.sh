#!/bin/bash
# A short walk through volumes. Uses names of its own, removes them at the end, can be repeated at any time.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
use_paths
export PATH="$project/.venv/bin:$PATH"
tag=demo-$$
folder=$(mktemp -d)
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

# The command as one would type it, then what it prints.
show() {
    local word line=
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=,@-]*) line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '\n%s$%s%s\n' "$bold" "$line" "$plain"
    "$@"
}
note() { printf '\n# %s\n' "$*"; }
cleanup() {
    holdfast rm -f -v "writer-$tag" "store-$tag" >/dev/null 2>&1 || true
    holdfast volume rm -f "data-$tag" "restored-$tag" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap cleanup EXIT

note "A volume outlives the containers that use it."
show holdfast volume create --label example=demo "data-$tag"
show holdfast run --name "writer-$tag" -v "data-$tag:/data" busybox sh -c 'echo "kept safe" > /data/note; date > /data/when'
show holdfast rm "writer-$tag"
show holdfast run --rm -v "data-$tag:/data:ro" busybox cat /data/note /data/when
show holdfast volume inspect "data-$tag"

note "Backup: a second container takes the volumes of the first, and tar writes into a folder of the host."
show holdfast run -d --name "store-$tag" -v "data-$tag:/data" busybox sleep 300
show holdfast run --rm --volumes-from "store-$tag" -v "$folder:/backup" busybox tar cf /backup/data.tar -C /data .
show ls -l "$folder/data.tar"

note "Restore into a new volume, and compare."
show holdfast run --rm -v "restored-$tag:/data" -v "$folder:/backup:ro" busybox tar xf /backup/data.tar -C /data
show holdfast run --rm -v "data-$tag:/a:ro" -v "restored-$tag:/b:ro" busybox sh -c 'diff -r /a /b && echo "the same"'
show holdfast rm -f "store-$tag"
show holdfast volume ls --filter "name=$tag"
show holdfast volume rm "data-$tag" "restored-$tag"
