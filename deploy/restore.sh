#!/bin/sh
# An account brought back from a backup into a new home: restore.sh BACKUP HOME. It overwrites nothing.
#
# Put .env into HOME yourself, then start the daemon with --home HOME. For real money, first make sure that no other daemon trades the
# wallet: docs/operations.md, "Back up and restore".
set -eu
umask 077

if [ $# -ne 2 ]; then
    echo "usage: restore.sh BACKUP HOME" >&2
    exit 2
fi
backup=$1 home=$2
if [ ! -f "$backup/SHA256SUMS" ]; then
    echo "error: $backup is no backup: it has no SHA256SUMS" >&2
    exit 2
fi
for there in positions logs/journal; do
    if [ -e "$home/$there" ]; then
        echo "error: $home/$there is there already: restore into a new folder" >&2
        exit 2
    fi
done
if ! (cd "$backup" && sha256sum --quiet --strict --check SHA256SUMS >&2); then
    echo "error: $backup is damaged: nothing was restored" >&2
    exit 1
fi

mkdir -p "$home"
cp -R "$backup/positions" "$home/positions"
if [ -d "$backup/logs" ]; then
    mkdir -p "$home/logs"
    cp -R "$backup/logs/journal" "$home/logs/journal"
fi
if [ -f "$backup/config.yaml" ] && [ ! -e "$home/config.yaml" ]; then
    cp "$backup/config.yaml" "$home/config.yaml"
fi

# Sessions after the backup have used numbers that this ledger does not know; order ids hold them and must never come twice.
python3 - "$home/positions/ledger.sqlite3" <<'PYTHON'
import sqlite3, sys
from contextlib import closing

with closing(sqlite3.connect(sys.argv[1])) as ledger, ledger:
    ledger.execute("UPDATE counters SET value = value + 1000 WHERE name = 'session'")
PYTHON
echo "$home"
