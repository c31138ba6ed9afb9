//! The files that may have arrived, in the order in which they are to be looked at.

use crate::source::settle::{Candidate, Heard};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A candidate in its place.
#[derive(Debug)]
pub struct Waiting {
    /// Its state.
    pub candidate: Candidate,
    /// The path of its marker below the root, once it has been named.
    pub marker: Option<PathBuf>,
    /// Something was reported of it that may mean another content under the same look.
    pub told: bool,
    due: Option<Duration>,
}

/// All candidates of a watch, by path below the root.
#[derive(Debug, Default)]
pub struct Candidates {
    all: HashMap<Arc<Path>, Waiting>,
    due: BTreeSet<(Duration, Arc<Path>)>,
    markers: HashMap<PathBuf, Vec<Arc<Path>>>,
}

impl Candidates {
    /// Notes what was heard of a file, which makes it a candidate. It is looked at again within `look`.
    pub fn hear(&mut self, path: &Path, heard: Heard, now: Duration, look: Duration) {
        let (key, due) = match self.all.get_key_value(path) {
            Some((key, waiting)) => (key.clone(), waiting.due),
            None => (Arc::from(path), Some(now.saturating_add(look))),
        };
        let waiting = self.all.entry(key.clone()).or_insert_with(|| Waiting {
            candidate: Candidate::new(now),
            marker: None,
            told: false,
            due: None,
        });
        waiting.told |= matches!(heard, Heard::Created | Heard::Closed | Heard::Renamed);
        let due = if waiting.candidate.hear(heard, now) {
            Some(now)
        } else {
            due
        };
        if let Some(old) = std::mem::replace(&mut waiting.due, due) {
            self.due.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, key));
        }
    }

    /// When the next one is to be looked at.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Those to be looked at now, at most `limit`. They stay candidates, and are not due again until
    /// [`Candidates::wait`] or [`Candidates::hear`] says so.
    pub fn take_due(&mut self, now: Duration, limit: usize) -> Vec<Arc<Path>> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            match self.due.first() {
                Some((due, _)) if *due <= now => {}
                _ => break,
            }
            let Some((_, path)) = self.due.pop_first() else {
                break;
            };
            if let Some(waiting) = self.all.get_mut(&path) {
                waiting.due = None;
            }
            taken.push(path);
        }
        taken
    }

    /// One of them.
    pub fn get(&self, path: &Path) -> Option<&Waiting> {
        self.all.get(path)
    }

    /// One of them.
    pub fn get_mut(&mut self, path: &Path) -> Option<&mut Waiting> {
        self.all.get_mut(path)
    }

    /// Whether it is one of them.
    pub fn contains(&self, path: &Path) -> bool {
        self.all.contains_key(path)
    }

    /// Looks at it again then; `None`: only when something is heard.
    pub fn wait(&mut self, path: &Arc<Path>, until: Option<Duration>) {
        let Some(waiting) = self.all.get_mut(path) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut waiting.due, until) {
            self.due.remove(&(old, path.clone()));
        }
        if let Some(due) = until {
            self.due.insert((due, path.clone()));
        }
    }

    /// Names the marker a candidate waits for.
    pub fn name_marker(&mut self, path: &Arc<Path>, marker: PathBuf) {
        if let Some(waiting) = self.all.get_mut(path) {
            self.markers.entry(marker.clone()).or_default().push(path.clone());
            waiting.marker = Some(marker);
        }
    }

    /// Something was heard of this path: looks at once at every candidate whose marker it is. Returns
    /// whether there is one.
    pub fn marker_heard(&mut self, marker: &Path, now: Duration) -> bool {
        let Some(files) = self.markers.get(marker).cloned() else {
            return false;
        };
        for file in &files {
            self.wait(file, Some(now));
        }
        !files.is_empty()
    }

    /// It is no candidate any more.
    pub fn remove(&mut self, path: &Path) -> Option<Waiting> {
        let (key, waiting) = self.all.remove_entry(path)?;
        if let Some(due) = waiting.due {
            self.due.remove(&(due, key.clone()));
        }
        if let Some(marker) = &waiting.marker
            && let Some(files) = self.markers.get_mut(marker)
        {
            files.retain(|file| *file != key);
            if files.is_empty() {
                self.markers.remove(marker);
            }
        }
        Some(waiting)
    }

    /// Those that no waiting will settle: not due at any time, or found changed more often than `most`.
    pub fn hopeless(&self, most: u32) -> Vec<Arc<Path>> {
        let hopeless = |waiting: &Waiting| waiting.due.is_none() || waiting.candidate.restarts() > most;
        let paths = self.all.iter().filter(|(_, waiting)| hopeless(waiting));
        paths.map(|(path, _)| path.clone()).collect()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Candidates::default();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn candidates_come_in_the_order_they_are_due_and_only_once() {
        let mut all = Candidates::default();
        all.hear(Path::new("b"), Heard::Written, SECOND, SECOND);
        all.hear(Path::new("a"), Heard::Seen, SECOND, SECOND);
        all.hear(Path::new("b"), Heard::Written, SECOND * 2, SECOND);
        assert_eq!(all.next_due(), Some(SECOND));
        assert_eq!(all.take_due(SECOND, 9), [Arc::from(Path::new("a"))]);
        assert_eq!(
            all.next_due(),
            Some(SECOND * 2),
            "writing does not put the first look off"
        );
        let taken = all.take_due(SECOND * 3, 9);
        assert_eq!((taken.len(), all.len(), all.next_due()), (1, 2, None));
        all.wait(&taken[0], Some(SECOND * 9));
        all.hear(Path::new("b"), Heard::Closed, SECOND * 4, SECOND);
        assert_eq!(all.next_due(), Some(SECOND * 4));
        all.remove(Path::new("b"));
        assert_eq!((all.next_due(), all.len()), (None, 1));
    }

    #[test]
    fn a_marker_wakes_its_files() {
        let mut all = Candidates::default();
        for name in ["a", "b"] {
            all.hear(Path::new(name), Heard::Seen, SECOND, SECOND);
        }
        for path in all.take_due(SECOND, 9) {
            all.name_marker(&path, "done".into());
            all.wait(&path, None);
        }
        assert_eq!(all.next_due(), None);
        assert!(!all.marker_heard(Path::new("other"), SECOND));
        assert!(all.marker_heard(Path::new("done"), SECOND * 2));
        assert_eq!(all.take_due(SECOND * 2, 9).len(), 2);
        all.remove(Path::new("a"));
        all.remove(Path::new("b"));
        assert!(
            !all.marker_heard(Path::new("done"), SECOND),
            "nobody waits for it"
        );
    }
}
