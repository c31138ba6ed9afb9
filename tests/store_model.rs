//! Random stories of verbs, told to the store and to a small model in memory: after each verb both say
//! the same of every entry, lane and count. And whatever the story, purge forgets nothing unfinished.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper that cannot go on says so by panicking"
)]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::entry::{
    self, Body, Entry, EntryId, Fence, NewEntry, OnUnknown, Reason, Settlement, State, Verb,
};
use tidings::event::{EventId, Kind, NewEvent};
use tidings::store::{Admission, Also, Batch, EntryFilter, Store, StoreError};

const LANES: [(entry::Kind, &str); 3] = [
    (entry::Kind::Mail, "office"),
    (entry::Kind::Mail, "partner"),
    (entry::Kind::Work, "import"),
];

#[derive(Clone, Debug)]
enum Step {
    /// An entry for an event of its own; `key` may be taken.
    Admit {
        key: u8,
        lane: usize,
        hours: i64,
        hold: bool,
        held: bool,
        composed: bool,
    },
    Claim {
        lane: usize,
        limit: usize,
        leased: bool,
    },
    Gate(usize),
    Settle {
        bearer: usize,
        how: usize,
        resend: bool,
    },
    Retry(usize),
    Cancel(usize),
    Recover,
    Rescue,
    Purge,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any_entry = 0..24_usize;
    let step = prop_oneof![
        6 => (0..30_u8, 0..3_usize, -3..2_i64, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(key, lane, hours, hold, held, composed)| Step::Admit { key, lane, hours, hold, held, composed }),
        6 => (0..3_usize, 0..4_usize, prop::bool::weighted(0.7))
            .prop_map(|(lane, limit, leased)| Step::Claim { lane, limit, leased }),
        4 => any_entry.clone().prop_map(Step::Gate),
        8 => (any_entry.clone(), 0..6_usize, any::<bool>())
            .prop_map(|(bearer, how, resend)| Step::Settle { bearer, how, resend }),
        2 => any_entry.clone().prop_map(Step::Retry),
        1 => any_entry.prop_map(Step::Cancel),
        1 => Just(Step::Recover),
        1 => Just(Step::Rescue),
        1 => Just(Step::Purge),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the model knows of an entry.
#[derive(Clone, Debug)]
struct Known {
    key: String,
    lane: usize,
    state: State,
    due: Timestamp,
    fence: i64,
    gated: bool,
    /// The lease has no time left.
    over: bool,
    hold: bool,
    composed: bool,
    event: EventId,
    attempts: Vec<Option<State>>,
}

impl Known {
    fn end(&mut self, outcome: State) {
        if let Some(last) = self.attempts.last_mut() {
            *last = Some(outcome);
        }
        self.state = outcome;
    }

    /// What a lease found orphaned becomes.
    fn orphaned(&mut self, now: Timestamp) {
        match (self.gated, LANES[self.lane].0) {
            (false, _) => self.end(State::Ready),
            (true, entry::Kind::Work) => self.end(State::Failed),
            (true, entry::Kind::Mail) => {
                self.end(State::Unknown);
                if !self.hold {
                    self.state = State::Ready;
                    self.due = now;
                }
            }
        }
    }
}

fn event(key: &str) -> NewEvent {
    NewEvent {
        key: key.to_owned(),
        kind: Kind::Schedule,
        source: String::new(),
        subject: "nightly".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        facts: Map::new(),
        file: None,
        origin: None,
        case: None,
    }
}

fn lost(entry: &Entry, _: &[u8]) -> Vec<NewEvent> {
    vec![event(&format!("lost:{}:{}", entry.id, entry.attempts))]
}

fn settlement(how: usize, now: Timestamp) -> Settlement {
    let why = Reason::new("why");
    match how {
        0 => Settlement::Accept(why),
        1 => Settlement::Defer(now - SignedDuration::from_secs(1), why),
        2 => Settlement::Hold(why),
        3 => Settlement::Lose(why),
        4 => Settlement::Fail(why),
        _ => Settlement::Release,
    }
}

struct Story {
    folder: tempfile::TempDir,
    store: Store,
    clock: Clock,
    now: Timestamp,
    model: BTreeMap<EntryId, Known>,
    /// Every lease there ever was, the newest last.
    bearers: Vec<(EntryId, Fence)>,
}

impl Story {
    /// Time matters only in hours here, so the real clock tells the same story each time.
    async fn begin() -> Story {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let clock = Clock::system();
        let store = Story::open(&folder, clock.clone()).await;
        Story {
            folder,
            store,
            clock,
            now,
            model: BTreeMap::new(),
            bearers: Vec::new(),
        }
    }

    async fn open(folder: &tempfile::TempDir, clock: Clock) -> Store {
        Store::open(&folder.path().join("tidings.db"), clock)
            .await
            .unwrap()
    }

    /// The `n`th bearer, counted from the newest.
    fn bearer(&self, n: usize) -> Option<(EntryId, Fence)> {
        self.bearers.iter().rev().nth(n).copied()
    }

    fn nth(&self, n: usize) -> Option<EntryId> {
        self.model.keys().nth(n % self.model.len().max(1)).copied()
    }

    async fn tell(&mut self, step: Step) {
        match step {
            Step::Admit {
                key,
                lane,
                hours,
                hold,
                held,
                composed,
            } => {
                let key = format!("key-{key}");
                let batch = Batch {
                    events: vec![event(&key)],
                    ..Batch::default()
                };
                let id = self.store.record(batch).await.unwrap()[0].id;
                let due = self.now + SignedDuration::from_hours(hours);
                let due = Timestamp::from_microsecond(due.as_microsecond()).unwrap();
                let new = NewEntry {
                    key: key.clone(),
                    kind: LANES[lane].0,
                    rule: "rule".to_owned(),
                    event: Some(id),
                    lane: LANES[lane].1.to_owned(),
                    effect: if composed { b"effect".to_vec() } else { Vec::new() },
                    body: Body::None,
                    summary: json!({}),
                    on_unknown: if hold { OnUnknown::Hold } else { OnUnknown::Resend },
                    due,
                    // What could not be composed is always held.
                    held: (held || !composed).then(|| Reason::new("mend it")),
                    answers: Vec::new(),
                    of_case: None,
                };
                let admission = Admission {
                    event: Some(id),
                    entries: vec![new],
                    verdicts: vec![],
                    ..Admission::default()
                };
                let admitted = self.store.admit(vec![admission]).await.unwrap()[0][0];
                let taken = self.model.iter().find(|(_, known)| known.key == key);
                assert_eq!(admitted.fresh, taken.is_none());
                if let Some((id, _)) = taken {
                    assert_eq!(admitted.id, *id);
                    return;
                }
                self.model.insert(
                    admitted.id,
                    Known {
                        key,
                        lane,
                        state: if held || !composed {
                            State::Held
                        } else {
                            State::Ready
                        },
                        due,
                        fence: 0,
                        gated: false,
                        over: false,
                        hold,
                        composed,
                        event: id,
                        attempts: Vec::new(),
                    },
                );
            }
            Step::Claim { lane, limit, leased } => {
                let lease = if leased {
                    Duration::from_secs(3600)
                } else {
                    Duration::ZERO
                };
                let (kind, name) = LANES[lane];
                let claimed = self.store.claim(kind, name, limit, lease).await.unwrap();
                let now = self.now;
                let mut due: Vec<_> = self
                    .model
                    .iter_mut()
                    .filter(|(_, known)| {
                        known.lane == lane
                            && matches!(known.state, State::Ready | State::Deferred)
                            // A retry is due at the time it was said, a moment after `now`.
                            && known.due <= now + SignedDuration::from_mins(30)
                    })
                    .collect();
                due.sort_by_key(|(id, known)| (known.due, **id));
                due.truncate(limit);
                let expected: Vec<EntryId> = due.iter().map(|(id, _)| **id).collect();
                assert_eq!(
                    claimed.iter().map(|leased| leased.entry.id).collect::<Vec<_>>(),
                    expected
                );
                for ((id, known), got) in due.into_iter().zip(&claimed) {
                    known.state = State::Leased;
                    known.fence += 1;
                    known.gated = false;
                    known.over = !leased;
                    known.attempts.push(None);
                    assert_eq!(got.fence, Fence(known.fence));
                    self.bearers.push((*id, got.fence));
                }
            }
            Step::Gate(n) => {
                let Some((id, fence)) = self.bearer(n) else { return };
                let passed = self.store.gate(id, fence).await;
                match self.model.get_mut(&id) {
                    Some(known) if known.state == State::Leased && known.fence == fence.0 => {
                        passed.unwrap();
                        known.gated = true;
                    }
                    _ => assert!(passed.unwrap_err().is_fenced()),
                }
            }
            Step::Settle { bearer, how, resend } => {
                let Some((id, fence)) = self.bearer(bearer) else {
                    return;
                };
                let settlement = settlement(how, self.now);
                let again = self.now - SignedDuration::from_secs(2);
                let again = Timestamp::from_microsecond(again.as_microsecond()).unwrap();
                let also = Also {
                    resend: resend.then_some(again),
                    ..Also::default()
                };
                let settled = self.store.settle(id, fence, settlement.clone(), also).await;
                let known = match self.model.get_mut(&id) {
                    Some(known) if known.state == State::Leased && known.fence == fence.0 => known,
                    Some(_) => return assert!(settled.unwrap_err().is_fenced()),
                    None => return assert!(matches!(settled, Err(StoreError::NoEntry(_)))),
                };
                if settlement == Settlement::Release {
                    if known.gated {
                        assert!(matches!(
                            settled,
                            Err(StoreError::Refused {
                                verb: Verb::Release,
                                ..
                            })
                        ));
                    } else {
                        settled.unwrap();
                        known.attempts.pop();
                        known.state = State::Ready;
                    }
                    return;
                }
                settled.unwrap();
                if let Settlement::Defer(due, _) = settlement {
                    known.due = Timestamp::from_microsecond(due.as_microsecond()).unwrap();
                }
                known.end(State::Leased.after(settlement.verb()).unwrap());
                if known.state == State::Unknown && resend {
                    known.state = State::Ready;
                    known.due = again;
                }
            }
            Step::Retry(n) => {
                let Some(id) = self.nth(n) else { return };
                let said = self.store.retry(id).await;
                let known = self.model.get_mut(&id).unwrap();
                match known.state.after(Verb::Retry) {
                    None => assert!(matches!(said, Err(StoreError::Refused { .. }))),
                    Some(_) if !known.composed => {
                        said.unwrap();
                        let event = known.event;
                        self.model.remove(&id);
                        let pending = self.store.pending_events(usize::MAX).await.unwrap();
                        assert!(pending.iter().any(|pending| pending.id == event));
                    }
                    Some(state) => {
                        known.due = said.unwrap().due;
                        known.state = state;
                    }
                }
            }
            Step::Cancel(n) => {
                let Some(id) = self.nth(n) else { return };
                let said = self.store.cancel(id).await;
                let known = self.model.get_mut(&id).unwrap();
                match known.state.after(Verb::Cancel) {
                    None => assert!(matches!(said, Err(StoreError::Refused { .. }))),
                    Some(state) => {
                        said.unwrap();
                        known.state = state;
                    }
                }
            }
            Step::Recover => {
                let recovery = self.store.recover(lost).await.unwrap();
                self.orphaned(&recovery.released, &recovery.unknown, &recovery.lost_work, |_| {
                    true
                })
                .await;
            }
            Step::Rescue => {
                let recovery = self.store.rescue(lost).await.unwrap();
                self.orphaned(
                    &recovery.released,
                    &recovery.unknown,
                    &recovery.lost_work,
                    |known| known.over,
                )
                .await;
            }
            Step::Purge => {
                let finished = |known: &Known| matches!(known.state, State::Accepted | State::Cancelled);
                let count = self.model.values().filter(|known| finished(known)).count();
                let purged = self.store.purge(Duration::ZERO).await.unwrap();
                assert_eq!(purged.entries, count as u64);
                self.model.retain(|_, known| !finished(known));
                for known in self.model.values() {
                    assert!(self.store.event(known.event).await.unwrap().is_some());
                }
            }
            Step::Reopen => self.store = Story::open(&self.folder, self.clock.clone()).await,
        }
    }

    async fn orphaned(
        &mut self,
        released: &[EntryId],
        unknown: &[EntryId],
        lost: &[EntryId],
        taken: fn(&Known) -> bool,
    ) {
        let mut expected = (Vec::new(), Vec::new(), Vec::new());
        for (id, known) in &mut self.model {
            if known.state != State::Leased || !taken(known) {
                continue;
            }
            match (known.gated, LANES[known.lane].0) {
                (false, _) => expected.0.push(*id),
                (true, entry::Kind::Mail) => expected.1.push(*id),
                (true, entry::Kind::Work) => expected.2.push(*id),
            }
            let due = self.store.entry(*id).await.unwrap().unwrap().entry.due;
            known.orphaned(due);
        }
        let sorted = |ids: &[EntryId]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        assert_eq!((sorted(released), sorted(unknown), sorted(lost)), expected);
    }

    async fn compare(&self) {
        let every = EntryFilter {
            limit: usize::MAX,
            ..EntryFilter::default()
        };
        let mut kept = self.store.entries(every).await.unwrap();
        kept.reverse();
        assert_eq!(kept.len(), self.model.len());
        let mut waiting = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for (entry, (id, known)) in kept.iter().zip(&self.model) {
            assert_eq!(
                (entry.id, entry.state, entry.due),
                (*id, known.state, known.due),
                "{known:?}"
            );
            assert_eq!(entry.attempts as usize, known.attempts.len());
            let detail = self.store.entry(*id).await.unwrap().unwrap();
            let outcomes: Vec<_> = detail.attempts.iter().map(|attempt| attempt.outcome).collect();
            assert_eq!(outcomes, known.attempts);
            *counts.entry((entry.kind, entry.state)).or_insert(0) += 1;
            if matches!(known.state, State::Ready | State::Deferred) {
                let lane: &mut (u64, Timestamp) = waiting.entry(LANES[known.lane]).or_insert((0, known.due));
                *lane = (lane.0 + 1, lane.1.min(known.due));
            }
        }
        assert_eq!(self.store.counts().await.unwrap(), counts);
        let lanes = self.store.lanes().await.unwrap();
        assert_eq!(lanes.len(), waiting.len());
        for lane in lanes {
            assert_eq!(
                waiting[&(lane.kind, lane.lane.as_str())],
                (lane.waiting, lane.due)
            );
        }
    }
}

proptest! {
    // A failing story is printed; nothing is written into the tree.
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut story = Story::begin().await;
            for step in steps {
                story.tell(step).await;
                story.compare().await;
            }
        });
    }

    #[test]
    fn purge_never_removes_an_unfinished_entry(
        entries in proptest::collection::vec((0..8_usize, 0..90_i64), 1..20),
        keep in 0..60_i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let story = Story::begin().await;
            let mut made = Vec::new();
            for (n, (state, age)) in entries.into_iter().enumerate() {
                let state = State::ALL[state];
                let then = story.now - SignedDuration::from_hours(24 * age);
                let store = Story::open(&story.folder, Clock::runtime(then)).await;
                made.push((bring_to(&store, n, state, then).await, state, age));
            }
            story.store.purge(Duration::from_secs(86_400 * u64::try_from(keep).unwrap())).await.unwrap();
            for ((event, id), state, age) in made {
                let finished = matches!(state, State::Accepted | State::Cancelled);
                // Within a day of the limit both are right: the story itself takes time.
                if !finished || age < keep {
                    let left = story.store.entry(id).await.unwrap().expect("forgotten");
                    assert_eq!((left.entry.state, left.effect.len()), (state, 6));
                    assert!(story.store.event(event).await.unwrap().is_some());
                } else if age > keep {
                    assert!(story.store.entry(id).await.unwrap().is_none());
                    assert!(story.store.event(event).await.unwrap().is_none());
                }
            }
        });
    }
}

/// An event with an entry in that state.
async fn bring_to(store: &Store, n: usize, state: State, now: Timestamp) -> (EventId, EntryId) {
    let batch = Batch {
        events: vec![event(&format!("event-{n}"))],
        ..Batch::default()
    };
    let event = store.record(batch).await.unwrap()[0].id;
    let lane = format!("lane-{n}");
    let new = NewEntry {
        key: lane.clone(),
        kind: entry::Kind::Mail,
        rule: "rule".to_owned(),
        event: Some(event),
        lane: lane.clone(),
        effect: b"effect".to_vec(),
        body: Body::None,
        summary: json!({}),
        on_unknown: OnUnknown::Hold,
        due: now,
        held: None,
        answers: Vec::new(),
        of_case: None,
    };
    let admission = Admission {
        event: Some(event),
        entries: vec![new],
        verdicts: vec![],
        ..Admission::default()
    };
    let id = store.admit(vec![admission]).await.unwrap()[0][0].id;
    match state {
        State::Ready => return (event, id),
        State::Cancelled => {
            store.cancel(id).await.unwrap();
            return (event, id);
        }
        _ => {}
    }
    let leased = store
        .claim(entry::Kind::Mail, &lane, 1, Duration::from_secs(60))
        .await
        .unwrap()
        .remove(0);
    let why = Reason::new("why");
    let settlement = match state {
        State::Accepted => Settlement::Accept(why),
        State::Deferred => Settlement::Defer(now, why),
        State::Held => Settlement::Hold(why),
        State::Unknown => Settlement::Lose(why),
        State::Failed => Settlement::Fail(why),
        _ => return (event, id),
    };
    store
        .settle(id, leased.fence, settlement, Also::default())
        .await
        .unwrap();
    (event, id)
}
