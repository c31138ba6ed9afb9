//! Sources: what notices. A closed list, one file a kind; none of them knows a rule.
//!
//! | source | notices | by |
//! |---|---|---|
//! | [`mod@file`] | files that settled in a watched folder | [`watch`] (a hint), [`scan`] (the truth), [`settle`] (when a writer is done) |
//! | [`schedule`] | calendar times | the wall clock |
//! | [`absence`] | what did not come, and what goes on for too long | the journal, the watches, the wall clock |
//! | [`job`] | jobs that ended | what delivery settled, and `tidings exec` |
//! | [`running`] | jobs that run, and those nobody reports any more | leases, and marks of `tidings exec` |
//! | [`emitted`] | events that somebody emits | `tidings emit`, a drop folder, rules that emit |

pub mod absence;
pub mod contents;
pub mod emitted;
pub mod file;
pub mod fs_kind;
pub mod job;
pub mod memory;
pub mod root;
pub mod running;
pub mod scan;
pub mod schedule;
pub mod settle;
pub mod together;
pub mod wanted;
pub mod watch;

use crate::source::together::Together;
use crate::source::wanted::Ignore;
use crate::template::Text;
use globset::GlobMatcher;
use std::path::PathBuf;
use std::time::Duration;

/// One watched folder, as all rules together want it.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Stable name: the same root, settling, identity and memory of existing files give the same id.
    pub id: String,
    /// The folder, absolute.
    pub root: PathBuf,
    /// When a writer is done.
    pub settle: Settle,
    /// What makes two files the same.
    pub identity: Identity,
    /// What to do with files found on the very first look.
    pub existing: Existing,
    /// What the rules look for here. A file that meets none is remembered, but is no event.
    pub wanted: Vec<Wanted>,
    /// Those of them that want to hear of files that go away.
    pub removed: Vec<Wanted>,
    /// Files that belong together, as rules ask for them; `wanted` has them too.
    pub sets: Vec<Together>,
    /// Time between two full scans that run whatever the notifications say.
    pub scan_every: Duration,
}

/// What one rule looks for in a watched folder.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Pattern for the path below the root.
    pub matching: GlobMatcher,
    /// Patterns (for the path below the root, or for the name alone) of files that are left out, and of
    /// folders that are not looked into.
    pub ignore: Ignore,
    /// Looks into sub-folders.
    pub recursive: bool,
    /// Smallest size, bytes.
    pub min_size: u64,
    /// Largest size, bytes.
    pub max_size: Option<u64>,
}

/// When a writer is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Renamed into place: at once. Closed after writing: 300 ms without another change. Otherwise:
    /// size and mtime stood still for two looks; [`settle`] says how far apart.
    Auto,
    /// Size and mtime stood still this long since we first saw them.
    After(Duration),
    /// Another file appeared whose name, from the file's own folder, this template gives
    /// (`{{file.name}}.done`, from `file` facts only; `size` and `modified` are not known yet). The marker
    /// itself is no event. If it was there before the file, the file settles as with `Auto`.
    Marker(Text),
}

/// What makes two files the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Path, size and mtime.
    Metadata,
    /// These, and a hash of the content: the same content under the same path is the same file.
    Content,
}

/// What to do with files found on the very first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are known: no events.
    Ignore,
    /// They have just arrived.
    Process,
}
