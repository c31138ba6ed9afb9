//! The desk: how things stand while events are asked about. It reads what is gathered through what this round
//! has changed already, and keeps the fuses.
//!
//! Nothing on it is written by it: what changes goes into the admission of the event that changed it. An
//! admission that is given up takes its changes along ([`Desk::undo`]).

use crate::dispatch::Plan;
use crate::dispatch::known::Known;
use crate::dispatch::pause::Board;
use crate::event::{Event, EventId, Kind};
use crate::rule::fuse::Fuse;
use crate::store::{EventFilter, GatherStep, Gathering, RuleVerdict, Store, StoreError};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Earlier arrivals of a file that are looked through for the same one, noticed by another watch.
const TWINS: usize = 20;

/// Rule and key of something gathered.
type Place = (String, String);

/// How things stand. Used on a thread that may block.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) plan: Arc<Plan>,
    pub(super) now: Timestamp,
    /// For reading the store.
    runtime: tokio::runtime::Handle,
    /// What rules that gather said in this round, by happening, rule and turn.
    said: HashMap<(String, String, usize), RuleVerdict>,
    /// What this round has read or changed.
    standing: HashMap<Place, Option<Gathering>>,
    /// Mails of the last hour, by rule. Survives the round.
    pub(super) fuses: HashMap<String, Fuse>,
    /// Something is due at once: events that come after it wait until it was told.
    pub(super) full: bool,
    /// Which rules are paused.
    pub(super) board: Board,
    /// What is known of the ladders of rules, where the one event at hand is about a case.
    pub(super) known: HashMap<String, Known>,
    /// What the event at hand has changed.
    changed: Vec<(Place, Option<Option<Gathering>>)>,
    /// Mails that were counted for the event at hand, and in this round.
    counted: Vec<(String, u32)>,
    counted_before: Vec<(String, u32)>,
}

impl Desk {
    /// A desk for one round. Must be called inside a runtime.
    pub(super) fn new(store: Store, plan: Arc<Plan>, now: Timestamp, fuses: HashMap<String, Fuse>) -> Desk {
        Desk {
            store,
            plan,
            now,
            runtime: tokio::runtime::Handle::current(),
            said: HashMap::new(),
            standing: HashMap::new(),
            fuses,
            full: false,
            board: Board::default(),
            known: HashMap::new(),
            changed: Vec::new(),
            counted: Vec::new(),
            counted_before: Vec::new(),
        }
    }

    /// The next event.
    pub(super) fn begin(&mut self) {
        self.changed.clear();
        self.counted_before.append(&mut self.counted);
    }

    /// The event at hand is given up.
    pub(super) fn undo(&mut self) {
        for (place, before) in self.changed.drain(..).rev() {
            match before {
                Some(before) => self.standing.insert(place, before),
                None => self.standing.remove(&place),
            };
        }
        let counted = std::mem::take(&mut self.counted);
        self.take_back(counted);
    }

    /// The whole round is given up: nothing of it was admitted.
    pub(super) fn undo_all(&mut self) {
        self.begin();
        let counted = std::mem::take(&mut self.counted_before);
        self.take_back(counted);
    }

    fn take_back(&mut self, counted: Vec<(String, u32)>) {
        for (rule, mails) in counted {
            if let Some(fuse) = self.fuses.get_mut(&rule) {
                fuse.take_back(self.now, mails);
            }
        }
    }

    /// What is gathered under a key, and when it is due.
    pub(super) fn standing<T: DeserializeOwned>(
        &mut self,
        rule: &str,
        key: &str,
    ) -> Result<Option<(T, Option<Timestamp>)>, StoreError> {
        let place = (rule.to_owned(), key.to_owned());
        if !self.standing.contains_key(&place) {
            let found = self.runtime.block_on(self.store.gathering(rule, key))?;
            self.standing.insert(place.clone(), found);
        }
        let found = self.standing.get(&place).and_then(Option::as_ref);
        Ok(found.and_then(
            |gathering| match serde_json::from_value(gathering.state.clone()) {
                Ok(state) => Some((state, gathering.due)),
                Err(error) => {
                    // A newer version's words; what it knew of counts begins anew, its events are still there.
                    tracing::warn!(rule, key, %error, "what was gathered cannot be understood");
                    None
                }
            },
        ))
    }

    /// Writes down how something stands from now on.
    pub(super) fn put<T: Serialize>(
        &mut self,
        (rule, key): (&str, &str),
        state: &T,
        due: Option<Timestamp>,
        events: Vec<EventId>,
        gathers: &mut Vec<GatherStep>,
    ) {
        let gathering = Gathering {
            rule: rule.to_owned(),
            key: key.to_owned(),
            // Words and numbers only: it cannot fail.
            state: serde_json::to_value(state).unwrap_or(Value::Null),
            due,
        };
        self.full |= due.is_some_and(|due| due <= self.now);
        self.change(rule, key, Some(gathering.clone()));
        gathers.push(GatherStep::Put(gathering, events));
    }

    /// Nothing is gathered there any more.
    pub(super) fn end(&mut self, rule: &str, key: &str, gathers: &mut Vec<GatherStep>) {
        self.change(rule, key, None);
        gathers.push(GatherStep::End {
            rule: rule.to_owned(),
            key: key.to_owned(),
        });
    }

    fn change(&mut self, rule: &str, key: &str, to: Option<Gathering>) {
        let place = (rule.to_owned(), key.to_owned());
        let before = self.standing.insert(place.clone(), to);
        self.changed.push((place, before));
    }

    /// Whether so many mails of a rule may go; then they are counted. `None`: there is no fuse.
    pub(super) fn pass(&mut self, rule: &str, mails: usize) -> bool {
        let Some(limits) = self.plan.settings.limits else {
            return true;
        };
        let mails = u32::try_from(mails).unwrap_or(u32::MAX);
        let fuse = match self.fuses.get_mut(rule) {
            Some(fuse) => fuse,
            None => self.fuses.entry(rule.to_owned()).or_default(),
        };
        let passed = fuse.pass(self.now, limits.mails_per_rule_per_hour, mails);
        if passed {
            self.counted.push((rule.to_owned(), mails));
        }
        passed
    }

    /// What the rule said of the event when it was dispatched before: the event was put back for some other
    /// entry of it, or the same file was noticed by another watch before the setup changed.
    pub(super) fn earlier(
        &mut self,
        event: &Event,
        rule: &str,
        nth: usize,
    ) -> Result<Option<RuleVerdict>, StoreError> {
        let now = (event.happening.asked().to_owned(), rule.to_owned(), nth);
        if let Some(said) = self.said.get(&now) {
            return Ok(Some(said.clone()));
        }
        if let Some(said) = self.said(event.id, rule, nth)? {
            return Ok(Some(said));
        }
        if event.happening.kind != Kind::FileArrives || event.happening.file.is_none() {
            return Ok(None);
        }
        let filter = EventFilter {
            kind: Some(Kind::FileArrives),
            file: event.happening.file.clone(),
            before: Some(event.id),
            limit: TWINS,
            ..EventFilter::default()
        };
        for twin in self.runtime.block_on(self.store.events(filter))? {
            if twin.happening.asked() == event.happening.asked()
                && let Some(said) = self.said(twin.id, rule, nth)?
            {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    /// Notes what a rule said of an event in this round.
    pub(super) fn note(&mut self, event: &Event, nth: usize, said: &RuleVerdict) {
        let now = (event.happening.asked().to_owned(), said.rule.clone(), nth);
        self.said.insert(now, said.clone());
    }

    fn said(&self, event: EventId, rule: &str, nth: usize) -> Result<Option<RuleVerdict>, StoreError> {
        let verdicts = self.runtime.block_on(self.store.verdicts(event))?;
        let mut own = verdicts.into_iter().filter(|verdict| verdict.rule == rule);
        Ok(own.nth(nth))
    }

    /// A page of the events of something gathered.
    pub(super) fn page(
        &self,
        gathering: &Gathering,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let read = self
            .store
            .gathered_after(&gathering.rule, &gathering.key, after, limit);
        self.runtime.block_on(read)
    }
}
