//! What the texts of a rule may say.

use crate::rule::facts::word::TriggerWord;
use crate::rule::facts::{Unknown, Vocabulary};
use crate::rule::index::Branch;
use serde_json::Value;

/// The facts of a rule, together and for each of its triggers.
#[derive(Clone, Debug)]
pub struct Words {
    all: Vocabulary,
    each: Vec<(TriggerWord, Vocabulary)>,
    /// What any trigger at all brings.
    any: Vocabulary,
    /// Not all triggers are known, so neither is what they bring.
    vague: bool,
}

impl From<Unknown> for Unsaid {
    fn from(unknown: Unknown) -> Unsaid {
        Unsaid {
            message: unknown.message,
            hint: unknown.hint.unwrap_or_default(),
        }
    }
}

/// Why something cannot be said.
#[derive(Clone, Debug)]
pub struct Unsaid {
    /// One sentence.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl Words {
    /// What a rule with these triggers and `data` may say, at once or in an outcome.
    pub fn of(triggers: &[TriggerWord], branch: Option<Branch>, data: &Value, vague: bool) -> Words {
        let of = |triggers: &[TriggerWord]| Vocabulary::of(triggers, branch).with_data(data.clone());
        let mut kinds = triggers.to_vec();
        kinds.sort();
        kinds.dedup();
        Words {
            all: of(&kinds),
            any: of(&TriggerWord::ALL).with_telling(true, true),
            each: kinds.into_iter().map(|kind| (kind, of(&[kind]))).collect(),
            vague,
        }
    }

    /// With what a rule that groups, or that throttles, may say besides.
    pub fn with_telling(self, group: bool, throttle: bool) -> Words {
        Words {
            all: self.all.with_telling(group, throttle),
            each: self
                .each
                .into_iter()
                .map(|(kind, vocabulary)| (kind, vocabulary.with_telling(group, throttle)))
                .collect(),
            ..self
        }
    }

    /// Everything any of the triggers brings.
    pub fn all(&self) -> &Vocabulary {
        &self.all
    }

    /// Whether a text may say `path`. What is `guarded` by an `{{#if}}` must only be a fact that exists
    /// at all; anything else must be there whichever trigger started the rule.
    pub fn say(&self, path: &[String], guarded: bool) -> Result<(), Unsaid> {
        if self.vague {
            return Ok(());
        }
        if guarded {
            // It asks first, so it may ask for what other rules have: a template serves many.
            let own = path.first().is_some_and(|root| root == "data");
            return if own {
                Ok(())
            } else {
                self.any.knows(path).map_err(Unsaid::from)
            };
        }
        self.all.knows(path)?;
        for (kind, vocabulary) in &self.each {
            if vocabulary.knows(path).is_err() {
                let said = path.join(".");
                // `data` is always there; what of it an event brought is not.
                let root = match path.first().map(String::as_str) {
                    Some("data") => said.as_str(),
                    root => root.unwrap_or_default(),
                };
                return Err(Unsaid {
                    message: format!(
                        "`{said}` is not there when the rule was started by {}",
                        shown(*kind)
                    ),
                    hint: format!("ask first: {{{{#if {root}}}}}..{{{{/if}}}}, or make two rules of it"),
                });
            }
        }
        Ok(())
    }

    /// Whether every event of the rule is about a file.
    pub fn has_file(&self) -> bool {
        self.vague || self.each.iter().all(|(kind, _)| kind.has_file())
    }

    /// Whether some event of the rule is about several files.
    pub fn tells_of_sets(&self) -> bool {
        self.each
            .iter()
            .any(|(kind, _)| *kind == TriggerWord::FilesTogether)
    }

    /// Whether some event of the rule tells of a file that is gone.
    pub fn tells_of_gone(&self) -> bool {
        self.each
            .iter()
            .any(|(kind, _)| *kind == TriggerWord::FileRemoved)
    }
}

fn shown(kind: TriggerWord) -> &'static str {
    match kind {
        TriggerWord::Job => "a job",
        other => other.written(),
    }
}
