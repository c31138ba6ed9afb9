//! Cases: troubles, opened once and closed when mended.

use super::journal;
use super::rows::{self, change, collect, first, to_json};
use super::writer::Tx;
use crate::event::{Kind, NewEvent};
use crate::store::{Case, NewCase, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, json};

/// Opens a case with its event, or renews the reason of the one that is open.
pub(in crate::store) fn open(tx: &Tx<'_>, case: &NewCase, now: Timestamp) -> Result<bool, StoreError> {
    let reason = to_json(&case.reason)?;
    let renewed = change(
        tx.connection,
        "UPDATE trouble SET reason = $1, subject = $2 WHERE key = $3 AND closed IS NULL",
        &[&reason, &case.subject, &case.key],
    )?;
    if renewed > 0 {
        return Ok(false);
    }
    let number = first(
        tx.connection,
        "INSERT INTO trouble (key, kind, subject, reason, opened) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        &[
            &case.key,
            &case.kind,
            &case.subject,
            &reason,
            &now.as_microsecond(),
        ],
        |row| Ok(row.get::<_, i64>(0)?),
    )?
    .unwrap_or_default();
    let mut facts = Map::new();
    facts.insert(
        "trouble".to_owned(),
        json!({
            "kind": case.kind,
            "key": case.key,
            "subject": case.subject,
            "text": told(case),
            "steps": case.reason.steps,
            "since": now.to_string(),
        }),
    );
    journal::insert(
        tx,
        &NewEvent {
            key: format!("trouble:{}:{number}", case.key),
            kind: Kind::Trouble,
            source: String::new(),
            subject: case.subject.clone(),
            time: now,
            facts,
            file: None,
            origin: None,
        },
        now,
    )?;
    Ok(true)
}

/// The reason in one text, the server's own words after ours.
fn told(case: &NewCase) -> String {
    match &case.reason.reply {
        Some(reply) => format!("{} ({reply})", case.reason.text),
        None => case.reason.text.clone(),
    }
}

/// Closes a case; false if none was open.
pub(in crate::store) fn close(tx: &Tx<'_>, key: &str, now: Timestamp) -> Result<bool, StoreError> {
    let closed = change(
        tx.connection,
        "UPDATE trouble SET closed = $1 WHERE key = $2 AND closed IS NULL",
        &[&now.as_microsecond(), &key],
    )?;
    Ok(closed > 0)
}

/// All open cases, oldest first.
pub(in crate::store) fn list(connection: &Connection) -> Result<Vec<Case>, StoreError> {
    collect(
        connection,
        "SELECT id, key, kind, subject, reason, opened FROM trouble WHERE closed IS NULL ORDER BY id",
        &[],
        usize::MAX,
        |row| {
            Ok(Some(Case {
                number: row.get(0)?,
                key: row.get(1)?,
                kind: row.get(2)?,
                subject: row.get(3)?,
                reason: rows::reason(row, 4)?.unwrap_or_default(),
                opened: rows::time(row, 5)?,
            }))
        },
    )
}
