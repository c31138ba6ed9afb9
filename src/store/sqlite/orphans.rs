//! Leases whose bearer is gone: at the owner's start all of them, later those that ran out.
//!
//! | found | becomes | its attempt says |
//! |---|---|---|
//! | before the gate | `ready` | `ready` |
//! | a mail past the gate, `hold` | `unknown` | `unknown` |
//! | a mail past the gate, `resend` or `verify` | `unknown`, then `ready` | `unknown` |
//! | work past the gate | `failed`, and the events of `lost` | `failed` |

use super::outbox;
use super::rows::collect;
use super::writer::Tx;
use super::{record, rows};
use crate::entry::{Entry, EntryId, Kind, Reason, State, Verb};
use crate::event::NewEvent;
use crate::store::{Recovery, StoreError};
use jiff::Timestamp;

/// What makes the events of work that was lost.
pub(in crate::store) type Lost = fn(&Entry, &[u8]) -> Vec<NewEvent>;

/// Settles every lease that ended before `until`; with [`Timestamp::MAX`] every lease there is.
pub(in crate::store) fn settle(
    tx: &Tx<'_>,
    until: Timestamp,
    lost: Lost,
    now: Timestamp,
) -> Result<Recovery, StoreError> {
    let found: Vec<i64> = collect(
        tx.connection,
        outbox::ORPHANED,
        &[&until.as_microsecond()],
        usize::MAX,
        |row| Ok(Some(row.get(0)?)),
    )?;
    let mut recovery = Recovery::default();
    for id in found.into_iter().map(EntryId) {
        let Some((entry, fence)) = outbox::find(tx.connection, id)? else {
            continue;
        };
        let gated = outbox::gated(tx.connection, id)?;
        let (verb, reason) = match (gated, entry.kind) {
            (false, _) => (
                Verb::Release,
                Reason::new("whoever had it stopped before the point of no return; nothing was done"),
            ),
            (true, Kind::Mail) => (
                Verb::Lose,
                Reason::new(
                    "whoever sent it stopped between handing it over and hearing the answer; \
                     the receiver may have it",
                ),
            ),
            (true, Kind::Work) => (
                Verb::Fail,
                Reason::new("whoever did it stopped while it ran; how it ended is not known"),
            ),
        };
        let Some(state) = entry.state.after(verb) else {
            continue;
        };
        outbox::end_attempt(tx, &entry, state, Some(&reason), now)?;
        // What was certainly not done waits on for the reason it waited for before.
        let shown = if gated {
            Some(&reason)
        } else {
            entry.reason.as_ref()
        };
        outbox::put(tx, &entry, fence, state, shown, entry.due, now)?;
        match state {
            State::Unknown => {
                recovery.unknown.push(id);
                if entry.on_unknown.comes_back() {
                    outbox::again(tx, id, now, now)?;
                    recovery.resent.push(id);
                }
            }
            State::Failed => {
                let (effect, _) = outbox::contents(tx.connection, id)?;
                for event in lost(&entry, &effect) {
                    record::insert(tx, &event, now)?;
                }
                recovery.lost_work.push(id);
            }
            _ => recovery.released.push(id),
        }
    }
    Ok(recovery)
}

/// Names of all spool files that entries refer to.
pub(in crate::store) fn referred(
    connection: &rusqlite::Connection,
) -> Result<std::collections::HashSet<String>, StoreError> {
    let names = rows::collect(
        connection,
        "SELECT spool FROM body WHERE spool IS NOT NULL",
        &[],
        usize::MAX,
        |row| Ok(Some(row.get::<_, String>(0)?)),
    )?;
    Ok(names.into_iter().collect())
}
