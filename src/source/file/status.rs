//! What `tidings status` can say of a watch: written to the store as the mark `watch:ID`.

use crate::event::shown;
use crate::source::Watch;
use crate::source::root::FolderId;
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Marks of watches begin with this.
pub const MARKS: &str = "watch:";

/// How a watched folder is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The kernel gives hints, scans make sure.
    Native,
    /// Only scans.
    Polled,
    /// The folder cannot be looked at.
    Away,
}

/// A watch's proof of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// The folder as the setup names it, for people.
    pub root: PathBuf,
    /// How it is looked at.
    pub mode: Mode,
    /// Why it is polled (wholly or in part), away or doubtful, and what to do about it.
    pub why: Option<String>,
    /// Since when it cannot be looked at.
    pub away_since: Option<Timestamp>,
    /// Folders read by the last full scan, with the root.
    pub folders: u64,
    /// Folders that are polled because the kernel does not report from them.
    pub polled_folders: u64,
    /// Files it knows.
    pub known: u64,
    /// Files that may have arrived and are waited for.
    pub candidates: u64,
    /// Symlinks, FIFOs, sockets and devices that the last full scan left alone.
    pub skipped: u64,
    /// Folders below the root that the last full scan could not read.
    pub unreadable: u64,
    /// When the last full scan ended.
    pub last_scan: Option<Timestamp>,
    /// When it began: what was there by then, it met.
    #[serde(default)]
    pub scan_began: Option<Timestamp>,
    /// How long it took, milliseconds.
    pub scan_ms: u64,
    /// When a file last arrived, since this process runs.
    pub last_event: Option<Timestamp>,
    /// Which folder it was when files were last found in it as expected. A different one after a restart
    /// is a reason for doubt, not for taking all files for new.
    pub folder: Option<FolderId>,
    /// Folders below the root at which another file system began, also where it is away now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<PathBuf>,
}

/// What one complete look led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The watch.
    pub id: String,
    /// Its folder.
    pub root: PathBuf,
    /// Files that arrived and were recorded.
    pub arrived: u64,
    /// Files it knows now.
    pub known: u64,
    /// Files that have not settled, for the next look: they kept changing, or their marker is not there.
    pub left: u64,
    /// Why the folder, or a part of it, could not be looked at.
    pub trouble: Option<String>,
}

/// The mark's key for a watch.
pub fn mark(watch: &str) -> String {
    format!("{MARKS}{watch}")
}

/// The key of the case that a folder cannot be looked at.
pub fn case(root: &Path) -> String {
    format!("watch:{}", shown(root.as_os_str()))
}

/// The key of the case that parts of a folder cannot be, by the key of the first.
pub fn partly_case(case: &str) -> String {
    format!("{case}#unreadable")
}

/// Forgets the status of every watch but these, and ends its troubles: nobody looks there any more. What
/// it has seen stays remembered, should it come back.
pub async fn keep_only<'a>(
    store: &Store,
    watches: impl Iterator<Item = &'a Watch>,
) -> Result<(), StoreError> {
    let (mut marks, mut cases) = (HashSet::new(), HashSet::new());
    for watch in watches {
        marks.insert(mark(&watch.id));
        let case = case(&watch.root);
        cases.insert(partly_case(&case));
        cases.insert(case);
    }
    for (key, _) in store.marks(MARKS).await? {
        if !marks.contains(&key) {
            store.delete_marks(&key).await?;
        }
    }
    for case in store.open_cases().await? {
        if case.kind == "watch" && !cases.contains(&case.key) {
            store.close_case(&case.key).await?;
        }
    }
    Ok(())
}
