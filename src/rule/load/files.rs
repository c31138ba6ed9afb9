//! `file_arrives`, `file_changes`, `file_removed`: which files, when they are complete, which belong together.

use crate::config::document::At;
use crate::config::raw::files as more;
use crate::config::raw::rules as raw;
use crate::event::FileRef;
use crate::rule::Trigger;
use crate::rule::facts::word::TriggerWord;
use crate::rule::load::Loader;
use crate::rule::load::words::Words;
use crate::source::Wanted;
use crate::source::together::Together;
use crate::template::Text;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

impl Loader<'_> {
    /// `file_arrives`
    pub(super) fn file_arrives(&mut self, at: &At<'_>, raw: &raw::FileArrives) -> Option<Trigger> {
        let (id, wanted) = self.looked_for(at, raw)?;
        let Some(together) = &raw.together else {
            return Some(Trigger::FileArrives { watch: id, wanted });
        };
        let set = self.together(&at.key("together"), together, &wanted)?;
        let trigger = Trigger::FilesTogether {
            watch: id.clone(),
            wanted,
            set: set.id.clone(),
        };
        if let Some(watch) = self.watches.get_mut(&id)
            && watch.sets.iter().all(|known| known.id != set.id)
        {
            watch.sets.push(set);
        }
        Some(trigger)
    }

    /// `file_changes`
    pub(super) fn file_changes(&mut self, at: &At<'_>, raw: &raw::FileArrives) -> Option<Trigger> {
        if raw.together.is_some() {
            self.complain(
                at.name("together")
                    .error("files that belong together arrive; here each one changes for itself")
                    .hint("write it below `file_arrives`"),
            );
        }
        let (watch, wanted) = self.looked_for(at, raw)?;
        Some(Trigger::FileChanges { watch, wanted })
    }

    /// `file_removed`
    pub(super) fn file_removed(&mut self, at: &At<'_>, raw: &more::FileRemoved) -> Option<Trigger> {
        let as_arriving = raw::FileArrives {
            folder: raw.folder.clone(),
            matching: raw.matching.clone(),
            ignore: raw.ignore.clone(),
            recursive: raw.recursive,
            ..raw::FileArrives::default()
        };
        let (id, wanted) = self.looked_for(at, &as_arriving)?;
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.removed.push(wanted.clone());
        }
        Some(Trigger::FileRemoved { watch: id, wanted })
    }

    fn together(&mut self, at: &At<'_>, raw: &more::Together, wanted: &Wanted) -> Option<Together> {
        let within = match crate::config::quantity::time(&raw.within.0) {
            Ok(time) if time >= Duration::from_secs(1) => time,
            Ok(_) => {
                self.complain(
                    at.key("within")
                        .error("no set would be complete in that time")
                        .hint("the time from the first file to the last: 10m"),
                );
                return None;
            }
            Err(help) => {
                let spot = at.key("within");
                self.complain(spot.error(format!("`{}` is not a time", raw.within.0)).hint(help));
                return None;
            }
        };
        let spot = at.key("by");
        let by = self.of_file_alone(
            &spot,
            &raw.by.0,
            "what files have in common",
            "{{file.stem}}",
            &["size", "modified"],
        )?;
        if by.literal().is_some() {
            self.complain(
                spot.error("every file would be of the same set")
                    .hint("say what the names of one set have in common: \"{{file.stem}}\""),
            );
            return None;
        }
        let mut hash = blake3::Hasher::new();
        for part in [
            wanted.matching.glob().glob(),
            &format!("{:?} {} {:?}", wanted.recursive, wanted.min_size, wanted.max_size),
            &self.ignored,
            by.source(),
            &format!("{} {}", raw.count, within.as_millis()),
        ] {
            hash.update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        Some(Together {
            id: hash.finalize().to_hex().as_str()[..16].to_owned(),
            wanted: wanted.clone(),
            by,
            count: raw.count as usize,
            within,
        })
    }

    /// A text that is rendered before there is an event: it may speak of the file alone, and not of what stands in
    /// it. `never` are those of its facts that are not known either, or say nothing there.
    pub(super) fn of_file_alone(
        &mut self,
        at: &At<'_>,
        source: &str,
        what: &str,
        example: &str,
        never: &[&str],
    ) -> Option<Text> {
        let words = Words::of(
            &[TriggerWord::FileArrives],
            None,
            &Value::Object(serde_json::Map::new()),
            false,
        );
        let asks = self.asks.clone();
        let text = self.text(at, source, &words);
        self.asks = asks;
        let text = text?;
        let nobody = FileRef {
            root: PathBuf::new(),
            relative: PathBuf::new(),
            size: 0,
            mtime_ns: 0,
        };
        let facts = nobody.facts();
        for variable in text.variables() {
            let known = match variable.path.as_slice() {
                [root] => root == "file",
                [root, name, ..] => {
                    root == "file" && facts.get(name).is_some() && !never.contains(&name.as_str())
                }
                [] => true,
            };
            if !known {
                self.complain(
                    at.within(variable.offset)
                        .error(format!("{what} cannot depend on `{}`", variable.path.join(".")))
                        .hint(format!("only on the file's name and place: \"{example}\"")),
                );
                return None;
            }
        }
        Some(text)
    }
}
