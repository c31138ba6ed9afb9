//! Forgetting: only what is finished and old.
//!
//! Candidates are looked for by a reader, in pieces, and each piece is removed in a transaction that
//! asks every condition again: an entry that a person retried meanwhile stays, and the writer is never
//! kept long.

use super::rows::{change, collect, first};
use super::writer::Tx;
use super::{gatherings, outbox};
use crate::entry::EntryId;
use crate::store::StoreError;
use jiff::Timestamp;
use rusqlite::Connection;

/// Most rows removed in one transaction.
pub(in crate::store) const PIECE: usize = 500;

/// What must be true of an entry before it may go. An event may be dispatched again as long as one of
/// its entries may be retried, and what was sent because of it must then still be known to be sent: so
/// the entries of an event go only when all of them may.
macro_rules! done {
    () => {
        "entry.state IN ('accepted', 'cancelled') AND entry.changed <= $1 \
         AND NOT EXISTS (SELECT 1 FROM entry AS other WHERE other.event = entry.event \
             AND (other.changed > $1 OR other.state NOT IN ('accepted', 'cancelled'))) \
         AND NOT EXISTS (SELECT 1 FROM event WHERE event.id = entry.event AND event.dispatched IS NULL)"
    };
}

/// Entries that may go; the oldest are met first, so only the last piece looks at all.
pub(super) const DONE_ENTRIES: &str = concat!("SELECT entry.id FROM entry WHERE ", done!(), " LIMIT $2");

const DONE_ENTRY: &str = concat!("SELECT 1 FROM entry WHERE ", done!(), " AND entry.id = $2");

const DONE_EVENTS: &str = "SELECT id FROM event WHERE dispatched IS NOT NULL AND recorded <= $1 \
     AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.event = event.id) \
     AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.event = event.id) \
     AND NOT EXISTS (SELECT 1 FROM gathered WHERE gathered.event = event.id) \
     AND NOT EXISTS (SELECT 1 FROM trouble WHERE trouble.event = event.id AND trouble.closed IS NULL) LIMIT $2";

const FORGET_EVENT: &str = "DELETE FROM event WHERE dispatched IS NOT NULL AND recorded <= $1 AND id = $2 \
     AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.event = $2) \
     AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.event = $2) \
     AND NOT EXISTS (SELECT 1 FROM gathered WHERE gathered.event = $2) \
     AND NOT EXISTS (SELECT 1 FROM trouble WHERE trouble.event = $2 AND trouble.closed IS NULL)";

/// A file that comes back begins to count its arrivals anew, which is only right when no event of it is
/// left that the new one could be taken for.
const FORGET_SEEN: &str = "DELETE FROM seen WHERE gone = 1 AND changed <= $1 \
     AND NOT EXISTS (SELECT 1 FROM event WHERE event.relative = seen.relative AND event.source = seen.watch)";

fn candidates(connection: &Connection, sql: &str, before: Timestamp) -> Result<Vec<i64>, StoreError> {
    let piece = i64::try_from(PIECE).unwrap_or(i64::MAX);
    collect(
        connection,
        sql,
        &[&before.as_microsecond(), &piece],
        PIECE,
        |row| Ok(Some(row.get(0)?)),
    )
}

/// Entries that may go.
pub(in crate::store) fn old_entries(
    connection: &Connection,
    before: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    candidates(connection, DONE_ENTRIES, before)
}

/// Events that may go.
pub(in crate::store) fn old_events(
    connection: &Connection,
    before: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    candidates(connection, DONE_EVENTS, before)
}

/// Removes those of the entries that still may go, with body, attempts and spool file.
pub(in crate::store) fn forget_entries(
    tx: &Tx<'_>,
    ids: &[i64],
    before: Timestamp,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    for id in ids {
        let still = first(tx.connection, DONE_ENTRY, &[&before.as_microsecond(), id], |_| {
            Ok(())
        })?;
        if still.is_some() {
            gatherings::forget_of(tx, EntryId(*id))?;
            outbox::remove(tx, EntryId(*id))?;
            gone += 1;
        }
    }
    Ok(gone)
}

/// Removes those of the events that still may go, with their verdicts.
pub(in crate::store) fn forget_events(
    tx: &Tx<'_>,
    ids: &[i64],
    before: Timestamp,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    for id in ids {
        if change(tx.connection, FORGET_EVENT, &[&before.as_microsecond(), id])? > 0 {
            change(tx.connection, "DELETE FROM verdict WHERE event = $1", &[id])?;
            gone += 1;
        }
    }
    Ok(gone)
}

/// Removes memories of files long gone, and cases long closed.
pub(in crate::store) fn forget_rest(tx: &Tx<'_>, before: Timestamp) -> Result<(u64, u64), StoreError> {
    let before = before.as_microsecond();
    let seen = change(tx.connection, FORGET_SEEN, &[&before])?;
    let cases = change(
        tx.connection,
        "DELETE FROM trouble WHERE closed IS NOT NULL AND closed <= $1",
        &[&before],
    )?;
    Ok((seen as u64, cases as u64))
}
