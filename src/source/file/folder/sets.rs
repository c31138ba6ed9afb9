//! A folder and the sets its files make: which file completes which, what is told late, what a restart or a reload
//! finds waiting.

use super::Folder;
use crate::entry::Reason;
use crate::event::{FileRef, NewEvent, shown};
use crate::source::file::record::{self, Arrival};
use crate::source::file::sweep::lock;
use crate::source::together::{self, Complete, Member, Pending, SetName, Sets};
use crate::store::{Batch, NewCase, StoreError};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Names of files that a trouble lists.
const LISTED: usize = 10;

/// What some files mean for sets: to be recorded with them, and then to be true.
#[derive(Debug, Default)]
pub(super) struct Put {
    /// The sets from then on.
    sets: Sets,
    /// Of those that are complete.
    pub(super) events: Vec<NewEvent>,
    /// Of those that still wait.
    pub(super) marks: Marks,
    /// Files without a key, by the id of what asked for one, and why.
    keyless: Vec<(String, FileRef, String)>,
    /// Cases that are over.
    mended: Vec<String>,
}

impl Folder {
    /// Puts files into the sets that look for them. Changes nothing yet.
    pub(super) fn put_into_sets(&self, arrivals: &[(FileRef, u32)], now: Timestamp) -> Put {
        if self.watch.sets.is_empty() {
            return Put::default();
        }
        let mut put = Put {
            sets: self.sets.clone(),
            ..Put::default()
        };
        let arriving: BTreeSet<&PathBuf> = arrivals.iter().map(|(file, _)| &file.relative).collect();
        let there =
            |file: &FileRef| arriving.contains(&file.relative) || lock(&self.memory).knows(&file.relative);
        let mut touched: BTreeSet<SetName> = BTreeSet::new();
        for (file, arrival) in arrivals {
            for spec in &self.watch.sets {
                if !spec.wanted.wants(&file.relative, file.size) {
                    continue;
                }
                let key = match spec.key(file) {
                    Ok(key) => key,
                    Err(why) => {
                        put.keyless.push((spec.id.clone(), file.clone(), why));
                        continue;
                    }
                };
                if self.keyless.contains(&spec.id) {
                    put.mended.push(together::keyless(&self.watch.id, &spec.id));
                }
                let name = SetName {
                    id: spec.id.clone(),
                    key: key.clone(),
                };
                let member = Member {
                    file: file.clone(),
                    arrival: *arrival,
                };
                if let Some(complete) = put.sets.add(spec, key, member, now, &there) {
                    put.events.push(self.set_event(&complete, now));
                    if complete.told {
                        put.mended.push(together::mark(&self.watch.id, &name));
                    }
                }
                touched.insert(name);
            }
        }
        for name in touched {
            let pending = put.sets.get(&name);
            put.marks.note(&self.watch.id, &name, pending);
        }
        put
    }

    /// What [`Folder::put_into_sets`] found was recorded.
    pub(super) async fn sets_recorded(&mut self, put: Put) {
        if self.watch.sets.is_empty() {
            return;
        }
        self.sets = put.sets;
        for case in put.mended {
            self.keyless
                .retain(|id| together::keyless(&self.watch.id, id) != case);
            if let Err(error) = self.store.close_case(&case).await {
                self.complain(&error);
            }
        }
        for (id, file, why) in put.keyless {
            self.tell_keyless(id, &file, &why).await;
        }
    }

    fn set_event(&self, complete: &Complete, now: Timestamp) -> NewEvent {
        let members: Vec<Arrival> = complete.members.iter().map(record::as_arrival).collect();
        record::set_event(
            &self.watch,
            &members,
            together::facts(complete),
            &complete.name,
            now,
        )
    }

    /// These files went away: the marks to record with that.
    pub(super) fn leave_sets(&mut self, gone: &[PathBuf]) -> Left {
        let mut left = Left::default();
        if self.sets.is_empty() {
            return left;
        }
        let mut sets = self.sets.clone();
        for path in gone {
            for (name, pending) in sets.leave(path) {
                if pending.is_none() {
                    left.over.push(together::mark(&self.watch.id, &name));
                }
                left.marks.note(&self.watch.id, &name, pending.as_ref());
            }
        }
        left.sets = Some(sets);
        left
    }

    /// What [`Folder::leave_sets`] found was recorded.
    pub(super) async fn sets_left(&mut self, left: Left) {
        if let Some(sets) = left.sets {
            self.sets = sets;
        }
        for case in left.over {
            if let Err(error) = self.store.close_case(&case).await {
                self.complain(&error);
            }
        }
    }

    /// What is due of sets.
    pub(super) async fn turn_sets(&mut self) -> Result<(), StoreError> {
        if self.unsorted {
            self.sort_sets(Vec::new()).await?;
            self.unsorted = false;
        }
        self.tell_late_sets().await
    }

    // ---- late ----

    /// Time until a set is to be told late.
    pub(super) fn next_late_set(&self) -> Option<Duration> {
        let due = self.sets.next_due()?;
        let wait = due.duration_since(self.clock.now());
        Some(self.now() + Duration::try_from(wait).unwrap_or(Duration::ZERO))
    }

    /// Tells of the sets whose time is over.
    pub(super) async fn tell_late_sets(&mut self) -> Result<(), StoreError> {
        for name in self.sets.overdue(self.clock.now()) {
            let Some(pending) = self.sets.get(&name) else {
                continue;
            };
            let mut told = pending.clone();
            told.told = true;
            let case = NewCase {
                key: together::mark(&self.watch.id, &name),
                kind: "rule".to_owned(),
                subject: self.shown_root(),
                reason: self.late(&name, pending),
            };
            self.store.open_case(case).await?;
            self.store
                .set_marks(vec![(
                    together::mark(&self.watch.id, &name),
                    together::stored(&name, &told),
                )])
                .await?;
            self.sets.tell(&name);
        }
        Ok(())
    }

    fn late(&self, name: &SetName, pending: &Pending) -> Reason {
        let there: Vec<String> = pending
            .members
            .values()
            .take(LISTED)
            .map(|member| plain(&shown(member.file.relative.as_os_str())))
            .collect();
        let more = pending.members.len().saturating_sub(LISTED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let lack = pending.count.saturating_sub(pending.members.len());
        Reason {
            steps: vec![
                "Put the files that lack into the folder: the set is told when it is complete.".to_owned(),
                "Or take away those that are there, and it is forgotten.".to_owned(),
            ],
            ..Reason::new(format!(
                "of the {} files that belong together as `{}` {lack} did not come in time; there {}: {}{more}",
                pending.count,
                plain(&name.key),
                if pending.members.len() == 1 { "is" } else { "are" },
                there.join(", "),
            ))
        }
    }

    async fn tell_keyless(&mut self, id: String, file: &FileRef, why: &str) {
        let text = format!(
            "{} belongs to no set: {why}",
            plain(&shown(file.path().as_os_str()))
        );
        tracing::warn!(text, "a file has no key");
        let case = NewCase {
            key: together::keyless(&self.watch.id, &id),
            kind: "rule".to_owned(),
            subject: self.shown_root(),
            reason: Reason {
                steps: vec![
                    "Mend `by` of the rule, or leave such files out with `ignore`; then put the file there anew."
                        .to_owned(),
                ],
                ..Reason::new(text)
            },
        };
        match self.store.open_case(case).await {
            Ok(_) => drop(self.keyless.insert(id)),
            Err(error) => self.complain(&error),
        }
    }

    // ---- at the start, and when rules changed ----

    /// Reads which sets wait, also those of watches that this one replaces.
    pub(super) async fn remember_sets(&mut self) -> Result<(), StoreError> {
        let ours = together::marks(&self.watch.id);
        let mut adopted = Vec::new();
        for (key, value) in self.store.marks("set:").await? {
            let watch = key.split(':').nth(1).unwrap_or_default();
            let mine = key.starts_with(&ours);
            if !mine && self.configured.contains(watch) {
                continue;
            }
            let Some((name, mut pending)) = together::restored(&value, &self.watch.root) else {
                continue;
            };
            // One that was seen to be away while we were down.
            let memory = lock(&self.memory);
            pending
                .members
                .retain(|_, member| memory.knows(&member.file.relative));
            drop(memory);
            if mine {
                self.sets.put(name, pending);
            } else {
                adopted.push((key, pending));
            }
        }
        for case in self.store.open_cases().await? {
            let Some(rest) = case.key.strip_prefix(&ours) else {
                continue;
            };
            if let Some(id) = rest.strip_suffix("#no-key") {
                self.keyless.insert(id.to_owned());
            }
        }
        self.sort_sets(adopted).await
    }

    /// Puts the files of sets that nobody asks for as they are into those that somebody does.
    pub(super) async fn sort_sets(&mut self, adopted: Vec<(String, Pending)>) -> Result<(), StoreError> {
        let mut loose: Vec<(String, Pending)> = adopted;
        let mut sets = self.sets.clone();
        for (name, pending) in sets.take_others(&self.watch.sets) {
            loose.push((together::mark(&self.watch.id, &name), pending));
        }
        let asked: BTreeSet<&String> = self.watch.sets.iter().map(|spec| &spec.id).collect();
        let unasked: Vec<String> = self
            .keyless
            .iter()
            .filter(|id| !asked.contains(id))
            .cloned()
            .collect();
        for id in unasked {
            self.store
                .close_case(&together::keyless(&self.watch.id, &id))
                .await?;
            self.keyless.remove(&id);
        }
        if loose.is_empty() {
            return Ok(());
        }
        let files: Vec<(FileRef, u32)> = loose
            .iter()
            .flat_map(|(_, pending)| pending.members.values())
            .map(|member| (member.file.clone(), member.arrival))
            .collect();
        let before = std::mem::replace(&mut self.sets, sets);
        let put = self.put_into_sets(&files, self.clock.now());
        let mut batch = Batch {
            unmarked: loose.iter().map(|(key, _)| key.clone()).collect(),
            ..Batch::default()
        };
        batch.events.extend(put.events.clone());
        put.marks.join(&mut batch);
        if let Err(error) = self.store.record(batch).await {
            self.sets = before;
            return Err(error);
        }
        self.sets_recorded(put).await;
        for (case, _) in loose {
            self.store.close_case(&case).await?;
        }
        Ok(())
    }
}

/// What files that went away mean for sets.
#[derive(Debug, Default)]
pub(super) struct Left {
    sets: Option<Sets>,
    /// To be recorded.
    pub(super) marks: Marks,
    /// Cases that are over.
    over: Vec<String>,
}

/// Marks of sets that wait, and keys of those that do no more.
#[derive(Debug, Default)]
pub(super) struct Marks {
    set: Vec<(String, Value)>,
    taken: Vec<String>,
}

impl Marks {
    fn note(&mut self, watch: &str, name: &SetName, pending: Option<&Pending>) {
        let key = together::mark(watch, name);
        match pending {
            Some(pending) => self.set.push((key, together::stored(name, pending))),
            None => self.taken.push(key),
        }
    }

    /// To be recorded with this.
    pub(super) fn join(&self, batch: &mut Batch) {
        batch.marks.extend(self.set.iter().cloned());
        batch.unmarked.extend(self.taken.iter().cloned());
    }
}

/// Text of strangers on one line.
fn plain(text: &str) -> String {
    text.escape_debug().to_string()
}
