//! The outbox: entries in, leases out, and every move in between.

use super::rows::{self, change, collect, first, policy, to_json};
use super::writer::Tx;
use super::{cases, files, gatherings, journal, record};
use crate::entry::{Body, Entry, EntryId, Fence, Kind, Leased, NewEntry, Reason, Settlement, State, Verb};
use crate::store::{Admitted, Also, Lane, NewCase, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;

/// What is due in a lane, oldest first.
pub(super) const DUE: &str = "SELECT id FROM entry WHERE kind = $1 AND lane = $2 AND state IN ('ready', 'deferred') \
     AND due <= $3 ORDER BY due, id LIMIT $4";

/// Lanes with something that waits; one lookup in an index for each.
pub(super) const LANES: &str = "SELECT kind, lane, sum(n), \
     (SELECT due FROM entry WHERE entry.kind = tally.kind AND entry.lane = tally.lane \
      AND entry.state IN ('ready', 'deferred') ORDER BY due LIMIT 1) AS due \
     FROM tally WHERE state IN ('ready', 'deferred') GROUP BY kind, lane HAVING sum(n) > 0";

/// Leases that ended before a time.
pub(super) const ORPHANED: &str = "SELECT id FROM entry WHERE state = 'leased' AND lease_until <= $1";

/// Makes the deferred entries that wait for a case due at once.
pub(super) const AWAITING: &str =
    "UPDATE entry SET due = min(due, $1) WHERE awaits = $2 AND state = 'deferred'";

const FIND: &str = "SELECT id, key, kind, rule, event, lane, summary, state, reason, due, attempts, on_unknown, \
     created, since, changed, fence FROM entry WHERE id = $1";

/// One new entry; a key that is taken gives back its number. One that is held from the start needs a person,
/// so its case is opened with it, if it is to have one of its own.
pub(in crate::store) fn insert(
    tx: &Tx<'_>,
    new: &NewEntry,
    own_case: bool,
    time: Timestamp,
) -> Result<Admitted, StoreError> {
    let state = if new.held.is_some() {
        State::Held
    } else {
        State::Ready
    };
    let now = time.as_microsecond();
    let due = new.due.as_microsecond();
    let fresh: Option<i64> = first(
        tx.connection,
        "INSERT INTO entry (key, kind, rule, event, lane, summary, state, reason, due, attempts, on_unknown, \
         created, since, changed, fence, of_case) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11, $12, $11, 0, $13) \
         ON CONFLICT (key) DO NOTHING RETURNING id",
        &[
            &new.key,
            &new.kind.as_str(),
            &new.rule,
            &new.event.map(|event| event.0),
            &new.lane,
            &to_json(&new.summary)?,
            &state.as_str(),
            &new.held.as_ref().map(to_json).transpose()?,
            &due,
            &policy(new.on_unknown),
            &now,
            &now.max(due),
            &new.of_case,
        ],
        |row| Ok(row.get(0)?),
    )?;
    let Some(id) = fresh else {
        if let Body::Spooled { name, .. } = &new.body {
            discard(tx, name)?;
        }
        let id: i64 = tx
            .connection
            .prepare_cached("SELECT id FROM entry WHERE key = $1")?
            .query_row([&new.key], |row| row.get(0))?;
        return Ok(Admitted {
            id: EntryId(id),
            fresh: false,
        });
    };
    let (bytes, spool, len) = match &new.body {
        Body::None => (None, None, None),
        Body::Inline(bytes) => (Some(bytes), None, None),
        Body::Spooled { name, len } => (None, Some(name), Some(len.cast_signed())),
    };
    change(
        tx.connection,
        "INSERT INTO body (entry, effect, bytes, spool, len) VALUES ($1, $2, $3, $4, $5)",
        &[&id, &new.effect, &bytes, &spool, &len],
    )?;
    for event in &new.answers {
        change(
            tx.connection,
            "INSERT OR IGNORE INTO answer (event, entry) VALUES ($1, $2)",
            &[&event.0, &id],
        )?;
    }
    if own_case
        && let Some(reason) = &new.held
        && !is_news_of_a_trouble(tx, new)?
    {
        let case = NewCase {
            key: case_of(new.kind, EntryId(id)),
            kind: match new.kind {
                Kind::Mail if new.summary.get("fault").is_none() => "mail".to_owned(),
                Kind::Mail | Kind::Work => "rule".to_owned(),
            },
            subject: format!("{} {id} of rule {}", new.kind.as_str(), new.rule),
            reason: reason.clone(),
        };
        cases::open(tx, &case, time)?;
    }
    tx.tick();
    Ok(Admitted {
        id: EntryId(id),
        fresh: true,
    })
}

/// The case of an entry that needs a person.
fn case_of(kind: Kind, id: EntryId) -> String {
    format!("{}:{id}", kind.as_str())
}

/// The news of a trouble that cannot be told opens no case: the case would be news again. Nor does what such news
/// led to, by whatever way.
fn is_news_of_a_trouble(tx: &Tx<'_>, new: &NewEntry) -> Result<bool, StoreError> {
    for event in new.event.iter().chain(&new.answers) {
        if journal::is_of_a_trouble(tx.connection, *event)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes a spool file after the commit, unless an entry refers to it.
pub(super) fn discard(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    let referred = first(
        tx.connection,
        "SELECT 1 FROM body WHERE spool = $1 LIMIT 1",
        &[&name],
        |_| Ok(()),
    )?;
    if referred.is_none() {
        tx.unlink(name.to_owned());
    }
    Ok(())
}

/// Lanes in which something waits.
pub(in crate::store) fn lanes(connection: &Connection) -> Result<Vec<Lane>, StoreError> {
    collect(connection, LANES, &[], usize::MAX, |row| {
        let Some(kind) = Kind::parse(&row.get::<_, String>(0)?) else {
            return Ok(None);
        };
        Ok(Some(Lane {
            kind,
            lane: row.get(1)?,
            waiting: row.get::<_, i64>(2)?.max(0).cast_unsigned(),
            due: rows::time(row, 3)?,
        }))
    })
}

/// Leases up to `limit` entries that are due, oldest first.
pub(in crate::store) fn claim(
    tx: &Tx<'_>,
    kind: Kind,
    lane: &str,
    limit: usize,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Leased>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let due: Vec<i64> = collect(
        tx.connection,
        DUE,
        &[&kind.as_str(), &lane, &now.as_microsecond(), &limit],
        usize::MAX,
        |row| Ok(Some(row.get(0)?)),
    )?;
    let mut leased = Vec::with_capacity(due.len());
    for id in due {
        let Some((mut entry, fence)) = find(tx.connection, EntryId(id))? else {
            // A newer version's words: left to it.
            continue;
        };
        let Some(state) = entry.state.after(Verb::Claim) else {
            continue;
        };
        let last = fence;
        let fence = Fence(last.0 + 1);
        let changed = change(
            tx.connection,
            "UPDATE entry SET state = $1, fence = $2, lease_until = $3, gate = NULL, attempts = attempts + 1, \
             changed = $4 WHERE id = $5 AND fence = $6 AND state = $7",
            &[
                &state.as_str(),
                &fence.0,
                &until.as_microsecond(),
                &now.as_microsecond(),
                &id,
                &last.0,
                &entry.state.as_str(),
            ],
        )?;
        if changed == 0 {
            continue;
        }
        entry.state = state;
        entry.attempts += 1;
        entry.changed = now;
        change(
            tx.connection,
            "INSERT INTO attempt (entry, n, started, gated) VALUES ($1, $2, $3, 0)",
            &[&id, &entry.attempts, &now.as_microsecond()],
        )?;
        let (effect, body) = contents(tx.connection, EntryId(id))?;
        leased.push(Leased {
            entry,
            fence,
            until,
            effect,
            body,
        });
    }
    Ok(leased)
}

/// An entry and the fence of its last lease.
pub(super) fn find(connection: &Connection, id: EntryId) -> Result<Option<(Entry, Fence)>, StoreError> {
    let found = first(connection, FIND, &[&id.0], |row| {
        let fence = Fence(row.get(15)?);
        Ok(rows::entry(row)?.map(|entry| (entry, fence)))
    })?;
    Ok(found.flatten())
}

/// Effect and body of an entry.
pub(super) fn contents(connection: &Connection, id: EntryId) -> Result<(Vec<u8>, Body), StoreError> {
    let found = first(
        connection,
        "SELECT effect, bytes, spool, len FROM body WHERE entry = $1",
        &[&id.0],
        |row| Ok((row.get(0)?, rows::body(row, 1)?)),
    )?;
    found.ok_or(StoreError::NoEntry(id))
}

/// The durable "from here on it may have happened".
pub(in crate::store) fn gate(
    tx: &Tx<'_>,
    id: EntryId,
    fence: Fence,
    now: Timestamp,
) -> Result<(), StoreError> {
    let changed = change(
        tx.connection,
        "UPDATE entry SET gate = coalesce(gate, $1) WHERE id = $2 AND fence = $3 AND state = 'leased'",
        &[&now.as_microsecond(), &id.0, &fence.0],
    )?;
    if changed == 0 {
        return Err(StoreError::Fenced { id, fence });
    }
    change(
        tx.connection,
        "UPDATE attempt SET gated = $2 WHERE entry = $1 AND gated = 0 \
         AND n = (SELECT attempts FROM entry WHERE id = $1)",
        &[&id.0, &now.as_microsecond()],
    )?;
    Ok(())
}

/// A later end for a lease.
pub(in crate::store) fn renew(
    tx: &Tx<'_>,
    id: EntryId,
    fence: Fence,
    until: Timestamp,
) -> Result<(), StoreError> {
    let changed = change(
        tx.connection,
        "UPDATE entry SET lease_until = $1 WHERE id = $2 AND fence = $3 AND state = 'leased'",
        &[&until.as_microsecond(), &id.0, &fence.0],
    )?;
    if changed == 0 {
        return Err(StoreError::Fenced { id, fence });
    }
    Ok(())
}

/// Ends a lease as the settlement says, with all that goes with it.
pub(in crate::store) fn settle(
    tx: &Tx<'_>,
    id: EntryId,
    fence: Fence,
    settlement: &Settlement,
    also: &Also,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (entry, held) = find(tx.connection, id)?.ok_or(StoreError::NoEntry(id))?;
    if entry.state != State::Leased || held != fence {
        return Err(StoreError::Fenced { id, fence });
    }
    let verb = settlement.verb();
    let refused = StoreError::Refused {
        id,
        state: entry.state,
        verb,
    };
    if verb == Verb::Release {
        if gated(tx.connection, id)? {
            // It may have happened; "as if never begun" would be a lie.
            return Err(refused);
        }
        give_back(tx, &entry, fence, now)?;
    } else {
        let Some(state) = entry.state.after(verb) else {
            return Err(refused);
        };
        let due = match settlement {
            Settlement::Defer(due, _) => *due,
            _ => entry.due,
        };
        end_attempt(tx, &entry, state, settlement.reason(), now)?;
        put(tx, &entry, fence, state, settlement.reason(), due, now)?;
        change(
            tx.connection,
            "UPDATE entry SET awaits = $1 WHERE id = $2 AND awaits IS NOT $1",
            &[&also.awaits, &id.0],
        )?;
        if state == State::Unknown
            && let Some(due) = also.resend
        {
            again(tx, id, due, now)?;
        }
    }
    if let Some((lane, account)) = &also.lane {
        into_lane(tx, &entry, lane, account)?;
    }
    if let Some(effect) = &also.effect {
        change(
            tx.connection,
            "UPDATE body SET effect = $1 WHERE entry = $2",
            &[effect, &id.0],
        )?;
    }
    for event in &also.events {
        record::insert(tx, event, now)?;
    }
    for file in &also.gone {
        files::mark_gone(tx, file, now)?;
    }
    if let Some(case) = &also.open {
        cases::open(tx, case, now)?;
    }
    for key in &also.close {
        close_case(tx, key, now)?;
    }
    Ok(())
}

/// From now on it waits in another lane. Its state stays, so the tally is told here.
fn into_lane(tx: &Tx<'_>, entry: &Entry, lane: &str, account: &str) -> Result<(), StoreError> {
    let mut summary = entry.summary.clone();
    if summary.is_object() {
        summary["account"] = account.into();
    }
    change(
        tx.connection,
        "UPDATE tally SET n = n - 1 WHERE kind = $1 AND lane = $2 \
         AND state = (SELECT state FROM entry WHERE id = $3)",
        &[&entry.kind.as_str(), &entry.lane, &entry.id.0],
    )?;
    change(
        tx.connection,
        "INSERT INTO tally (kind, lane, state, n) SELECT kind, $1, state, 1 FROM entry WHERE id = $2 \
         ON CONFLICT (kind, lane, state) DO UPDATE SET n = n + 1",
        &[&lane, &entry.id.0],
    )?;
    change(
        tx.connection,
        "UPDATE entry SET lane = $1, summary = $2 WHERE id = $3",
        &[&lane, &to_json(&summary)?, &entry.id.0],
    )?;
    Ok(())
}

/// Whether the entry's present lease passed the gate.
pub(super) fn gated(connection: &Connection, id: EntryId) -> Result<bool, StoreError> {
    let found = first(
        connection,
        "SELECT gate IS NOT NULL FROM entry WHERE id = $1",
        &[&id.0],
        |row| Ok(row.get(0)?),
    )?;
    Ok(found.unwrap_or(false))
}

/// A lease that was not used: as it was before, and no attempt counted.
fn give_back(tx: &Tx<'_>, entry: &Entry, fence: Fence, now: Timestamp) -> Result<(), StoreError> {
    let Some(state) = entry.state.after(Verb::Release) else {
        return Ok(());
    };
    let changed = change(
        tx.connection,
        "UPDATE entry SET state = $1, attempts = attempts - 1, lease_until = NULL, changed = $2 \
         WHERE id = $3 AND fence = $4 AND state = 'leased'",
        &[&state.as_str(), &now.as_microsecond(), &entry.id.0, &fence.0],
    )?;
    if changed == 0 {
        return Err(StoreError::Fenced { id: entry.id, fence });
    }
    change(
        tx.connection,
        "DELETE FROM attempt WHERE entry = $1 AND n = $2",
        &[&entry.id.0, &entry.attempts],
    )?;
    tx.tick();
    Ok(())
}

/// Writes how the running attempt ended.
pub(super) fn end_attempt(
    tx: &Tx<'_>,
    entry: &Entry,
    outcome: State,
    reason: Option<&Reason>,
    now: Timestamp,
) -> Result<(), StoreError> {
    change(
        tx.connection,
        "UPDATE attempt SET ended = $1, outcome = $2, reason = $3 WHERE entry = $4 AND n = $5",
        &[
            &now.as_microsecond(),
            &outcome.as_str(),
            &reason.map(to_json).transpose()?,
            &entry.id.0,
            &entry.attempts,
        ],
    )?;
    Ok(())
}

/// Moves a leased entry on, if the lease is still that one.
pub(super) fn put(
    tx: &Tx<'_>,
    entry: &Entry,
    fence: Fence,
    state: State,
    reason: Option<&Reason>,
    due: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let changed = change(
        tx.connection,
        "UPDATE entry SET state = $1, reason = $2, due = $3, lease_until = NULL, changed = $4 \
         WHERE id = $5 AND fence = $6 AND state = 'leased'",
        &[
            &state.as_str(),
            &reason.map(to_json).transpose()?,
            &due.as_microsecond(),
            &now.as_microsecond(),
            &entry.id.0,
            &fence.0,
        ],
    )?;
    if changed == 0 {
        return Err(StoreError::Fenced { id: entry.id, fence });
    }
    if matches!(state, State::Ready | State::Deferred) {
        tx.tick();
    }
    Ok(())
}

/// The policy's retry: unknown, then ready. The reason stays, so that a list shows why.
pub(super) fn again(tx: &Tx<'_>, id: EntryId, due: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    let Some(state) = State::Unknown.after(Verb::Retry) else {
        return Ok(());
    };
    change(
        tx.connection,
        "UPDATE entry SET state = $1, due = $2, changed = $3 WHERE id = $4 AND state = 'unknown'",
        &[
            &state.as_str(),
            &due.as_microsecond(),
            &now.as_microsecond(),
            &id.0,
        ],
    )?;
    tx.tick();
    Ok(())
}

/// A person says: again. What was never composed is removed, and its event dispatched again; or what is
/// gathered under its key is due.
pub(in crate::store) fn retry(tx: &Tx<'_>, id: EntryId, now: Timestamp) -> Result<Entry, StoreError> {
    let (entry, _) = find(tx.connection, id)?.ok_or(StoreError::NoEntry(id))?;
    let Some(state) = entry.state.after(Verb::Retry) else {
        return Err(StoreError::Refused {
            id,
            state: entry.state,
            verb: Verb::Retry,
        });
    };
    let (effect, _) = contents(tx.connection, id)?;
    if effect.is_empty() {
        if gatherings::hasten(tx, &entry.rule, &entry.key, now)? {
            remove(tx, id)?;
            cases::close(tx, &case_of(entry.kind, id), now)?;
            tx.tick();
            return Ok(entry);
        }
        let Some(event) = entry.event else {
            return Err(StoreError::NotComposed(id));
        };
        remove(tx, id)?;
        cases::close(tx, &case_of(entry.kind, id), now)?;
        let asked = change(
            tx.connection,
            "UPDATE event SET dispatched = NULL WHERE id = $1",
            &[&event.0],
        )?;
        if asked == 0 {
            return Err(StoreError::NotComposed(id));
        }
        tx.tick();
        return Ok(entry);
    }
    change(
        tx.connection,
        "UPDATE entry SET state = $1, reason = NULL, due = $2, since = $2, changed = $2 \
         WHERE id = $3 AND state = $4",
        &[
            &state.as_str(),
            &now.as_microsecond(),
            &id.0,
            &entry.state.as_str(),
        ],
    )?;
    tx.tick();
    moved(tx, id)
}

/// Entries that wait for that case are due now.
pub(in crate::store) fn hasten(tx: &Tx<'_>, case: &str, now: Timestamp) -> Result<u64, StoreError> {
    let hastened = change(tx.connection, AWAITING, &[&now.as_microsecond(), &case])?;
    if hastened > 0 {
        tx.tick();
    }
    Ok(hastened as u64)
}

/// A case is over, and what waited for it is due; also where none was open: a mail may wait for one that
/// was closed a moment ago.
pub(in crate::store) fn close_case(tx: &Tx<'_>, key: &str, now: Timestamp) -> Result<bool, StoreError> {
    hasten(tx, key, now)?;
    cases::close(tx, key, now)
}

/// A person says: never.
pub(in crate::store) fn cancel(tx: &Tx<'_>, id: EntryId, now: Timestamp) -> Result<Entry, StoreError> {
    let (entry, _) = find(tx.connection, id)?.ok_or(StoreError::NoEntry(id))?;
    let Some(state) = entry.state.after(Verb::Cancel) else {
        return Err(StoreError::Refused {
            id,
            state: entry.state,
            verb: Verb::Cancel,
        });
    };
    change(
        tx.connection,
        "UPDATE entry SET state = $1, changed = $2 WHERE id = $3 AND state = $4",
        &[
            &state.as_str(),
            &now.as_microsecond(),
            &id.0,
            &entry.state.as_str(),
        ],
    )?;
    cases::close(tx, &case_of(entry.kind, id), now)?;
    moved(tx, id)
}

/// A case is over: what waits still and is only right while it is open shall never be done.
pub(super) fn cancel_over(tx: &Tx<'_>, case: &str, now: Timestamp) -> Result<(), StoreError> {
    let waiting: Vec<EntryId> = collect(
        tx.connection,
        "SELECT id FROM entry WHERE of_case = $1 AND state IN ('ready', 'deferred', 'held')",
        &[&case],
        usize::MAX,
        |row| Ok(Some(EntryId(row.get(0)?))),
    )?;
    let reason = to_json(&Reason::new("it was over before this could be sent"))?;
    for id in waiting {
        cancel(tx, id, now)?;
        change(
            tx.connection,
            "UPDATE entry SET reason = $1 WHERE id = $2",
            &[&reason, &id.0],
        )?;
    }
    Ok(())
}

fn moved(tx: &Tx<'_>, id: EntryId) -> Result<Entry, StoreError> {
    find(tx.connection, id)?
        .map(|(entry, _)| entry)
        .ok_or(StoreError::NoEntry(id))
}

/// Takes an entry out, with its body, its attempts and its spool file.
pub(super) fn remove(tx: &Tx<'_>, id: EntryId) -> Result<(), StoreError> {
    let (_, body) = contents(tx.connection, id)?;
    for sql in [
        "DELETE FROM attempt WHERE entry = $1",
        "DELETE FROM body WHERE entry = $1",
        "DELETE FROM answer WHERE entry = $1",
        "DELETE FROM entry WHERE id = $1",
    ] {
        change(tx.connection, sql, &[&id.0])?;
    }
    if let Body::Spooled { name, .. } = &body {
        discard(tx, name)?;
    }
    Ok(())
}
