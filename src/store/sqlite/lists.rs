//! What people ask: lists, one entry or event with all there is, and counts.

use super::outbox;
use super::rows::{self, ENTRY, EVENT, bytes, collect, first};
use crate::entry::{Entry, EntryId, Kind, State};
use crate::event::{Event, EventId};
use crate::store::{Attempt, EntryDetail, EntryFilter, EventDetail, EventFilter, RuleVerdict, StoreError};
use jiff::Timestamp;
use rusqlite::{Connection, ToSql};
use std::collections::BTreeMap;

/// A condition that grows, with its values: `$1`, `$2`, .. in the order of their coming.
#[derive(Default)]
struct Where {
    parts: Vec<String>,
    values: Vec<Box<dyn ToSql>>,
}

impl Where {
    fn and(&mut self, before: &str, value: impl ToSql + 'static, after: &str) {
        self.values.push(Box::new(value));
        self.parts.push(format!("{before}${}{after}", self.values.len()));
    }

    fn text(&self) -> String {
        if self.parts.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.parts.join(" AND "))
        }
    }

    fn values(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(AsRef::as_ref).collect()
    }
}

/// Entries that the filter lets through, newest first.
pub(in crate::store) fn entries(
    connection: &Connection,
    filter: &EntryFilter,
) -> Result<Vec<Entry>, StoreError> {
    let mut which = Where::default();
    if let [state] = filter.states.as_slice() {
        which.and("state = ", state.as_str(), "");
    } else if !filter.states.is_empty() {
        // Words of ours, no text of anybody else's.
        let words: Vec<String> = filter
            .states
            .iter()
            .map(|s| format!("'{}'", s.as_str()))
            .collect();
        which.parts.push(format!("state IN ({})", words.join(", ")));
    }
    if let Some(kind) = filter.kind {
        which.and("kind = ", kind.as_str(), "");
    }
    if let Some(rule) = &filter.rule {
        which.and("rule = ", rule.clone(), "");
    }
    if let Some(lane) = &filter.lane {
        which.and("lane = ", lane.clone(), "");
    }
    if let Some(event) = filter.event {
        which.and("event = ", event.0, "");
    }
    if let Some(id) = &filter.message_id {
        which.and("summary ->> '$.message_id' = ", id.clone(), "");
    }
    if filter.ever_unknown {
        which
            .parts
            .push("id IN (SELECT entry FROM attempt WHERE outcome = 'unknown')".to_owned());
    }
    if let Some(before) = filter.before {
        which.and("id < ", before.0, "");
    }
    let sql = format!("SELECT {ENTRY} FROM entry{} ORDER BY id DESC", which.text());
    collect(connection, &sql, &which.values(), filter.limit, rows::entry)
}

/// One entry with effect, body and attempts.
pub(in crate::store) fn entry(
    connection: &Connection,
    id: EntryId,
) -> Result<Option<EntryDetail>, StoreError> {
    let Some((entry, _)) = outbox::find(connection, id)? else {
        return Ok(None);
    };
    let (effect, body) = outbox::contents(connection, id)?;
    let attempts = collect(
        connection,
        "SELECT n, started, ended, outcome, reason, gated FROM attempt WHERE entry = $1 ORDER BY n",
        &[&id.0],
        usize::MAX,
        |row| {
            Ok(Some(Attempt {
                number: row.get(0)?,
                started: rows::time(row, 1)?,
                ended: rows::time_or_none(row, 2)?,
                outcome: row
                    .get::<_, Option<String>>(3)?
                    .and_then(|word| State::parse(&word)),
                reason: rows::reason(row, 4)?,
                gated: row.get(5)?,
            }))
        },
    )?;
    let answers = collect(
        connection,
        "SELECT event FROM answer WHERE entry = $1 ORDER BY event",
        &[&id.0],
        usize::MAX,
        |row| Ok(Some(EventId(row.get(0)?))),
    )?;
    Ok(Some(EntryDetail {
        entry,
        effect,
        body,
        attempts,
        answers,
    }))
}

/// Events that the filter lets through.
pub(in crate::store) fn events(
    connection: &Connection,
    filter: &EventFilter,
) -> Result<Vec<Event>, StoreError> {
    let mut which = Where::default();
    if let Some(kind) = filter.kind {
        which.and("kind = ", kind.as_str(), "");
    }
    if let Some(source) = &filter.source {
        which.and("source = ", source.clone(), "");
    }
    if let Some(file) = &filter.file {
        which.and("relative = ", bytes(&file.relative).to_vec(), "");
        which.and("root = ", bytes(&file.root).to_vec(), "");
    }
    if let Some(case) = &filter.case {
        which.and("case_key = ", case.clone(), "");
    }
    if let Some(rule) = &filter.rule {
        which.and(
            "EXISTS (SELECT 1 FROM verdict WHERE verdict.event = event.id AND verdict.rule = ",
            rule.clone(),
            ")",
        );
    }
    if let Some(subject) = &filter.subject {
        which.and("instr(subject, ", subject.clone(), ") > 0");
    }
    if let Some(before) = filter.before {
        which.and("id < ", before.0, "");
    }
    if let Some(after) = filter.after {
        which.and("id > ", after.0, "");
    }
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let sql = format!("SELECT {EVENT} FROM event{} ORDER BY id {order}", which.text());
    collect(connection, &sql, &which.values(), filter.limit, rows::event)
}

/// One event with what became of it.
pub(in crate::store) fn event(
    connection: &Connection,
    id: EventId,
) -> Result<Option<EventDetail>, StoreError> {
    let sql = format!("SELECT {EVENT}, dispatched FROM event WHERE id = $1");
    let found = first(connection, &sql, &[&id.0], |row| {
        let dispatched = rows::time_or_none(row, 18)?;
        Ok(rows::event(row)?.map(|event| (event, dispatched)))
    })?;
    let Some((event, dispatched)) = found.flatten() else {
        return Ok(None);
    };
    let verdicts = verdicts(connection, id.0)?;
    let sql = format!(
        "SELECT {ENTRY} FROM entry WHERE event = $1 OR id IN (SELECT entry FROM answer WHERE event = $1) ORDER BY id"
    );
    let entries = collect(connection, &sql, &[&id.0], usize::MAX, rows::entry)?;
    Ok(Some(EventDetail {
        event,
        dispatched,
        verdicts,
        entries,
    }))
}

/// What each rule said of an event, in their order.
pub(in crate::store) fn verdicts(
    connection: &Connection,
    event: i64,
) -> Result<Vec<RuleVerdict>, StoreError> {
    collect(
        connection,
        "SELECT rule, outcome, detail FROM verdict WHERE event = $1 ORDER BY n",
        &[&event],
        usize::MAX,
        |row| {
            Ok(Some(RuleVerdict {
                rule: row.get(0)?,
                outcome: row.get(1)?,
                detail: row.get(2)?,
            }))
        },
    )
}

/// Rows looked at in one go by [`mails_since`].
const PAGE: usize = 1000;

/// Mails admitted since a time, newest first. Numbers grow with time, so it ends at the first older one.
pub(in crate::store) fn mails_since(
    connection: &Connection,
    since: Timestamp,
) -> Result<Vec<(String, Timestamp, serde_json::Value)>, StoreError> {
    let mut mails = Vec::new();
    let mut before = i64::MAX;
    loop {
        let page = collect(
            connection,
            "SELECT id, rule, created, summary, kind FROM entry WHERE id < $1 ORDER BY id DESC",
            &[&before],
            PAGE,
            |row| {
                let mail = row.get::<_, String>(4)? == Kind::Mail.as_str();
                Ok(Some((
                    row.get::<_, i64>(0)?,
                    row.get(1)?,
                    rows::time(row, 2)?,
                    rows::json(row, 3)?,
                    mail,
                )))
            },
        )?;
        let all = page.len() < PAGE;
        for (id, rule, created, summary, mail) in page {
            if created < since {
                return Ok(mails);
            }
            before = id;
            if mail {
                mails.push((rule, created, summary));
            }
        }
        if all {
            return Ok(mails);
        }
    }
}

/// How often a rule said what of the events recorded since then.
pub(in crate::store) fn said(
    connection: &Connection,
    rule: &str,
    since: Timestamp,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let counted = collect(
        connection,
        "SELECT verdict.outcome, count(*) FROM event CROSS JOIN verdict ON verdict.event = event.id
         WHERE event.recorded >= $1 AND verdict.rule = $2 GROUP BY verdict.outcome",
        &[&since.as_microsecond(), &rule],
        usize::MAX,
        |row| Ok(Some((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))),
    )?;
    Ok(counted.into_iter().collect())
}

/// When attempts at a lane's entries passed the gate since a time.
pub(super) const GATED: &str = "SELECT attempt.gated FROM attempt JOIN entry ON entry.id = attempt.entry
     WHERE attempt.gated > 0 AND attempt.gated >= $3 AND entry.kind = $1 AND entry.lane = $2
     ORDER BY attempt.gated";

/// When entries of a lane passed the gate since then, oldest first.
pub(in crate::store) fn attempts_since(
    connection: &Connection,
    kind: Kind,
    lane: &str,
    since: Timestamp,
) -> Result<Vec<Timestamp>, StoreError> {
    collect(
        connection,
        GATED,
        &[&kind.as_str(), &lane, &since.as_microsecond()],
        usize::MAX,
        |row| rows::time(row, 0).map(Some),
    )
}

/// How many entries there are of each kind in each state; none where there are none.
pub(in crate::store) fn counts(connection: &Connection) -> Result<BTreeMap<(Kind, State), u64>, StoreError> {
    let counted = collect(
        connection,
        "SELECT kind, state, sum(n) FROM tally GROUP BY kind, state HAVING sum(n) > 0",
        &[],
        usize::MAX,
        |row| {
            let kind = Kind::parse(&row.get::<_, String>(0)?);
            let state = State::parse(&row.get::<_, String>(1)?);
            let count = row.get::<_, i64>(2)?.cast_unsigned();
            Ok(kind.zip(state).map(|which| (which, count)))
        },
    )?;
    Ok(counted.into_iter().collect())
}
