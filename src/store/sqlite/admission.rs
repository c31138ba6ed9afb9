//! Admission: an event's entries into the outbox, its verdicts beside it, and the event is dispatched.

use super::rows::change;
use super::writer::Tx;
use super::{cases, gatherings, outbox, record};
use crate::event::EventId;
use crate::store::{Admission, Admitted, StoreError};
use jiff::Timestamp;

/// Entries and verdicts of events, which are dispatched with this.
pub(in crate::store) fn admit(
    tx: &Tx<'_>,
    admissions: &[Admission],
    now: Timestamp,
) -> Result<Vec<Vec<Admitted>>, StoreError> {
    let mut all = Vec::with_capacity(admissions.len());
    for admission in admissions {
        all.push(
            admission
                .entries
                .iter()
                .map(|entry| outbox::insert(tx, entry, admission.case.is_none(), now))
                .collect::<Result<_, _>>()?,
        );
        for event in &admission.events {
            record::insert(tx, event, now)?;
        }
        if let Some(case) = &admission.case {
            cases::open(tx, case, now)?;
        }
        for case in &admission.over {
            outbox::cancel_over(tx, case, now)?;
        }
        for step in &admission.gathers {
            gatherings::apply(tx, step)?;
        }
        let Some(EventId(event)) = admission.event else {
            continue;
        };
        change(tx.connection, "DELETE FROM verdict WHERE event = $1", &[&event])?;
        for (n, verdict) in (0_i64..).zip(&admission.verdicts) {
            change(
                tx.connection,
                "INSERT INTO verdict (event, n, rule, outcome, detail) VALUES ($1, $2, $3, $4, $5)",
                &[&event, &n, &verdict.rule, &verdict.outcome, &verdict.detail],
            )?;
        }
        change(
            tx.connection,
            "UPDATE event SET dispatched = $1 WHERE id = $2",
            &[&now.as_microsecond(), &event],
        )?;
    }
    Ok(all)
}
