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

use super::candidates::Candidates;
use super::record::{self, Arrival};
use super::status::{Looked, Mode, WatchStatus, mark};
use super::sweep::{Arms, Done, Progress, Sweep, Unarmed, lock};
use crate::clock::Clock;
use crate::entry::Reason;
use crate::event::{FileRef, shown};
use crate::source::fs_kind::FsKind;
use crate::source::memory::{Memory, Standing};
use crate::source::root::{Away, Look, Root};
use crate::source::scan::{Found, Scanned, Tally, Unreadable};
use crate::source::settle::{Heard, LOOK, Sight, Until, Verdict};
use crate::source::wanted::Wants;
use crate::source::watch::{Hint, Watcher};
use crate::source::{Existing, Identity, Settle, Watch};
use crate::store::{Batch, NewCase, SeenFile, Store, StoreError, WatchMemory};
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
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
    watcher: Option<Arc<Watcher>>,
    /// Why there is no watcher.
    unwatched: Option<String>,
    once: bool,

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
    subtrees: Vec<PathBuf>,
    arrivals: u64,

    tell: mpsc::Sender<Progress>,
    progress: mpsc::Receiver<Progress>,
    stop: Arc<AtomicBool>,
    scanning: bool,
    reading: bool,
    wanted_scan: bool,
    next_scan: Duration,
    next_check: Duration,

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
        let case = format!("watch:{}", shown(watch.root.as_os_str()));
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
            scan_ms: 0,
            last_event: None,
            folder: None,
        };
        Folder {
            wants: Arc::new(Wants::new(watch.wanted.clone())),
            watch,
            configured,
            store,
            clock,
            origin: Instant::now(),
            watcher,
            unwatched,
            once,
            root: None,
            doubtful: false,
            memory: Arc::default(),
            arms: Arc::default(),
            first: First::Done,
            candidates: Candidates::default(),
            writers: HashSet::new(),
            renamed_writers: VecDeque::new(),
            subtrees: Vec::new(),
            arrivals: 0,
            tell,
            progress,
            stop: Arc::default(),
            scanning: false,
            reading: false,
            wanted_scan: true,
            next_scan: Duration::ZERO,
            next_check: Duration::ZERO,
            status,
            changed: true,
            next_status: Duration::ZERO,
            case,
            open: false,
            partly_open: false,
            failed: None,
        }
    }

    /// What it knows, shared: who moved a file says so here.
    pub fn memory(&self) -> Arc<Mutex<Memory>> {
        self.memory.clone()
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    // ---- the loop ----

    /// Runs until the inbox closes.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>, lost: Arc<AtomicBool>) {
        while let Err(error) = self.remember().await {
            self.complain(&error);
            tokio::time::sleep(AGAIN).await;
        }
        let mut inputs = Vec::new();
        loop {
            self.turn().await;
            let wake = self.origin + self.next_wake();
            tokio::select! {
                biased;
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
        self.look_at_due().await;
        if let Some(root) = self.root.clone() {
            if !self.scanning && (self.wanted_scan || self.now() >= self.next_scan) {
                self.start_scan(&root, None);
            } else if !self.reading && !self.subtrees.is_empty() {
                let subtrees = std::mem::take(&mut self.subtrees);
                self.start_scan(&root, Some(subtrees));
            }
        }
        if self.changed && self.now() >= self.next_status {
            self.write_status().await;
        }
    }

    // ---- what is remembered ----

    /// Reads what the store knows of this watch, or of one that it replaces.
    async fn remember(&mut self) -> Result<(), StoreError> {
        let known = self.store.watches().await?;
        let old = self.store.marks(&mark(&self.watch.id)).await?;
        let old = old.into_iter().find(|(key, _)| *key == mark(&self.watch.id));
        if let Some(old) = old.and_then(|(_, value)| serde_json::from_value::<WatchStatus>(value).ok()) {
            self.status.folder = old.folder;
            self.status.last_event = old.last_event;
        }
        let open = self.store.open_cases().await?;
        self.open = open.iter().any(|case| case.key == self.case);
        self.partly_open = open.iter().any(|case| case.key == self.partly_case());
        if known
            .iter()
            .any(|memory| memory.id == self.watch.id && memory.baseline)
        {
            let seen = self.store.seen(&self.watch.id).await?;
            return Ok(self.load(&seen));
        }
        let same_root = |memory: &&WatchMemory| {
            memory.baseline && memory.root == self.watch.root && memory.id != self.watch.id
        };
        // A second rule that asks for what lies there gets it. But where the setup of a watch was only
        // changed, it is not the first time that this folder is watched: mailing everything in it again
        // because somebody chose another settle time would be a storm.
        let inherits = |memory: &&WatchMemory| {
            self.watch.existing == Existing::Ignore || !self.configured.contains(&memory.id)
        };
        let elders: Vec<_> = known.iter().filter(same_root).filter(inherits).collect();
        if elders.is_empty() {
            self.first = First::Due;
            return Ok(());
        }
        for elder in elders {
            let seen = self.store.seen(&elder.id).await?;
            let mine = |file: &SeenFile| SeenFile {
                watch: self.watch.id.clone(),
                ..file.clone()
            };
            for some in seen.chunks(BATCH) {
                let seen = some.iter().map(mine).collect();
                self.store
                    .record(Batch {
                        seen,
                        ..Batch::default()
                    })
                    .await?;
            }
            self.load(&seen);
        }
        self.record_baseline().await
    }

    fn load(&mut self, seen: &[SeenFile]) {
        let mut memory = lock(&self.memory);
        for file in seen {
            memory.load(
                &file.relative,
                file.size,
                file.mtime_ns,
                file.hash.as_ref(),
                file.arrivals,
                file.gone,
            );
        }
    }

    async fn record_baseline(&mut self) -> Result<(), StoreError> {
        let memory = WatchMemory {
            id: self.watch.id.clone(),
            root: self.watch.root.clone(),
            baseline: true,
        };
        let batch = Batch {
            baselines: vec![memory],
            ..Batch::default()
        };
        self.store.record(batch).await.map(drop)
    }

    // ---- what is heard ----

    fn take(&mut self, input: Input) {
        match input {
            Input::Hint(hint) => self.hear(hint),
            Input::Rescan => self.wanted_scan = true,
            Input::Update(watch) => {
                self.wants = Arc::new(Wants::new(watch.wanted.clone()));
                self.watch = watch;
                self.wanted_scan = true;
            }
        }
        self.changed = true;
    }

    fn hear(&mut self, hint: Hint) {
        match hint {
            Hint::Lost(why) => {
                tracing::warn!(root = %self.shown_root(), why, "notifications were lost, scanning");
                self.writers.clear();
                self.wanted_scan = true;
            }
            Hint::Created(path) => self.hear_file(&path, Heard::Created),
            Hint::RenamedTo(path) => self.hear_file(&path, Heard::Renamed),
            Hint::Closed(path) => {
                if let Some(relative) = self.relative(&path) {
                    self.writers.remove(&relative);
                }
                self.hear_file(&path, Heard::Closed);
            }
            Hint::Written(path) => {
                let Some(relative) = self.relative(&path) else {
                    return;
                };
                self.add_writer(relative);
                self.hear_file(&path, Heard::Written);
            }
            Hint::Renamed(from, to) => {
                self.hear_file(&to, Heard::Renamed);
                let (Some(from), Some(relative)) = (self.relative(&from), self.relative(&to)) else {
                    return;
                };
                // Renamed while its writer still has it open: the name is in place, the content is not.
                if self.renamed_writers.contains(&from) {
                    self.renamed_writers.retain(|left| *left != from);
                    self.add_writer(relative);
                    self.hear_file(&to, Heard::Written);
                }
            }
            Hint::Folder(path) => {
                if let Some(relative) = self.relative(&path) {
                    self.hear_folder(relative);
                }
            }
            Hint::Left(path) => self.hear_left(&path),
        }
    }

    fn add_writer(&mut self, relative: PathBuf) {
        if self.writers.len() >= WRITERS {
            // More than any machine has open: somebody's closes were not reported.
            self.writers.clear();
        }
        self.writers.insert(relative);
    }

    fn hear_file(&mut self, path: &Path, heard: Heard) {
        let Some(relative) = self.relative(path) else {
            return;
        };
        let now = self.now();
        self.candidates.marker_heard(&relative, now);
        // A folder that was renamed to this name is reported like a file: the look will show.
        let folder = heard == Heard::Renamed && self.wants.reach(&relative);
        if !folder && !self.wants.match_path(&relative) {
            return;
        }
        if self.looks_first() && heard != Heard::Written {
            let mut memory = lock(&self.memory);
            if memory.from_first_look(&relative) {
                // The first look took it for old, but it came while we looked.
                memory.leave(&relative);
            }
        }
        // Writing alone makes no candidate of a file that is known: its close will.
        if heard == Heard::Written
            && !self.candidates.contains(&relative)
            && lock(&self.memory).knows(&relative)
        {
            return;
        }
        self.candidates.hear(&relative, heard, now, LOOK);
    }

    fn hear_folder(&mut self, relative: PathBuf) {
        if self.wants.reach(&relative) && !self.subtrees.contains(&relative) {
            self.subtrees.push(relative);
        }
    }

    fn hear_left(&mut self, path: &Path) {
        let Some(relative) = self.relative(path) else {
            if path == self.watch.root {
                self.next_check = Duration::ZERO;
            }
            return;
        };
        if self.writers.remove(&relative) {
            // Should it turn out to be a rename, the other name is told in a moment.
            if self.renamed_writers.len() == RENAMES {
                self.renamed_writers.pop_front();
            }
            self.renamed_writers.push_back(relative.clone());
        }
        if let Some(watcher) = &self.watcher {
            lock(&self.arms).leave(watcher, &self.watch.root, &relative);
        }
        let mut memory = lock(&self.memory);
        let known = memory.knows(&relative);
        if known {
            memory.leave(&relative);
        }
        drop(memory);
        if known || self.candidates.contains(&relative) {
            let now = self.now();
            self.candidates.hear(&relative, Heard::Seen, now, Duration::ZERO);
        }
    }

    /// The very first look is under way, or ended so shortly ago that hints from during it may come.
    fn looks_first(&self) -> bool {
        matches!(self.first, First::Running | First::Late(_))
    }

    /// The path below the root; `None` for the root itself and for what is elsewhere.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let relative = path.strip_prefix(&self.watch.root).ok()?;
        (!relative.as_os_str().is_empty()).then(|| relative.to_owned())
    }

    // ---- scans ----

    fn start_scan(&mut self, root: &Arc<Root>, starts: Option<Vec<PathBuf>>) {
        if starts.is_none() {
            self.scanning = true;
            self.wanted_scan = false;
            if self.first == First::Due {
                self.first = First::Running;
            }
        } else {
            self.reading = true;
        }
        let sweep = Sweep {
            root: root.clone(),
            wants: self.wants.clone(),
            memory: self.memory.clone(),
            watcher: self.watcher.clone(),
            arms: self.arms.clone(),
            first: self.first == First::Running
                && starts.is_none()
                && self.watch.existing == Existing::Ignore,
            came: self.looks_first() && starts.is_some(),
            tell: self.tell.clone(),
            stop: self.stop.clone(),
        };
        tokio::task::spawn_blocking(move || sweep.run(starts));
    }

    async fn advance(&mut self, progress: Progress) {
        match progress {
            Progress::New(found) => {
                let now = self.now();
                for file in found {
                    self.found(&file.relative, now);
                }
            }
            Progress::Plain(found) => self.remember_plain(found).await,
            Progress::Done(done) => self.scan_ended(done).await,
        }
    }

    fn found(&mut self, relative: &Path, now: Duration) {
        let known_writer = self.writers.contains(relative);
        self.candidates.marker_heard(relative, now);
        self.candidates.hear(relative, Heard::Seen, now, LOOK);
        if known_writer {
            self.candidates.hear(relative, Heard::Written, now, LOOK);
        }
    }

    /// Files that make no event: remembered as they are.
    async fn remember_plain(&mut self, found: Vec<Found>) {
        let first = self.first == First::Running && self.watch.existing == Existing::Ignore;
        let files: Vec<_> = found
            .into_iter()
            .filter(|file| !self.candidates.contains(&file.relative))
            .collect();
        let rows = {
            let memory = lock(&self.memory);
            let row = |file: &Found| {
                let arrivals = memory.arrivals(&file.relative);
                record::seen(&self.watch, &file.relative, file.meta, None, arrivals)
            };
            files.iter().map(row).collect()
        };
        if let Err(error) = self
            .store
            .record(Batch {
                seen: rows,
                ..Batch::default()
            })
            .await
        {
            self.complain(&error);
            if first {
                // Without all of its files the first look is none.
                self.first = First::Due;
            }
            return;
        }
        let mut memory = lock(&self.memory);
        for file in files {
            if first {
                memory.remember_first(&file.relative, file.meta);
            } else {
                let arrivals = memory.arrivals(&file.relative);
                memory.remember(&file.relative, file.meta, None, arrivals);
            }
        }
    }

    async fn scan_ended(&mut self, done: Done) {
        if done.whole {
            self.scanning = false;
            self.next_scan = self.now() + self.pause(done.took);
        } else {
            self.reading = false;
        }
        self.changed = true;
        let Some(root) = self.root.clone().filter(|root| root.id == done.folder) else {
            return; // another folder is the root by now
        };
        let (tally, unreadable, more) = match done.scanned {
            Scanned::Away(away) => return self.go_away(away).await,
            Scanned::Stopped => return,
            Scanned::Complete(tally) => (tally, Vec::new(), 0),
            Scanned::Partly(tally, unreadable, more) => (tally, unreadable, more),
        };
        if !done.whole {
            return;
        }
        self.note_scan(tally, done.took, unreadable.len() + more);
        if let Some(watcher) = &self.watcher {
            let certain =
                |path: &Path| more == 0 && !unreadable.iter().any(|part| path.starts_with(&part.relative));
            lock(&self.arms).keep_met(watcher, &self.watch.root, &certain);
        }
        if self.first == First::Due {
            // What this scan found could not be written down.
            self.next_scan = self.now() + AGAIN;
            return;
        }
        if self.first == First::Running {
            match self.record_baseline().await {
                Ok(()) => self.first = First::Late(self.now() + LATE),
                Err(error) => {
                    self.complain(&error);
                    self.first = First::Due;
                    self.next_scan = self.now() + AGAIN;
                }
            }
        } else if more == 0
            && let Err(error) = self.find_gone(&root, &unreadable).await
        {
            self.complain(&error);
        }
        self.confirm(&root).await;
        self.tell_unreadable(&unreadable, more).await;
        self.write_status().await;
    }

    fn note_scan(&mut self, tally: Tally, took: Duration, unreadable: usize) {
        self.status.last_scan = Some(self.clock.now());
        self.status.scan_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.status.folders = tally.folders;
        self.status.skipped = tally.skipped;
        self.status.unreadable = unreadable as u64;
        tracing::debug!(
            root = %self.shown_root(), files = tally.files, folders = tally.folders, ?took, "scanned"
        );
    }

    /// Time until the next whole scan: short where it is all we have, but never so short that we do
    /// nothing else.
    fn pause(&self, took: Duration) -> Duration {
        let every = self.watch.scan_every;
        if self.watcher.is_none() || lock(&self.arms).uncovered().0 > 0 {
            took.saturating_mul(10).max(self.poll()).min(every)
        } else {
            every
        }
    }

    fn poll(&self) -> Duration {
        self.watch.scan_every.min(POLL)
    }

    /// A complete scan has not seen some files that were there. Each is looked at once more, because a
    /// directory that changes while it is read may hide a name.
    async fn find_gone(&mut self, root: &Arc<Root>, unreadable: &[Unreadable]) -> Result<(), StoreError> {
        let unseen = lock(&self.memory).unseen();
        if unseen.is_empty() {
            return Ok(());
        }
        let rows = self.store.seen(&self.watch.id).await?;
        let paths: Vec<PathBuf> = {
            let memory = lock(&self.memory);
            let hidden = |path: &Path| unreadable.iter().any(|part| path.starts_with(&part.relative));
            let relevant =
                |row: &SeenFile| unseen.contains(&memory.name(&row.relative)) && !hidden(&row.relative);
            rows.into_iter()
                .filter(relevant)
                .map(|row| row.relative)
                .collect()
        };
        let mut gone = Vec::new();
        for some in paths.chunks(BATCH) {
            let (some, root) = (some.to_vec(), root.clone());
            let looks = self
                .blocking(move || {
                    let fresh = matches!(root.kind, FsKind::Remote(_));
                    let looks: Vec<_> = some
                        .into_iter()
                        .map(|path| (root.look(&path, fresh), path))
                        .collect();
                    root.stands().ok().map(|()| looks)
                })
                .await;
            let Some(looks) = looks.flatten() else {
                return Ok(());
            };
            for (look, path) in looks {
                match look {
                    Look::Gone | Look::Folder | Look::Other => gone.push(path),
                    // It exists, but no rule looks there any more.
                    Look::File(_) if !self.reaches(&path) => lock(&self.memory).forget(&path),
                    Look::File(_) | Look::Unreadable(_) => {}
                }
            }
        }
        self.record_gone(&gone).await
    }

    fn reaches(&self, file: &Path) -> bool {
        self.wants.reach(file.parent().unwrap_or(Path::new("")))
    }

    async fn record_gone(&mut self, gone: &[PathBuf]) -> Result<(), StoreError> {
        for some in gone.chunks(BATCH) {
            let rows = {
                let memory = lock(&self.memory);
                let row = |path: &PathBuf| record::gone(&self.watch, path, memory.arrivals(path));
                some.iter().map(row).collect()
            };
            self.store
                .record(Batch {
                    seen: rows,
                    ..Batch::default()
                })
                .await?;
            let mut memory = lock(&self.memory);
            for path in some {
                memory.lose(path);
            }
        }
        Ok(())
    }

    // ---- looks ----

    async fn look_at_due(&mut self) {
        while let Some(root) = self.root.clone() {
            let due = self.candidates.take_due(self.now(), BATCH);
            if due.is_empty() {
                return;
            }
            let asks = due
                .into_iter()
                .filter_map(|path| self.ask(path))
                .collect::<Vec<_>>();
            let looked = self
                .blocking(move || {
                    let answers: Vec<_> = asks.into_iter().map(|ask| ask.answer(&root)).collect();
                    let stands =
                        answers.iter().all(|(_, look, _)| *look != Look::Gone) || root.stands().is_ok();
                    (answers, stands)
                })
                .await;
            let Some((answers, stands)) = looked else { return };
            if !stands {
                // "Not there" says nothing when the root itself is not.
                self.next_check = Duration::ZERO;
                for (path, ..) in answers {
                    self.candidates.wait(&path, Some(self.origin.elapsed() + LOOK));
                }
                return self.check_root().await;
            }
            self.judge(answers).await;
        }
    }

    fn ask(&mut self, path: Arc<Path>) -> Option<Ask> {
        let native = self.is_native(&path);
        if let Settle::Marker(text) = &self.watch.settle
            && self.candidates.get_mut(&path)?.marker.is_none()
        {
            let file = FileRef {
                root: self.watch.root.clone(),
                relative: path.to_path_buf(),
                size: 0,
                mtime_ns: 0,
            };
            let rendered = text.render(&serde_json::json!({ "file": file.facts() }));
            let named = match &rendered {
                Ok(name) => record::marker(&path, name),
                Err(error) => {
                    tracing::warn!(path = %shown(file.path().as_os_str()), %error, "the marker has no name");
                    None
                }
            };
            // A file that is its own marker, or whose marker would be outside the root, never arrives.
            let Some(marker) = named else {
                self.candidates.remove(&path);
                return None;
            };
            self.candidates.name_marker(&path, marker);
        }
        let marker = self.candidates.get_mut(&path)?.marker.clone();
        Some(Ask {
            path,
            marker,
            fresh: !native,
        })
    }

    /// Whether the kernel tells us what happens to this file.
    fn is_native(&self, path: &Path) -> bool {
        if self.once {
            return self.root.as_ref().is_some_and(|root| root.kind == FsKind::Local);
        }
        lock(&self.arms).covers(path.parent().unwrap_or(Path::new("")))
    }

    async fn judge(&mut self, answers: Vec<(Arc<Path>, Look, bool)>) {
        let now = self.now();
        let (mut arrived, mut plain, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (path, look, marker) in answers {
            let meta = match look {
                Look::File(meta) => meta,
                Look::Unreadable(errno) => {
                    tracing::debug!(path = %self.shown(&path), %errno, "cannot look at the file yet");
                    let later = (!self.once).then(|| now + self.poll());
                    self.candidates.wait(&path, later);
                    continue;
                }
                Look::Folder => {
                    self.candidates.remove(&path);
                    self.hear_folder(path.to_path_buf());
                    continue;
                }
                Look::Gone | Look::Other => {
                    self.candidates.remove(&path);
                    if lock(&self.memory).knows(&path) {
                        gone.push(path.to_path_buf());
                    }
                    continue;
                }
            };
            let number = match lock(&self.memory).meet(&path, meta) {
                Standing::Known => {
                    self.candidates.remove(&path);
                    continue;
                }
                Standing::Arrival(number) => number,
            };
            let look = if self.is_native(&path) { LOOK } else { self.poll() };
            let until = match self.watch.settle {
                Settle::Auto => Until::Auto(look),
                Settle::After(still) => Until::Still(still),
                Settle::Marker(_) => Until::Marker(look),
            };
            let Some(waiting) = self.candidates.get_mut(&path) else {
                continue;
            };
            match waiting.candidate.look(
                Sight {
                    file: Some(meta),
                    marker,
                },
                until,
                now,
            ) {
                Verdict::Wait(due, why) => {
                    tracing::trace!(path = %self.shown(&path), why, "waiting");
                    self.candidates.wait(&path, due);
                }
                Verdict::Drop(_) => drop(self.candidates.remove(&path)),
                Verdict::Settled(why) => {
                    tracing::debug!(path = %self.shown(&path), why, "settled");
                    if self.wants.want(&path, meta.size) {
                        arrived.push(Arrival {
                            path,
                            meta,
                            content: None,
                            number,
                        });
                    } else {
                        self.candidates.remove(&path);
                        plain.push(Found {
                            relative: path.to_path_buf(),
                            meta,
                        });
                    }
                }
            }
        }
        if let Err(error) = self.record_gone(&gone).await {
            self.complain(&error);
        }
        if !plain.is_empty() {
            self.remember_plain(plain).await;
        }
        if !arrived.is_empty() {
            self.record(arrived).await;
        }
        self.changed = true;
    }

    // ---- what arrived ----

    async fn record(&mut self, arrived: Vec<Arrival>) {
        let arrived = match (self.watch.identity, self.root.clone()) {
            (Identity::Content, Some(root)) => self.read_contents(root, arrived).await,
            _ => arrived,
        };
        let now = self.clock.now();
        let mut batch = Batch::default();
        for arrival in &arrived {
            let Arrival {
                path,
                meta,
                content,
                number,
            } = arrival;
            let same = content
                .as_ref()
                .is_some_and(|content| lock(&self.memory).had_content(path, content));
            // The same content under the same path is the same file: only its time is new.
            let number = if same { number.saturating_sub(1) } else { *number };
            batch
                .seen
                .push(record::seen(&self.watch, path, *meta, *content, number));
            if !same {
                batch.events.push(record::event(&self.watch, arrival, now));
            }
        }
        let rows: Vec<_> = batch.seen.iter().map(|row| row.arrivals).collect();
        match self.store.record(batch).await {
            Ok(recorded) => {
                let fresh = recorded.iter().filter(|recorded| recorded.fresh).count();
                self.arrivals += fresh as u64;
                if fresh > 0 {
                    self.status.last_event = Some(now);
                }
                let mut memory = lock(&self.memory);
                for (arrival, number) in arrived.iter().zip(rows) {
                    memory.remember(&arrival.path, arrival.meta, arrival.content.as_ref(), number);
                    self.candidates.remove(&arrival.path);
                }
            }
            Err(error) => {
                self.complain(&error);
                let again = self.now() + AGAIN;
                for arrival in &arrived {
                    self.candidates.wait(&arrival.path, Some(again));
                }
            }
        }
    }

    /// Reads each file for its hash. What cannot be read, or changed meanwhile, is looked at again later.
    async fn read_contents(&mut self, root: Arc<Root>, arrived: Vec<Arrival>) -> Vec<Arrival> {
        let read = self
            .blocking(move || {
                let hash = |arrival: Arrival| (root.fingerprint(&arrival.path, arrival.meta), arrival);
                arrived.into_iter().map(hash).collect::<Vec<_>>()
            })
            .await;
        let again = self.now() + LOOK;
        let mut readable = Vec::new();
        for (content, arrival) in read.unwrap_or_default() {
            match content {
                Ok(Some(content)) => readable.push(Arrival {
                    content: Some(content),
                    ..arrival
                }),
                Ok(None) => self.candidates.wait(&arrival.path, Some(again)),
                Err(error) => {
                    tracing::warn!(path = %self.shown(&arrival.path), %error, "cannot read the file for its hash");
                    let later = (!self.once).then(|| again + self.poll());
                    self.candidates.wait(&arrival.path, later);
                }
            }
        }
        readable
    }

    // ---- the root ----

    async fn check_root(&mut self) {
        self.next_check = self.now() + self.watch.scan_every.min(CHECK);
        if let Some(root) = self.root.clone() {
            match self.blocking(move || root.stands()).await {
                Some(Ok(())) => return,
                Some(Err(away)) => self.go_away(away).await,
                None => return,
            }
        }
        let path = self.watch.root.clone();
        match self.blocking(move || Root::open(&path)).await {
            Some(Ok(root)) => self.found_root(root),
            Some(Err(away)) => self.go_away(away).await,
            None => {}
        }
    }

    fn found_root(&mut self, root: Root) {
        if self.status.folder != Some(root.id) {
            lock(&self.memory).begin_epoch();
            self.doubtful = self.status.folder.is_some();
        }
        tracing::info!(root = %self.shown_root(), "watching");
        self.root = Some(Arc::new(root));
        self.wanted_scan = true;
        self.changed = true;
    }

    /// The root cannot be looked at. That says nothing about the files in it.
    async fn go_away(&mut self, away: Away) {
        self.root = None;
        self.candidates.clear();
        self.writers.clear();
        self.subtrees.clear();
        if self.first == First::Running {
            self.first = First::Due;
        }
        if let Some(watcher) = &self.watcher {
            lock(&self.arms).clear(watcher, &self.watch.root);
        }
        let text = format!(
            "the watched folder {} cannot be looked at: {away}",
            self.shown_root()
        );
        if self.status.away_since.is_none() {
            tracing::warn!(root = %self.shown_root(), why = %away, "the watched folder is away");
            self.status.away_since = Some(self.clock.now());
            self.changed = true;
        }
        self.status.why = Some(away.to_string());
        self.open_case(
            text,
            &[
                "see whether the folder exists, is mounted, and may be read by the user this runs as",
                "nothing else is needed: it is picked up when it is back, and files it had before are not mailed again",
            ],
        )
        .await;
    }

    /// A scan has read the root: whether it is the folder that we know.
    async fn confirm(&mut self, root: &Root) {
        let (known, met) = {
            let memory = lock(&self.memory);
            (memory.len(), memory.seen_now())
        };
        if self.doubtful && known > 0 && met == 0 {
            let text = format!(
                "another folder is at {} now, and none of the {known} files known there is in it",
                self.shown_root()
            );
            self.status.why = Some(text.clone());
            self.status.away_since.get_or_insert(self.clock.now());
            self.open_case(
                text,
                &[
                    "if a file system should be mounted there, mount it",
                    "if the folder was made anew, nothing is needed: it is watched, and the first file that arrives ends this",
                ],
            )
            .await;
            return;
        }
        self.doubtful = false;
        self.status.folder = Some(root.id);
        if self.status.away_since.take().is_some() {
            tracing::info!(root = %self.shown_root(), "the watched folder is back");
        }
        if self.open {
            match self.store.close_case(&self.case).await {
                Ok(_) => self.open = false,
                Err(error) => self.complain(&error),
            }
        }
    }

    async fn open_case(&mut self, text: String, steps: &[&str]) {
        if self.open {
            return;
        }
        let mut reason = Reason::new(text);
        reason.steps = steps.iter().map(|step| (*step).to_owned()).collect();
        let case = NewCase {
            key: self.case.clone(),
            kind: "watch".to_owned(),
            subject: self.shown_root(),
            reason,
        };
        match self.store.open_case(case).await {
            Ok(_) => self.open = true,
            Err(error) => self.complain(&error),
        }
    }

    fn partly_case(&self) -> String {
        format!("{}#unreadable", self.case)
    }

    /// Folders below the root that cannot be read are told: "cannot read" is not "no files".
    async fn tell_unreadable(&mut self, unreadable: &[Unreadable], more: usize) {
        let key = self.partly_case();
        if unreadable.is_empty() {
            if self.partly_open {
                match self.store.close_case(&key).await {
                    Ok(_) => self.partly_open = false,
                    Err(error) => self.complain(&error),
                }
            }
            return;
        }
        if self.partly_open {
            return;
        }
        let shown = |part: &Unreadable| format!("{} ({})", self.shown(&part.relative), part.why);
        let list: Vec<_> = unreadable.iter().take(5).map(shown).collect();
        let count = unreadable.len() + more;
        let text = format!(
            "{count} folders below {} cannot be read: {}",
            self.shown_root(),
            list.join(", ")
        );
        tracing::warn!(root = %self.shown_root(), count, "some folders cannot be read");
        let mut reason = Reason::new(text);
        reason.steps = vec!["give the user this runs as the right to read and enter them".to_owned()];
        let case = NewCase {
            key,
            kind: "watch".to_owned(),
            subject: self.shown_root(),
            reason,
        };
        match self.store.open_case(case).await {
            Ok(_) => self.partly_open = true,
            Err(error) => self.complain(&error),
        }
    }

    // ---- telling ----

    async fn write_status(&mut self) {
        self.next_status = self.now() + STATUS;
        self.changed = false;
        let (uncovered, why) = {
            let arms = lock(&self.arms);
            let (count, why) = arms.uncovered();
            (count, self.why_polled(count, why, arms.any()))
        };
        let away = self.root.is_none() || self.status.away_since.is_some();
        let some = !self.once && (self.watcher.is_none() || uncovered > 0);
        let none_native = self.once || self.watcher.is_none() || (uncovered > 0 && !lock(&self.arms).any());
        self.status.mode = match (self.root.is_none(), none_native) {
            (true, _) => Mode::Away,
            (false, true) => Mode::Polled,
            (false, false) => Mode::Native,
        };
        if !away {
            self.status.why = if some { why } else { None };
        }
        self.status.polled_folders = uncovered as u64;
        self.status.known = lock(&self.memory).len() as u64;
        self.status.candidates = self.candidates.len() as u64;
        let Ok(value) = serde_json::to_value(&self.status) else {
            return;
        };
        if let Err(error) = self.store.set_marks(vec![(mark(&self.watch.id), value)]).await {
            self.complain(&error);
        }
    }

    fn why_polled(&self, count: usize, why: Option<&Unarmed>, some: bool) -> Option<String> {
        if let Some(why) = &self.unwatched {
            return Some(format!(
                "it is polled, because the kernel gives no notifications: {why}; \
                 raise the sysctl fs.inotify.max_user_instances"
            ));
        }
        let part = if some {
            format!("{count} folders are polled")
        } else {
            "it is polled".to_owned()
        };
        Some(match why? {
            Unarmed::Remote(kind) => {
                format!("{part}, because {kind} does not tell what other machines or programs change")
            }
            Unarmed::Limit => format!(
                "{part}, because the limit of watched folders is reached; \
                 raise the sysctl fs.inotify.max_user_watches"
            ),
            Unarmed::Failed(why) => format!("{part}, because the kernel cannot watch: {why}"),
        })
    }

    /// Runs something that may wait for a disk or a share. `None` when the runtime is ending.
    async fn blocking<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut task = tokio::task::spawn_blocking(work);
        match tokio::time::timeout(PATIENCE, &mut task).await {
            Ok(done) => done.ok(),
            Err(_) => {
                let why = format!("it has not answered for {} seconds", PATIENCE.as_secs());
                tracing::warn!(root = %self.shown_root(), "the watched folder does not answer");
                self.status.away_since.get_or_insert(self.clock.now());
                self.status.why = Some(why.clone());
                self.write_status().await;
                let text = format!("the watched folder {} does not answer: {why}", self.shown_root());
                self.open_case(text, &["see whether the server of this share can be reached"])
                    .await;
                let done = task.await.ok();
                self.wanted_scan = true;
                done
            }
        }
    }

    fn complain(&mut self, error: &StoreError) {
        self.failed = Some(error.clone());
        tracing::error!(root = %self.shown_root(), %error, "cannot write to the store, trying again");
    }

    fn shown_root(&self) -> String {
        shown(self.watch.root.as_os_str())
    }

    fn shown(&self, path: &Path) -> String {
        shown(self.watch.root.join(path).as_os_str())
            .escape_debug()
            .to_string()
    }
}

/// A look to be taken on a blocking thread.
struct Ask {
    path: Arc<Path>,
    marker: Option<PathBuf>,
    fresh: bool,
}

impl Ask {
    fn answer(self, root: &Root) -> (Arc<Path>, Look, bool) {
        let there = |marker: &PathBuf| matches!(root.look(marker, self.fresh), Look::File(_));
        // The marker first: where both appear between the two looks, the file is still waited for.
        let marker = self.marker.as_ref().is_some_and(there);
        (self.path.clone(), root.look(&self.path, self.fresh), marker)
    }
}
