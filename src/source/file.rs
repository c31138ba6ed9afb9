//! `file_arrives`: files that settled in a watched folder.
//!
//! What the user writes is a [`Watch`]; what it means is in `file/folder.rs`, one task for each watched
//! folder, so that a share that does not answer stops nobody else. This page starts and stops them, and
//! hands each the hints that are about its folder.
//!
//! ```text
//!   kernel --> watch --> hints --+--> folder A --+
//!                                |               +--> store: events, seen files, status, troubles
//!   Handle: forget, replace -----+--> folder B --+
//! ```
//!
//! **The scan is the truth, a notification only a hint.** Whatever is dropped between here and there costs
//! time, never an event: a full scan runs at the start, at every loss that is noticed, when the root is
//! back, and always after [`Watch::scan_every`].
//!
//! **The same happening gets the same key**, see [`record::key`]; it is recorded together with the row that
//! makes the file known, in one transaction. Killed before it, the next start finds the file again; killed
//! after it, the file is known.

pub mod candidates;
mod folder;
pub mod record;
pub mod status;
pub mod stepped;
mod sweep;

use crate::clock::Clock;
use crate::event::FileRef;
use crate::pulse::Pulse;
use crate::source::Watch;
use crate::source::memory::Memory;
use crate::source::watch::{Hint, Hints, Watcher};
use crate::store::{Store, StoreError};
use folder::{Folder, Input};
use status::Looked;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sweep::lock;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Inputs that may wait for a folder. Beyond that they are dropped, and it scans.
const WAITING: usize = 16_384;

/// How long a folder may take to end. One that waits for a share that is away would take for ever.
const PARTING: Duration = Duration::from_secs(5);

/// Longest time between two looks whether every folder comes round.
const LOOK: Duration = Duration::from_secs(5);

/// What a source is told from outside.
#[derive(Debug)]
enum Command {
    Forget(FileRef),
    Rescan,
    Replace(Vec<Watch>),
}

/// Tells a running [`FileSource`] something. Cheap to clone; saying something to one that has ended does
/// nothing.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// We moved or deleted this file, and the store knows (`store::Also::gone`): when it comes back, even
    /// identical, it has arrived anew.
    pub fn forget(&self, file: FileRef) {
        let _ = self.commands.send(Command::Forget(file));
    }

    /// Scans all folders now.
    pub fn rescan(&self) {
        let _ = self.commands.send(Command::Rescan);
    }

    /// These are the watched folders from now on. A watch of the same id goes on with what it knows.
    pub fn replace(&self, watches: Vec<Watch>) {
        let _ = self.commands.send(Command::Replace(watches));
    }
}

/// The watched folders of a setup.
#[derive(Debug)]
pub struct FileSource {
    watches: Vec<Watch>,
    store: Store,
    clock: Clock,
    commands: mpsc::UnboundedReceiver<Command>,
    pulse: Pulse,
}

/// A folder's task, seen from here.
struct Running {
    watch: Watch,
    memory: Arc<Mutex<Memory>>,
    inbox: mpsc::Sender<Input>,
    /// Its inbox was full: something was not told.
    lost: Arc<AtomicBool>,
    pulse: Pulse,
    /// Cancelled when its task has ended.
    ended: CancellationToken,
}

impl Running {
    fn forget(&self, file: &FileRef) {
        let full = file.path();
        if let Ok(relative) = full.strip_prefix(&self.watch.root) {
            lock(&self.memory).lose_version(relative, file.size, file.mtime_ns);
        }
    }

    /// Unlike a hint this must not be lost: where there is no room for it now, it waits.
    fn update(&self, watch: Watch) {
        if let Err(mpsc::error::TrySendError::Full(update)) = self.inbox.try_send(Input::Update(watch)) {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { inbox.send(update).await.is_ok() });
        }
    }

    /// Tells it of another watch of its folder that was taken out, when that one has written its last.
    fn outlive(&self, left: Watch, ended: CancellationToken) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PARTING, ended.cancelled()).await;
            inbox.send(Input::Left(left)).await.is_ok()
        });
    }

    fn tell(&self, input: Input) {
        if self.inbox.try_send(input).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }
}

impl FileSource {
    /// A source for these watches that does nothing yet.
    pub fn new(watches: Vec<Watch>, store: Store, clock: Clock) -> (FileSource, Handle) {
        let (sender, commands) = mpsc::unbounded_channel();
        let source = FileSource {
            watches,
            store,
            clock,
            commands,
            pulse: Pulse::new("files"),
        };
        (source, Handle { commands: sender })
    }

    /// Ticks as long as all folders come round, or have told why they cannot.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Watches until told to stop. What has not settled by then is found again at the next start. Ends by
    /// itself only when a folder's task has failed: nobody would look there any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let (watcher, mut hints) = match Watcher::new() {
            Ok((watcher, hints)) => (Ok(Arc::new(watcher)), Some(hints)),
            Err(why) => {
                tracing::warn!(why, "the kernel gives no notifications, all folders are polled");
                (Err(why), None)
            }
        };
        let mut tasks = JoinSet::new();
        let mut running: HashMap<String, Running> = HashMap::new();
        let watches = std::mem::take(&mut self.watches);
        self.keep_only(watches.iter()).await;
        self.replace(watches, false, &watcher, &mut running, &mut tasks);
        let mut heard = Vec::new();
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => match command {
                    Command::Replace(watches) => {
                        self.replace(watches, true, &watcher, &mut running, &mut tasks);
                    }
                    Command::Forget(file) => {
                        // Not by the inbox: this is no hint that could be lost, and must not wait for
                        // a folder that waits for its share.
                        running.values().for_each(|folder| folder.forget(&file));
                    }
                    Command::Rescan => running.values().for_each(|folder| folder.tell(Input::Rescan)),
                },
                _ = look.tick() => self.pulse.tick_with(running.values().map(|folder| &folder.pulse)),
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => match ended {
                    // The last word of a folder that was taken out; only now it says no more.
                    Ok(()) => self.keep_only(running.values().map(|folder| &folder.watch)).await,
                    Err(error) => {
                        tracing::error!(%error, "a watched folder's task has failed");
                        break;
                    }
                },
                more = read(&mut hints, &mut heard) => {
                    if !more {
                        hints = None;
                    }
                    for hint in heard.drain(..) {
                        route(&running, &hint);
                    }
                }
            }
        }
        // Their inboxes close with this, and that is their sign to end.
        running.clear();
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PARTING, ended).await.is_err() {
            tracing::warn!("a watched folder does not answer, leaving it");
        }
    }

    async fn keep_only(&self, watches: impl Iterator<Item = &Watch>) {
        if let Err(error) = status::keep_only(&self.store, watches).await {
            tracing::error!(%error, "cannot forget the status of folders that are watched no more");
        }
    }

    /// Looks at all folders once and waits until what is there has settled, as far as it does. Sets no
    /// notifications. For `run --once`; safe beside a running daemon, since both find the same keys.
    pub async fn look(&mut self) -> Result<Vec<Looked>, StoreError> {
        let mut tasks = JoinSet::new();
        status::keep_only(&self.store, self.watches.iter()).await?;
        let ids = ids(&self.watches);
        for (place, watch) in self.watches.iter().cloned().enumerate() {
            let none = Err("it is looked at once".to_owned());
            let folder = Folder::new(
                watch,
                ids.clone(),
                self.store.clone(),
                self.clock.clone(),
                none,
                true,
            );
            tasks.spawn(async move { (place, folder.look().await) });
        }
        let mut looked = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((place, result)) => looked.push((place, result?)),
                Err(error) => tracing::error!(%error, "looking at a folder has failed"),
            }
        }
        looked.sort_by_key(|(place, _)| *place);
        Ok(looked.into_iter().map(|(_, looked)| looked).collect())
    }

    fn replace(
        &self,
        watches: Vec<Watch>,
        reloaded: bool,
        watcher: &Result<Arc<Watcher>, String>,
        running: &mut HashMap<String, Running>,
        tasks: &mut JoinSet<()>,
    ) {
        let ids = ids(&watches);
        let mut leaving: Vec<(Watch, CancellationToken)> = Vec::new();
        running.retain(|id, folder| {
            let stays = watches
                .iter()
                .any(|watch| watch.id == *id && watch.root == folder.watch.root);
            if !stays {
                leaving.push((folder.watch.clone(), folder.ended.clone()));
            }
            stays
        });
        for watch in watches {
            if let Some(folder) = running.get_mut(&watch.id) {
                folder.watch = watch.clone();
                for (left, ended) in leaving.iter().filter(|(left, _)| left.root == watch.root) {
                    folder.outlive(left.clone(), ended.clone());
                }
                folder.update(watch);
                continue;
            }
            let (inbox, outbox) = mpsc::channel(WAITING);
            let lost = Arc::new(AtomicBool::new(false));
            let ended = CancellationToken::new();
            let (store, clock) = (self.store.clone(), self.clock.clone());
            let mut folder = Folder::new(watch.clone(), ids.clone(), store, clock, watcher.clone(), false);
            if reloaded {
                folder = folder.coming_in();
            }
            let (memory, pulse) = (folder.memory(), folder.pulse());
            // Who watched this folder until now may be recording a file at this moment; whoever began
            // before that is written would take the same file for another one.
            let elders: Vec<_> = leaving
                .iter()
                .filter(|(left, _)| left.root == watch.root)
                .map(|(_, ended)| ended.clone())
                .collect();
            let (waiting, told, at_end) = (pulse.clone(), lost.clone(), ended.clone().drop_guard());
            tasks.spawn(async move {
                let _at_end = at_end;
                for elder in elders {
                    let _ = tokio::time::timeout(PARTING, elder.cancelled()).await;
                    waiting.tick();
                }
                folder.run(outbox, told).await;
            });
            running.insert(
                watch.id.clone(),
                Running {
                    watch,
                    memory,
                    inbox,
                    lost,
                    pulse,
                    ended,
                },
            );
        }
    }
}

fn ids(watches: &[Watch]) -> HashSet<String> {
    watches.iter().map(|watch| watch.id.clone()).collect()
}

/// Waits for hints; for ever where there are none.
async fn read(hints: &mut Option<Hints>, into: &mut Vec<Hint>) -> bool {
    match hints {
        Some(hints) => hints.read(into, 1_024).await,
        None => std::future::pending().await,
    }
}

/// Tells each folder what is about it.
fn route(running: &HashMap<String, Running>, hint: &Hint) {
    let under = |root: &Path, path: &PathBuf| path.starts_with(root);
    for folder in running.values() {
        let root = folder.watch.root.as_path();
        let concerns = match hint {
            Hint::Lost(_) => true,
            Hint::Renamed(from, to) => under(root, from) || under(root, to),
            Hint::Created(path)
            | Hint::Folder(path)
            | Hint::Written(path)
            | Hint::Closed(path)
            | Hint::RenamedTo(path)
            | Hint::Left(path) => under(root, path),
        };
        if concerns {
            folder.tell(Input::Hint(hint.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::source::{Existing, Identity, Settle, Wanted};
    use crate::store::EventFilter;
    use globset::GlobBuilder;

    fn watch(root: &Path) -> Watch {
        let glob = GlobBuilder::new("**").literal_separator(true).build().unwrap();
        Watch {
            id: "drop".to_owned(),
            root: root.to_owned(),
            settle: Settle::Auto,
            identity: Identity::Metadata,
            existing: Existing::Process,
            wanted: vec![Wanted {
                matching: glob.compile_matcher(),
                ignore: crate::source::wanted::Ignore::default(),
                recursive: true,
                min_size: 0,
                max_size: None,
            }],
            removed: Vec::new(),
            sets: Vec::new(),
            scan_every: Duration::from_secs(3600),
        }
    }

    async fn arrived(store: &Store, count: usize) {
        let mut changes = store.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let filter = EventFilter {
                    kind: Some(Kind::FileArrives),
                    limit: 1_000,
                    ..EventFilter::default()
                };
                if store.events(filter).await.unwrap().len() == count {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .unwrap();
    }

    /// A folder whose kernel queue nobody reads: every notification is lost, and only what this test
    /// says reaches it.
    async fn deaf(said: impl FnOnce(&mpsc::Sender<Input>, &AtomicBool)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("drop");
        std::fs::create_dir(&root).unwrap();
        let store = Store::open(&dir.path().join("state/t.db"), Clock::system())
            .await
            .unwrap();
        let (watcher, _unread) = Watcher::new().unwrap();
        let watch = watch(&root);
        std::fs::write(root.join("first"), "").unwrap();
        let folder = Folder::new(
            watch.clone(),
            ids(&[watch]),
            store.clone(),
            Clock::system(),
            Ok(Arc::new(watcher)),
            false,
        );
        let (inbox, outbox) = mpsc::channel(1_000);
        let lost = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(folder.run(outbox, lost.clone()));
        arrived(&store, 1).await;
        for number in 0..300 {
            std::fs::write(root.join(number.to_string()), "content").unwrap();
        }
        said(&inbox, &lost);
        arrived(&store, 301).await;
        drop(inbox);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn after_an_overflow_of_the_kernels_queue_a_scan_finds_everything() {
        deaf(|inbox, _| {
            inbox
                .try_send(Input::Hint(Hint::Lost("overflow".to_owned())))
                .unwrap()
        })
        .await;
    }

    #[tokio::test]
    async fn after_an_overflow_of_our_own_queue_a_scan_finds_everything() {
        deaf(|inbox, lost| {
            lost.store(true, Ordering::Release);
            let elsewhere = PathBuf::from("/elsewhere");
            inbox.try_send(Input::Hint(Hint::Created(elsewhere))).unwrap();
        })
        .await;
    }
}
