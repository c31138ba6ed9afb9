//! Mails that are handed in: the event and its entry, together or not at all.

use super::rows::{change, first};
use super::writer::Tx;
use super::{outbox, record};
use crate::entry::NewEntry;
use crate::event::NewEvent;
use crate::store::{Admitted, StoreError};
use jiff::Timestamp;

/// The latest time an event came under a key, or under the key with a time behind it.
const LATEST: &str = "SELECT event.recorded, entry.key FROM event LEFT JOIN entry ON entry.event = event.id \
     WHERE event.key = $1 OR (event.key > $2 AND event.key < $3) ORDER BY event.id DESC LIMIT 1";

/// Both are new, or the entry that came of the same since `since`.
pub(in crate::store) fn take_in(
    tx: &Tx<'_>,
    event: &NewEvent,
    entry: &NewEntry,
    since: Timestamp,
    now: Timestamp,
) -> Result<Admitted, StoreError> {
    let (mut event, mut entry) = (event.clone(), entry.clone());
    // `A` comes right behind `@`.
    let (from, to) = (format!("{}@", event.key), format!("{}A", event.key));
    let before: Option<(i64, Option<String>)> =
        first(tx.connection, LATEST, &[&event.key, &from, &to], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    match before {
        Some((recorded, Some(key))) if recorded >= since.as_microsecond() => {
            // The key is taken: what came in vain is cleared away as ever.
            entry.key = key;
            return outbox::insert(tx, &entry, true, now);
        }
        Some(_) => {
            let behind = format!("@{}", now.as_microsecond());
            event.key.push_str(&behind);
            entry.key.push_str(&behind);
        }
        None => {}
    }
    let recorded = record::insert(tx, &event, now)?;
    entry.event = Some(recorded.id);
    let admitted = outbox::insert(tx, &entry, true, now)?;
    change(
        tx.connection,
        "UPDATE event SET dispatched = $1 WHERE id = $2",
        &[&now.as_microsecond(), &recorded.id.0],
    )?;
    Ok(admitted)
}
