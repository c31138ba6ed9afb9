//! The owner's lock: one process claims, recovers and purges. Held through the file `lock` in the
//! state folder; the system lets go of it when the process ends, however it ends.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The right to be the one that delivers. Given up when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Who has the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("process {pid} ({what}) has been at work here since {since}")]
pub struct Busy {
    /// Its process id; 0 if it could not be read.
    pub pid: u32,
    /// What it does: `tidings run`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
}

/// Why there is no lock.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The file could not be made or locked.
    #[error("cannot lock {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: Arc<std::io::Error>,
    },
}

impl Lock {
    /// Takes the lock of the state folder, which is made if need be, or says who has it; never waits.
    /// `what` is shown to the next one who tries.
    pub fn acquire(state: &Path, what: &str) -> Result<Lock, LockError> {
        let path = state.join("lock");
        let failed = |source: std::io::Error| LockError::File {
            path: path.clone(),
            source: Arc::new(source),
        };
        super::spool::private_folder(state).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(holder(&mut file).into()),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(failed)?;
        let note = Busy {
            pid: std::process::id(),
            what: what.to_owned(),
            since: Timestamp::now(),
        };
        let text = serde_json::to_string(&note).map_err(|error| failed(error.into()))?;
        file.set_len(0).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Lock { file })
    }
}

impl Lock {
    /// Who owns the state now, without trying to take the lock: trying, even for a moment, could make
    /// an owner's start fail. `None` when nobody does. Reads `/proc/locks`, so that the note of a
    /// killed owner, or its process number given to somebody else, deceives nobody.
    pub fn holder(state: &Path) -> Option<Busy> {
        let path = state.join("lock");
        let busy: Busy = serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
        let inode = std::fs::metadata(&path).ok()?.ino();
        // The list is read piece by piece while others lock and unlock, so a line may be passed over.
        (0..LOOKS)
            .any(|_| is_locked(inode, busy.pid).unwrap_or(false))
            .then_some(busy)
    }
}

/// How often the list of locks is read before a lock counts as not there.
const LOOKS: usize = 5;

/// Whether the process has the lock on this file.
fn is_locked(inode: u64, pid: u32) -> Option<bool> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`
    let found = locks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|words| {
            words.get(1) == Some(&"FLOCK")
                && words.get(4).and_then(|pid| pid.parse().ok()) == Some(pid)
                && words
                    .get(5)
                    .and_then(|place| place.rsplit(':').next()?.parse().ok())
                    == Some(inode)
        });
    Some(found)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The note goes before the lock does, so that nobody reads of a process that left. The file
        // stays: removing it would let two processes lock two files of the same name.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// What the holder wrote. It locks first and writes then, so the note may be missing for a moment.
fn holder(file: &mut File) -> Busy {
    for _ in 0..20 {
        let mut text = String::new();
        if file.rewind().is_ok()
            && file.read_to_string(&mut text).is_ok()
            && let Ok(busy) = serde_json::from_str(&text)
        {
            return busy;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Busy {
        pid: 0,
        what: "another tidings".to_owned(),
        since: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_holds_the_lock_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let lock = Lock::acquire(&state, "tidings run").unwrap();
        let LockError::Busy(busy) = Lock::acquire(&state, "tidings run --once").unwrap_err() else {
            panic!("not busy");
        };
        assert_eq!(
            (busy.pid, busy.what.as_str()),
            (std::process::id(), "tidings run")
        );
        drop(lock);
        let lock = Lock::acquire(&state, "tidings run --once").unwrap();
        let mode = lock.file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_holder_is_known_while_it_lives_and_not_after() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(folder.path()), None);
        let lock = Lock::acquire(folder.path(), "tidings run").unwrap();
        assert_eq!(Lock::holder(folder.path()).unwrap().pid, std::process::id());
        let note = std::fs::read(folder.path().join("lock")).unwrap();
        drop(lock);
        std::fs::write(folder.path().join("lock"), note).unwrap();
        assert_eq!(Lock::holder(folder.path()), None, "a note alone is no owner");
    }

    #[test]
    fn a_lock_without_a_readable_note_is_still_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(folder.path(), "tidings run").unwrap();
        lock.file.set_len(0).unwrap();
        let LockError::Busy(busy) = Lock::acquire(folder.path(), "x").unwrap_err() else {
            panic!("not busy");
        };
        assert_eq!(busy.pid, 0);
    }
}
