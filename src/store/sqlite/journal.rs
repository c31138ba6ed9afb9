//! The journal: events under their keys, and what waits for dispatch.

use super::rows::{self, bytes, change, collect, first, to_json};
use super::writer::Tx;
use crate::event::{Does, Event, EventId, Kind, NewEvent};
use crate::store::{Recorded, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;

const INSERT: &str = "INSERT INTO event (key, kind, source, subject, time, facts, root, relative, size, mtime_ns, \
     origin_rule, origin_event, recorded, recovers, case_key, case_does, case_text) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
     ON CONFLICT (key) DO NOTHING RETURNING id";

/// What waits for dispatch, oldest first.
pub(super) const PENDING: &str = "SELECT id, key, kind, source, subject, time, facts, root, relative, size, mtime_ns, \
     origin_rule, origin_event, recorded, recovers, case_key, case_does, case_text FROM event WHERE dispatched IS NULL ORDER BY id";

/// The event alone.
pub(super) fn put(tx: &Tx<'_>, event: &NewEvent, now: Timestamp) -> Result<Recorded, StoreError> {
    let connection = tx.connection;
    let ended = match event.kind {
        Kind::JobSucceeds => Some(true),
        Kind::JobFails => Some(false),
        _ => None,
    };
    let last: Option<bool> = match ended {
        Some(_) => first(
            connection,
            "SELECT ok FROM job WHERE name = $1",
            &[&event.subject],
            |row| Ok(row.get(0)?),
        )?,
        None => None,
    };
    let closes = event.case.as_ref().is_some_and(|step| step.does == Does::Closes);
    let recovers = closes || ended == Some(true) && last == Some(false);
    let file = event.file.as_ref();
    let origin = event.origin.as_ref();
    let fresh = first(
        connection,
        INSERT,
        &[
            &event.key,
            &event.kind.as_str(),
            &event.source,
            &event.subject,
            &event.time.as_microsecond(),
            &to_json(&event.facts)?,
            &file.map(|file| bytes(&file.root)),
            &file.map(|file| bytes(&file.relative)),
            &file.map(|file| file.size.cast_signed()),
            &file.map(|file| file.mtime_ns),
            &origin.map(|origin| &origin.rule),
            &origin.map(|origin| origin.event.0),
            &now.as_microsecond(),
            &recovers,
            &event.case.as_ref().map(|step| &step.key),
            &event.case.as_ref().map(|step| step.does.as_str()),
            &event.case.as_ref().map(|step| &step.text),
        ],
        |row| Ok(EventId(row.get(0)?)),
    )?;
    let Some(id) = fresh else {
        let id: i64 = connection
            .prepare_cached("SELECT id FROM event WHERE key = $1")?
            .query_row([&event.key], |row| row.get(0))?;
        return Ok(Recorded {
            id: EventId(id),
            fresh: false,
        });
    };
    if let Some(ok) = ended
        && last != Some(ok)
    {
        change(
            connection,
            "INSERT INTO job (name, ok) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET ok = excluded.ok",
            &[&event.subject, &ok],
        )?;
    }
    tx.tick();
    Ok(Recorded { id, fresh: true })
}

/// Whether an event is a trouble, or came of one: emitted by a rule that heard of it, or the end of work that it
/// started.
pub(in crate::store) fn is_of_a_trouble(connection: &Connection, event: EventId) -> Result<bool, StoreError> {
    // An event knows only older ones, so this ends; the limit is for a store that was tampered with.
    let found = first(
        connection,
        "WITH RECURSIVE before (kind, origin, n) AS (\
            SELECT kind, origin_event, 0 FROM event WHERE id = $1 \
            UNION ALL \
            SELECT event.kind, event.origin_event, n + 1 FROM before JOIN event ON event.id = before.origin WHERE n < 100\
         ) SELECT 1 FROM before WHERE kind = $2 LIMIT 1",
        &[&event.0, &Kind::Trouble.as_str()],
        |row| Ok(row.get::<_, i64>(0)?),
    )?;
    Ok(found.is_some())
}

/// Events not yet dispatched. One of a kind that only a newer version knows stays for that version.
pub(in crate::store) fn pending(connection: &Connection, limit: usize) -> Result<Vec<Event>, StoreError> {
    collect(connection, PENDING, &[], limit, rows::event)
}
