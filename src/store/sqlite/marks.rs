//! Marks: small JSON values by key.

use super::rows::{self, change, to_json};
use super::writer::Tx;
use crate::store::StoreError;
use rusqlite::Connection;
use serde_json::Value;

/// Sets each; the last one wins.
pub(in crate::store) fn set(tx: &Tx<'_>, marks: &[(String, Value)]) -> Result<(), StoreError> {
    for (key, value) in marks {
        change(
            tx.connection,
            "INSERT INTO mark (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            &[key, &to_json(value)?],
        )?;
    }
    Ok(())
}

/// All whose key begins with `prefix`, by key.
pub(in crate::store) fn get(
    connection: &Connection,
    prefix: &str,
) -> Result<Vec<(String, Value)>, StoreError> {
    // Keys are ordered by their bytes, so all with the prefix stand together.
    let mut statement =
        connection.prepare_cached("SELECT key, value FROM mark WHERE key >= $1 ORDER BY key")?;
    let mut found = statement.query([prefix])?;
    let mut marks = Vec::new();
    while let Some(row) = found.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        marks.push((key, rows::json(row, 1)?));
    }
    Ok(marks)
}

/// Removes exactly these.
pub(super) fn take(tx: &Tx<'_>, keys: &[String]) -> Result<(), StoreError> {
    for key in keys {
        change(tx.connection, "DELETE FROM mark WHERE key = $1", &[key])?;
    }
    Ok(())
}

/// Removes all whose key begins with `prefix`.
pub(in crate::store) fn delete(tx: &Tx<'_>, prefix: &str) -> Result<(), StoreError> {
    for (key, _) in get(tx.connection, prefix)? {
        change(tx.connection, "DELETE FROM mark WHERE key = $1", &[&key])?;
    }
    Ok(())
}
