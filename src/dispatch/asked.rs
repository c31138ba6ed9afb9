//! One rule and one event: what an answer is made of, and what it is made into.

use crate::dispatch::Plan;
use crate::event::Event;
use crate::rule::Rule;
use crate::rule::demand::Learned;
use crate::rule::facts;
use crate::store::{Admission, Store, StoreError};
use serde_json::Value;
use std::cell::RefCell;
use std::io;

/// Why an event cannot be dispatched just now. It stays pending, and is asked about again.
#[derive(Debug)]
pub(super) enum Unready {
    /// Our own disk could not take a mail.
    Disk(io::Error),
    /// The store could not be read.
    Store(StoreError),
}

impl From<io::Error> for Unready {
    fn from(error: io::Error) -> Unready {
        Unready::Disk(error)
    }
}

impl From<StoreError> for Unready {
    fn from(error: StoreError) -> Unready {
        Unready::Store(error)
    }
}

/// What one event, or something gathered, leads to: all of it is admitted in one transaction.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Entries, verdicts and what is gathered.
    pub(super) main: Admission,
    /// Entries that a case of their own stands for.
    pub(super) apart: Vec<Admission>,
}

impl Made {
    /// Gives up what was written for it.
    pub(super) fn discard(&self, store: &Store) {
        for admission in std::iter::once(&self.main).chain(&self.apart) {
            for entry in &admission.entries {
                store.spool().discard(&entry.body);
            }
        }
    }

    /// In the order in which they are admitted.
    pub(super) fn into_admissions(self) -> impl Iterator<Item = Admission> {
        std::iter::once(self.main).chain(self.apart)
    }
}

/// Told at once.
pub(super) const FIRED: &str = "fired";
/// The condition did not hold.
pub(super) const CONDITION_FALSE: &str = "condition_false";
/// The condition, or what tells events apart, could not be evaluated.
pub(super) const FAILED: &str = "failed";
/// The rule is paused.
pub(super) const PAUSED: &str = "paused";

/// What a rule said: one word, and why.
pub(super) type Said = (&'static str, String);

/// One rule asked about one event.
pub(super) struct Asked<'a> {
    pub(super) event: &'a Event,
    /// What was read of the event's file, for all rules.
    pub(super) learned: &'a RefCell<Learned>,
    pub(super) rule: &'a Rule,
    pub(super) plan: &'a Plan,
    pub(super) store: &'a Store,
    pub(super) now: jiff::Timestamp,
    /// How many answers of the same rule to the same event come before this one.
    pub(super) nth: usize,
}

impl Asked<'_> {
    pub(super) fn facts(&self) -> Value {
        facts::facts(self.event, self.rule, &self.plan.surroundings(self.now))
    }
}
