#!/bin/sh
# Makes the database at the first start, then is the server.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
PGDATA=${PGDATA:-/var/lib/postgresql/data}
export PGDATA
if [ "$(id -u)" = 0 ]; then
    install -m 400 -o postgres /run/secrets/password /run/password
    mkdir -p "$PGDATA"
    chown postgres "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0"
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    initdb --no-sync -U app --pwfile=/run/password --auth-host=scram-sha-256 --auth-local=trust >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -w -s -o "-k /tmp -c listen_addresses=''" start
    createdb -h /tmp -U app app
    pg_ctl -w -s -m fast stop
fi
exec postgres -k /tmp -c 'listen_addresses=*'
