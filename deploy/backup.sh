#!/bin/sh
# A copy from which the account comes back: backup.sh HOME TO [KEEP]. The daemon may run meanwhile, and is not disturbed.
#
# What goes along: the ledger (a consistent copy by SQLite itself), the newest journal files of every account as far as they are
# written at one moment, config.yaml, and SHA256SUMS over all of it. What never does: .env, keys, sockets, locks; the other logs.
# It makes TO/llm-maker-<UTC time>, whole or not at all, prints its path, and deletes the oldest above KEEP (14).
# Wants python3 and nothing else. The way back is restore.sh.
set -eu
umask 077

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: backup.sh HOME TO [KEEP]" >&2
    exit 2
fi
home=$1 to=$2 keep=${3:-14}
case $keep in
    '' | *[!0-9]* | 0) echo "error: KEEP is $keep; must be a number above 0" >&2; exit 2 ;;
esac
if [ ! -f "$home/positions/ledger.sqlite3" ]; then
    echo "error: $home is no home of llm_maker: it has no positions/ledger.sqlite3" >&2
    exit 2
fi

mkdir -p "$to"
name=llm-maker-$(date -u +%Y%m%dT%H%M%SZ)
draft=$(mktemp -d "$to/.$name.XXXXXX")
trap 'rm -rf "$draft"' EXIT
trap 'exit 1' HUP INT TERM

python3 - "$home" "$draft" <<'PYTHON'
import hashlib, re, sqlite3, sys
from contextlib import ExitStack, closing
from pathlib import Path

home, draft = Path(sys.argv[1]), Path(sys.argv[2])
NAME = re.compile(r"journal-(.+)-(\d{12})\.jsonl(\.zst)?")
NEWEST = 3  # of each account: the one being written, and more than the ledger can lie behind


def ledger():
    (draft / "positions").mkdir()
    source = (home / "positions" / "ledger.sqlite3").absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(source, uri=True, timeout=30)) as old:
        with closing(sqlite3.connect(draft / "positions" / "ledger.sqlite3")) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")
            if new.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                sys.exit("error: the copy of the ledger is damaged")


def newest():
    """The newest journal files of each account, whatever the folder."""
    found = {}
    for path in (home / "logs" / "journal").glob("*/journal-*"):
        if name := NAME.fullmatch(path.name):
            found.setdefault((path.parent, name[1]), {})[int(name[2])] = path
    return [files[first] for files in found.values() for first in sorted(files)[-NEWEST:]]


def journals():
    """All opened before any is read, and each cut at its size of that moment: so they are of one moment."""
    with ExitStack() as stack:
        files = [(path, stack.enter_context(path.open("rb"))) for path in newest()]
        sizes = [file.seek(0, 2) for _, file in files]
        for (path, file), size in zip(files, sizes):
            file.seek(0)
            raw = file.read(size)
            if path.suffix == ".jsonl":
                raw = raw[: raw.rfind(b"\n") + 1]
            target = draft / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw)


# The ledger first: it is the journal's index, and what the journal says after it is applied at the start. Never the other way.
ledger()
for attempt in range(5):
    try:
        journals()
        break
    except FileNotFoundError:  # it was compressed, or gave way to a newer one, while we looked
        if attempt == 4:
            sys.exit("error: the journal's files change too fast to be copied")
if (home / "config.yaml").is_file():
    (draft / "config.yaml").write_bytes((home / "config.yaml").read_bytes())
files = sorted(path for path in draft.rglob("*") if path.is_file())
sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(draft)}\n" for path in files]
(draft / "SHA256SUMS").write_text("".join(sums))
PYTHON

if [ -e "$to/$name" ]; then
    echo "error: $to/$name is there already: one backup a second" >&2
    exit 1
fi
mv "$draft" "$to/$name"
trap - EXIT
echo "$to/$name"

# Only folders that this script has made, oldest first.
find "$to" -maxdepth 1 -type d -name 'llm-maker-????????T??????Z' | sort -r | tail -n "+$((keep + 1))" | while IFS= read -r old; do
    rm -rf "$old"
done
