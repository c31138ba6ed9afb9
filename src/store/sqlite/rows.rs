//! Rows as our words, and our words as columns.

use crate::entry::{Body, Entry, EntryId, Kind, OnUnknown, Reason, State};
use crate::event::{self, CaseStep, Does, Event, EventId, FileRef, NewEvent, Origin};
use crate::store::StoreError;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, ToSql};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The columns [`event`] reads, in its order.
pub(super) const EVENT: &str = "id, key, kind, source, subject, time, facts, root, relative, size, mtime_ns, \
     origin_rule, origin_event, recorded, recovers, case_key, case_does, case_text";

/// The columns [`entry`] reads, in its order.
pub(super) const ENTRY: &str = "id, key, kind, rule, event, lane, summary, state, reason, due, attempts, \
     on_unknown, created, since, changed";

/// An event, or `None` if a newer version wrote a kind that this one does not know.
pub(super) fn event(row: &Row<'_>) -> Result<Option<Event>, StoreError> {
    let Some(kind) = event::Kind::parse(row.get_ref(2)?.as_str().map_err(conversion)?) else {
        return Ok(None);
    };
    let file = match (
        row.get::<_, Option<Vec<u8>>>(7)?,
        row.get::<_, Option<Vec<u8>>>(8)?,
    ) {
        (Some(root), Some(relative)) => Some(FileRef {
            root: path(root),
            relative: path(relative),
            size: row.get::<_, Option<i64>>(9)?.map_or(0, i64::cast_unsigned),
            mtime_ns: row.get::<_, Option<i64>>(10)?.unwrap_or_default(),
        }),
        _ => None,
    };
    let origin = match (row.get(11)?, row.get(12)?) {
        (Some(rule), Some(event)) => Some(Origin {
            rule,
            event: EventId(event),
        }),
        _ => None,
    };
    let case = match (
        row.get(15)?,
        row.get::<_, Option<String>>(16)?
            .and_then(|word| Does::parse(&word)),
    ) {
        (Some(key), Some(does)) => Some(CaseStep {
            key,
            does,
            text: row.get::<_, Option<String>>(17)?.unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Some(Event {
        id: EventId(row.get(0)?),
        happening: NewEvent {
            key: row.get(1)?,
            kind,
            source: row.get(3)?,
            subject: row.get(4)?,
            time: time(row, 5)?,
            facts: json(row, 6)?,
            file,
            origin,
            case,
        },
        recorded: time(row, 13)?,
        recovers: row.get(14)?,
    }))
}

/// An entry, or `None` if a newer version wrote a word that this one does not know.
pub(super) fn entry(row: &Row<'_>) -> Result<Option<Entry>, StoreError> {
    let word = |column| row.get_ref(column)?.as_str().map_err(conversion);
    let (Some(kind), Some(state), Some(on_unknown)) = (
        Kind::parse(word(2)?),
        State::parse(word(7)?),
        on_unknown(word(11)?),
    ) else {
        return Ok(None);
    };
    Ok(Some(Entry {
        id: EntryId(row.get(0)?),
        key: row.get(1)?,
        kind,
        rule: row.get(3)?,
        event: row.get::<_, Option<i64>>(4)?.map(EventId),
        lane: row.get(5)?,
        summary: json(row, 6)?,
        state,
        reason: reason(row, 8)?,
        due: time(row, 9)?,
        attempts: row.get(10)?,
        on_unknown,
        created: time(row, 12)?,
        since: time(row, 13)?,
        changed: time(row, 14)?,
    }))
}

/// A body from the columns `bytes, spool, len` that start at `first`.
pub(super) fn body(row: &Row<'_>, first: usize) -> rusqlite::Result<Body> {
    Ok(match (row.get(first)?, row.get(first + 1)?) {
        (Some(bytes), _) => Body::Inline(bytes),
        (None, Some(name)) => Body::Spooled {
            name,
            len: row
                .get::<_, Option<i64>>(first + 2)?
                .map_or(0, i64::cast_unsigned),
        },
        (None, None) => Body::None,
    })
}

/// The word for a policy.
pub(super) fn policy(on_unknown: OnUnknown) -> &'static str {
    match on_unknown {
        OnUnknown::Resend => "resend",
        OnUnknown::Hold => "hold",
        OnUnknown::VerifyOrResend => "verify_or_resend",
        OnUnknown::VerifyOrHold => "verify_or_hold",
    }
}

fn on_unknown(word: &str) -> Option<OnUnknown> {
    OnUnknown::ALL.into_iter().find(|known| policy(*known) == word)
}

/// A reason, where there is one.
pub(super) fn reason(row: &Row<'_>, column: usize) -> Result<Option<Reason>, StoreError> {
    match row.get_ref(column)?.as_str_or_null().map_err(conversion)? {
        Some(text) => parse(text, column).map(Some),
        None => Ok(None),
    }
}

/// A time, which is stored as microseconds since 1970.
pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(row.get(column)?).map_err(|error| unreadable(column, error).into())
}

/// A time that may be missing.
pub(super) fn time_or_none(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, StoreError> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

/// A value from JSON text.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, StoreError> {
    parse(row.get_ref(column)?.as_str().map_err(conversion)?, column)
}

fn parse<T: DeserializeOwned>(text: &str, column: usize) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(column, error).into())
}

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into())
}

/// A path from its bytes.
pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// The bytes of a path.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// All rows of a query, as `read` makes them; what it leaves out is skipped, and it stops at `limit`.
pub(super) fn collect<T>(
    connection: &rusqlite::Connection,
    sql: &str,
    with: &[&dyn ToSql],
    limit: usize,
    read: impl Fn(&Row<'_>) -> Result<Option<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = bound(connection, sql, with)?;
    let mut rows = statement.raw_query();
    let mut all = Vec::new();
    while all.len() < limit
        && let Some(row) = rows.next()?
    {
        all.extend(read(row)?);
    }
    Ok(all)
}

/// The first row, if there is one.
pub(super) fn first<T>(
    connection: &rusqlite::Connection,
    sql: &str,
    with: &[&dyn ToSql],
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = bound(connection, sql, with)?;
    let mut rows = statement.raw_query();
    rows.next()?.map(read).transpose()
}

/// How many rows a statement changed.
pub(super) fn change(
    connection: &rusqlite::Connection,
    sql: &str,
    with: &[&dyn ToSql],
) -> Result<usize, StoreError> {
    Ok(bound(connection, sql, with)?.raw_execute()?)
}

/// A statement with its values. `$2` is the second value wherever it stands: to SQLite it is only a
/// name, and counted by position it would be whichever came second in the text.
fn bound<'c>(
    connection: &'c rusqlite::Connection,
    sql: &str,
    with: &[&dyn ToSql],
) -> Result<rusqlite::CachedStatement<'c>, StoreError> {
    const NAMES: [&str; 18] = [
        "$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15",
        "$16", "$17", "$18",
    ];
    let mut statement = connection.prepare_cached(sql)?;
    let wanted = statement.parameter_count();
    if wanted != with.len() {
        return Err(rusqlite::Error::InvalidParameterCount(with.len(), wanted).into());
    }
    for (name, value) in NAMES.iter().zip(with) {
        let Some(place) = statement.parameter_index(name)? else {
            return Err(rusqlite::Error::InvalidParameterName((*name).to_owned()).into());
        };
        statement.raw_bind_parameter(place, value)?;
    }
    Ok(statement)
}

fn conversion(error: rusqlite::types::FromSqlError) -> StoreError {
    unreadable(0, error).into()
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
