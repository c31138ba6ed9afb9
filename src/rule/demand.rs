//! What a rule must know of a file beyond its name and size, and how it gets to know it: once an event, only where
//! the rule says it, and only as far as it comes to that.
//!
//! The loader notes which facts a rule names ([`Wish::note`]); whoever makes an event's facts lets [`Learned`]
//! complete them before the condition is asked, and again before mails and work are made.

use crate::event::NewEvent;
use crate::ground::Ground;
use crate::source::contents::{self, Part};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Which parts of a file's content somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish(BTreeSet<Part>);

impl Wish {
    /// Takes note of a fact that is named: `["file", "sha256"]`.
    pub fn note(&mut self, path: &[String]) {
        let [root, name, ..] = path else { return };
        if root == "file" {
            self.0
                .extend(Part::ALL.into_iter().filter(|part| part.as_str() == name));
        }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a rule asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// In its condition.
    pub condition: Wish,
    /// In its texts and templates, all of them.
    pub texts: Wish,
}

/// What was read of the file of one event so far.
#[derive(Debug, Default)]
pub struct Learned {
    facts: Map<String, Value>,
}

impl Learned {
    /// Completes `facts`, which are those of `event`, with what is wished for. Reads the file, where it was not
    /// read already.
    ///
    /// The error is one sentence that names the file: it is no longer the version that settled, or cannot be read.
    pub fn tell(
        &mut self,
        ground: &Ground,
        event: &NewEvent,
        wish: &Wish,
        facts: &mut Value,
    ) -> Result<(), String> {
        let Some(file) = &event.file else { return Ok(()) };
        if wish.is_empty() || event.kind == crate::event::Kind::FileRemoved {
            return Ok(());
        }
        let known = |name: &str| !facts["file"][name].is_null() || self.facts.contains_key(name);
        let missing: BTreeSet<Part> = wish
            .0
            .iter()
            .copied()
            .filter(|part| !known(part.as_str()))
            .collect();
        if !missing.is_empty() {
            let read = contents::read(file, &missing, ground).map_err(|why| {
                format!(
                    "{} cannot be read: {why}",
                    crate::event::shown(file.path().as_os_str())
                )
            })?;
            self.facts.extend(read);
        }
        for part in &wish.0 {
            if let Some(value) = self.facts.get(part.as_str()) {
                facts["file"][part.as_str()] = value.clone();
            }
        }
        Ok(())
    }
}

/// Values to check a rule with.
pub fn sample() -> [(&'static str, Value); 7] {
    Part::ALL.map(|part| {
        let value = match part {
            Part::Sha256 => json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            Part::Mime => json!("application/pdf"),
            Part::Lines => json!(1204),
            Part::FirstLine => json!("number;date;amount"),
            Part::Csv => json!({ "header": ["number", "date", "amount"], "rows": 1203 }),
            Part::Text => json!("number;date;amount\n0815;2026-03-02;119.00\n"),
            Part::Owner => json!("www-data"),
        };
        (part.as_str(), value)
    })
}
