//! Notifications from the kernel, as hints: something happened at this path, look there.
//!
//! ```text
//!   inotify -- notify's thread: translate, drop noise, push --> bounded channel --> whoever reads hints
//! ```
//!
//! One kernel queue for all watched folders, because a user may only have 128 of them. Each directory is
//! watched by itself: notify's recursive mode loses what happens in a new directory before it gets round
//! to watching it, without saying so. Whoever watches a directory lists it afterwards.
//!
//! Nothing here is relied on. What can go wrong (the kernel's queue overflows, ours is full, notify
//! reports an error) becomes [`Hint::Lost`], and the answer to that is a full scan.

use notify::event::{AccessKind, AccessMode, CreateKind, Flag, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// How many hints may wait to be read. Beyond that they are dropped and a scan is asked for.
const WAITING: usize = 65_536;

/// What may have happened. Paths are absolute, as they were given to [`Watcher::arm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A name came to be.
    Created(PathBuf),
    /// A folder came to be.
    Folder(PathBuf),
    /// A file was opened right after its creation, or written to.
    Written(PathBuf),
    /// A file that was open for writing was closed.
    Closed(PathBuf),
    /// A name from elsewhere was renamed to this one.
    RenamedTo(PathBuf),
    /// A name was renamed to the second one, and both are watched; [`Hint::Left`] told of the first.
    Renamed(PathBuf, PathBuf),
    /// A name went away: removed, or renamed to another.
    Left(PathBuf),
    /// Hints were lost.
    Lost(String),
}

/// What came of asking for notifications from a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Armed {
    /// It is watched.
    Yes,
    /// The kernel's limit for this user is reached.
    Limit,
    /// It cannot be watched.
    No(String),
}

/// The kernel's queue. Shared by all watched folders.
#[derive(Debug)]
pub struct Watcher {
    notify: Mutex<RecommendedWatcher>,
    /// How many watched folders want notifications from a directory.
    users: Mutex<HashMap<PathBuf, usize>>,
}

/// Where hints are read.
#[derive(Debug)]
pub struct Hints {
    channel: mpsc::Receiver<Hint>,
    lost: Arc<AtomicBool>,
}

impl Hints {
    /// Waits for hints and adds them to `into`, at most `limit`. Returns false when there can be no more.
    pub async fn read(&mut self, into: &mut Vec<Hint>, limit: usize) -> bool {
        let read = self.channel.recv_many(into, limit).await;
        if self.lost.swap(false, Ordering::AcqRel) {
            into.push(Hint::Lost("more was reported than could be read".to_owned()));
        }
        read > 0
    }
}

impl Watcher {
    /// Opens a queue. Fails where the kernel has none to give (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<(Watcher, Hints), String> {
        let (sender, channel) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicBool::new(false));
        let mut filter = Filter::default();
        let full = lost.clone();
        // Runs on notify's thread, which must get back to the kernel's queue: it only pushes.
        let handler = move |event: notify::Result<Event>| {
            filter.hints(event, &mut |hint| {
                if sender.try_send(hint).is_err() {
                    full.store(true, Ordering::Release);
                }
            });
        };
        let config = notify::Config::default().with_follow_symlinks(false);
        let notify = RecommendedWatcher::new(handler, config).map_err(|error| error.to_string())?;
        let watcher = Watcher {
            notify: Mutex::new(notify),
            users: Mutex::default(),
        };
        Ok((watcher, Hints { channel, lost }))
    }

    /// Asks for hints about the names in this directory (not in those below). Blocks shortly. List the
    /// directory afterwards: what happened before is not reported.
    pub fn arm(&self, directory: &Path) -> Armed {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notify = self.notify.lock().unwrap_or_else(PoisonError::into_inner);
        match notify.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {
                *users.entry(directory.to_owned()).or_default() += 1;
                Armed::Yes
            }
            Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => Armed::Limit,
            Err(error) => Armed::No(error.to_string()),
        }
    }

    /// Undoes one [`Watcher::arm`]. When nobody wants it any more, or with `gone` when the directory at
    /// this path is another by now, the kernel stops reporting.
    pub fn disarm(&self, directory: &Path, gone: bool) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let left = match users.get_mut(directory) {
            Some(count) => {
                *count = count.saturating_sub(1);
                *count
            }
            None => 0,
        };
        if left == 0 {
            users.remove(directory);
        }
        if left == 0 || gone {
            let mut notify = self.notify.lock().unwrap_or_else(PoisonError::into_inner);
            // It has often ended by itself, with the directory.
            let _ = notify.unwatch(directory);
        }
    }
}

/// Translates, and keeps the noise out: every read of a watched file is reported as an open, every
/// `write` of a writer as a change.
#[derive(Debug, Default)]
struct Filter {
    created: Recent,
    written: Recent,
    /// The rename whose first half was reported last.
    renaming: Option<usize>,
}

impl Filter {
    fn hints(&mut self, event: notify::Result<Event>, push: &mut dyn FnMut(Hint)) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return push(Hint::Lost(error.to_string())),
        };
        if event.attrs.flag() == Some(Flag::Rescan) {
            return push(Hint::Lost("the kernel's queue overflowed".to_owned()));
        }
        let tracker = event.attrs.tracker();
        let mut paths = event.paths.into_iter();
        let Some(path) = paths.next() else { return };
        let hint = match event.kind {
            EventKind::Create(CreateKind::Folder) => Some(Hint::Folder(path)),
            EventKind::Create(_) => {
                self.created.add(&path);
                self.written.remove(&path);
                Some(Hint::Created(path))
            }
            // Opened right after its creation: by who created it. A hard link is not opened.
            EventKind::Access(AccessKind::Open(_)) => {
                self.created.remove(&path).then_some(Hint::Written(path))
            }
            EventKind::Modify(ModifyKind::Data(_)) => self.written.add(&path).then_some(Hint::Written(path)),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.created.remove(&path);
                self.written.remove(&path);
                Some(Hint::Closed(path))
            }
            // Where both halves were seen, notify reports the pair right after this.
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let alone = tracker.is_none() || tracker != self.renaming;
                alone.then_some(Hint::RenamedTo(path))
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                paths.next().map(|to| Hint::Renamed(path, to))
            }
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => {
                self.written.remove(&path);
                self.renaming = tracker.or(self.renaming);
                Some(Hint::Left(path))
            }
            _ => None,
        };
        if let Some(hint) = hint {
            push(hint);
        }
    }
}

/// The last few paths something was reported of.
#[derive(Debug, Default)]
struct Recent(VecDeque<PathBuf>);

impl Recent {
    /// Writers that work at the same time, about; more cost some hints that say nothing new.
    const KEPT: usize = 16;

    /// Returns whether it was new.
    fn add(&mut self, path: &Path) -> bool {
        if self.0.iter().any(|known| known == path) {
            return false;
        }
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(path.to_owned());
        true
    }

    /// Returns whether it was there.
    fn remove(&mut self, path: &Path) -> bool {
        let at = self.0.iter().position(|known| known == path);
        at.and_then(|at| self.0.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads hints until one is `last`.
    async fn until(hints: &mut Hints, last: &Hint) -> Vec<Hint> {
        let mut read = Vec::new();
        let reading = async {
            while !read.contains(last) {
                assert!(hints.read(&mut read, 100).await);
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), reading)
            .await
            .unwrap();
        read
    }

    #[tokio::test]
    async fn a_writer_is_told_by_open_write_and_close_and_a_hard_link_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let (watcher, mut hints) = Watcher::new().unwrap();
        assert_eq!(watcher.arm(dir.path()), Armed::Yes);
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "text").unwrap();
        std::fs::write(other.path().join("b"), "text").unwrap();
        std::fs::hard_link(other.path().join("b"), path("b")).unwrap();
        std::fs::read(path("a")).unwrap();
        std::fs::rename(path("a"), path("c")).unwrap();
        std::fs::create_dir(path("d")).unwrap();
        std::fs::remove_file(path("c")).unwrap();
        let read = until(&mut hints, &Hint::Left(path("c"))).await;
        assert_eq!(
            read,
            [
                Hint::Created(path("a")),
                Hint::Written(path("a")),
                Hint::Written(path("a")),
                Hint::Closed(path("a")),
                Hint::Created(path("b")),
                Hint::Left(path("a")),
                Hint::Renamed(path("a"), path("c")),
                Hint::Folder(path("d")),
                Hint::Left(path("c")),
            ]
        );
    }

    #[tokio::test]
    async fn hints_that_nobody_reads_are_dropped_and_the_loss_is_told() {
        let mut filter = Filter::default();
        let (sender, channel) = mpsc::channel(2);
        let lost = Arc::new(AtomicBool::new(false));
        for number in 0..5 {
            let event = Event::new(EventKind::Create(CreateKind::File)).add_path(format!("/{number}").into());
            filter.hints(Ok(event), &mut |hint| {
                if sender.try_send(hint).is_err() {
                    lost.store(true, Ordering::Release);
                }
            });
        }
        let mut hints = Hints { channel, lost };
        let mut read = Vec::new();
        hints.read(&mut read, 100).await;
        assert_eq!(read.len(), 3);
        assert!(matches!(read.last(), Some(Hint::Lost(_))), "{read:?}");
    }

    #[test]
    fn an_overflow_and_an_error_are_losses() {
        let mut filter = Filter::default();
        let mut hints = Vec::new();
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        filter.hints(Ok(overflow), &mut |hint| hints.push(hint));
        filter.hints(Err(notify::Error::generic("broken")), &mut |hint| {
            hints.push(hint)
        });
        assert!(matches!(hints[..], [Hint::Lost(_), Hint::Lost(_)]));
    }

    #[test]
    fn what_no_longer_interests_anybody_is_disarmed() {
        let dir = tempfile::tempdir().unwrap();
        let (watcher, _hints) = Watcher::new().unwrap();
        watcher.arm(dir.path());
        watcher.arm(dir.path());
        watcher.disarm(dir.path(), false);
        assert_eq!(watcher.users.lock().unwrap().len(), 1);
        watcher.disarm(dir.path(), false);
        assert!(watcher.users.lock().unwrap().is_empty());
        assert!(
            watcher.notify.lock().unwrap().unwatch(dir.path()).is_err(),
            "unwatched already"
        );
        assert!(matches!(watcher.arm(&dir.path().join("none")), Armed::No(_)));
    }
}
