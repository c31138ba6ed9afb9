//! One watched folder: its state, and the loop that keeps it true.
//!
//! ```text
//!   hints ----> heard ---+                        +--> forgotten (known, gone, no file)
//!                        +--> candidates --look---+--> waiting (looked at again when due)
//!   scan -----> found ---+                        +--> settled --record--> known
//! ```
//!
//! It waits for hints, for the progress of scans, and for what is due: a candidate to look at, the root
//! to check, the next scan. It owns the candidates, and shares the memory with the scanning threads. When
//! it stops, candidates are forgotten; whatever was not recorded is found again by the next first scan.
//!
//! Everything that touches the file system runs on blocking threads: a share that does not answer stops
//! this folder and no other, and after a while that is told.

mod health;
mod hear;
mod inherit;
mod looks;
mod mounts;
mod remember;
mod scans;
mod sets;
mod step;

use super::candidates::Candidates;
use super::status::{self, Looked, Mode, WatchStatus};
use super::sweep::{Arms, Progress, lock};
use crate::clock::Clock;
use crate::ground::Ground;
use crate::pulse::Pulse;
use crate::source::Watch;
use crate::source::memory::Memory;
use crate::source::root::Root;
use crate::source::settle::LOOK;
use crate::source::together::Sets;
use crate::source::wanted::Wants;
use crate::source::watch::{Hint, Watcher};
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest time between two scans where the kernel does not report, however slow the regular scan is.
const POLL: Duration = Duration::from_secs(10);

/// Longest time between two checks that the path still leads to the folder we hold.
const CHECK: Duration = Duration::from_secs(5);

/// Candidates at which a scan has to wait until some have settled.
const MANY: usize = 50_000;

/// Files looked at, or recorded, in one go.
const BATCH: usize = 1_000;

/// How long after the first scan a late hint still says that a file came during it.
const LATE: Duration = Duration::from_secs(2);

/// How long a share may take to answer before that is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two writes of the status.
const STATUS: Duration = Duration::from_secs(1);

/// Time until a scan that shall say whether a file is gone for good, or was only replaced.
const SOON: Duration = Duration::from_secs(2);

/// Time until a write that the store refused is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Files open for writing that are kept in mind.
const WRITERS: usize = 65_536;

/// Renames between whose two halves other names may go away.
const RENAMES: usize = 64;

/// A candidate that was found changed this often is left for the next `run --once`.
const RESTARTS: u32 = 3;

/// What a folder is told.
#[derive(Debug)]
pub enum Input {
    /// The kernel reported something.
    Hint(Hint),
    /// Somebody asks for a scan.
    Rescan,
    /// The rules changed; id and root are the same.
    Update(Watch),
    /// This watch of the same folder was taken out, and has ended.
    Left(Watch),
}

/// What the store must still be told before files count as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The first look is over.
    Done,
    /// It has to be made (again).
    Due,
    /// A scan is making it.
    Running,
    /// Its scan ended just now; hints from during it may still come.
    Late(Duration),
}

/// One watched folder.
pub struct Folder {
    watch: Watch,
    /// Ids of all watches in the setup: one that the store remembers but that is not here was replaced.
    configured: HashSet<String>,
    wants: Arc<Wants>,
    store: Store,
    clock: Clock,
    origin: Instant,
    /// The time when it began, for a clock that is moved by hand.
    began: Timestamp,
    /// Where the folder really lies.
    ground: Ground,
    watcher: Option<Arc<Watcher>>,
    /// Why there is no watcher.
    unwatched: Option<String>,
    once: bool,
    /// It was not there until a reload brought it.
    comes_in: bool,
    /// Watches of the same folder that were taken out, and that nothing was done for yet.
    left: Vec<Watch>,

    root: Option<Arc<Root>>,
    /// The root is another folder than the one the files were known in, and none of them was met yet.
    doubtful: bool,
    memory: Arc<Mutex<Memory>>,
    arms: Arc<Mutex<Arms>>,
    first: First,
    candidates: Candidates,
    /// Files that somebody has open for writing.
    writers: HashSet<PathBuf>,
    /// Those of them whose name went away last.
    renamed_writers: VecDeque<PathBuf>,
    /// Folders to be read because they came to be.
    subtrees: BTreeSet<PathBuf>,
    /// Sets of files that lack some.
    sets: Sets,
    /// Kinds of sets for which a file had no key.
    keyless: BTreeSet<String>,
    /// What sets rules ask for has changed.
    unsorted: bool,
    arrivals: u64,

    tell: mpsc::Sender<Progress>,
    progress: mpsc::Receiver<Progress>,
    stop: Arc<AtomicBool>,
    scanning: bool,
    reading: bool,
    /// When the whole scan that runs began.
    scan_began: Option<Timestamp>,
    wanted_scan: bool,
    next_scan: Duration,
    /// How long the last one took.
    last_scan: Duration,
    next_check: Duration,
    pulse: Pulse,

    status: WatchStatus,
    changed: bool,
    next_status: Duration,
    case: String,
    open: bool,
    partly_open: bool,
    /// What the store refused last.
    failed: Option<StoreError>,
}

impl Folder {
    /// A folder that has looked at nothing yet. With `once` it sets no notifications and waits only for
    /// what settles by itself.
    pub fn new(
        watch: Watch,
        configured: HashSet<String>,
        store: Store,
        clock: Clock,
        watcher: Result<Arc<Watcher>, String>,
        once: bool,
    ) -> Folder {
        let (tell, progress) = mpsc::channel(64);
        let (watcher, unwatched) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(why) => (None, Some(why)),
        };
        let began = clock.now();
        let case = status::case(&watch.root);
        let status = WatchStatus {
            root: watch.root.clone(),
            mode: Mode::Away,
            why: Some("it has not been looked at yet".to_owned()),
            away_since: None,
            folders: 0,
            polled_folders: 0,
            known: 0,
            candidates: 0,
            skipped: 0,
            unreadable: 0,
            last_scan: None,
            scan_began: None,
            scan_ms: 0,
            last_event: None,
            folder: None,
            mounts: Vec::new(),
        };
        Folder {
            wants: Arc::new(Wants::new(watch.wanted.clone())),
            watch,
            configured,
            store,
            clock,
            origin: Instant::now(),
            began,
            ground: Ground::default(),
            watcher,
            unwatched,
            once,
            comes_in: false,
            left: Vec::new(),
            root: None,
            doubtful: false,
            memory: Arc::default(),
            arms: Arc::default(),
            first: First::Done,
            candidates: Candidates::default(),
            writers: HashSet::new(),
            renamed_writers: VecDeque::new(),
            subtrees: BTreeSet::new(),
            sets: Sets::default(),
            keyless: BTreeSet::new(),
            unsorted: false,
            arrivals: 0,
            tell,
            progress,
            stop: Arc::default(),
            scanning: false,
            reading: false,
            scan_began: None,
            wanted_scan: true,
            next_scan: Duration::ZERO,
            last_scan: Duration::ZERO,
            next_check: Duration::ZERO,
            pulse: Pulse::new("folder"),
            status,
            changed: true,
            next_status: Duration::ZERO,
            case,
            open: false,
            partly_open: false,
            failed: None,
        }
    }

    /// The same, brought by a reload: it did not watch until now.
    pub fn coming_in(mut self) -> Folder {
        self.comes_in = true;
        self
    }

    /// What it knows, shared: who moved a file says so here.
    pub fn memory(&self) -> Arc<Mutex<Memory>> {
        self.memory.clone()
    }

    /// Ticks whenever it comes round.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    fn now(&self) -> Duration {
        if self.clock.is_by_hand() {
            return Duration::try_from(self.clock.now().duration_since(self.began)).unwrap_or_default();
        }
        self.origin.elapsed()
    }

    // ---- the loop ----

    /// Runs until the inbox closes.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>, lost: Arc<AtomicBool>) {
        while let Err(error) = self.remember().await {
            self.pulse.tick();
            self.complain(&error);
            if inbox.is_closed() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let mut inputs = Vec::new();
        loop {
            self.pulse.tick();
            self.turn().await;
            let wake = self.origin + self.next_wake();
            tokio::select! {
                read = inbox.recv_many(&mut inputs, BATCH) => if read == 0 { break },
                Some(progress) = self.progress.recv(), if self.candidates.len() < MANY => {
                    self.advance(progress).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            if lost.swap(false, Ordering::AcqRel) {
                inputs.push(Input::Hint(Hint::Lost(
                    "more was reported than could be read".to_owned(),
                )));
            }
            for input in inputs.drain(..) {
                self.take(input);
            }
        }
        self.end();
    }

    /// One complete look: a whole scan, and the time that what it found needs to settle.
    pub async fn look(mut self) -> Result<Looked, StoreError> {
        self.remember().await?;
        let mut left = 0;
        loop {
            self.turn().await;
            left += self.leave_unsettled();
            if let Some(error) = self.failed.take() {
                self.end();
                return Err(error);
            }
            let idle = !self.scanning && !self.reading && !self.wanted_scan && self.subtrees.is_empty();
            if self.root.is_none() || (idle && self.candidates.is_empty()) {
                break;
            }
            let wake = self.candidates.next_due().unwrap_or(self.now() + LOOK);
            tokio::select! {
                Some(progress) = self.progress.recv(), if self.candidates.len() < MANY => {
                    self.advance(progress).await;
                }
                () = tokio::time::sleep_until(self.origin + wake) => {}
            }
        }
        self.write_status().await;
        self.end();
        Ok(Looked {
            id: self.watch.id.clone(),
            root: self.watch.root.clone(),
            arrived: self.arrivals,
            known: lock(&self.memory).len() as u64,
            left,
            trouble: if self.open || self.partly_open {
                self.status.why.clone()
            } else {
                None
            },
        })
    }

    /// With `run --once`: what cannot settle by waiting a little is left.
    fn leave_unsettled(&mut self) -> u64 {
        let unsettled = self.candidates.hopeless(RESTARTS);
        for path in &unsettled {
            self.candidates.remove(path);
        }
        unsettled.len() as u64
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.progress.close();
        if let Some(watcher) = &self.watcher {
            lock(&self.arms).clear(watcher, &self.watch.root);
        }
    }

    fn next_wake(&self) -> Duration {
        let mut wake = self.next_check;
        if !self.scanning && self.root.is_some() {
            wake = wake.min(self.next_scan);
        }
        if self.changed {
            wake = wake.min(self.next_status);
        }
        if let First::Late(until) = self.first {
            wake = wake.min(until);
        }
        if let Some(due) = self.next_late_set() {
            // A store that refuses is asked again in a moment, not at once.
            wake = wake.min(due.max(self.now() + STATUS));
        }
        self.candidates.next_due().map_or(wake, |due| wake.min(due))
    }

    /// Everything that is due.
    async fn turn(&mut self) {
        if self.now() >= self.next_check {
            self.check_root().await;
        }
        if let First::Late(until) = self.first
            && self.now() >= until
        {
            self.first = First::Done;
        }
        if let Err(error) = self.take_over().await {
            self.complain(&error);
        }
        self.look_at_due().await;
        if let Err(error) = self.turn_sets().await {
            self.complain(&error);
        }
        if let Some(root) = self.root.clone() {
            if !self.scanning && (self.wanted_scan || self.now() >= self.next_scan) {
                self.start_scan(&root, None);
            } else if !self.reading && !self.subtrees.is_empty() {
                let subtrees = std::mem::take(&mut self.subtrees);
                self.start_scan(&root, Some(subtrees.into_iter().collect()));
            }
        }
        if self.changed && self.now() >= self.next_status {
            self.write_status().await;
        }
    }
}
