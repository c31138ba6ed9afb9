//! A folder and its scans: when they run, what they find, what they no longer find.

use super::{AGAIN, BATCH, First, Folder, LATE, POLL, SOON};
use crate::source::file::record;
use crate::source::file::sweep::{Done, Progress, Sweep, lock};
use crate::source::fs_kind::FsKind;
use crate::source::root::{Look, Root};
use crate::source::scan::{Found, Scanned, Tally, Unreadable};
use crate::source::settle::{Heard, LOOK};
use crate::source::{Existing, Identity};
use crate::store::{Batch, Removal, Removed, SeenFile, StoreError};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

impl Folder {
    pub(super) fn start_scan(&mut self, root: &Arc<Root>, starts: Option<Vec<PathBuf>>) {
        if starts.is_none() {
            self.scanning = true;
            self.scan_began = Some(self.clock.now());
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
            mounts: Vec::new(),
            tell: self.tell.clone(),
            stop: self.stop.clone(),
        };
        tokio::task::spawn_blocking(move || sweep.run(starts));
    }

    pub(super) async fn advance(&mut self, progress: Progress) {
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
    pub(super) async fn remember_plain(&mut self, found: Vec<Found>) {
        let first = self.first == First::Running && self.watch.existing == Existing::Ignore;
        let files: Vec<_> = found
            .into_iter()
            .filter(|file| !self.candidates.contains(&file.relative))
            .collect();
        // Where content decides, what it was must be known, or a mere touch would pass for new content.
        let read = self.watch.identity == Identity::Content;
        let contents = if read {
            self.contents(&files).await
        } else {
            vec![None; files.len()]
        };
        let rows: Vec<SeenFile> = {
            let memory = lock(&self.memory);
            let row = |(file, content): (&Found, &Option<[u8; 32]>)| {
                let arrivals = memory.arrivals(&file.relative);
                record::seen(&self.watch, &file.relative, file.meta, *content, arrivals)
            };
            files.iter().zip(&contents).map(row).collect()
        };
        let numbers: Vec<_> = rows.iter().map(|row| row.arrivals).collect();
        let batch = Batch {
            seen: rows,
            ..Batch::default()
        };
        if let Err(error) = self.store.record(batch).await {
            self.complain(&error);
            if first {
                // Without all of its files the first look is none.
                self.first = First::Due;
            }
            return;
        }
        let mut memory = lock(&self.memory);
        for ((file, content), arrivals) in files.iter().zip(&contents).zip(numbers) {
            memory.remember(&file.relative, file.meta, content.as_ref(), arrivals);
            if first {
                memory.mark_first(&file.relative);
            }
        }
    }

    /// Hashes of those files that some rule may look for and that can be read.
    async fn contents(&mut self, files: &[Found]) -> Vec<Option<[u8; 32]>> {
        let Some(root) = self.root.clone() else {
            return vec![None; files.len()];
        };
        let (files, wants) = (files.to_vec(), self.wants.clone());
        let none = vec![None; files.len()];
        let hash = move |file: &Found| {
            let wanted = wants.match_path(&file.relative);
            // Unreadable, or changed meanwhile: then the next look decides by size and time.
            wanted
                .then(|| root.fingerprint(&file.relative, file.meta).ok().flatten())
                .flatten()
        };
        self.blocking(move || files.iter().map(hash).collect())
            .await
            .unwrap_or(none)
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
        let (tally, mut unreadable, more) = match done.scanned {
            Scanned::Away(away) => return self.go_away(away).await,
            Scanned::Stopped => return,
            Scanned::Complete(tally) => (tally, Vec::new(), 0),
            Scanned::Partly(tally, unreadable, more) => (tally, unreadable, more),
        };
        if !done.whole {
            return;
        }
        unreadable.extend(self.away_below(&root, done.mounts, &unreadable).await);
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
        self.last_scan = took;
        self.status.last_scan = Some(self.clock.now());
        self.status.scan_began = self.scan_began;
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

    pub(super) fn poll(&self) -> Duration {
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
        let rows: HashMap<PathBuf, SeenFile> = {
            let memory = lock(&self.memory);
            let hidden = |path: &Path| unreadable.iter().any(|part| path.starts_with(&part.relative));
            let relevant =
                |row: &SeenFile| unseen.contains(&memory.name(&row.relative)) && !hidden(&row.relative);
            rows.into_iter()
                .filter(relevant)
                .map(|row| (row.relative.clone(), row))
                .collect()
        };
        let paths: Vec<PathBuf> = rows.keys().cloned().collect();
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
        let (told, quiet): (Vec<_>, Vec<_>) = gone.into_iter().partition(|path| self.tells_removal(path));
        let told: Vec<_> = told.iter().filter_map(|path| rows.get(path)).collect();
        self.record_removed(&told).await?;
        self.record_gone(&quiet).await
    }

    fn reaches(&self, file: &Path) -> bool {
        self.wants.reach(file.parent().unwrap_or(Path::new("")))
    }

    pub(super) async fn record_gone(&mut self, gone: &[PathBuf]) -> Result<(), StoreError> {
        for some in gone.chunks(BATCH) {
            let rows = {
                let memory = lock(&self.memory);
                let row = |path: &PathBuf| record::gone(&self.watch, path, memory.arrivals(path));
                some.iter().map(row).collect()
            };
            let left = self.leave_sets(some);
            let mut batch = Batch {
                seen: rows,
                ..Batch::default()
            };
            left.marks.join(&mut batch);
            self.store.record(batch).await?;
            self.lose(some);
            self.sets_left(left).await;
        }
        Ok(())
    }

    fn lose(&self, paths: &[PathBuf]) {
        let mut memory = lock(&self.memory);
        for path in paths {
            memory.lose(path);
        }
    }

    /// Whether a rule wants to hear that this file went away.
    pub(super) fn tells_removal(&self, path: &Path) -> bool {
        self.watch.removed.iter().any(|wanted| wanted.matches(path))
    }

    /// The next scan is near: something seems to be gone.
    pub(super) fn scan_soon(&mut self) {
        // A scan that takes long is not repeated for each file that goes.
        let pause = self
            .last_scan
            .saturating_mul(10)
            .max(SOON)
            .min(self.watch.scan_every);
        self.next_scan = self.next_scan.min(self.now() + pause);
    }

    /// Files that a complete scan did not see, and whose going is to be told, as they were known.
    async fn record_removed(&mut self, gone: &[&SeenFile]) -> Result<(), StoreError> {
        let now = self.clock.now();
        for some in gone.chunks(BATCH) {
            let paths: Vec<PathBuf> = some.iter().map(|row| row.relative.clone()).collect();
            let removals = some.iter().map(|row| Removal {
                event: record::removed(&self.watch, row, now),
                file: (*row).clone(),
            });
            let removed = self.store.record_removed(removals.collect()).await?;
            let mut away = Vec::new();
            for (path, removed) in paths.into_iter().zip(removed) {
                match removed {
                    // Work of ours has it in hand: whether it took it away is known when it has ended.
                    Removed::InHand => self.scan_soon(),
                    Removed::Told(_) => {
                        self.status.last_event = Some(now);
                        away.push(path);
                    }
                    Removed::Known => away.push(path),
                }
            }
            let left = self.leave_sets(&away);
            let mut batch = Batch::default();
            left.marks.join(&mut batch);
            self.store.record(batch).await?;
            self.lose(&away);
            self.sets_left(left).await;
        }
        Ok(())
    }
}
