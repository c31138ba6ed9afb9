//! Facts.

use crate::rule::index::Branch;
use serde_json::Value;

/// What kind of thing starts a rule, as far as facts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TriggerWord {
    /// `file_arrives`: brings `file`.
    FileArrives,
    /// `schedule`: brings `schedule`.
    Schedule,
    /// `job_succeeds`, `job_fails`, `job_finishes`, `job_recovers`: bring `job`.
    Job,
    /// `trouble`: brings `trouble`.
    Trouble,
}

/// What may be said in a rule's condition and texts.
#[derive(Clone, Debug)]
pub struct Vocabulary {}

/// A fact that is not in the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unknown {
    /// One sentence.
    pub message: String,
    /// What was perhaps meant.
    pub hint: Option<String>,
}

impl Vocabulary {
    /// What a rule with these triggers may say; in an outcome `branch` also what became of its work.
    pub fn of(_triggers: &[TriggerWord], _branch: Option<Branch>) -> Vocabulary {
        Vocabulary {}
    }

    /// With the rule's own `data`, which is checked by its real keys from then on.
    pub fn with_data(self, _data: Value) -> Vocabulary {
        self
    }

    /// Whether at least one trigger brings the fact at `path` (`["file", "name"]`).
    pub fn knows(&self, _path: &[String]) -> Result<(), Unknown> {
        Ok(())
    }

    /// One whole set of facts a trigger, with realistic values.
    pub fn samples(&self) -> Vec<Value> {
        Vec::new()
    }
}
