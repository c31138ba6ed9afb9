//! How commands end that nobody runs: as the test says, one end after the other, the last for ever.

use crate::action::Run;
use crate::action::run::{Script, Scripted, shown_command};
use crate::clock::Clock;
use crate::event::FileRef;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A command that would have run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// When it would have begun.
    pub at: Timestamp,
    /// The rule.
    pub rule: String,
    /// The command in one line.
    pub command: String,
}

/// The ends of commands, by rule. What a test does not name ends well at once.
#[derive(Debug)]
pub struct Ends {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ends: BTreeMap<String, VecDeque<Scripted>>,
    ran: Vec<Ran>,
}

impl Ends {
    /// As a test says.
    pub fn new(jobs: &BTreeMap<String, Vec<Scripted>>, clock: Clock) -> Ends {
        let ends = jobs
            .iter()
            .map(|(rule, ends)| (rule.clone(), ends.iter().cloned().collect()));
        Ends {
            clock,
            state: Mutex::new(State {
                ends: ends.collect(),
                ran: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the rule's command ends like this.
    pub fn from_now_on(&self, rule: &str, end: Scripted) {
        self.state().ends.insert(rule.to_owned(), VecDeque::from([end]));
    }

    /// What would have run since this was last asked.
    pub fn take(&self) -> Vec<Ran> {
        std::mem::take(&mut self.state().ran)
    }
}

/// An end without a fault that takes no time.
pub fn well() -> Scripted {
    Scripted {
        exit: Some(0),
        ..Scripted::default()
    }
}

impl Script for Ends {
    fn end(&self, job: &str, run: &Run, _: Option<&FileRef>) -> Scripted {
        let mut state = self.state();
        state.ran.push(Ran {
            at: self.clock.now(),
            rule: job.to_owned(),
            command: shown_command(&run.command),
        });
        match state.ends.get_mut(job) {
            Some(ends) if ends.len() > 1 => ends.pop_front(),
            Some(ends) => ends.front().cloned(),
            None => None,
        }
        .unwrap_or_else(well)
    }
}
