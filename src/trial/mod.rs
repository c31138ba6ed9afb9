//! Tests of rules: what happens, and what must follow, played through on a clock that is moved by hand.
//!
//! Theory of operation. A [`Trial`] is a file's test as it is meant. A world ([`world::play`]) is a folder of its own with a
//! store in it, and the parts of the daemon made of the setup: the sources, the dispatcher, delivery. Nobody waits in
//! it. It goes from instant to instant (the next happening, the next thing that is due), and at each lets every part
//! do what it can until nothing moves. Then the clock goes on: a quiet year costs nothing.
//!
//! ```text
//!   happenings --+
//!                +--> next instant --> sources --> dispatcher --> delivery --> stand-in, script
//!   what is due -+        ^               |                          |
//!                         +---------------+---- until nothing moves -+----> ledger --> judge
//! ```
//!
//! What is real: the setup, folders and files (below the [`ground`](crate::ground)), keys, the journal, conditions,
//! templates, attachments, the bytes of each mail, retries, pauses and cases. What stands in: the clock, the mail
//! servers ([`crate::transport::stand_in`]) and commands ([`script`]), which are never run. No secret is read and
//! nobody is asked for a token.
//!
//! | file | is about |
//! |---|---|
//! | [`load`] | test files, checked; every mistake with its place |
//! | [`moment`] | times as people write them |
//! | [`world`] | the engine |
//! | [`sources`] | everything that notices, as one list |
//! | [`script`] | how commands end that nobody runs |
//! | [`ledger`] | what came of it |
//! | [`judge`] | what came against what must follow |
//! | [`report`] | the verdict for people, JSON and JUnit |

pub mod judge;
pub mod ledger;
pub mod load;
pub mod moment;
pub mod report;
pub mod script;
pub mod sources;
pub mod world;

use crate::action::run::Scripted;
use crate::config::raw::tests::{ExpectedCase, ExpectedFile, ExpectedHeld, ExpectedMail, ExpectedRun};
use crate::source::emitted::CloudEvent;
use crate::template::Text;
use crate::transport::stand_in::Answer;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One test, checked.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its name: unique in the setup.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The file it stands in, below the setup folder.
    pub file: PathBuf,
    /// The line of its name.
    pub line: usize,
    /// When it begins.
    pub start: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// What lies there already.
    pub given: Vec<FileMade>,
    /// How commands end, by rule.
    pub jobs: BTreeMap<String, Vec<Scripted>>,
    /// What happens, in the order of time.
    pub happenings: Vec<Happening>,
    /// What must follow, as written.
    pub expected: Vec<Expected>,
    /// Mails that nobody expects are no failure.
    pub others: bool,
}

/// A file to make.
#[derive(Clone, Debug)]
pub struct FileMade {
    /// Its path; relative ones start at the setup folder.
    pub path: Text,
    /// How big; else as big as its content.
    pub size: Option<u64>,
    /// What is in it.
    pub content: Option<Text>,
    /// How long ago it was changed.
    pub age: Duration,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// Where it is written: the line.
    pub line: usize,
    /// What.
    pub what: Doing,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Doing {
    /// Files come, or are replaced.
    Files(Vec<FileMade>),
    /// Files or folders are taken away.
    Removes(Vec<Text>),
    /// A job elsewhere begins.
    Starts(String),
    /// Somebody emits an event; one without id gets one of its own.
    Emits(CloudEvent),
    /// A job elsewhere reports.
    Reports {
        /// Its name.
        job: String,
        /// How it ended.
        end: Scripted,
    },
    /// The command of a rule ends like this from now on.
    Ends {
        /// The rule.
        rule: String,
        /// How.
        end: Scripted,
    },
    /// A server answers differently.
    Answers {
        /// Whose.
        account: String,
        /// How; `None`: it accepts.
        answer: Option<Answer>,
        /// How often.
        times: Option<u32>,
    },
    /// A person pauses a rule, for some time or until it is resumed.
    Pauses(String, Option<Duration>),
    /// A person lets a rule go on; what happened meanwhile is dropped, if so.
    Resumes {
        /// Which.
        rule: String,
        /// Whether what waits is dropped.
        drop: bool,
    },
    /// Stopped and started again.
    Restart,
    /// The setup is read again.
    Reload,
}

/// Something that must follow.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where it is written: the line.
    pub line: usize,
    /// Not before.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// How often.
    pub times: usize,
    /// What.
    pub what: Wish,
}

/// What must follow.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A mail.
    Mail(Box<ExpectedMail>),
    /// An entry is held.
    Held(ExpectedHeld),
    /// A case is opened or closed.
    Case(ExpectedCase),
    /// A command is run.
    Ran(ExpectedRun),
    /// A file is there, or not.
    File(ExpectedFile),
    /// Nothing else.
    Nothing,
}
