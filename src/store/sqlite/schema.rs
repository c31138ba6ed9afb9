//! The tables, and how older ones become them. `PRAGMA user_version` counts the migrations done.
//!
//! Times are microseconds since 1970. Words (kinds, states) are stored as text, so that a version that
//! does not know one can leave it alone. Ids are never given twice.

use crate::store::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// Marks the file as ours: "tdng".
const APPLICATION: i32 = 0x7464_6E67;

/// Each in a transaction of its own. Only ever append.
const MIGRATIONS: [&str; 3] = [FIRST, SECOND, THIRD];

const FIRST: &str = "
CREATE TABLE event (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    key          TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    time         INTEGER NOT NULL,
    facts        TEXT    NOT NULL,
    root         BLOB,
    relative     BLOB,
    size         INTEGER,
    mtime_ns     INTEGER,
    origin_rule  TEXT,
    origin_event INTEGER,
    recorded     INTEGER NOT NULL,
    recovers     INTEGER NOT NULL,
    dispatched   INTEGER
) STRICT;
CREATE INDEX event_pending ON event (id) WHERE dispatched IS NULL;
CREATE INDEX event_file ON event (relative) WHERE relative IS NOT NULL;

CREATE TABLE verdict (
    event   INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    rule    TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    PRIMARY KEY (event, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    name TEXT    NOT NULL PRIMARY KEY,
    ok   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE entry (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT    NOT NULL UNIQUE,
    kind        TEXT    NOT NULL,
    rule        TEXT    NOT NULL,
    event       INTEGER,
    lane        TEXT    NOT NULL,
    summary     TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    reason      TEXT,
    due         INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    on_unknown  TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    since       INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    lease_until INTEGER,
    gate        INTEGER
) STRICT;
CREATE INDEX entry_waiting ON entry (kind, lane, due, id) WHERE state IN ('ready', 'deferred');
CREATE INDEX entry_state ON entry (state, id);
CREATE INDEX entry_event ON entry (event) WHERE event IS NOT NULL;

CREATE TABLE body (
    entry  INTEGER PRIMARY KEY,
    effect BLOB    NOT NULL,
    bytes  BLOB,
    spool  TEXT,
    len    INTEGER
) STRICT;
CREATE INDEX body_spool ON body (spool) WHERE spool IS NOT NULL;

CREATE TABLE attempt (
    entry   INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER,
    outcome TEXT,
    reason  TEXT,
    gated   INTEGER NOT NULL,
    PRIMARY KEY (entry, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_unknown ON attempt (entry) WHERE outcome = 'unknown';
CREATE INDEX attempt_gated ON attempt (started) WHERE gated = 1;

-- How many entries of each kind, lane and state there are: counting them anew for each question would
-- cost more the more of them wait.
CREATE TABLE tally (
    kind  TEXT    NOT NULL,
    lane  TEXT    NOT NULL,
    state TEXT    NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (kind, lane, state)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER tally_in AFTER INSERT ON entry BEGIN
    INSERT INTO tally (kind, lane, state, n) VALUES (new.kind, new.lane, new.state, 1)
        ON CONFLICT (kind, lane, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tally_move AFTER UPDATE OF state ON entry WHEN old.state <> new.state BEGIN
    UPDATE tally SET n = n - 1 WHERE kind = old.kind AND lane = old.lane AND state = old.state;
    INSERT INTO tally (kind, lane, state, n) VALUES (new.kind, new.lane, new.state, 1)
        ON CONFLICT (kind, lane, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tally_out AFTER DELETE ON entry BEGIN
    UPDATE tally SET n = n - 1 WHERE kind = old.kind AND lane = old.lane AND state = old.state;
END;

CREATE TABLE watch (
    id       TEXT    NOT NULL PRIMARY KEY,
    root     BLOB    NOT NULL,
    baseline INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE seen (
    watch    TEXT    NOT NULL,
    relative BLOB    NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash     BLOB,
    arrivals INTEGER NOT NULL,
    gone     INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    PRIMARY KEY (watch, relative)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_gone ON seen (changed) WHERE gone = 1;

CREATE TABLE trouble (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    key     TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    opened  INTEGER NOT NULL,
    closed  INTEGER
) STRICT;
CREATE UNIQUE INDEX trouble_open ON trouble (key) WHERE closed IS NULL;

-- A deleted grant leaves its version, so that the next one cannot be taken for it.
CREATE TABLE grants (
    account TEXT    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed  BLOB,
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mark (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The case an entry waits for; and when an attempt passed the gate, which is what a provider counts,
/// and not when it was claimed. `gated` is that time from now on, 0 where it did not.
const SECOND: &str = "
ALTER TABLE entry ADD COLUMN awaits TEXT;
CREATE INDEX entry_awaits ON entry (awaits) WHERE awaits IS NOT NULL;
DROP INDEX attempt_gated;
UPDATE attempt SET gated = started WHERE gated = 1;
CREATE INDEX attempt_gated ON attempt (gated) WHERE gated > 0;
";

/// Events that open and close cases; what rules gather before they tell; entries that answer several events,
/// and those that are only right while a case is open.
const THIRD: &str = "
ALTER TABLE event ADD COLUMN case_key TEXT;
ALTER TABLE event ADD COLUMN case_does TEXT;
ALTER TABLE event ADD COLUMN case_text TEXT;
CREATE INDEX event_case ON event (case_key) WHERE case_key IS NOT NULL;
ALTER TABLE trouble ADD COLUMN event INTEGER;
ALTER TABLE entry ADD COLUMN of_case TEXT;
CREATE INDEX entry_of_case ON entry (of_case) WHERE of_case IS NOT NULL;

CREATE TABLE gathering (
    rule  TEXT    NOT NULL,
    key   TEXT    NOT NULL,
    state TEXT    NOT NULL,
    due   INTEGER,
    PRIMARY KEY (rule, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX gathering_due ON gathering (due) WHERE due IS NOT NULL;

CREATE TABLE gathered (
    rule  TEXT    NOT NULL,
    key   TEXT    NOT NULL,
    event INTEGER NOT NULL,
    PRIMARY KEY (rule, key, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX gathered_event ON gathered (event);

CREATE TABLE answer (
    event INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    PRIMARY KEY (event, entry)
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_entry ON answer (entry);
";

/// Brings the database to the newest schema, or says why that cannot be.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version(connection)? == known {
        return owned(connection, path);
    }
    for (steps, migration) in (1_i64..).zip(MIGRATIONS) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked again inside: another process may have been faster.
        let found = version(&tx)?;
        if found > known {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
                known,
            });
        }
        if found == 0 {
            let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                });
            }
            tx.pragma_update(None, "application_id", APPLICATION)?;
        } else {
            owned(&tx, path)?;
        }
        if found < steps {
            tx.execute_batch(migration)?;
            tx.pragma_update(None, "user_version", steps)?;
        }
        tx.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn owned(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION {
        return Ok(());
    }
    Err(StoreError::Foreign {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection, Path::new("x.db")).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Newer {
                found: 99,
                known: 3,
                ..
            }
        ));
        assert!(error.to_string().contains("run that version"), "{error}");
        assert_eq!(version(&connection).unwrap(), 99);
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        let error = migrate(&mut connection, Path::new("x.db")).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }));
        connection.pragma_update(None, "user_version", 1).unwrap();
        assert!(migrate(&mut connection, Path::new("x.db")).is_err());
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x.db")).unwrap();
        migrate(&mut connection, Path::new("x.db")).unwrap();
    }

    #[test]
    fn what_waits_is_found_by_an_index() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x.db")).unwrap();
        let plan = |sql: &str| -> String {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let mut rows = statement.raw_query();
            let mut plan = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                plan.push(row.get::<_, String>(3).unwrap());
            }
            plan.join("; ")
        };
        for (sql, index) in [
            (super::super::outbox::DUE, "entry_waiting"),
            (super::super::outbox::LANES, "entry_waiting"),
            (super::super::outbox::ORPHANED, "entry_state"),
            (super::super::outbox::AWAITING, "entry_awaits"),
            (super::super::lists::GATED, "attempt_gated"),
            (super::super::journal::PENDING, "event_pending"),
            (super::super::purge::DONE_ENTRIES, "entry_state"),
        ] {
            let plan = plan(sql);
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
            assert!(!plan.contains("SCAN entry"), "{sql}: {plan}");
        }
    }
}
