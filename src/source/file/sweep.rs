//! A scan for one watch: sets notifications on each folder before it is read, and sifts what it meets
//! against the memory, so that only what is new leaves the scanning thread.

use crate::source::fs_kind::FsKind;
use crate::source::memory::{Memory, Standing};
use crate::source::root::{FolderId, Root};
use crate::source::scan::{self, Found, Scanned, Visitor};
use crate::source::wanted::Wants;
use crate::source::watch::{Armed, Watcher};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Locks what a scanning thread shares with its watch. Neither holds it longer than it takes to look
/// up a batch of files; a panic in between leaves nothing half-changed that a later scan does not mend.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a scan tells its watch.
#[derive(Debug)]
pub enum Progress {
    /// Files that are not known as they are now and that some rule may look for.
    New(Vec<Found>),
    /// Files that are only to be remembered: no rule looks for them, or this is the very first look.
    Plain(Vec<Found>),
    /// It ended.
    Done(Done),
}

/// The end of a scan.
#[derive(Debug)]
pub struct Done {
    /// It covered the whole root.
    pub whole: bool,
    /// Which folder it read.
    pub folder: FolderId,
    /// What became of it.
    pub scanned: Scanned,
    /// Folders below the root at which another file system begins.
    pub mounts: Vec<PathBuf>,
    /// How long it took.
    pub took: Duration,
}

/// Why the kernel does not report from a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unarmed {
    /// Its file system is changed by others, too.
    Remote(&'static str),
    /// The limit of watches is reached.
    Limit,
    /// Anything else.
    Failed(String),
}

/// The folders of a watch, and whether the kernel reports from them.
#[derive(Debug, Default)]
pub struct Arms {
    armed: BTreeMap<PathBuf, (FolderId, u64)>,
    unarmed: BTreeMap<PathBuf, Unarmed>,
    round: u64,
}

impl Arms {
    /// Whether the kernel reports from this folder.
    pub fn covers(&self, folder: &Path) -> bool {
        self.armed.contains_key(folder)
    }

    /// How many folders it does not report from, and why it does not from the first of them.
    pub fn uncovered(&self) -> (usize, Option<&Unarmed>) {
        // The limit is what a person can raise: name it first.
        let limit = self.unarmed.values().find(|why| **why == Unarmed::Limit);
        (self.unarmed.len(), limit.or_else(|| self.unarmed.values().next()))
    }

    /// Whether any folder is covered.
    pub fn any(&self) -> bool {
        !self.armed.is_empty()
    }

    /// A whole scan begins.
    fn begin(&mut self) {
        self.round += 1;
    }

    fn arm(&mut self, watcher: &Watcher, root: &Path, folder: &Path, id: FolderId, kind: FsKind) {
        let path = if folder.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(folder)
        };
        if let Some((known, round)) = self.armed.get_mut(folder) {
            if *known == id {
                *round = self.round;
                return;
            }
            // Another folder has this name now; the kernel may still report from the old one.
            self.armed.remove(folder);
            watcher.disarm(&path, true);
        }
        let why = match kind {
            FsKind::Remote(name) => Unarmed::Remote(name),
            FsKind::Local => match watcher.arm(&path) {
                Armed::Yes => {
                    self.unarmed.remove(folder);
                    self.armed.insert(folder.to_owned(), (id, self.round));
                    return;
                }
                Armed::Limit => Unarmed::Limit,
                Armed::No(why) => Unarmed::Failed(why),
            },
        };
        self.unarmed.insert(folder.to_owned(), why);
    }

    /// A folder and all below it are gone from their place. Returns whether the kernel reported from it.
    pub fn leave(&mut self, watcher: &Watcher, root: &Path, folder: &Path) -> bool {
        let below = |map: &BTreeMap<PathBuf, (FolderId, u64)>| -> Vec<PathBuf> {
            let from = map.range(folder.to_owned()..).map(|(path, _)| path);
            from.take_while(|path| path.starts_with(folder))
                .cloned()
                .collect()
        };
        let gone = below(&self.armed);
        for path in &gone {
            self.armed.remove(path);
            watcher.disarm(&root.join(path), false);
        }
        self.unarmed.retain(|path, _| !path.starts_with(folder));
        !gone.is_empty()
    }

    /// A whole scan has ended: folders it did not meet are forgotten, where not meeting them is `certain`.
    pub fn keep_met(&mut self, watcher: &Watcher, root: &Path, certain: &dyn Fn(&Path) -> bool) {
        let round = self.round;
        self.armed.retain(|path, (_, seen)| {
            let keep = *seen == round || !certain(path);
            if !keep {
                watcher.disarm(&root.join(path), false);
            }
            keep
        });
    }

    /// The root is away: no folder is looked at.
    pub fn clear(&mut self, watcher: &Watcher, root: &Path) {
        for path in std::mem::take(&mut self.armed).into_keys() {
            let path = if path.as_os_str().is_empty() {
                root.to_owned()
            } else {
                root.join(path)
            };
            watcher.disarm(&path, true);
        }
        self.unarmed.clear();
    }
}

/// What a scan needs of its watch.
#[derive(Clone)]
pub struct Sweep {
    /// The folder, held open.
    pub root: Arc<Root>,
    /// What rules look for.
    pub wants: Arc<Wants>,
    /// What is known.
    pub memory: Arc<Mutex<Memory>>,
    /// Notifications; none: everything is polled.
    pub watcher: Option<Arc<Watcher>>,
    /// Which folders are reported from.
    pub arms: Arc<Mutex<Arms>>,
    /// This is the very first look, and what is there counts as known.
    pub first: bool,
    /// These folders came to be during the very first look: what is in them is new, whatever that look
    /// took it for.
    pub came: bool,
    /// File systems that begin below the root, as they are met.
    pub mounts: Vec<PathBuf>,
    /// Where it tells.
    pub tell: mpsc::Sender<Progress>,
    /// Nobody wants to know any more.
    pub stop: Arc<AtomicBool>,
}

impl Sweep {
    /// Reads the whole root, or these folders below it. Blocks until it is done and everything was
    /// taken from the channel.
    pub fn run(mut self, starts: Option<Vec<PathBuf>>) {
        let began = Instant::now();
        let whole = starts.is_none();
        if whole {
            lock(&self.memory).begin_scan();
            lock(&self.arms).begin();
        }
        let fresh = matches!(self.root.kind, FsKind::Remote(_));
        let starts = starts.unwrap_or_else(|| vec![PathBuf::new()]);
        let root = self.root.clone();
        let scanned = scan::scan(&root, &starts, fresh, &mut self);
        let done = Done {
            whole,
            folder: root.id,
            scanned,
            mounts: std::mem::take(&mut self.mounts),
            took: began.elapsed(),
        };
        // Nobody listens only when the watch has ended.
        let _ = self.tell.blocking_send(Progress::Done(done));
    }
}

impl Visitor for Sweep {
    fn enters(&mut self, folder: &Path) -> bool {
        self.wants.enter(folder)
    }

    fn reading(&mut self, folder: &Path, id: FolderId, kind: FsKind) {
        if let Some(watcher) = &self.watcher {
            lock(&self.arms).arm(watcher, self.root.path(), folder, id, kind);
        }
    }

    fn mounted(&mut self, folder: &Path) {
        self.mounts.push(folder.to_owned());
    }

    fn files(&mut self, found: Vec<Found>) -> bool {
        let (mut new, mut plain) = (Vec::new(), Vec::new());
        {
            let mut memory = lock(&self.memory);
            for file in found {
                if self.came && memory.from_first_look(&file.relative) {
                    memory.leave(&file.relative);
                }
                if memory.meet(&file.relative, file.meta) == Standing::Known {
                    continue;
                }
                if !self.first && self.wants.match_path(&file.relative) {
                    new.push(file);
                } else {
                    plain.push(file);
                }
            }
        }
        let told = |files: Vec<Found>, kind: fn(Vec<Found>) -> Progress| {
            files.is_empty() || self.tell.blocking_send(kind(files)).is_ok()
        };
        told(new, Progress::New) && told(plain, Progress::Plain) && !self.stop.load(Ordering::Relaxed)
    }
}
