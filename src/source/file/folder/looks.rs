//! A folder looks at what may have arrived, and records what has.

use super::{AGAIN, BATCH, Folder};
use crate::event::{FileRef, shown};
use crate::source::file::record::{self, Arrival};
use crate::source::file::sweep::lock;
use crate::source::fs_kind::FsKind;
use crate::source::memory::Standing;
use crate::source::root::{Look, Root};
use crate::source::scan::Found;
use crate::source::settle::{FOUND, LOOK, Sight, Until, Verdict};
use crate::source::{Identity, Settle};
use crate::store::Batch;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

impl Folder {
    pub(super) async fn look_at_due(&mut self) {
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
                let later = self.now() + LOOK;
                for (path, ..) in answers {
                    self.candidates.wait(&path, Some(later));
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
            let (standing, changed) = {
                let mut memory = lock(&self.memory);
                let changed = memory.is_new_version(&path, meta);
                (memory.meet(&path, meta), changed)
            };
            let number = match standing {
                // Two versions within one tick of the file system's clock look the same.
                Standing::Known if self.must_read(&path) => {
                    lock(&self.memory).arrivals(&path).saturating_add(1)
                }
                Standing::Known => {
                    self.candidates.remove(&path);
                    continue;
                }
                Standing::Arrival(number) => number,
            };
            let look = if self.is_native(&path) { FOUND } else { self.poll() };
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
                            changed,
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
        // Where somebody wants to hear of it, only a complete scan says that a file is gone.
        let (told, quiet): (Vec<_>, Vec<_>) = gone.into_iter().partition(|path| self.tells_removal(path));
        if !told.is_empty() {
            lock(&self.memory).leave_all(&told);
            self.scan_soon();
        }
        if let Err(error) = self.record_gone(&quiet).await {
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

    fn must_read(&self, path: &Path) -> bool {
        let told = self.candidates.get(path).is_some_and(|waiting| waiting.told);
        told && self.watch.identity == Identity::Content && self.wants.match_path(path)
    }

    pub(super) async fn record(&mut self, arrived: Vec<Arrival>) {
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
                ..
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
        let alone = batch.events.len();
        let came: Vec<_> = batch
            .events
            .iter()
            .filter_map(|event| event.file.clone())
            .map(|file| {
                let rows = batch.seen.iter();
                let row = rows.clone().find(|row| row.relative == file.relative);
                (file, row.map_or(1, |row| row.arrivals))
            })
            .collect();
        let put = self.put_into_sets(&came, now);
        batch.events.extend(put.events.clone());
        put.marks.join(&mut batch);
        let rows: Vec<_> = batch.seen.iter().map(|row| row.arrivals).collect();
        match self.store.record(batch).await {
            Ok(recorded) => {
                let fresh = recorded
                    .iter()
                    .take(alone)
                    .filter(|recorded| recorded.fresh)
                    .count();
                self.arrivals += fresh as u64;
                if fresh > 0 {
                    self.status.last_event = Some(now);
                }
                for (arrival, number) in arrived.iter().zip(rows) {
                    let content = arrival.content.as_ref();
                    lock(&self.memory).remember(&arrival.path, arrival.meta, content, number);
                    self.candidates.remove(&arrival.path);
                }
                self.sets_recorded(put).await;
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
