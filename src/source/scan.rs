//! The scan: what is really there. Notifications only say where to look sooner.
//!
//! It reads below the root's handle, one open directory a level, names as they stream from the kernel,
//! files handed on in batches: what it holds does not grow with the number of files. Symlinks are not
//! followed, FIFOs, sockets and devices are counted and left alone. Another file system mounted inside is
//! read too; a folder that is its own ancestor (a bind mount of a parent) is not.
//!
//! The answer has three values, because "we could not look" is not "there is nothing": [`Scanned`].
//! This module blocks; it belongs on a thread where that hurts nobody.

use crate::source::fs_kind::{self, FsKind};
use crate::source::root::{Away, FolderId, Look, Meta, Root, look_at};
use rustix::fd::OwnedFd;
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Folders below folders that are read. One directory is held open a level.
const DEEPEST: usize = 128;

/// Longest path below the root, bytes: the kernel takes 4096 in one go.
const LONGEST: usize = 3_800;

/// Files handed on at once.
const BATCH: usize = 256;

/// Unreadable folders listed one by one.
const LISTED: usize = 1_000;

/// A file the scan met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path below the root.
    pub relative: PathBuf,
    /// What it is like.
    pub meta: Meta,
}

/// How much there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Regular files.
    pub files: u64,
    /// Folders read, with the root.
    pub folders: u64,
    /// Symlinks, FIFOs, sockets and devices left alone.
    pub skipped: u64,
}

/// A part that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The folder, below the root.
    pub relative: PathBuf,
    /// Why.
    pub why: String,
}

/// What became of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Everything was read: what was not met is not there.
    Complete(Tally),
    /// Everything but these folders (and all below them) was read. Never empty; the second number says
    /// how many more there are than are listed.
    Partly(Tally, Vec<Unreadable>, usize),
    /// The root cannot be looked at; what was met before means nothing either.
    Away(Away),
    /// Whoever asked did not want to know any more.
    Stopped,
}

/// Who is told what a scan meets.
pub trait Visitor {
    /// Whether this folder (never the root) is to be read.
    fn enters(&mut self, folder: &Path) -> bool;
    /// A folder is about to be read; what happens in it from now on can be noticed by a watch that is
    /// set here. The empty path is the root.
    fn reading(&mut self, folder: &Path, id: FolderId, kind: FsKind);
    /// Another file system than the one around it begins at this folder.
    fn mounted(&mut self, folder: &Path);
    /// Files of one folder. `false` ends the scan.
    fn files(&mut self, found: Vec<Found>) -> bool;
}

/// A directory being read.
struct Level {
    path: PathBuf,
    id: FolderId,
    kind: FsKind,
    entries: Dir,
}

/// Reads the folders `starts` (below the root; the empty path is the root itself) and all below them.
/// `fresh` asks the server of a share for each file instead of trusting what is cached.
pub fn scan(root: &Root, starts: &[PathBuf], fresh: bool, visitor: &mut dyn Visitor) -> Scanned {
    if let Err(away) = root.stands() {
        return Scanned::Away(away);
    }
    let mut walk = Walk {
        root,
        fresh,
        tally: Tally::default(),
        unreadable: Vec::new(),
        more: 0,
    };
    for start in starts {
        if !walk.read(start, visitor) {
            return Scanned::Stopped;
        }
    }
    // Renamed or unmounted while we read: then what was not met may be there all the same.
    if let Err(away) = root.stands() {
        return Scanned::Away(away);
    }
    if walk.unreadable.is_empty() {
        Scanned::Complete(walk.tally)
    } else {
        Scanned::Partly(walk.tally, walk.unreadable, walk.more)
    }
}

struct Walk<'a> {
    root: &'a Root,
    fresh: bool,
    tally: Tally,
    unreadable: Vec<Unreadable>,
    more: usize,
}

impl Walk<'_> {
    /// Returns false when the visitor ended it.
    fn read(&mut self, start: &Path, visitor: &mut dyn Visitor) -> bool {
        let mut levels = Vec::new();
        match self.root.folder(start) {
            Ok(handle) => self.descend(&mut levels, start.to_owned(), handle, visitor),
            Err(errno) => self.failed(start, errno),
        }
        let mut found = Vec::new();
        while let Some(level) = levels.last_mut() {
            let entry = match level.entries.read() {
                Some(Ok(entry)) => entry,
                Some(Err(errno)) => {
                    self.note(level.path.clone(), errno.to_string());
                    continue; // the next read ends this level
                }
                None => {
                    if !found.is_empty() && !visitor.files(std::mem::take(&mut found)) {
                        return false;
                    }
                    levels.pop();
                    continue;
                }
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = level.path.join(name);
            let look = match entry.file_type() {
                FileType::Directory => Look::Folder,
                FileType::RegularFile | FileType::Unknown => match level.entries.fd() {
                    Ok(folder) => look_at(folder, Path::new(name), self.fresh),
                    Err(errno) => Look::Unreadable(errno),
                },
                _ => Look::Other,
            };
            match look {
                Look::File(meta) => {
                    self.tally.files += 1;
                    found.push(Found { relative: path, meta });
                    if found.len() >= BATCH && !visitor.files(std::mem::take(&mut found)) {
                        return false;
                    }
                }
                Look::Folder if visitor.enters(&path) => {
                    if !found.is_empty() && !visitor.files(std::mem::take(&mut found)) {
                        return false;
                    }
                    let opened = self.open_below(level, name, &path);
                    match opened {
                        Ok(handle) => self.descend(&mut levels, path, handle, visitor),
                        Err(errno) => self.failed(&path, errno),
                    }
                }
                Look::Folder | Look::Gone => {}
                Look::Other => self.tally.skipped += 1,
                Look::Unreadable(errno) => self.note(path, errno.to_string()),
            }
        }
        true
    }

    fn open_below(&self, level: &Level, name: &OsStr, path: &Path) -> Result<OwnedFd, Errno> {
        use rustix::fs::{Mode, OFlags};
        if path.as_os_str().len() > LONGEST {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(level.entries.fd()?, name, flags, Mode::empty())
    }

    fn descend(
        &mut self,
        levels: &mut Vec<Level>,
        path: PathBuf,
        handle: OwnedFd,
        visitor: &mut dyn Visitor,
    ) {
        if levels.len() >= DEEPEST {
            return self.note(path, format!("it is nested deeper than {DEEPEST} folders"));
        }
        let id = match rustix::fs::fstat(&handle) {
            Ok(stat) => FolderId::of(&stat),
            Err(errno) => return self.failed(&path, errno),
        };
        if levels.iter().any(|level| level.id == id) || (!path.as_os_str().is_empty() && id == self.root.id) {
            self.tally.skipped += 1;
            return;
        }
        let kind = match levels.last() {
            Some(above) if above.id.dev == id.dev => above.kind,
            None if self.root.id.dev == id.dev => self.root.kind,
            _ => fs_kind::kind_of(&handle),
        };
        if levels.last().is_some_and(|above| above.id.dev != id.dev) {
            visitor.mounted(&path);
        }
        visitor.reading(&path, id, kind);
        match Dir::new(handle) {
            Ok(entries) => {
                self.tally.folders += 1;
                levels.push(Level {
                    path,
                    id,
                    kind,
                    entries,
                });
            }
            Err(errno) => self.failed(&path, errno),
        }
    }

    /// A folder could not be opened. One that went away meanwhile, or became a symlink, is no folder.
    fn failed(&mut self, path: &Path, errno: Errno) {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {}
            other => self.note(path.to_owned(), other.to_string()),
        }
    }

    fn note(&mut self, relative: PathBuf, why: String) {
        if self.unreadable.len() < LISTED {
            self.unreadable.push(Unreadable { relative, why });
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Notes {
        files: Vec<String>,
        folders: Vec<PathBuf>,
        refuse: Option<PathBuf>,
        stop_after: Option<usize>,
        during: Option<Box<dyn FnMut()>>,
    }

    impl Visitor for Notes {
        fn enters(&mut self, folder: &Path) -> bool {
            self.refuse.as_deref() != Some(folder)
        }
        fn reading(&mut self, folder: &Path, _id: FolderId, _kind: FsKind) {
            self.folders.push(folder.to_owned());
            if let Some(during) = &mut self.during {
                during();
            }
        }
        fn mounted(&mut self, _folder: &Path) {}
        fn files(&mut self, found: Vec<Found>) -> bool {
            self.files.extend(
                found
                    .into_iter()
                    .map(|found| found.relative.to_str().unwrap().to_owned()),
            );
            self.files.sort();
            self.stop_after.is_none_or(|most| self.files.len() < most)
        }
    }

    fn whole(root: &Path, notes: &mut Notes) -> Scanned {
        scan(&Root::open(root).unwrap(), &[PathBuf::new()], false, notes)
    }

    #[test]
    fn files_of_all_folders_are_met_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("no/deeper")).unwrap();
        for file in ["one", "a/two", "a/b/three", "no/four", "no/deeper/five"] {
            std::fs::write(at(file), file).unwrap();
        }
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("folder-link")).unwrap();
        std::os::unix::fs::symlink("/", at("a/everything")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let mut notes = Notes {
            refuse: Some("no".into()),
            ..Notes::default()
        };
        let tally = Tally {
            files: 3,
            folders: 3,
            skipped: 5,
        };
        assert_eq!(whole(dir.path(), &mut notes), Scanned::Complete(tally));
        assert_eq!(notes.files, ["a/b/three", "a/two", "one"]);
        let mut notes = Notes::default();
        let root = Root::open(dir.path()).unwrap();
        scan(
            &root,
            &["a/b".into(), "gone".into(), "no".into()],
            true,
            &mut notes,
        );
        assert_eq!(notes.files, ["a/b/three", "no/deeper/five", "no/four"]);
    }

    #[test]
    fn a_folder_nested_too_deep_is_named_not_silently_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..DEEPEST + 5).map(|_| "d").collect();
        std::fs::create_dir_all(dir.path().join(&deep)).unwrap();
        std::fs::write(dir.path().join(deep.join("file")), "").unwrap();
        let mut notes = Notes::default();
        let Scanned::Partly(tally, unreadable, 0) = whole(dir.path(), &mut notes) else {
            panic!()
        };
        assert_eq!((tally.folders, unreadable.len()), (DEEPEST as u64, 1));
        assert!(unreadable[0].why.contains("nested deeper"));
    }

    #[test]
    fn a_root_that_goes_away_while_it_is_read_makes_no_complete_scan() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("root"), dir.path().join("elsewhere"));
        std::fs::create_dir(&here).unwrap();
        std::fs::write(here.join("file"), "").unwrap();
        let (from, to) = (here.clone(), there.clone());
        let mut notes = Notes {
            during: Some(Box::new(move || std::fs::rename(&from, &to).unwrap())),
            ..Notes::default()
        };
        assert_eq!(whole(&here, &mut notes), Scanned::Away(Away::Missing));
    }

    #[test]
    fn a_scan_can_be_ended() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..BATCH * 3 {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let mut notes = Notes {
            stop_after: Some(BATCH),
            ..Notes::default()
        };
        assert_eq!(whole(dir.path(), &mut notes), Scanned::Stopped);
        assert_eq!(notes.files.len(), BATCH);
    }
}
