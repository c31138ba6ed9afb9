//! Seen files, by watch and by the bytes of their relative path.

use super::journal;
use super::rows::{self, bytes, change, collect, first, path};
use super::writer::Tx;
use crate::event::{FileRef, members};
use crate::store::{Lying, Removal, Removed, SeenFile, StoreError, WatchMemory};
use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Remembers a watch and whether its first look is complete.
pub(super) fn remember_watch(tx: &Tx<'_>, watch: &WatchMemory) -> Result<(), StoreError> {
    change(
        tx.connection,
        "INSERT INTO watch (id, root, baseline) VALUES ($1, $2, $3) \
         ON CONFLICT (id) DO UPDATE SET root = excluded.root, baseline = excluded.baseline",
        &[&watch.id, &bytes(&watch.root), &watch.baseline],
    )?;
    Ok(())
}

/// Remembers a file as it is now; its watch too, should that be new.
pub(super) fn remember(tx: &Tx<'_>, file: &SeenFile, now: Timestamp) -> Result<(), StoreError> {
    change(
        tx.connection,
        "INSERT INTO watch (id, root, baseline) VALUES ($1, $2, 0) ON CONFLICT (id) DO NOTHING",
        &[&file.watch, &bytes(&file.root)],
    )?;
    change(
        tx.connection,
        "INSERT INTO seen (watch, relative, size, mtime_ns, hash, arrivals, gone, changed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (watch, relative) DO UPDATE SET \
         size = excluded.size, mtime_ns = excluded.mtime_ns, hash = excluded.hash, \
         arrivals = excluded.arrivals, gone = excluded.gone, changed = excluded.changed",
        &[
            &file.watch,
            &bytes(&file.relative),
            &file.size.cast_signed(),
            &file.mtime_ns,
            &file.hash.as_ref().map(|hash| &hash[..]),
            &file.arrivals,
            &file.gone,
            &now.as_microsecond(),
        ],
    )?;
    Ok(())
}

/// Marks a file that we took away as gone in every watch that sees its folder, also from further up.
/// Where a watch has recorded a newer version meanwhile, that one stays.
pub(super) fn mark_gone(tx: &Tx<'_>, file: &FileRef, now: Timestamp) -> Result<(), StoreError> {
    let full = file.path();
    for watch in watches(tx.connection)? {
        let Ok(relative) = full.strip_prefix(&watch.root) else {
            continue;
        };
        change(
            tx.connection,
            "UPDATE seen SET gone = 1, changed = $1 \
             WHERE watch = $2 AND relative = $3 AND size = $4 AND mtime_ns = $5",
            &[
                &now.as_microsecond(),
                &watch.id,
                &bytes(relative),
                &file.size.cast_signed(),
                &file.mtime_ns,
            ],
        )?;
    }
    Ok(())
}

/// Records files as gone with the events that tell it, where that is certain and new.
pub(in crate::store) fn remove(
    tx: &Tx<'_>,
    removals: &[Removal],
    now: Timestamp,
) -> Result<Vec<Removed>, StoreError> {
    let in_hand = in_hand(tx.connection)?;
    let one = |removal: &Removal| {
        let file = &removal.file;
        let known = first(
            tx.connection,
            "SELECT 1 FROM seen WHERE watch = $1 AND relative = $2 AND gone = 0 AND arrivals = $3",
            &[&file.watch, &bytes(&file.relative), &file.arrivals],
            |_| Ok(()),
        )?;
        if known.is_none() {
            return Ok(Removed::Known);
        }
        if in_hand.contains(&file.root.join(&file.relative)) {
            return Ok(Removed::InHand);
        }
        let told = journal::put(tx, &removal.event, now)?;
        change(
            tx.connection,
            "UPDATE seen SET gone = 1, changed = $1 WHERE watch = $2 AND relative = $3",
            &[&now.as_microsecond(), &file.watch, &bytes(&file.relative)],
        )?;
        Ok(Removed::Told(told.id))
    };
    removals.iter().map(one).collect()
}

/// The files that work which is not done is about.
fn in_hand(connection: &Connection) -> Result<HashSet<PathBuf>, StoreError> {
    let columns = rows::EVENT
        .split(", ")
        .map(|column| format!("event.{column}"))
        .collect::<Vec<_>>();
    let events = collect(
        connection,
        &format!(
            "SELECT {} FROM entry JOIN event ON event.id = entry.event \
             WHERE entry.kind = 'work' AND entry.state IN ('ready', 'leased', 'deferred') AND event.root IS NOT NULL",
            columns.join(", ")
        ),
        &[],
        usize::MAX,
        rows::event,
    )?;
    let files = events.into_iter().flat_map(|event| {
        let facts = Value::Object(event.happening.facts);
        members(&facts, event.happening.file.as_ref())
    });
    Ok(files.map(|file| file.path()).collect())
}
const SEEN: &str = "SELECT seen.watch, watch.root, relative, size, mtime_ns, hash, arrivals, gone
     FROM seen JOIN watch ON watch.id = seen.watch WHERE seen.watch = $1";

/// What a watch knows, gone files too.
pub(in crate::store) fn seen(connection: &Connection, watch: &str) -> Result<Vec<SeenFile>, StoreError> {
    collect(connection, SEEN, &[&watch], usize::MAX, |row| file(row).map(Some))
}

/// What a watch knows of one file.
pub(in crate::store) fn seen_file(
    connection: &Connection,
    watch: &str,
    relative: &Path,
) -> Result<Option<SeenFile>, StoreError> {
    let sql = format!("{SEEN} AND relative = $2");
    first(connection, &sql, &[&watch, &bytes(relative)], file)
}

fn file(row: &Row<'_>) -> Result<SeenFile, StoreError> {
    Ok(SeenFile {
        watch: row.get(0)?,
        root: path(row.get(1)?),
        relative: path(row.get(2)?),
        size: row.get::<_, i64>(3)?.cast_unsigned(),
        mtime_ns: row.get(4)?,
        hash: row.get(5)?,
        arrivals: row.get(6)?,
        gone: row.get(7)?,
    })
}

/// What lies there, and since when it is known as it is.
pub(in crate::store) fn lying(connection: &Connection, watch: &str) -> Result<Vec<Lying>, StoreError> {
    collect(
        connection,
        "SELECT relative, size, mtime_ns, changed FROM seen WHERE watch = $1 AND gone = 0",
        &[&watch],
        usize::MAX,
        |row| {
            Ok(Some(Lying {
                relative: path(row.get(0)?),
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                mtime_ns: row.get(2)?,
                since: rows::time(row, 3)?,
            }))
        },
    )
}

/// All watches there ever were.
pub(in crate::store) fn watches(connection: &Connection) -> Result<Vec<WatchMemory>, StoreError> {
    collect(
        connection,
        "SELECT id, root, baseline FROM watch",
        &[],
        usize::MAX,
        |row| {
            Ok(Some(WatchMemory {
                id: row.get(0)?,
                root: path(row.get(1)?),
                baseline: row.get(2)?,
            }))
        },
    )
}
