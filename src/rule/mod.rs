//! Rules: what fires. This page holds what a rule means once it is checked, and the index that finds
//! the rules an event concerns; [`load`] makes rules from files, [`condition`] is `if:`.

pub mod condition;
pub mod demand;
pub mod emit;
pub mod facts;
pub mod fuse;
pub mod gather;
pub mod guess;
pub mod index;
pub mod ladder;
pub mod load;
pub mod quiet;

use crate::action::email::MailSpec;
use crate::action::{Overlap, StepSpec};
use crate::rule::condition::Condition;
use crate::rule::demand::Asks;
use crate::rule::emit::EmitSpec;
use crate::rule::gather::Telling;
use crate::rule::ladder::Ladder;
use crate::source::Wanted;
use crate::source::absence::Expectation;
use crate::source::schedule::Schedule;
use globset::GlobMatcher;
use serde_json::Value;

/// One rule, checked.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name: unique in the setup.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Where it stands: `rules/invoices.yaml:3`.
    pub place: String,
    /// When: any of these.
    pub triggers: Vec<Trigger>,
    /// If.
    pub condition: Option<Condition>,
    /// The rule's own facts.
    pub data: Value,
    /// Work to do, in order, before anybody is told.
    pub work: Vec<StepSpec>,
    /// What happens when the same job still runs.
    pub overlap: Overlap,
    /// Mails sent at once; empty when there is work (they are in `on_success` then).
    pub mails: Vec<MailSpec>,
    /// Events for other rules, emitted at once; empty when there is work, as with mails.
    pub emits: Vec<EmitSpec>,
    /// After the work ended well.
    pub on_success: Outcome,
    /// After it ended badly.
    pub on_failure: Outcome,
    /// After it ended well for the first time since a failure; besides `on_success`. Without work: when a case is
    /// over that the rule told of.
    pub on_recovery: Outcome,
    /// What it must know of a file beyond name and size, by where it says so.
    pub asks: Asks,
    /// How its mails are gathered before they leave.
    pub telling: Telling,
    /// What it says while a case stays open that it told of.
    pub ladder: Ladder,
}

impl Rule {
    /// Whether it must know, when a case is over, that it told of it.
    pub fn follows_cases(&self) -> bool {
        self.ladder.is_some() || self.work.is_empty() && self.on_recovery.says_something()
    }
}

/// When.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// A file has settled in the watch of that id, and is what this rule looks for.
    FileArrives {
        /// `source::Watch::id`.
        watch: String,
        /// What this rule looks for there.
        wanted: Wanted,
    },
    /// The same, where the file was known and has another content now.
    FileChanges {
        /// `source::Watch::id`.
        watch: String,
        /// What this rule looks for there.
        wanted: Wanted,
    },
    /// A file that was known went away.
    FileRemoved {
        /// `source::Watch::id`.
        watch: String,
        /// What this rule looks for there.
        wanted: Wanted,
    },
    /// Files that belong together have all settled.
    FilesTogether {
        /// `source::Watch::id`.
        watch: String,
        /// What this rule looks for there.
        wanted: Wanted,
        /// `source::together::Together::id`.
        set: String,
    },
    /// A calendar time; the source's name is the rule's.
    Schedule(Schedule),
    /// A job with such a name ended well.
    JobSucceeds(GlobMatcher),
    /// It ended badly.
    JobFails(GlobMatcher),
    /// It ended.
    JobFinishes(GlobMatcher),
    /// It ended well for the first time since a failure.
    JobRecovers(GlobMatcher),
    /// Something did not come by its deadline, or goes on for too long; its cases open and close.
    Absence(Box<Expectation>),
    /// Somebody emitted an event.
    Event {
        /// Of one of these types.
        types: Vec<GlobMatcher>,
        /// From such a source.
        source: Option<GlobMatcher>,
    },
    /// Something of ours needs a person: any of these kinds (`watch`, `account`, `mail`, `rule`).
    Trouble(Vec<String>),
}

impl Trigger {
    /// The watch, and what is looked for there, where it is met by files that come.
    pub fn arrival(&self) -> Option<(&str, &Wanted)> {
        match self {
            Trigger::FileArrives { watch, wanted }
            | Trigger::FileChanges { watch, wanted }
            | Trigger::FilesTogether { watch, wanted, .. } => Some((watch, wanted)),
            _ => None,
        }
    }
}

/// What follows an outcome.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What to do with the event's file.
    pub work: Vec<StepSpec>,
    /// Whom to tell.
    pub mails: Vec<MailSpec>,
    /// Events for other rules.
    pub emits: Vec<EmitSpec>,
}

impl Outcome {
    /// Whether anything follows.
    pub fn says_something(&self) -> bool {
        !self.work.is_empty() || !self.mails.is_empty() || !self.emits.is_empty()
    }
}
