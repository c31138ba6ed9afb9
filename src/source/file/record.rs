//! From a settled file to an event with its key, and to the rows that remember it.

use crate::event::{FileRef, Kind, NewEvent, shown};
use crate::source::memory::bytes;
use crate::source::root::Meta;
use crate::source::together::{Member, SetName};
use crate::source::{Identity, Watch};
use crate::store::SeenFile;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file whose writer is done.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its path below the root.
    pub path: Arc<Path>,
    /// As it was at the look that settled it.
    pub meta: Meta,
    /// Hash of its content, where the watch asks for it.
    pub content: Option<[u8; 32]>,
    /// The how-manieth arrival under this path.
    pub number: u32,
    /// It was known, and is a new version.
    pub changed: bool,
}

/// The event's key: the arrival, and the watch that saw it. The same arrival gets the same key from every
/// scan and after every restart: its number comes from the store and rises only together with the record
/// of the arrival itself. What rules ask for bears the first part only, see `event::NewEvent::asked`.
///
/// Lengths stand before the variable parts, so that no name can look like another name and time.
pub fn key(watch: &Watch, arrival: &Arrival) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [watch.root.as_os_str().as_bytes(), bytes(&arrival.path)] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&arrival.meta.size.to_le_bytes());
    match (watch.identity, &arrival.content) {
        (Identity::Content, Some(content)) => hasher.update(content),
        _ => hasher.update(&arrival.meta.mtime_ns.to_le_bytes()),
    };
    hasher.update(&arrival.number.to_le_bytes());
    format!("file:{}:{}", hasher.finalize().to_hex(), watch.id)
}

/// The event of an arrival.
pub fn event(watch: &Watch, arrival: &Arrival, now: Timestamp) -> NewEvent {
    let file = FileRef {
        root: watch.root.clone(),
        relative: arrival.path.to_path_buf(),
        size: arrival.meta.size,
        mtime_ns: arrival.meta.mtime_ns,
    };
    let mut facts = Map::new();
    let mut told = file.facts();
    told["changed"] = arrival.changed.into();
    facts.insert("file".to_owned(), told);
    NewEvent {
        key: key(watch, arrival),
        kind: Kind::FileArrives,
        source: watch.id.clone(),
        subject: shown(file.path().as_os_str()),
        time: now,
        facts,
        file: Some(file),
        origin: None,
        case: None,
    }
}

/// A file of a set, as it arrived.
pub fn as_arrival(member: &Member) -> Arrival {
    Arrival {
        path: Arc::from(member.file.relative.as_path()),
        meta: Meta {
            size: member.file.size,
            mtime_ns: member.file.mtime_ns,
            ino: 0,
        },
        content: None,
        number: member.arrival,
        changed: false,
    }
}

/// The event of a set that is complete: one for all of its files, told of the first. The same arrivals make the
/// same key.
pub fn set_event(
    watch: &Watch,
    members: &[Arrival],
    facts: Map<String, Value>,
    name: &SetName,
    now: Timestamp,
) -> NewEvent {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(watch.root.as_os_str().as_bytes());
    add(name.id.as_bytes());
    add(name.key.as_bytes());
    for member in members {
        add(bytes(&member.path));
        add(&member.meta.size.to_le_bytes());
        add(&member.meta.mtime_ns.to_le_bytes());
        add(&member.number.to_le_bytes());
    }
    let file = members.first().map(|first| FileRef {
        root: watch.root.clone(),
        relative: first.path.to_path_buf(),
        size: first.meta.size,
        mtime_ns: first.meta.mtime_ns,
    });
    let subject = file.as_ref().map(|file| shown(file.path().as_os_str()));
    NewEvent {
        key: format!("set:{}:{}", hasher.finalize().to_hex(), watch.id),
        kind: Kind::FileArrives,
        source: watch.id.clone(),
        subject: subject.unwrap_or_default(),
        time: now,
        facts,
        file,
        origin: None,
        case: None,
    }
}

/// The event that a file went away, which was known as this row says. Its key bears the arrival it ends: the next
/// one can end too.
pub fn removed(watch: &Watch, row: &SeenFile, now: Timestamp) -> NewEvent {
    let file = FileRef {
        root: watch.root.clone(),
        relative: row.relative.clone(),
        size: row.size,
        mtime_ns: row.mtime_ns,
    };
    let mut hasher = blake3::Hasher::new();
    for part in [watch.root.as_os_str().as_bytes(), bytes(&row.relative)] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&row.arrivals.to_le_bytes());
    let mut facts = Map::new();
    facts.insert("file".to_owned(), file.facts());
    NewEvent {
        key: format!("removed:{}:{}", hasher.finalize().to_hex(), watch.id),
        kind: Kind::FileRemoved,
        source: watch.id.clone(),
        subject: shown(file.path().as_os_str()),
        time: now,
        facts,
        file: Some(file),
        origin: None,
        case: None,
    }
}

/// The row that remembers a file.
pub fn seen(watch: &Watch, path: &Path, meta: Meta, content: Option<[u8; 32]>, arrivals: u32) -> SeenFile {
    SeenFile {
        watch: watch.id.clone(),
        root: watch.root.clone(),
        relative: path.to_path_buf(),
        size: meta.size,
        mtime_ns: meta.mtime_ns,
        hash: content,
        arrivals,
        gone: false,
    }
}

/// The row that remembers that it went away.
pub fn gone(watch: &Watch, path: &Path, arrivals: u32) -> SeenFile {
    let meta = Meta {
        size: 0,
        mtime_ns: 0,
        ino: 0,
    };
    SeenFile {
        gone: true,
        ..seen(watch, path, meta, None, arrivals)
    }
}

/// The path below the root of the marker that this text names, for a file at `path`. `None` when it would
/// be outside the root, or the file itself: a marker of its own is no file that arrives.
pub fn marker(path: &Path, name: &str) -> Option<PathBuf> {
    use std::path::Component;
    let mut at = path.parent().unwrap_or(Path::new("")).to_owned();
    for step in Path::new(name).components() {
        match step {
            Component::Normal(name) => at.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !at.pop() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    (at != path && !at.as_os_str().is_empty()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Existing, Settle};
    use proptest::prelude::*;

    fn watch(id: &str, identity: Identity) -> Watch {
        Watch {
            id: id.to_owned(),
            root: "/srv/drop".into(),
            settle: Settle::Auto,
            identity,
            existing: Existing::Ignore,
            wanted: Vec::new(),
            removed: Vec::new(),
            sets: Vec::new(),
            scan_every: std::time::Duration::from_secs(60),
        }
    }

    fn arrival(path: &[u8], size: u64, mtime_ns: i64, content: Option<[u8; 32]>, number: u32) -> Arrival {
        let path = Arc::from(Path::new(std::ffi::OsStr::from_bytes(path)));
        Arrival {
            path,
            meta: Meta {
                size,
                mtime_ns,
                ino: 0,
            },
            content,
            number,
            changed: false,
        }
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_the_arrivals_are(
            one in (proptest::collection::vec(1..4_u8, 1..4), 0..2_u64, 0..2_i64, 0..2_u32),
            other in (proptest::collection::vec(1..4_u8, 1..4), 0..2_u64, 0..2_i64, 0..2_u32),
        ) {
            let watch = watch("w", Identity::Metadata);
            let key_of = |(path, size, mtime, number): &(Vec<u8>, u64, i64, u32)|
                key(&watch, &arrival(path, *size, *mtime, None, *number));
            prop_assert_eq!(key_of(&one) == key_of(&other), one == other);
        }
    }

    #[test]
    fn by_content_the_time_does_not_count() {
        let watch = watch("w", Identity::Content);
        let of = |mtime, content| key(&watch, &arrival(b"a", 1, mtime, Some([content; 32]), 1));
        assert_eq!(of(1, 7), of(2, 7));
        assert_ne!(of(1, 7), of(1, 8));
    }

    #[test]
    fn a_marker_is_beside_its_file_and_never_the_file_itself() {
        let at = |path: &str, name: &str| marker(Path::new(path), name);
        assert_eq!(at("a/b.csv", "b.csv.done"), Some("a/b.csv.done".into()));
        assert_eq!(at("a/b.csv", "../done/b"), Some("done/b".into()));
        assert_eq!(at("b.csv", "b.csv"), None);
        assert_eq!(at("b.csv", ""), None);
        assert_eq!(at("b.csv", "../b"), None);
        assert_eq!(at("b.csv", "/etc/passwd"), None);
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_exact_in_the_event_and_escaped_in_its_subject() {
        let event = event(
            &watch("w", Identity::Metadata),
            &arrival(b"caf\xe9\n.csv", 1, 1, None, 1),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(event.subject, "/srv/drop/caf%E9\n.csv");
        assert_eq!(bytes(&event.file.unwrap().relative), b"caf\xe9\n.csv");
    }
}
