//! What a folder hears: hints, and what others tell it.

use super::{First, Folder, Input, RENAMES, WRITERS};
use crate::source::file::sweep::lock;
use crate::source::settle::{Heard, LOOK};
use crate::source::wanted::Wants;
use crate::source::watch::Hint;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

impl Folder {
    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Hint(hint) => self.hear(hint),
            Input::Rescan => self.wanted_scan = true,
            Input::Update(watch) => {
                self.wants = Arc::new(Wants::new(watch.wanted.clone()));
                self.watch = watch;
                self.wanted_scan = true;
                self.unsorted = true;
            }
            Input::Left(watch) => self.left.push(watch),
        }
        self.changed = true;
    }

    pub(super) fn hear(&mut self, hint: Hint) {
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
        if self.looks_first() && matches!(heard, Heard::Created | Heard::Renamed) {
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

    pub(super) fn hear_folder(&mut self, relative: PathBuf) {
        if self.wants.reach(&relative) {
            self.subtrees.insert(relative);
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
    pub(super) fn looks_first(&self) -> bool {
        matches!(self.first, First::Running | First::Late(_))
    }

    /// The path below the root; `None` for the root itself and for what is elsewhere.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let relative = path.strip_prefix(&self.watch.root).ok()?;
        (!relative.as_os_str().is_empty()).then(|| relative.to_owned())
    }
}
