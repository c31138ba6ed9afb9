//! Cases: troubles and absences, opened once and closed when mended.

use super::journal;
use super::rows::{self, change, collect, first, to_json};
use super::writer::Tx;
use crate::entry::Reason;
use crate::event::{CaseStep, Does, EventId, Kind, NewEvent};
use crate::store::{Case, NewCase, Recorded, StoreError};
use jiff::Timestamp;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value, json};

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
    let facts = facts(case, now, None);
    let told = journal::put(
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
            case: Some(CaseStep {
                key: case.key.clone(),
                does: Does::Opens,
                text: told(case),
            }),
        },
        now,
    )?;
    change(
        tx.connection,
        "UPDATE trouble SET event = $1 WHERE id = $2",
        &[&told.id.0, &number],
    )?;
    Ok(true)
}

/// One more event of an open case, with its reason renewed.
pub(in crate::store) fn tell(
    tx: &Tx<'_>,
    again: &NewCase,
    tag: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(open) = first(tx.connection, OPEN, &[&again.key], case)? else {
        return Ok(false);
    };
    change(
        tx.connection,
        "UPDATE trouble SET reason = $1, subject = $2 WHERE key = $3 AND closed IS NULL",
        &[&to_json(&again.reason)?, &again.subject, &again.key],
    )?;
    let told = journal::put(
        tx,
        &NewEvent {
            key: format!("trouble:{}:{}:{tag}", again.key, open.number),
            kind: Kind::Trouble,
            source: String::new(),
            subject: again.subject.clone(),
            time: now,
            facts: facts(again, open.opened, None),
            file: None,
            origin: None,
            case: None,
        },
        now,
    )?;
    Ok(told.fresh)
}

/// What may be said of a trouble, while it is open or when it is over.
fn facts(case: &NewCase, since: Timestamp, ended: Option<Timestamp>) -> Map<String, Value> {
    let trouble = json!({
        "kind": case.kind,
        "key": case.key,
        "subject": case.subject,
        "text": told(case),
        "steps": case.reason.cure(),
        "since": since.to_string(),
        "ended": ended.map(|ended| ended.to_string()),
        "lasted": ended.map(|ended| ended.duration_since(since).as_secs()),
    });
    Map::from_iter([("trouble".to_owned(), trouble)])
}

/// What a step would change nothing about: the case to open is open (its event), or the one to close is not.
pub(super) fn stands(connection: &Connection, step: &CaseStep) -> Result<Option<Recorded>, StoreError> {
    let open = first(
        connection,
        "SELECT event FROM trouble WHERE key = $1 AND closed IS NULL",
        &[&step.key],
        |row| Ok(row.get::<_, Option<i64>>(0)?),
    )?;
    Ok(match (step.does, open) {
        (Does::Opens, Some(event)) => Some(event.unwrap_or_default()),
        (Does::Closes, None) => Some(0),
        _ => None,
    }
    .map(|event| Recorded {
        id: EventId(event),
        fresh: false,
    }))
}

/// Opens or closes the case of an event that was just recorded.
pub(super) fn step(
    tx: &Tx<'_>,
    event: &NewEvent,
    step: &CaseStep,
    id: EventId,
    now: Timestamp,
) -> Result<(), StoreError> {
    match step.does {
        Does::Opens => change(
            tx.connection,
            "INSERT INTO trouble (key, kind, subject, reason, opened, event) VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &step.key,
                &event.kind.as_str(),
                &event.subject,
                &to_json(&Reason::new(step.text.clone()))?,
                &now.as_microsecond(),
                &id.0,
            ],
        )?,
        Does::Closes => shut(tx, &step.key, now)?,
    };
    Ok(())
}

/// The reason in one text, the server's own words after ours.
fn told(case: &NewCase) -> String {
    match &case.reason.reply {
        Some(reply) => format!("{} ({reply})", case.reason.text),
        None => case.reason.text.clone(),
    }
}

/// Closes a trouble and records that it is over; false if none was open.
pub(in crate::store) fn close(tx: &Tx<'_>, key: &str, now: Timestamp) -> Result<bool, StoreError> {
    let open = first(tx.connection, OPEN, &[&key], case)?;
    let Some(open) = open else {
        return Ok(false);
    };
    shut(tx, key, now)?;
    let was = NewCase {
        key: open.key,
        kind: open.kind,
        subject: open.subject,
        reason: open.reason,
    };
    journal::put(
        tx,
        &NewEvent {
            key: format!("trouble:{}:{}:closed", was.key, open.number),
            kind: Kind::Trouble,
            source: String::new(),
            subject: was.subject.clone(),
            time: now,
            facts: facts(&was, open.opened, Some(now)),
            file: None,
            origin: None,
            case: Some(CaseStep {
                key: was.key.clone(),
                does: Does::Closes,
                text: told(&was),
            }),
        },
        now,
    )?;
    Ok(true)
}

fn shut(tx: &Tx<'_>, key: &str, now: Timestamp) -> Result<usize, StoreError> {
    change(
        tx.connection,
        "UPDATE trouble SET closed = $1 WHERE key = $2 AND closed IS NULL",
        &[&now.as_microsecond(), &key],
    )
}

const OPEN: &str =
    "SELECT id, key, kind, subject, reason, opened, event FROM trouble WHERE closed IS NULL AND key = $1";

fn case(row: &Row<'_>) -> Result<Case, StoreError> {
    Ok(Case {
        number: row.get(0)?,
        key: row.get(1)?,
        kind: row.get(2)?,
        subject: row.get(3)?,
        reason: rows::reason(row, 4)?.unwrap_or_default(),
        opened: rows::time(row, 5)?,
        event: row.get::<_, Option<i64>>(6)?.map(EventId),
    })
}

/// The open case of that key.
pub(in crate::store) fn find(connection: &Connection, key: &str) -> Result<Option<Case>, StoreError> {
    first(connection, OPEN, &[&key], case)
}

/// All open cases, oldest first.
pub(in crate::store) fn list(connection: &Connection) -> Result<Vec<Case>, StoreError> {
    collect(
        connection,
        "SELECT id, key, kind, subject, reason, opened, event FROM trouble WHERE closed IS NULL ORDER BY id",
        &[],
        usize::MAX,
        |row| case(row).map(Some),
    )
}
