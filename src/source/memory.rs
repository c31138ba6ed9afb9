//! The files a watch knows, small enough for millions of them: no path is kept, only a hash of it with
//! a hash of what the file was like. The paths are in the store.
//!
//! The hashes are keyed with a secret of the process, so nobody can name files to collide.

use crate::source::root::Meta;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What the memory says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is as it was recorded.
    Known,
    /// It has not been recorded, or was gone, or is another version than recorded. The number is the
    /// arrival it would be under this path, counting from 1.
    Arrival(u32),
}

/// A file's name in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(u64);

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Hash of size and mtime.
    like: u64,
    /// Part of the content's hash; 0 when it was never read.
    content: u64,
    /// How often something arrived under this path.
    arrivals: u32,
    /// The last full scan that saw it, shifted left by three; the low bits are flags.
    seen: u32,
}

const GONE: u32 = 1;
const LEFT: u32 = 2;
const FIRST: u32 = 4;
const FLAGS: u32 = 7;

/// The memory of one watch.
#[derive(Debug, Default)]
pub struct Memory {
    files: HashMap<Name, Known>,
    secret: RandomState,
    generation: u32,
    epoch: u32,
    gone: usize,
}

impl Memory {
    /// The name of the file at this path below the root.
    pub fn name(&self, relative: &Path) -> Name {
        Name(self.secret.hash_one(relative.as_os_str().as_bytes()))
    }

    /// What is known of a file that looks like `meta` now. Seeing it is noted.
    pub fn meet(&mut self, relative: &Path, meta: Meta) -> Standing {
        let (name, like, seen) = (self.name(relative), self.like(meta), self.generation << 3);
        match self.files.get_mut(&name) {
            None => Standing::Arrival(1),
            Some(known) => {
                known.seen = seen | (known.seen & FLAGS);
                if known.like == like && known.seen & (GONE | LEFT) == 0 {
                    Standing::Known
                } else {
                    Standing::Arrival(known.arrivals.saturating_add(1))
                }
            }
        }
    }

    /// Whether the recorded version of a file had this content, and the file has not been away since.
    pub fn had_content(&self, relative: &Path, content: &[u8; 32]) -> bool {
        self.files
            .get(&self.name(relative))
            .is_some_and(|known| known.content == part(content) && known.seen & (GONE | LEFT) == 0)
    }

    /// Whether what is there now is another version of a file that was known, and not a file that came: one that
    /// was away for certain, or that came while the first look was under way, is none.
    pub fn is_new_version(&self, relative: &Path, meta: Meta) -> bool {
        let like = self.like(meta);
        self.files.get(&self.name(relative)).is_some_and(|known| {
            let came = known.seen & LEFT != 0 && (known.like == like || known.seen & FIRST != 0);
            known.seen & GONE == 0 && !came
        })
    }

    /// How often something has arrived under this path.
    pub fn arrivals(&self, relative: &Path) -> u32 {
        self.files
            .get(&self.name(relative))
            .map_or(0, |known| known.arrivals)
    }

    /// Remembers what was recorded.
    pub fn remember(&mut self, relative: &Path, meta: Meta, content: Option<&[u8; 32]>, arrivals: u32) {
        let (name, like) = (self.name(relative), self.like(meta));
        self.insert(name, like, content, arrivals, self.generation << 3);
    }

    /// What was just remembered counts as known because it was there at the very first look.
    pub fn mark_first(&mut self, relative: &Path) {
        let name = self.name(relative);
        if let Some(known) = self.files.get_mut(&name) {
            known.seen |= FIRST;
        }
    }

    /// Takes over a row of the store: what an earlier run recorded.
    pub fn load(
        &mut self,
        relative: &Path,
        size: u64,
        mtime_ns: i64,
        content: Option<&[u8; 32]>,
        arrivals: u32,
        gone: bool,
    ) {
        let name = self.name(relative);
        let like = self.like(Meta {
            size,
            mtime_ns,
            ino: 0,
        });
        self.insert(name, like, content, arrivals, u32::from(gone));
    }

    fn insert(&mut self, name: Name, like: u64, content: Option<&[u8; 32]>, arrivals: u32, seen: u32) {
        let known = Known {
            like,
            content: content.map_or(0, part),
            arrivals,
            seen,
        };
        let before = self.files.insert(name, known);
        self.gone -= usize::from(before.is_some_and(|known| known.seen & GONE != 0));
        self.gone += usize::from(seen & GONE != 0);
    }

    /// Goes on counting arrivals under this path where somebody else stopped.
    pub fn count(&mut self, relative: &Path, arrivals: u32) {
        let name = self.name(relative);
        if let Some(known) = self.files.get_mut(&name) {
            known.arrivals = known.arrivals.max(arrivals);
        }
    }

    /// Whether this path is known and not gone.
    pub fn knows(&self, relative: &Path) -> bool {
        self.files
            .get(&self.name(relative))
            .is_some_and(|known| known.seen & GONE == 0)
    }

    /// The file went away for certain; it counts as a new arrival when it comes back. Returns false
    /// when it was not known, or gone already.
    pub fn lose(&mut self, relative: &Path) -> bool {
        let name = self.name(relative);
        match self.files.get_mut(&name) {
            Some(known) if known.seen & GONE == 0 => {
                known.seen = known.seen & !FLAGS | GONE;
                self.gone += 1;
                true
            }
            _ => false,
        }
    }

    /// The same, unless another version than this is known by now.
    pub fn lose_version(&mut self, relative: &Path, size: u64, mtime_ns: i64) -> bool {
        let like = self.like(Meta {
            size,
            mtime_ns,
            ino: 0,
        });
        let same = self
            .files
            .get(&self.name(relative))
            .is_some_and(|known| known.like == like);
        same && self.lose(relative)
    }

    /// The name was taken away, and may be there again already: whatever is there is an arrival.
    pub fn leave(&mut self, relative: &Path) {
        let name = self.name(relative);
        if let Some(known) = self.files.get_mut(&name) {
            known.seen |= LEFT;
        }
    }

    /// The same for several.
    pub fn leave_all(&mut self, paths: &[std::path::PathBuf]) {
        for path in paths {
            self.leave(path);
        }
    }

    /// The root itself went away: that names were taken away before says nothing any more.
    pub fn stay(&mut self) {
        for known in self.files.values_mut() {
            known.seen &= !LEFT;
        }
    }

    /// Whether it counts as known only because the first look of this process found it.
    pub fn from_first_look(&self, relative: &Path) -> bool {
        self.files
            .get(&self.name(relative))
            .is_some_and(|known| known.seen & FIRST != 0)
    }

    /// Forgets a path that still exists but that nobody looks at any more.
    pub fn forget(&mut self, relative: &Path) {
        let name = self.name(relative);
        if let Some(known) = self.files.remove(&name) {
            self.gone -= usize::from(known.seen & GONE != 0);
        }
    }

    /// A full scan begins.
    pub fn begin_scan(&mut self) {
        // 29 bits of scans: one a second for 17 years.
        self.generation = (self.generation + 1).min(u32::MAX >> 3);
    }

    /// Another folder is at the root's path: what has not been seen in it says nothing about files
    /// that went away.
    pub fn begin_epoch(&mut self) {
        self.epoch = self.generation + 1;
    }

    /// What the scan that just ended has not seen although it was seen (or loaded) since the root is
    /// this folder.
    pub fn unseen(&self) -> std::collections::HashSet<Name> {
        self.files
            .iter()
            .filter(|(_, known)| {
                let seen = known.seen >> 3;
                known.seen & GONE == 0 && seen < self.generation && seen >= self.epoch
            })
            .map(|(name, _)| *name)
            .collect()
    }

    /// How many known files the scan that just ended has seen.
    pub fn seen_now(&self) -> usize {
        let seen = |known: &&Known| known.seen >> 3 == self.generation && known.seen & GONE == 0;
        self.files.values().filter(seen).count()
    }

    /// How many files are known and not gone.
    pub fn len(&self) -> usize {
        self.files.len() - self.gone
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn like(&self, meta: Meta) -> u64 {
        self.secret.hash_one((meta.size, meta.mtime_ns))
    }
}

/// Enough of a content's hash to tell versions of one file apart; never 0.
fn part(content: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&content[..8]);
    u64::from_le_bytes(bytes).max(1)
}

/// The bytes of a path, as every key and hash takes them.
pub fn bytes(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a/file.pdf";

    fn meta(size: u64) -> Meta {
        Meta {
            size,
            mtime_ns: 1,
            ino: 1,
        }
    }

    fn memory() -> Memory {
        let mut memory = Memory::default();
        memory.load(Path::new(FILE), 10, 1, None, 1, false);
        memory.begin_scan();
        memory
    }

    #[test]
    fn another_version_is_the_next_arrival_even_when_it_was_there_before() {
        let (mut memory, path) = (memory(), Path::new(FILE));
        assert_eq!(memory.meet(path, meta(10)), Standing::Known);
        assert_eq!(memory.meet(path, meta(20)), Standing::Arrival(2));
        memory.remember(path, meta(20), None, 2);
        assert_eq!(memory.meet(path, meta(20)), Standing::Known);
        assert_eq!(memory.meet(path, meta(10)), Standing::Arrival(3));
        assert_eq!(memory.meet(Path::new("other"), meta(10)), Standing::Arrival(1));
    }

    #[test]
    fn an_identical_file_that_was_gone_arrives_anew() {
        let (mut memory, path) = (memory(), Path::new(FILE));
        assert!(memory.lose(path));
        assert!(!memory.lose(path), "only once");
        assert_eq!((memory.len(), memory.knows(path)), (0, false));
        assert_eq!(memory.meet(path, meta(10)), Standing::Arrival(2));
        memory.remember(path, meta(10), None, 2);
        assert_eq!((memory.len(), memory.meet(path, meta(10))), (1, Standing::Known));
        memory.leave(path);
        assert_eq!(memory.meet(path, meta(10)), Standing::Arrival(3));
        memory.stay();
        assert_eq!(memory.meet(path, meta(10)), Standing::Known);
    }

    #[test]
    fn what_a_scan_did_not_see_is_listed_unless_the_root_became_another_folder() {
        let (mut memory, path) = (memory(), Path::new(FILE));
        assert_eq!(memory.unseen().len(), 1);
        memory.meet(path, meta(10));
        assert!(memory.unseen().is_empty());
        memory.begin_epoch();
        memory.begin_scan();
        assert!(memory.unseen().is_empty(), "not seen in this folder yet");
        memory.meet(path, meta(10));
        assert_eq!(memory.seen_now(), 1);
        memory.begin_scan();
        assert_eq!(memory.unseen().len(), 1);
    }

    #[test]
    fn a_known_file_is_small() {
        assert!(size_of::<(Name, Known)>() <= 32);
    }
}
