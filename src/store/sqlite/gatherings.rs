//! What rules gather before they tell, with the events that belong to it.

use super::rows::{self, EVENT, change, collect, first, to_json};
use super::writer::Tx;
use crate::entry::EntryId;
use crate::event::{Event, EventId};
use crate::store::{GatherStep, Gathering, StoreError};
use jiff::Timestamp;
use rusqlite::{Connection, Row};

/// What is due, the longest due first.
pub(super) const DUE: &str =
    "SELECT rule, key, state, due FROM gathering WHERE due IS NOT NULL AND due <= $1 ORDER BY due LIMIT $2";

/// One change.
pub(super) fn apply(tx: &Tx<'_>, step: &GatherStep) -> Result<(), StoreError> {
    match step {
        GatherStep::Put(gathering, events) => {
            change(
                tx.connection,
                "INSERT INTO gathering (rule, key, state, due) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (rule, key) DO UPDATE SET state = excluded.state, due = excluded.due",
                &[
                    &gathering.rule,
                    &gathering.key,
                    &to_json(&gathering.state)?,
                    &gathering.due.map(Timestamp::as_microsecond),
                ],
            )?;
            for event in events {
                change(
                    tx.connection,
                    "INSERT OR IGNORE INTO gathered (rule, key, event) VALUES ($1, $2, $3)",
                    &[&gathering.rule, &gathering.key, &event.0],
                )?;
            }
        }
        GatherStep::End { rule, key } => {
            change(
                tx.connection,
                "DELETE FROM gathering WHERE rule = $1 AND key = $2",
                &[rule, key],
            )?;
            change(
                tx.connection,
                "DELETE FROM gathered WHERE rule = $1 AND key = $2",
                &[rule, key],
            )?;
        }
    }
    Ok(())
}

fn gathering(row: &Row<'_>) -> Result<Gathering, StoreError> {
    Ok(Gathering {
        rule: row.get(0)?,
        key: row.get(1)?,
        state: rows::json(row, 2)?,
        due: rows::time_or_none(row, 3)?,
    })
}

/// What is due by a time, the longest due first.
pub(in crate::store) fn due(
    connection: &Connection,
    by: Timestamp,
    limit: usize,
) -> Result<Vec<Gathering>, StoreError> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    collect(connection, DUE, &[&by.as_microsecond(), &most], limit, |row| {
        gathering(row).map(Some)
    })
}

/// When the next one is due.
pub(in crate::store) fn next(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    first(
        connection,
        "SELECT due FROM gathering WHERE due IS NOT NULL ORDER BY due LIMIT 1",
        &[],
        |row| rows::time(row, 0),
    )
}

/// One of them.
pub(in crate::store) fn find(
    connection: &Connection,
    rule: &str,
    key: &str,
) -> Result<Option<Gathering>, StoreError> {
    first(
        connection,
        "SELECT rule, key, state, due FROM gathering WHERE rule = $1 AND key = $2",
        &[&rule, &key],
        gathering,
    )
}

/// All of them, or those of a rule.
pub(in crate::store) fn list(
    connection: &Connection,
    rule: Option<&str>,
) -> Result<Vec<Gathering>, StoreError> {
    collect(
        connection,
        "SELECT rule, key, state, due FROM gathering WHERE $1 IS NULL OR rule = $1 ORDER BY rule, key",
        &[&rule],
        usize::MAX,
        |row| gathering(row).map(Some),
    )
}

/// The events that belong to one and are younger than `after`, oldest first, up to `limit`.
pub(in crate::store) fn events(
    connection: &Connection,
    rule: &str,
    key: &str,
    after: EventId,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT {EVENT} FROM event WHERE id IN \
         (SELECT event FROM gathered WHERE rule = $1 AND key = $2 AND event > $3 ORDER BY event LIMIT $4) ORDER BY id"
    );
    collect(
        connection,
        &sql,
        &[&rule, &key, &after.0, &most],
        limit,
        rows::event,
    )
}

/// What is gathered under the key of an entry is due now; false if nothing is.
pub(super) fn hasten(tx: &Tx<'_>, rule: &str, key: &str, now: Timestamp) -> Result<bool, StoreError> {
    let found = change(
        tx.connection,
        "UPDATE gathering SET due = $1 WHERE rule = $2 AND key = $3",
        &[&now.as_microsecond(), &rule, &key],
    )?;
    Ok(found > 0)
}

/// Lets go what is gathered under the key of an entry.
pub(super) fn forget_of(tx: &Tx<'_>, entry: EntryId) -> Result<(), StoreError> {
    let of = first(
        tx.connection,
        "SELECT gathering.rule, gathering.key FROM entry JOIN gathering \
         ON gathering.rule = entry.rule AND gathering.key = entry.key WHERE entry.id = $1",
        &[&entry.0],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match of {
        Some((rule, key)) => apply(tx, &GatherStep::End { rule, key }),
        None => Ok(()),
    }
}

/// Where an event is gathered: rule and key.
pub(in crate::store) fn places(
    connection: &Connection,
    event: i64,
) -> Result<Vec<(String, String)>, StoreError> {
    collect(
        connection,
        "SELECT rule, key FROM gathered WHERE event = $1 ORDER BY rule, key",
        &[&event],
        usize::MAX,
        |row| Ok(Some((row.get(0)?, row.get(1)?))),
    )
}

/// How many events belong to one.
pub(in crate::store) fn count(connection: &Connection, rule: &str, key: &str) -> Result<u64, StoreError> {
    let count = first(
        connection,
        "SELECT count(*) FROM gathered WHERE rule = $1 AND key = $2",
        &[&rule, &key],
        |row| Ok(row.get::<_, i64>(0)?),
    )?;
    Ok(count.unwrap_or_default().unsigned_abs())
}
