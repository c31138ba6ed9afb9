//! Recording: what is noticed, written in one transaction with what it means for cases, files and marks.

use super::writer::Tx;
use super::{cases, files, journal, marks};
use crate::event::NewEvent;
use crate::store::{Batch, Recorded, StoreError};
use jiff::Timestamp;

/// Everything of a batch.
pub(in crate::store) fn record(
    tx: &Tx<'_>,
    batch: &Batch,
    now: Timestamp,
) -> Result<Vec<Recorded>, StoreError> {
    let recorded = batch
        .events
        .iter()
        .map(|event| insert(tx, event, now))
        .collect::<Result<_, _>>()?;
    for watch in &batch.baselines {
        files::remember_watch(tx, watch)?;
    }
    for file in &batch.seen {
        files::remember(tx, file, now)?;
    }
    marks::set(tx, &batch.marks)?;
    marks::take(tx, &batch.unmarked)?;
    Ok(recorded)
}

/// One event, with what it does to a case; a key that is taken gives back its number.
pub(super) fn insert(tx: &Tx<'_>, event: &NewEvent, now: Timestamp) -> Result<Recorded, StoreError> {
    let Some(step) = &event.case else {
        return journal::put(tx, event, now);
    };
    if let Some(standing) = cases::stands(tx.connection, step)? {
        return Ok(standing);
    }
    let recorded = journal::put(tx, event, now)?;
    if recorded.fresh {
        cases::step(tx, event, step, recorded.id, now)?;
    }
    Ok(recorded)
}
