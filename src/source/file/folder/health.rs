//! Whether a folder can be looked at, and telling people when it cannot.

use super::First;
use super::{CHECK, Folder, PATIENCE, STATUS};
use crate::entry::Reason;
use crate::event::shown;
use crate::source::file::status::{self, Mode, mark};
use crate::source::file::sweep::{Unarmed, lock};
use crate::source::root::{Away, Root};
use crate::source::scan::Unreadable;
use crate::store::{NewCase, StoreError};
use std::path::Path;
use std::sync::Arc;

impl Folder {
    pub(super) async fn check_root(&mut self) {
        self.next_check = self.now() + self.watch.scan_every.min(CHECK);
        if let Some(root) = self.root.clone() {
            match self.blocking(move || root.stands()).await {
                Some(Ok(())) => return,
                Some(Err(away)) => self.go_away(away).await,
                None => return,
            }
        }
        let path = self.ground.at(&self.watch.root).into_owned();
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
    pub(super) async fn go_away(&mut self, away: Away) {
        self.root = None;
        self.candidates.clear();
        self.writers.clear();
        self.subtrees.clear();
        lock(&self.memory).stay();
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
    pub(super) async fn confirm(&mut self, root: &Root) {
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

    pub(super) fn partly_case(&self) -> String {
        status::partly_case(&self.case)
    }

    /// Folders below the root that cannot be read are told: "cannot read" is not "no files".
    pub(super) async fn tell_unreadable(&mut self, unreadable: &[Unreadable], more: usize) {
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
        reason.steps = vec![
            "give the user this runs as the right to read and enter them; mount what should be mounted there"
                .to_owned(),
            "if a file system is away for good, remove the empty folder: what was in it then counts as gone"
                .to_owned(),
        ];
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

    pub(super) async fn write_status(&mut self) {
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
        let part = if some && count == 1 {
            "one folder is polled".to_owned()
        } else if some {
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
    pub(super) async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut task = tokio::task::spawn_blocking(work);
        let answered = tokio::time::timeout(PATIENCE, &mut task).await;
        self.pulse.tick();
        match answered {
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
                // Told; this folder alone waits, for as long as it takes.
                self.pulse.wait();
                let done = task.await.ok();
                self.pulse.tick();
                self.wanted_scan = true;
                done
            }
        }
    }

    pub(super) fn complain(&mut self, error: &StoreError) {
        self.failed = Some(error.clone());
        tracing::error!(root = %self.shown_root(), %error, "cannot write to the store, trying again");
    }

    pub(super) fn shown_root(&self) -> String {
        shown(self.watch.root.as_os_str())
    }

    pub(super) fn shown(&self, path: &Path) -> String {
        shown(self.watch.root.join(path).as_os_str())
            .escape_debug()
            .to_string()
    }
}
