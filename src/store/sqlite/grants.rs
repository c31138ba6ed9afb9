//! Grants: sealed bytes with a version that never comes twice.

use super::rows::{self, change, first};
use super::writer::Tx;
use crate::store::{Grant, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;

/// The grant of an account.
pub(in crate::store) fn get(connection: &Connection, account: &str) -> Result<Option<Grant>, StoreError> {
    first(
        connection,
        "SELECT version, sealed, updated FROM grants WHERE account = $1 AND sealed IS NOT NULL",
        &[&account],
        |row| {
            Ok(Grant {
                version: row.get(0)?,
                sealed: row.get(1)?,
                updated: rows::time(row, 2)?,
            })
        },
    )
}

/// Stores or (with `None`) deletes a grant if `expected` still stands; its new version.
pub(in crate::store) fn put(
    tx: &Tx<'_>,
    account: &str,
    expected: Option<i64>,
    sealed: Option<&[u8]>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    if get(tx.connection, account)?.map(|grant| grant.version) != expected {
        return Err(StoreError::Stale {
            account: account.to_owned(),
        });
    }
    let last: Option<i64> = first(
        tx.connection,
        "SELECT version FROM grants WHERE account = $1",
        &[&account],
        |row| Ok(row.get(0)?),
    )?;
    let version = last.unwrap_or_default() + 1;
    change(
        tx.connection,
        "INSERT INTO grants (account, version, sealed, updated) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (account) DO UPDATE SET version = excluded.version, sealed = excluded.sealed, \
         updated = excluded.updated",
        &[&account, &version, &sealed, &now.as_microsecond()],
    )?;
    Ok(version)
}
