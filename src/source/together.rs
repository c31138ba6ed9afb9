//! Files that belong together: a pure ledger of sets that are not complete yet.
//!
//! Each file that settles, and that a rule with `together` looks for, is put under the key its name gives
//! ([`Sets::add`]). The file that makes up the count completes its set, which is an event then; a set that lacks
//! files when its time is over is told once, and goes on waiting: late is not lost. A file that comes again takes
//! the place of its older version, one that goes away leaves its set.
//!
//! What waits is kept in the store as a mark for each set, written in the transaction that makes the file known.
//! This module opens nothing and asks no clock.

use crate::event::FileRef;
use crate::source::Wanted;
use crate::source::memory::bytes;
use crate::template::Text;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Files that belong together, as a rule asks for them.
#[derive(Clone, Debug)]
pub struct Together {
    /// The same for the same folder pattern, count, key and time; and for nothing else.
    pub id: String,
    /// Which files.
    pub wanted: Wanted,
    /// What files of one set have in common, from `file` facts.
    pub by: Text,
    /// How many make a set; at least two.
    pub count: usize,
    /// Time from the first to the last; then it is told what lacks.
    pub within: Duration,
}

impl Together {
    /// The key of a file; the error says why it has none.
    pub fn key(&self, file: &FileRef) -> Result<String, String> {
        match self.by.render(&json!({ "file": file.facts() })) {
            Ok(key) if key.trim().is_empty() => {
                Err(format!("`by: {}` gives nothing for it", self.by.source()))
            }
            Ok(key) => Ok(key),
            Err(error) => Err(format!("`by: {}` cannot be rendered: {error}", self.by.source())),
        }
    }
}

/// A file of a set, and the how-manieth arrival under its path it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The file.
    pub file: FileRef,
    /// Counted from 1.
    pub arrival: u32,
}

/// Which set: the id of its [`Together`], and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    /// `Together::id`.
    pub id: String,
    /// What its files have in common.
    pub key: String,
}

/// A set that lacks files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its files, by name.
    pub members: BTreeMap<Vec<u8>, Member>,
    /// How many make it complete.
    pub count: usize,
    /// When it should be complete.
    pub due: Timestamp,
    /// It has been told that it is not.
    pub told: bool,
}

/// A set that has all its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Which.
    pub name: SetName,
    /// Its files, by name.
    pub members: Vec<Member>,
    /// It had been told that it was late.
    pub told: bool,
}

/// All sets of a watch that lack files.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    waiting: BTreeMap<SetName, Pending>,
}

impl Sets {
    /// Puts a file into the set of this key. `there` says whether a file of it is still there: one that was taken
    /// away since counts no more. Returns the set if that made it complete.
    pub fn add(
        &mut self,
        spec: &Together,
        key: String,
        member: Member,
        now: Timestamp,
        there: &dyn Fn(&FileRef) -> bool,
    ) -> Option<Complete> {
        let name = SetName {
            id: spec.id.clone(),
            key,
        };
        let due = now.saturating_add(spec.within).unwrap_or(Timestamp::MAX);
        let pending = self.waiting.entry(name.clone()).or_insert_with(|| Pending {
            members: BTreeMap::new(),
            count: spec.count,
            due,
            told: false,
        });
        pending.members.retain(|_, member| there(&member.file));
        if pending.members.is_empty() && !pending.told {
            pending.due = due;
        }
        let place = bytes(&member.file.relative).to_vec();
        pending.members.insert(place, member);
        if pending.members.len() < spec.count {
            return None;
        }
        let pending = self.waiting.remove(&name)?;
        Some(Complete {
            name,
            members: pending.members.into_values().collect(),
            told: pending.told,
        })
    }

    /// A file went away: the sets it was in, which lack it from now on. A set without any file is none.
    pub fn leave(&mut self, relative: &Path) -> Vec<(SetName, Option<Pending>)> {
        let place = bytes(relative);
        let mut left = Vec::new();
        self.waiting.retain(|name, pending| {
            if pending.members.remove(place).is_none() {
                return true;
            }
            let remains = !pending.members.is_empty();
            left.push((name.clone(), remains.then(|| pending.clone())));
            remains
        });
        left
    }

    /// When the next set is to be told late.
    pub fn next_due(&self) -> Option<Timestamp> {
        let untold = self.waiting.values().filter(|pending| !pending.told);
        untold.map(|pending| pending.due).min()
    }

    /// Those whose time is over and that were not told yet.
    pub fn overdue(&self, now: Timestamp) -> Vec<SetName> {
        let over = |pending: &Pending| !pending.told && pending.due <= now;
        let found = self.waiting.iter().filter(|(_, pending)| over(pending));
        found.map(|(name, _)| name.clone()).collect()
    }

    /// One of them.
    pub fn get(&self, name: &SetName) -> Option<&Pending> {
        self.waiting.get(name)
    }

    /// It has been told that this one is late.
    pub fn tell(&mut self, name: &SetName) {
        if let Some(pending) = self.waiting.get_mut(name) {
            pending.told = true;
        }
    }

    /// Takes out the sets that are of none of these kinds.
    pub fn take_others(&mut self, specs: &[Together]) -> Vec<(SetName, Pending)> {
        let ours = |name: &SetName| specs.iter().any(|spec| spec.id == name.id);
        let others: Vec<SetName> = self.waiting.keys().filter(|name| !ours(name)).cloned().collect();
        let take = |name: SetName| self.waiting.remove(&name).map(|pending| (name, pending));
        others.into_iter().filter_map(take).collect()
    }

    /// Takes in a set that the store remembers.
    pub fn put(&mut self, name: SetName, pending: Pending) {
        self.waiting.insert(name, pending);
    }

    /// Whether no set waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The marks of a watch's sets begin with this.
pub fn marks(watch: &str) -> String {
    format!("set:{watch}:")
}

/// The mark's key of a set; also the key of the case that it is late.
pub fn mark(watch: &str, name: &SetName) -> String {
    let hash = blake3::hash(name.key.as_bytes()).to_hex();
    format!("{}{}:{}", marks(watch), name.id, &hash.as_str()[..24])
}

/// The case that files have no key, while one is open.
pub fn keyless(watch: &str, id: &str) -> String {
    format!("{}{id}#no-key", marks(watch))
}

/// A set as its mark keeps it.
pub fn stored(name: &SetName, pending: &Pending) -> Value {
    let members = pending.members.values().map(|member| {
        let mut facts = member.file.set_facts();
        facts["arrival"] = json!(member.arrival);
        facts
    });
    json!({
        "id": name.id, "key": name.key, "count": pending.count, "due": pending.due.to_string(),
        "told": pending.told, "members": members.collect::<Vec<_>>(),
    })
}

/// Reads it back, if it is of the folder `root`.
pub fn restored(value: &Value, root: &Path) -> Option<(SetName, Pending)> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let mut members = BTreeMap::new();
    for facts in value.get("members")?.as_array()? {
        let file = FileRef::from_set(facts, root)?;
        if file.root != root {
            return None;
        }
        let arrival = facts.get("arrival")?.as_u64()?;
        let arrival = u32::try_from(arrival).ok()?;
        members.insert(bytes(&file.relative).to_vec(), Member { file, arrival });
    }
    let name = SetName {
        id: text("id")?.to_owned(),
        key: text("key")?.to_owned(),
    };
    let pending = Pending {
        members,
        count: usize::try_from(value.get("count")?.as_u64()?).ok()?,
        due: text("due")?.parse().ok()?,
        told: value.get("told")?.as_bool()?,
    };
    Some((name, pending))
}

/// What an event of a complete set says: `file`, `files`, `set`. The files are those of `complete`, by name.
pub fn facts(complete: &Complete) -> Map<String, Value> {
    let files = complete.members.iter().map(|member| member.file.set_facts());
    let mut facts = Map::new();
    if let Some(first) = complete.members.first() {
        let mut file = first.file.facts();
        file["changed"] = json!(false);
        facts.insert("file".to_owned(), file);
    }
    facts.insert("files".to_owned(), files.collect());
    facts.insert(
        "set".to_owned(),
        json!({ "id": complete.name.id, "key": complete.name.key, "count": complete.members.len() }),
    );
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::wanted::Ignore;
    use globset::Glob;
    use std::path::PathBuf;

    fn spec(count: usize) -> Together {
        Together {
            id: format!("id{count}"),
            wanted: Wanted {
                matching: Glob::new("*").unwrap().compile_matcher(),
                ignore: Ignore::default(),
                recursive: false,
                min_size: 0,
                max_size: None,
            },
            by: Text::compile("{{file.stem}}").unwrap(),
            count,
            within: Duration::from_secs(600),
        }
    }

    fn member(name: &[u8], size: u64) -> Member {
        use std::os::unix::ffi::OsStrExt as _;
        Member {
            file: FileRef {
                root: "/srv/drop".into(),
                relative: PathBuf::from(std::ffi::OsStr::from_bytes(name)),
                size,
                mtime_ns: 1_772_436_600_123_456_789,
            },
            arrival: 1,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn add(sets: &mut Sets, spec: &Together, name: &str, seconds: i64) -> Option<Vec<String>> {
        let member = member(name.as_bytes(), 1);
        let key = spec.key(&member.file).unwrap();
        let complete = sets.add(spec, key, member, at(seconds), &|_| true)?;
        let names = complete.members.iter();
        Some(
            names
                .map(|member| member.file.relative.display().to_string())
                .collect(),
        )
    }

    #[test]
    fn the_last_file_completes_its_set_and_no_other() {
        let (mut sets, three) = (Sets::default(), spec(3));
        assert_eq!(add(&mut sets, &three, "7.xml", 0), None);
        assert_eq!(add(&mut sets, &three, "8.pdf", 1), None);
        assert_eq!(add(&mut sets, &three, "7.pdf", 2), None);
        assert_eq!(
            add(&mut sets, &three, "7.pdf", 3),
            None,
            "a newer version is no further file"
        );
        let all = add(&mut sets, &three, "7.sig", 4).unwrap();
        assert_eq!(all, ["7.pdf", "7.sig", "7.xml"], "by name, however they came");
        assert_eq!(add(&mut sets, &three, "7.pdf", 5), None, "the next set begins");
    }

    #[test]
    fn a_set_that_lacks_files_is_told_once_and_can_still_be_completed() {
        let (mut sets, two) = (Sets::default(), spec(2));
        add(&mut sets, &two, "a.pdf", 100);
        assert_eq!(sets.next_due(), Some(at(700)));
        assert_eq!(sets.overdue(at(699)), []);
        let late = sets.overdue(at(700));
        assert_eq!(late.len(), 1);
        sets.tell(&late[0]);
        assert_eq!((sets.next_due(), sets.overdue(at(9_999)).len()), (None, 0));
        let member = member(b"a.xml", 1);
        let complete = sets.add(&two, "a".to_owned(), member, at(10_000), &|_| true);
        assert!(complete.unwrap().told);
    }

    #[test]
    fn a_file_that_was_taken_away_makes_no_set_complete() {
        let (mut sets, two) = (Sets::default(), spec(2));
        add(&mut sets, &two, "a.pdf", 0);
        let name = SetName {
            id: two.id.clone(),
            key: "a".to_owned(),
        };
        assert_eq!(sets.leave(Path::new("a.pdf")), [(name, None)]);
        assert!(sets.is_empty());
        add(&mut sets, &two, "b.pdf", 0);
        let gone = |file: &FileRef| file.relative != Path::new("b.pdf");
        assert_eq!(
            sets.add(&two, "b".to_owned(), member(b"b.xml", 1), at(5), &gone),
            None
        );
    }

    #[test]
    fn what_is_stored_is_read_back_exactly_whatever_the_name() {
        let (mut sets, three) = (Sets::default(), spec(3));
        for name in [&b"caf\xe9.x"[..], b"caf%E9.x", b"line\nbreak"] {
            sets.add(&three, "k".to_owned(), member(name, 7), at(3), &|_| true);
        }
        assert!(sets.is_empty());
        for name in [&b"caf\xe9.x"[..], b"line\nbreak"] {
            sets.add(&three, "k".to_owned(), member(name, 7), at(3), &|_| true);
        }
        let (name, pending) = sets.waiting.iter().next().unwrap();
        let value: Value = serde_json::from_str(&stored(name, pending).to_string()).unwrap();
        assert_eq!(
            restored(&value, Path::new("/srv/drop")),
            Some((name.clone(), pending.clone()))
        );
        assert_eq!(restored(&value, Path::new("/srv/other")), None);
    }

    #[test]
    fn the_files_of_an_event_are_found_in_its_facts_byte_for_byte() {
        let members: Vec<Member> = [&b"a\xff"[..], b"b\n", b"c"].map(|name| member(name, 9)).into();
        let complete = Complete {
            name: SetName {
                id: "i".to_owned(),
                key: "k".to_owned(),
            },
            members: members.clone(),
            told: false,
        };
        let files: Vec<FileRef> = members.into_iter().map(|member| member.file).collect();
        let facts = Value::Object(facts(&complete));
        assert_eq!(crate::event::members(&facts, Some(&files[0])), files);
        assert_eq!(crate::event::members(&json!({}), Some(&files[0])), files[..1]);
        assert_eq!(crate::event::members(&facts, None), []);
    }

    #[test]
    fn a_key_that_renders_to_nothing_is_said() {
        let mut empty = spec(2);
        empty.by = Text::compile("{{file.extension}}").unwrap();
        let why = empty.key(&member(b"README", 1).file).unwrap_err();
        assert_eq!(why, "`by: {{file.extension}}` gives nothing for it");
    }
}
