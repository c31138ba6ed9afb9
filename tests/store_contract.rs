//! The store's contract, as tests: they know the verbs of `Store` and nothing of what is below, and run
//! over every store there is. To add one, write how it is opened and name it in `contract!`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper that cannot go on says so by panicking"
)]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tempfile::TempDir;
use tidings::clock::Clock;
use tidings::entry::{
    self, Body, Entry, EntryId, Fence, Leased, NewEntry, OnUnknown, Reason, Settlement, State, Verb,
};
use tidings::event::{CaseStep, Does, Event, EventId, FileRef, Kind, NewEvent, Origin};
use tidings::store::{
    Admission, Also, Batch, EntryFilter, EventFilter, GatherStep, Gathering, INLINE_LIMIT, NewCase, Recorded,
    Removal, Removed, RuleVerdict, SeenFile, Store, StoreError, WatchMemory,
};

type Opening = Pin<Box<dyn Future<Output = Result<Store, StoreError>> + Send>>;

/// Where a store lives for the time of a test, and how it is opened.
struct Place {
    folder: TempDir,
    open: fn(PathBuf, Clock) -> Opening,
}

impl Place {
    fn new(open: fn(PathBuf, Clock) -> Opening) -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
            open,
        }
    }

    /// A handle of its own, as another process would have it.
    async fn open(&self) -> Store {
        self.open_with(Clock::system()).await
    }

    /// A handle that believes it is that time.
    async fn open_at(&self, now: Timestamp) -> Store {
        self.open_with(Clock::runtime(now)).await
    }

    async fn open_with(&self, clock: Clock) -> Store {
        (self.open)(self.folder.path().join("state").join("tidings.db"), clock)
            .await
            .unwrap()
    }
}

macro_rules! contract {
    ($store:ident opened by $open:expr; $($name:ident)*) => {
        mod $store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Place::new($open)).await;
            })*
        }
    };
}

contract! { sqlite opened by |path, clock| Box::pin(async move { super::Store::open(&path, clock).await });
    an_event_key_is_taken_once
    a_batch_is_recorded_whole_and_read_back_as_it_was
    a_success_after_a_failure_recovers_and_only_the_first
    pending_events_come_in_order_until_they_are_admitted
    an_entry_key_is_admitted_once_and_the_event_is_dispatched
    a_mail_that_is_handed_in_again_within_its_time_is_the_one_there
    verdicts_of_a_second_dispatch_replace_the_first
    claims_come_oldest_due_first_and_by_lane
    a_deferred_entry_is_not_claimed_before_it_is_due
    a_held_entry_is_not_claimed
    an_old_fence_changes_nothing
    a_released_lease_counts_no_attempt
    a_lease_past_the_gate_cannot_be_given_back_as_if_unused
    settling_takes_outcome_effect_files_and_cases_along_or_nothing
    a_file_that_is_gone_is_told_once_and_never_what_our_own_work_took_or_may_take
    what_passed_the_gate_is_counted_by_lane_from_that_moment
    what_waits_for_a_case_is_due_when_it_closes_and_nothing_else_is
    a_lost_mail_is_unknown_and_stays_so_unless_told_to_resend
    recover_releases_what_was_not_past_the_gate
    recover_lists_mail_past_the_gate_as_unknown_and_obeys_its_policy
    recover_fails_work_past_the_gate_and_tells
    rescue_takes_only_leases_that_ran_out
    a_renewed_lease_is_not_rescued
    retry_and_cancel_move_what_they_may_and_refuse_the_rest
    an_uncomposed_entry_is_removed_by_retry_and_its_event_dispatched_again
    an_uncomposed_entry_without_an_event_cannot_be_retried
    an_entry_held_from_the_start_is_a_trouble_until_it_is_cancelled_or_made_anew
    large_bodies_live_in_the_spool_and_go_with_their_entry
    a_spooled_body_whose_key_was_taken_is_removed
    recover_sweeps_old_orphans_and_leaves_young_ones
    lists_filter_and_page
    counts_and_lanes_follow_every_move
    seen_files_are_kept_by_the_bytes_of_their_path
    a_file_we_took_away_is_gone_in_every_watch_above_it_but_not_in_a_newer_version
    an_open_case_is_told_again_once_for_each_tag_and_a_closed_one_never
    a_case_is_opened_once_told_once_and_opened_again_after_it_closed
    an_event_opens_its_case_once_and_closes_it_once
    what_is_gathered_changes_with_its_admission_and_its_events_stay
    what_is_only_right_while_a_case_is_open_is_cancelled_when_it_is_over
    a_grant_is_compared_and_set
    a_deleted_grant_never_gives_its_version_to_another
    marks_are_set_read_and_deleted_by_prefix
    a_mark_is_taken_away_with_the_event_that_ends_it
    what_rules_emit_is_recorded_with_the_dispatch_of_its_cause
    what_came_of_a_trouble_through_rules_is_known_to
    a_thousand_concurrent_records_are_all_there_after_reopening
    a_refused_request_does_not_disturb_its_neighbours
    readers_are_served_while_a_writer_works
    two_handles_see_each_other_and_hear_of_it
    changes_tick_when_something_became_due
    purge_forgets_what_is_finished_and_old
    purge_keeps_a_sent_mail_while_its_event_may_be_dispatched_again
    events_are_found_by_rule_mails_by_message_id_and_a_file_by_its_name
    a_digest_with_the_news_of_a_trouble_in_it_opens_no_case
    purge_keeps_the_memory_of_a_gone_file_while_an_event_of_it_is_left
}

// ---- what the tests speak of ----

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Long before now, so that everything due then is due.
fn long_ago() -> Timestamp {
    time("2026-01-01T00:00:00Z")
}

fn happened(key: &str, kind: Kind, subject: &str) -> NewEvent {
    NewEvent {
        key: key.to_owned(),
        kind,
        source: "watch-1".to_owned(),
        subject: subject.to_owned(),
        time: long_ago(),
        facts: Map::new(),
        file: None,
        origin: None,
        case: None,
    }
}

fn schedule(key: &str) -> NewEvent {
    happened(key, Kind::Schedule, "nightly")
}

fn events(events: Vec<NewEvent>) -> Batch {
    Batch {
        events,
        ..Batch::default()
    }
}

fn mail(key: &str) -> NewEntry {
    NewEntry {
        key: key.to_owned(),
        kind: entry::Kind::Mail,
        rule: "invoice-arrived".to_owned(),
        event: None,
        lane: "office".to_owned(),
        effect: b"to ap@contoso.com".to_vec(),
        body: Body::Inline(b"Subject: x\r\n\r\n".to_vec()),
        summary: json!({"to": ["ap@contoso.com"]}),
        on_unknown: OnUnknown::Resend,
        due: long_ago(),
        held: None,
        answers: Vec::new(),
        of_case: None,
    }
}

fn work(key: &str) -> NewEntry {
    NewEntry {
        kind: entry::Kind::Work,
        lane: "import".to_owned(),
        ..mail(key)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn no_events(_: &Entry, _: &[u8]) -> Vec<NewEvent> {
    Vec::new()
}

async fn record_one(store: &Store, event: NewEvent) -> EventId {
    store.record(events(vec![event])).await.unwrap()[0].id
}

async fn claim_one(store: &Store, kind: entry::Kind, lane: &str) -> Leased {
    let mut leased = store.claim(kind, lane, 1, MINUTE).await.unwrap();
    assert_eq!(leased.len(), 1, "nothing to claim in {lane}");
    leased.remove(0)
}

async fn claim_mail(store: &Store) -> Leased {
    claim_one(store, entry::Kind::Mail, "office").await
}

async fn state(store: &Store, id: EntryId) -> State {
    store.entry(id).await.unwrap().unwrap().entry.state
}

async fn outcomes(store: &Store, id: EntryId) -> Vec<Option<State>> {
    let detail = store.entry(id).await.unwrap().unwrap();
    detail.attempts.iter().map(|attempt| attempt.outcome).collect()
}

fn done() -> Settlement {
    Settlement::Accept(Reason::new("250 queued"))
}

// ---- the journal ----

async fn an_event_key_is_taken_once(place: Place) {
    let store = place.open().await;
    let first = store
        .record(events(vec![schedule("a"), schedule("b"), schedule("a")]))
        .await
        .unwrap();
    assert_eq!(
        first.iter().map(|r| r.fresh).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(first[0].id, first[2].id);
    assert!(first[0].id < first[1].id);
    let other = place.open().await;
    let again = other.record(events(vec![schedule("b")])).await.unwrap();
    assert_eq!((again[0].id, again[0].fresh), (first[1].id, false));
    assert_eq!(store.pending_events(10).await.unwrap().len(), 2);
}

async fn a_batch_is_recorded_whole_and_read_back_as_it_was(place: Place) {
    let store = place.open().await;
    let mut event = happened("a", Kind::FileArrives, "/srv/in/ü\u{202e}.pdf");
    event.facts = json!({"file": {"name": "x\r\ny", "size": 7}, "n": 1.5})
        .as_object()
        .unwrap()
        .clone();
    event.file = Some(FileRef {
        root: PathBuf::from("/srv/in"),
        relative: not_utf8("a/\u{fffd}"),
        size: u64::MAX / 3,
        mtime_ns: -5,
    });
    event.origin = Some(tidings::event::Origin {
        rule: "import".to_owned(),
        event: EventId(7),
    });
    let batch = Batch {
        events: vec![event.clone()],
        seen: vec![seen("w", "a")],
        baselines: vec![WatchMemory {
            id: "w".to_owned(),
            root: PathBuf::from("/srv/in"),
            baseline: true,
        }],
        unmarked: Vec::new(),
        marks: vec![("slot".to_owned(), json!({"last": 3}))],
    };
    let id = store.record(batch.clone()).await.unwrap()[0].id;
    let store = place.open().await;
    let detail = store.event(id).await.unwrap().unwrap();
    assert_eq!(detail.event.happening, event);
    assert_eq!(detail.dispatched, None);
    assert_eq!(store.seen("w").await.unwrap(), batch.seen);
    assert_eq!(store.watches().await.unwrap(), batch.baselines);
    assert_eq!(store.marks("slot").await.unwrap(), batch.marks);
}

/// A path no text can hold.
fn not_utf8(before: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = before.as_bytes().to_vec();
    bytes.extend([0xff, b'\n']);
    std::ffi::OsString::from_vec(bytes).into()
}

async fn a_success_after_a_failure_recovers_and_only_the_first(place: Place) {
    let store = place.open().await;
    let ended = |key: &str, kind| happened(key, kind, "export");
    let ids: Vec<EventId> = store
        .record(events(vec![
            ended("1", Kind::JobSucceeds),
            ended("2", Kind::JobFails),
            happened("3", Kind::JobSucceeds, "another"),
            ended("4", Kind::JobFails),
            ended("5", Kind::JobSucceeds),
            ended("6", Kind::JobSucceeds),
        ]))
        .await
        .unwrap()
        .iter()
        .map(|r| r.id)
        .collect();
    // A repeated report is not another failure.
    let store = place.open().await;
    store
        .record(events(vec![ended("4", Kind::JobFails)]))
        .await
        .unwrap();
    record_one(&store, ended("7", Kind::JobSucceeds)).await;
    let recovers: Vec<bool> = store
        .pending_events(10)
        .await
        .unwrap()
        .iter()
        .map(|e| e.recovers)
        .collect();
    assert_eq!(recovers, [false, false, false, false, true, false, false]);
    assert_eq!(ids.len(), 6);
}

async fn pending_events_come_in_order_until_they_are_admitted(place: Place) {
    let store = place.open().await;
    store
        .record(events(["a", "b", "c"].map(schedule).to_vec()))
        .await
        .unwrap();
    let pending = store.pending_events(2).await.unwrap();
    assert_eq!(
        pending
            .iter()
            .map(|e| e.happening.key.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    let admissions = pending.iter().map(|event| Admission {
        event: Some(event.id),
        entries: vec![],
        verdicts: vec![],
        ..Admission::default()
    });
    store.admit(admissions.collect()).await.unwrap();
    let left = store.pending_events(9).await.unwrap();
    assert_eq!(
        left.iter().map(|e| e.happening.key.as_str()).collect::<Vec<_>>(),
        ["c"]
    );
}

// ---- admission ----

fn verdict(rule: &str, outcome: &str) -> RuleVerdict {
    RuleVerdict {
        rule: rule.to_owned(),
        outcome: outcome.to_owned(),
        detail: "because".to_owned(),
    }
}

async fn an_entry_key_is_admitted_once_and_the_event_is_dispatched(place: Place) {
    let store = place.open().await;
    let event = record_one(&store, schedule("a")).await;
    let entry = |key: &str| NewEntry {
        event: Some(event),
        ..mail(key)
    };
    let admission = Admission {
        event: Some(event),
        entries: vec![entry("a/1"), entry("a/2")],
        verdicts: vec![verdict("one", "fired")],
        ..Admission::default()
    };
    let first = store.admit(vec![admission.clone()]).await.unwrap();
    assert!(first[0].iter().all(|admitted| admitted.fresh));
    let again = store.admit(vec![admission]).await.unwrap();
    assert!(again[0].iter().all(|admitted| !admitted.fresh));
    assert_eq!(first[0][1].id, again[0][1].id);
    let detail = store.event(event).await.unwrap().unwrap();
    assert!(detail.dispatched.is_some());
    assert_eq!(detail.verdicts, [verdict("one", "fired")]);
    assert_eq!(detail.entries.len(), 2);
    assert_eq!(detail.entries[0].state, State::Ready);
}

async fn a_mail_that_is_handed_in_again_within_its_time_is_the_one_there(place: Place) {
    let start = time("2026-03-02T08:00:00Z");
    let hour = Duration::from_secs(3600);
    let spooled = || {
        std::fs::read_dir(place.folder.path().join("state/spool"))
            .unwrap()
            .count()
    };
    let large = || NewEntry {
        body: Body::Inline(vec![b'x'; INLINE_LIMIT + 1]),
        ..mail("handed:a")
    };
    let event = || happened("handed:a", Kind::MailHandedIn, "root");
    let mut fresh = Vec::new();
    // At the start, within the hour of that, after it, and within the hour of the second one.
    for minutes in [0, 59, 61, 119, 122] {
        let store = place.open_at(start + Duration::from_secs(minutes * 60)).await;
        let admitted = store.take_in(event(), large(), hour).await.unwrap();
        fresh.push((admitted.fresh, admitted.id));
        assert!(
            store.pending_events(9).await.unwrap().is_empty(),
            "no rule is asked"
        );
    }
    let were: Vec<bool> = fresh.iter().map(|(fresh, _)| *fresh).collect();
    assert_eq!(were, [true, false, true, false, true]);
    assert_eq!((fresh[0].1, fresh[2].1), (fresh[1].1, fresh[3].1));
    assert_eq!(spooled(), 3, "what came in vain is cleared away");
    let store = place.open().await;
    let entry = store.entry(fresh[2].1).await.unwrap().unwrap().entry;
    let told = store.event(entry.event.unwrap()).await.unwrap().unwrap();
    assert!(told.dispatched.is_some());
    assert_eq!(told.event.happening.kind, Kind::MailHandedIn);
    assert_eq!(told.entries.len(), 1);
    // Another key that begins alike is another mail.
    let other = store.take_in(
        happened("handed:ab", Kind::MailHandedIn, "root"),
        mail("handed:ab"),
        hour,
    );
    assert!(other.await.unwrap().fresh);
}

async fn verdicts_of_a_second_dispatch_replace_the_first(place: Place) {
    let store = place.open().await;
    let event = record_one(&store, schedule("a")).await;
    for verdicts in [
        vec![verdict("one", "fired"), verdict("two", "fired")],
        vec![verdict("two", "condition_false")],
    ] {
        let admission = Admission {
            event: Some(event),
            entries: vec![],
            verdicts,
            ..Admission::default()
        };
        store.admit(vec![admission]).await.unwrap();
    }
    let detail = store.event(event).await.unwrap().unwrap();
    assert_eq!(detail.verdicts, [verdict("two", "condition_false")]);
}

// ---- leases ----

async fn claims_come_oldest_due_first_and_by_lane(place: Place) {
    let store = place.open().await;
    for (key, lane, due) in [
        ("late", "office", "2026-03-01T00:00:00Z"),
        ("early", "office", "2026-01-01T00:00:00Z"),
        ("tie", "office", "2026-01-01T00:00:00Z"),
        ("other", "partner", "2025-01-01T00:00:00Z"),
    ] {
        let entry = NewEntry {
            lane: lane.to_owned(),
            due: time(due),
            ..mail(key)
        };
        store.admit_alone(entry).await.unwrap();
    }
    store.admit_alone(work("work")).await.unwrap();
    let leased = store.claim(entry::Kind::Mail, "office", 2, MINUTE).await.unwrap();
    assert_eq!(
        leased.iter().map(|l| l.entry.key.as_str()).collect::<Vec<_>>(),
        ["early", "tie"]
    );
    let leased = store.claim(entry::Kind::Mail, "office", 9, MINUTE).await.unwrap();
    assert_eq!(
        leased.iter().map(|l| l.entry.key.as_str()).collect::<Vec<_>>(),
        ["late"]
    );
    let late = &leased[0];
    assert_eq!((late.entry.state, late.entry.attempts), (State::Leased, 1));
    assert_eq!(
        (late.effect.as_slice(), &late.body),
        (mail("x").effect.as_slice(), &mail("x").body)
    );
    assert!(
        store
            .claim(entry::Kind::Mail, "office", 9, MINUTE)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_deferred_entry_is_not_claimed_before_it_is_due(place: Place) {
    let start = time("2026-05-01T12:00:00Z");
    let store = place.open_at(start).await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let leased = claim_mail(&store).await;
    let due = start + SignedDuration::from_mins(10);
    store
        .settle(
            id,
            leased.fence,
            Settlement::Defer(due, Reason::new("421 busy")),
            Also::default(),
        )
        .await
        .unwrap();
    assert_eq!(store.lanes().await.unwrap()[0].due, due);
    let before = place.open_at(due - SignedDuration::from_secs(30)).await;
    assert!(
        before
            .claim(entry::Kind::Mail, "office", 1, MINUTE)
            .await
            .unwrap()
            .is_empty()
    );
    let after = place.open_at(due).await;
    let again = claim_mail(&after).await;
    assert!(again.fence > leased.fence);
    assert_eq!(again.entry.attempts, 2);
    assert_eq!(outcomes(&after, id).await, [Some(State::Deferred), None]);
}

async fn a_held_entry_is_not_claimed(place: Place) {
    let store = place.open().await;
    let entry = NewEntry {
        held: Some(Reason::new("not on the list of allowed recipients")),
        ..mail("a")
    };
    let id = store.admit_alone(entry.clone()).await.unwrap().id;
    assert!(
        store
            .claim(entry::Kind::Mail, "office", 1, MINUTE)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.lanes().await.unwrap().is_empty());
    let kept = store.entry(id).await.unwrap().unwrap().entry;
    assert_eq!((kept.state, kept.reason), (State::Held, entry.held));
}

async fn an_old_fence_changes_nothing(place: Place) {
    let store = place.open().await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let asleep = store
        .claim(entry::Kind::Mail, "office", 1, Duration::ZERO)
        .await
        .unwrap()
        .remove(0);
    store.rescue(no_events).await.unwrap();
    // Whether or not somebody else has it by now.
    assert!(store.gate(id, asleep.fence).await.unwrap_err().is_fenced());
    let awake = claim_mail(&store).await;
    assert!(awake.fence > asleep.fence);
    for fence in [asleep.fence, Fence(awake.fence.0 + 1)] {
        assert!(store.gate(id, fence).await.unwrap_err().is_fenced());
        assert!(store.renew(id, fence, MINUTE).await.unwrap_err().is_fenced());
        let also = Also {
            events: vec![schedule("from a ghost")],
            effect: Some(b"other".to_vec()),
            ..Also::default()
        };
        assert!(
            store
                .settle(id, fence, Settlement::Release, Also::default())
                .await
                .unwrap_err()
                .is_fenced()
        );
        assert!(
            store
                .settle(id, fence, done(), also)
                .await
                .unwrap_err()
                .is_fenced()
        );
    }
    assert!(store.pending_events(1).await.unwrap().is_empty());
    store.gate(id, awake.fence).await.unwrap();
    store
        .settle(id, awake.fence, done(), Also::default())
        .await
        .unwrap();
    // Settled once, settled for good.
    let twice = store.settle(id, awake.fence, done(), Also::default()).await;
    assert!(twice.unwrap_err().is_fenced());
    let detail = store.entry(id).await.unwrap().unwrap();
    assert_eq!(
        (detail.entry.state, detail.effect),
        (State::Accepted, mail("a").effect)
    );
    assert_eq!(detail.attempts[1].reason, Some(Reason::new("250 queued")));
    assert!(detail.attempts[1].gated && !detail.attempts[0].gated);
}

async fn a_released_lease_counts_no_attempt(place: Place) {
    let store = place.open().await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let leased = claim_mail(&store).await;
    store
        .settle(id, leased.fence, Settlement::Release, Also::default())
        .await
        .unwrap();
    let detail = store.entry(id).await.unwrap().unwrap();
    assert_eq!((detail.entry.state, detail.entry.attempts), (State::Ready, 0));
    assert!(detail.attempts.is_empty());
    assert_eq!(claim_mail(&store).await.entry.attempts, 1);
}

async fn a_lease_past_the_gate_cannot_be_given_back_as_if_unused(place: Place) {
    let store = place.open().await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let leased = claim_mail(&store).await;
    store.gate(id, leased.fence).await.unwrap();
    let error = store
        .settle(id, leased.fence, Settlement::Release, Also::default())
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        StoreError::Refused {
            verb: Verb::Release,
            ..
        }
    ));
    assert_eq!(state(&store, id).await, State::Leased);
}

async fn what_passed_the_gate_is_counted_by_lane_from_that_moment(place: Place) {
    let store = place.open().await;
    let other = NewEntry {
        lane: "another".to_owned(),
        ..mail("b")
    };
    for new in [mail("a"), other, mail("c")] {
        store.admit_alone(new).await.unwrap();
    }
    let leased = claim_mail(&store).await;
    let claimed = store.entry(leased.entry.id).await.unwrap().unwrap().attempts[0].started;
    let counted = || store.attempts_since(entry::Kind::Mail, "office", claimed);
    assert_eq!(counted().await.unwrap(), [], "claimed is not sent");
    store.gate(leased.entry.id, leased.fence).await.unwrap();
    let other = claim_one(&store, entry::Kind::Mail, "another").await;
    store.gate(other.entry.id, other.fence).await.unwrap();
    let sent = counted().await.unwrap();
    assert!(
        sent.len() == 1 && sent[0] > claimed,
        "{sent:?}, claimed {claimed}"
    );
    store.gate(leased.entry.id, leased.fence).await.unwrap();
    assert_eq!(counted().await.unwrap(), sent, "said twice, counted once");
    let later = sent[0] + jiff::SignedDuration::from_micros(1);
    let since = store.attempts_since(entry::Kind::Mail, "office", later).await;
    assert_eq!(since.unwrap(), []);
}

async fn what_waits_for_a_case_is_due_when_it_closes_and_nothing_else_is(place: Place) {
    let store = place.open().await;
    let far = time("2100-01-01T00:00:00Z");
    for (key, awaits) in [
        ("a", Some("account:office")),
        ("b", None),
        ("c", Some("account:other")),
    ] {
        store.admit_alone(mail(key)).await.unwrap();
        let leased = claim_mail(&store).await;
        let also = Also {
            awaits: awaits.map(str::to_owned),
            ..Also::default()
        };
        let later = Settlement::Defer(far, Reason::new("sign in"));
        store
            .settle(leased.entry.id, leased.fence, later, also)
            .await
            .unwrap();
    }
    // No case is open under the key; whoever waits for it is due all the same.
    store.close_case("account:office").await.unwrap();
    let leased = store.claim(entry::Kind::Mail, "office", 9, MINUTE).await.unwrap();
    let keys: Vec<&str> = leased.iter().map(|leased| leased.entry.key.as_str()).collect();
    assert_eq!(keys, ["a"]);
    // Deferred for another reason now, it waits for that case no more.
    let later = Settlement::Defer(far, Reason::new("busy"));
    store
        .settle(leased[0].entry.id, leased[0].fence, later, Also::default())
        .await
        .unwrap();
    assert_eq!(store.hasten("account:office").await.unwrap(), 0);
    assert_eq!(store.hasten("account:other").await.unwrap(), 1);
}

async fn settling_takes_outcome_effect_files_and_cases_along_or_nothing(place: Place) {
    let store = place.open().await;
    store
        .record(Batch {
            seen: vec![seen("w", "a.pdf")],
            ..Batch::default()
        })
        .await
        .unwrap();
    let case = |key: &str| NewCase {
        key: key.into(),
        kind: "mail".into(),
        subject: key.into(),
        reason: Reason::new("451 one of two"),
    };
    store.open_case(case("account:office")).await.unwrap();
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let leased = claim_mail(&store).await;
    let also = Also {
        events: vec![happened("job:1", Kind::JobFails, "import")],
        effect: Some(b"to the rest".to_vec()),
        gone: vec![file("a.pdf")],
        open: Some(case("mail:1")),
        close: vec!["account:office".into()],
        ..Also::default()
    };
    let later = Settlement::Defer(long_ago(), Reason::new("451 one of two"));
    store
        .settle(id, leased.fence, later.clone(), also.clone())
        .await
        .unwrap();
    let events = store.pending_events(9).await.unwrap();
    let keys: Vec<_> = events.iter().map(|event| event.happening.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "trouble:account:office:1",
            "job:1",
            "trouble:mail:1:2",
            "trouble:account:office:1:closed"
        ]
    );
    let cases = store.open_cases().await.unwrap();
    assert_eq!(
        cases.iter().map(|case| case.key.as_str()).collect::<Vec<_>>(),
        ["mail:1"]
    );
    let over = store.settle(id, leased.fence, later, also).await.unwrap_err();
    assert!(over.is_fenced(), "and nothing of it happens again: {over}");
    assert_eq!(store.pending_events(9).await.unwrap().len(), 4);
    assert!(store.seen("w").await.unwrap()[0].gone);
    let again = claim_mail(&store).await;
    assert_eq!(again.effect, b"to the rest");
    assert_eq!(again.body, mail("a").body, "the message stays byte for byte");
}

async fn a_lost_mail_is_unknown_and_stays_so_unless_told_to_resend(place: Place) {
    let store = place.open().await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let lose = || Settlement::Lose(Reason::new("no answer to the final dot"));
    let leased = claim_mail(&store).await;
    store.gate(id, leased.fence).await.unwrap();
    let due = Timestamp::now() + SignedDuration::from_hours(1);
    let also = Also {
        resend: Some(due),
        ..Also::default()
    };
    store.settle(id, leased.fence, lose(), also).await.unwrap();
    let resent = store.entry(id).await.unwrap().unwrap();
    assert_eq!(resent.entry.state, State::Ready);
    assert_eq!(resent.entry.due.as_microsecond(), due.as_microsecond());
    assert_eq!(outcomes(&store, id).await, [Some(State::Unknown)]);
    let store = place.open_at(due).await;
    let leased = claim_mail(&store).await;
    store
        .settle(id, leased.fence, lose(), Also::default())
        .await
        .unwrap();
    assert_eq!(state(&store, id).await, State::Unknown);
    assert_eq!(outcomes(&store, id).await, [Some(State::Unknown); 2]);
    let listed = EntryFilter {
        ever_unknown: true,
        ..EntryFilter::default()
    };
    assert_eq!(store.entries(listed).await.unwrap().len(), 1);
}

// ---- orphans ----

async fn recover_releases_what_was_not_past_the_gate(place: Place) {
    let store = place.open().await;
    let mail_id = store.admit_alone(mail("a")).await.unwrap().id;
    let work_id = store.admit_alone(work("b")).await.unwrap().id;
    let before = claim_mail(&store).await;
    claim_one(&store, entry::Kind::Work, "import").await;
    drop(store);
    let store = place.open().await;
    let recovery = store.recover(no_events).await.unwrap();
    assert_eq!(recovery.released, [mail_id, work_id]);
    assert!(recovery.unknown.is_empty() && recovery.lost_work.is_empty());
    assert_eq!(outcomes(&store, mail_id).await, [Some(State::Ready)]);
    let after = claim_mail(&store).await;
    assert_eq!((after.effect, after.body), (before.effect, before.body));
    // Said again, it finds only what is leased now.
    assert_eq!(store.recover(no_events).await.unwrap().released, [mail_id]);
    assert_eq!(store.recover(no_events).await.unwrap().released, []);
}

async fn recover_lists_mail_past_the_gate_as_unknown_and_obeys_its_policy(place: Place) {
    let store = place.open().await;
    let resend = store.admit_alone(mail("a")).await.unwrap().id;
    let hold = NewEntry {
        on_unknown: OnUnknown::Hold,
        ..mail("b")
    };
    let hold = store.admit_alone(hold).await.unwrap().id;
    for _ in 0..2 {
        let leased = claim_mail(&store).await;
        store.gate(leased.entry.id, leased.fence).await.unwrap();
    }
    drop(store);
    let store = place.open().await;
    let recovery = store.recover(no_events).await.unwrap();
    assert_eq!(recovery.unknown, [resend, hold]);
    assert_eq!(recovery.resent, [resend]);
    assert_eq!(state(&store, resend).await, State::Ready);
    assert_eq!(state(&store, hold).await, State::Unknown);
    assert_eq!(outcomes(&store, hold).await, [Some(State::Unknown)]);
    // The second time it goes well, and the list still says that the first did not.
    let leased = claim_mail(&store).await;
    store.gate(resend, leased.fence).await.unwrap();
    store
        .settle(resend, leased.fence, done(), Also::default())
        .await
        .unwrap();
    assert_eq!(
        outcomes(&store, resend).await,
        [Some(State::Unknown), Some(State::Accepted)]
    );
    let attempts = store.entry(resend).await.unwrap().unwrap().attempts;
    assert!(attempts[0].gated && attempts[0].reason.is_some());
}

async fn recover_fails_work_past_the_gate_and_tells(place: Place) {
    fn lost(entry: &Entry, effect: &[u8]) -> Vec<NewEvent> {
        let mut event = happened(&format!("lost:{}", entry.id), Kind::JobFails, &entry.lane);
        event
            .facts
            .insert("effect".to_owned(), json!(String::from_utf8_lossy(effect)));
        vec![event]
    }
    let store = place.open().await;
    let id = store.admit_alone(work("a")).await.unwrap().id;
    let leased = claim_one(&store, entry::Kind::Work, "import").await;
    store.gate(id, leased.fence).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.recover(lost).await.unwrap().lost_work, [id]);
    assert_eq!(state(&store, id).await, State::Failed);
    let told = store.pending_events(9).await.unwrap();
    assert_eq!(told[0].happening.key, format!("lost:{id}"));
    assert_eq!(told[0].happening.facts["effect"], json!("to ap@contoso.com"));
    // The next success of the job is a recovery.
    record_one(&store, happened("ok", Kind::JobSucceeds, "import")).await;
    assert!(store.pending_events(9).await.unwrap()[1].recovers);
}

async fn rescue_takes_only_leases_that_ran_out(place: Place) {
    let start = time("2026-05-01T12:00:00Z");
    let store = place.open_at(start).await;
    let short = store.admit_alone(mail("a")).await.unwrap().id;
    store.admit_alone(mail("b")).await.unwrap();
    claim_mail(&store).await;
    store
        .claim(entry::Kind::Mail, "office", 1, MINUTE * 60)
        .await
        .unwrap();
    let store = place.open_at(start + SignedDuration::from_secs(30)).await;
    assert_eq!(store.rescue(no_events).await.unwrap().released, []);
    let store = place.open_at(start + SignedDuration::from_mins(2)).await;
    assert_eq!(store.rescue(no_events).await.unwrap().released, [short]);
}

async fn a_renewed_lease_is_not_rescued(place: Place) {
    let start = time("2026-05-01T12:00:00Z");
    let store = place.open_at(start).await;
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    let leased = claim_mail(&store).await;
    store.renew(id, leased.fence, MINUTE * 60).await.unwrap();
    let later = place.open_at(start + SignedDuration::from_mins(30)).await;
    assert_eq!(later.rescue(no_events).await.unwrap().released, []);
    store
        .settle(id, leased.fence, done(), Also::default())
        .await
        .unwrap();
}

// ---- people ----

async fn retry_and_cancel_move_what_they_may_and_refuse_the_rest(place: Place) {
    let store = place.open().await;
    let why = || Reason::new("550 5.7.60 no right to send as");
    for (settlement, retried, cancelled) in [
        (done(), false, false),
        (Settlement::Hold(why()), true, true),
        (Settlement::Fail(why()), true, true),
        (Settlement::Lose(why()), true, true),
        (
            Settlement::Defer(Timestamp::now() + SignedDuration::from_hours(9), why()),
            true,
            true,
        ),
    ] {
        for cancel in [false, true] {
            let id = store
                .admit_alone(mail(&format!("{settlement:?}{cancel}")))
                .await
                .unwrap()
                .id;
            let leased = claim_mail(&store).await;
            let error = store.retry(id).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    StoreError::Refused {
                        state: State::Leased,
                        ..
                    }
                ),
                "{error}"
            );
            assert!(store.cancel(id).await.is_err());
            store
                .settle(id, leased.fence, settlement.clone(), Also::default())
                .await
                .unwrap();
            if cancel {
                assert_eq!(store.cancel(id).await.is_ok(), cancelled, "{settlement:?}");
                continue;
            }
            let before = store.entry(id).await.unwrap().unwrap().entry;
            match store.retry(id).await {
                Ok(entry) => {
                    assert!(retried, "{settlement:?}");
                    assert_eq!((entry.state, entry.reason), (State::Ready, None));
                    assert!(entry.since > before.since, "giving up is counted anew");
                    assert_eq!(claim_mail(&store).await.entry.id, id, "due at once");
                }
                Err(error) => {
                    assert!(!retried, "{error}");
                    assert_eq!(
                        error.to_string(),
                        format!("entry {id} is accepted and cannot be retried: it is done")
                    );
                }
            }
        }
    }
    assert!(matches!(
        store.retry(EntryId(999)).await,
        Err(StoreError::NoEntry(EntryId(999)))
    ));
    let id = store.admit_alone(mail("changed my mind")).await.unwrap().id;
    assert_eq!(store.cancel(id).await.unwrap().state, State::Cancelled);
    assert!(
        store
            .claim(entry::Kind::Mail, "office", 1, MINUTE)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.retry(id).await.unwrap().state, State::Ready);
}

async fn an_uncomposed_entry_is_removed_by_retry_and_its_event_dispatched_again(place: Place) {
    let store = place.open().await;
    let event = record_one(&store, schedule("a")).await;
    let entry = NewEntry {
        event: Some(event),
        effect: Vec::new(),
        body: Body::None,
        held: Some(Reason::new("the template asks for file.nmae")),
        ..mail("a/1")
    };
    let admission = |entry: NewEntry| Admission {
        event: Some(event),
        entries: vec![entry],
        verdicts: vec![],
        ..Admission::default()
    };
    let id = store.admit(vec![admission(entry.clone())]).await.unwrap()[0][0].id;
    let told = store.pending_events(9).await.unwrap();
    assert_eq!(told.len(), 1, "only the trouble waits, the event is dispatched");
    assert_eq!(told[0].happening.kind, Kind::Trouble);
    let removed = store.retry(id).await.unwrap();
    assert_eq!((removed.id, removed.state), (id, State::Held));
    assert_eq!(store.entry(id).await.unwrap(), None);
    assert_eq!(store.pending_events(9).await.unwrap()[0].id, event);
    // Mended meanwhile: the same key is free for the mail that can be composed now.
    let composed = NewEntry {
        effect: b"whole".to_vec(),
        held: None,
        ..entry
    };
    let admitted = store.admit(vec![admission(composed)]).await.unwrap()[0][0];
    assert!(admitted.fresh && admitted.id > id);
}

async fn an_entry_held_from_the_start_is_a_trouble_until_it_is_cancelled_or_made_anew(place: Place) {
    let store = place.open().await;
    let held = |key: &str, event| NewEntry {
        event: Some(event),
        effect: Vec::new(),
        body: Body::None,
        held: Some(Reason::new("no such attachment")),
        ..mail(key)
    };
    let admit = async |key: &str, event| {
        let admission = Admission {
            event: Some(event),
            entries: vec![held(key, event)],
            verdicts: vec![],
            ..Admission::default()
        };
        store.admit(vec![admission]).await.unwrap()[0][0].id
    };
    let event = record_one(&store, schedule("a")).await;
    let (first, second) = (admit("a/1", event).await, admit("a/2", event).await);
    let open = store.open_cases().await.unwrap();
    let keys: Vec<&str> = open.iter().map(|case| case.key.as_str()).collect();
    assert_eq!(keys, [format!("mail:{first}"), format!("mail:{second}")]);
    assert_eq!(open[0].reason.text, "no such attachment");
    // The key is taken: the same dispatch said again opens nothing.
    admit("a/1", event).await;
    assert_eq!(store.open_cases().await.unwrap(), open);
    store.cancel(first).await.unwrap();
    store.retry(second).await.unwrap();
    assert_eq!(store.open_cases().await.unwrap(), []);

    // The news of a trouble that cannot be told is no trouble of its own: that would never end.
    let news = record_one(&store, happened("t", Kind::Trouble, "office")).await;
    admit("t/1", news).await;
    assert_eq!(store.open_cases().await.unwrap(), []);
}

async fn an_uncomposed_entry_without_an_event_cannot_be_retried(place: Place) {
    let store = place.open().await;
    let entry = NewEntry {
        effect: Vec::new(),
        held: Some(Reason::new("no such attachment")),
        ..mail("a")
    };
    let id = store.admit_alone(entry).await.unwrap().id;
    assert!(matches!(store.retry(id).await, Err(StoreError::NotComposed(_))));
    assert_eq!(state(&store, id).await, State::Held);
}

fn spooled(store: &Store) -> usize {
    std::fs::read_dir(store.path().parent().unwrap().join("spool"))
        .unwrap()
        .count()
}

async fn large_bodies_live_in_the_spool_and_go_with_their_entry(place: Place) {
    let store = place.open().await;
    let large = vec![b'x'; INLINE_LIMIT + 1];
    let entry = NewEntry {
        body: Body::Inline(large.clone()),
        ..mail("a")
    };
    let id = store.admit_alone(entry).await.unwrap().id;
    let leased = claim_mail(&store).await;
    let Body::Spooled { name, len } = &leased.body else {
        panic!("{:?}", leased.body);
    };
    assert_eq!(*len, large.len() as u64);
    assert_eq!(std::fs::read(store.spool().path(name)).unwrap(), large);
    store
        .settle(id, leased.fence, done(), Also::default())
        .await
        .unwrap();
    assert_eq!(spooled(&store), 1, "kept until it is forgotten");
    assert_eq!(store.purge(Duration::ZERO).await.unwrap().entries, 1);
    assert_eq!(spooled(&store), 0);
}

async fn a_spooled_body_whose_key_was_taken_is_removed(place: Place) {
    let store = place.open().await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut spool_file = store.spool().create().unwrap();
        spool_file.write_all(b"body").unwrap();
        let body = spool_file.keep().unwrap();
        let Body::Spooled { name, .. } = &body else {
            panic!("{body:?}");
        };
        names.push(name.clone());
        let entry = NewEntry { body, ..mail("a") };
        let admitted = store.admit_alone(entry.clone()).await.unwrap();
        // The very same file offered again is still the first one's.
        assert_eq!(store.admit_alone(entry).await.unwrap().id, admitted.id);
    }
    assert!(store.spool().path(&names[0]).exists());
    assert!(!store.spool().path(&names[1]).exists());
}

async fn recover_sweeps_old_orphans_and_leaves_young_ones(place: Place) {
    let store = place.open().await;
    let keep = |text: &[u8]| {
        let mut spool_file = store.spool().create().unwrap();
        spool_file.write_all(text).unwrap();
        spool_file.keep().unwrap()
    };
    let (old, young, used) = (keep(b"old"), keep(b"young"), keep(b"used"));
    let name = |body: &Body| match body {
        Body::Spooled { name, .. } => store.spool().path(name),
        other => panic!("{other:?}"),
    };
    let entry = NewEntry {
        body: used.clone(),
        ..mail("a")
    };
    store.admit_alone(entry).await.unwrap();
    for body in [&old, &used] {
        let aged = std::time::SystemTime::now() - Duration::from_secs(7200);
        let opened = std::fs::File::options().write(true).open(name(body)).unwrap();
        opened.set_modified(aged).unwrap();
    }
    assert_eq!(store.recover(no_events).await.unwrap().orphans, 1);
    assert!(!name(&old).exists() && name(&young).exists() && name(&used).exists());
}

async fn lists_filter_and_page(place: Place) {
    let store = place.open().await;
    let event = record_one(&store, happened("a", Kind::FileArrives, "/srv/in/a.pdf")).await;
    record_one(&store, happened("b", Kind::Schedule, "nightly")).await;
    let entries = (0..5).map(|n| NewEntry {
        event: Some(event),
        rule: if n % 2 == 0 { "even" } else { "odd" }.to_owned(),
        ..mail(&format!("a/{n}"))
    });
    let admission = Admission {
        event: Some(event),
        entries: entries.chain([work("a/work")]).collect(),
        verdicts: vec![],
        ..Admission::default()
    };
    store.admit(vec![admission]).await.unwrap();
    let keys = |entries: Vec<Entry>| entries.into_iter().map(|e| e.key).collect::<Vec<_>>();
    let filter = EntryFilter {
        limit: 2,
        event: Some(event),
        ..EntryFilter::default()
    };
    let page = store.entries(filter.clone()).await.unwrap();
    let next = EntryFilter {
        before: Some(page[1].id),
        ..filter
    };
    assert_eq!(keys(page), ["a/4", "a/3"]);
    assert_eq!(keys(store.entries(next).await.unwrap()), ["a/2", "a/1"]);
    let odd = EntryFilter {
        rule: Some("odd".to_owned()),
        states: vec![State::Ready, State::Held],
        kind: Some(entry::Kind::Mail),
        lane: Some("office".to_owned()),
        ..EntryFilter::default()
    };
    assert_eq!(keys(store.entries(odd).await.unwrap()), ["a/3", "a/1"]);
    let held = EntryFilter {
        states: vec![State::Held],
        ..EntryFilter::default()
    };
    assert!(store.entries(held).await.unwrap().is_empty());
    let keys =
        |events: Vec<tidings::event::Event>| events.into_iter().map(|e| e.happening.key).collect::<Vec<_>>();
    assert_eq!(
        keys(store.events(EventFilter::default()).await.unwrap()),
        ["b", "a"]
    );
    let follow = EventFilter {
        after: Some(EventId(0)),
        ..EventFilter::default()
    };
    assert_eq!(keys(store.events(follow).await.unwrap()), ["a", "b"]);
    let pdf = EventFilter {
        subject: Some("a.pdf".to_owned()),
        kind: Some(Kind::FileArrives),
        source: Some("watch-1".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(keys(store.events(pdf).await.unwrap()), ["a"]);
}

async fn counts_and_lanes_follow_every_move(place: Place) {
    let store = place.open().await;
    for key in ["a", "b", "c"] {
        store.admit_alone(mail(key)).await.unwrap();
    }
    store.admit_alone(work("w")).await.unwrap();
    let lanes = store.lanes().await.unwrap();
    assert_eq!(
        lanes
            .iter()
            .map(|l| (l.lane.as_str(), l.waiting))
            .collect::<Vec<_>>(),
        [("office", 3), ("import", 1)]
    );
    assert!(lanes.iter().all(|lane| lane.due == long_ago()));
    let leased = claim_mail(&store).await;
    store
        .settle(leased.entry.id, leased.fence, done(), Also::default())
        .await
        .unwrap();
    claim_mail(&store).await;
    let counts = store.counts().await.unwrap();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [
            ((entry::Kind::Mail, State::Ready), 1),
            ((entry::Kind::Mail, State::Leased), 1),
            ((entry::Kind::Mail, State::Accepted), 1),
            ((entry::Kind::Work, State::Ready), 1),
        ]
    );
    store.purge(Duration::ZERO).await.unwrap();
    assert_eq!(store.counts().await.unwrap().len(), 3);
    assert_eq!(store.lanes().await.unwrap()[0].waiting, 1);
}

// ---- files ----

fn seen(watch: &str, relative: &str) -> SeenFile {
    SeenFile {
        watch: watch.to_owned(),
        root: PathBuf::from("/srv/in"),
        relative: PathBuf::from(relative),
        size: 7,
        mtime_ns: 1_700_000_000_000_000_001,
        hash: Some([7; 32]),
        arrivals: 1,
        gone: false,
    }
}

fn file(relative: &str) -> FileRef {
    FileRef {
        root: PathBuf::from("/srv/in"),
        relative: PathBuf::from(relative),
        size: 7,
        mtime_ns: 1_700_000_000_000_000_001,
    }
}

async fn seen_files_are_kept_by_the_bytes_of_their_path(place: Place) {
    let store = place.open().await;
    let odd = SeenFile {
        relative: not_utf8("x"),
        hash: None,
        ..seen("w", "")
    };
    let batch = |seen: Vec<SeenFile>| Batch {
        seen,
        ..Batch::default()
    };
    store
        .record(batch(vec![odd.clone(), seen("w", "x\u{fffd}\n"), seen("v", "x")]))
        .await
        .unwrap();
    let newer = SeenFile {
        size: 9,
        arrivals: 2,
        gone: true,
        ..odd.clone()
    };
    store.record(batch(vec![newer.clone()])).await.unwrap();
    let known = store.seen("w").await.unwrap();
    assert_eq!(known.len(), 2);
    assert!(known.contains(&newer) && known.contains(&seen("w", "x\u{fffd}\n")));
    // Known by its files, but its first look is not complete.
    assert!(store.watches().await.unwrap().iter().all(|watch| !watch.baseline));
}

async fn a_file_we_took_away_is_gone_in_every_watch_above_it_but_not_in_a_newer_version(place: Place) {
    let store = place.open().await;
    let newer = SeenFile {
        size: 8,
        ..seen("again", "sub/a")
    };
    let above = SeenFile {
        root: PathBuf::from("/srv"),
        ..seen("above", "in/sub/a")
    };
    let beside = SeenFile {
        root: PathBuf::from("/srv/in2"),
        ..seen("beside", "sub/a")
    };
    store
        .record(Batch {
            seen: vec![seen("w", "sub/a"), seen("w", "sub/b"), newer, above, beside],
            ..Batch::default()
        })
        .await
        .unwrap();
    store.admit_alone(work("move")).await.unwrap();
    let leased = claim_one(&store, entry::Kind::Work, "import").await;
    let also = Also {
        gone: vec![file("sub/a")],
        ..Also::default()
    };
    store
        .settle(leased.entry.id, leased.fence, done(), also)
        .await
        .unwrap();
    for (watch, relative, gone) in [
        ("w", "sub/a", true),
        ("w", "sub/b", false),
        ("again", "sub/a", false),
        ("above", "in/sub/a", true),
        ("beside", "sub/a", false),
    ] {
        let known = store.seen(watch).await.unwrap();
        let found = known
            .iter()
            .find(|f| f.relative == std::path::Path::new(relative))
            .unwrap();
        assert_eq!(found.gone, gone, "{watch} {relative}");
    }
}

// ---- cases, grants, marks ----

async fn an_open_case_is_told_again_once_for_each_tag_and_a_closed_one_never(place: Place) {
    let store = place.open().await;
    let case = |text: &str| NewCase {
        key: "account:office".to_owned(),
        kind: "account".to_owned(),
        subject: "office".to_owned(),
        reason: Reason::new(text),
    };
    let again = async |text: &str, tag: &str| store.tell_case(case(text), tag.to_owned()).await.unwrap();
    assert!(!again("nothing is open", "1").await);
    store.open_case(case("it ran out")).await.unwrap();
    assert!(again("since a day", "1").await);
    assert!(!again("since a day, said twice", "1").await);
    assert!(again("since two days", "2").await);
    let open = store.open_cases().await.unwrap();
    assert_eq!((open.len(), open[0].reason.text.as_str()), (1, "since two days"));
    let told = store.pending_events(9).await.unwrap();
    let texts: Vec<_> = told
        .iter()
        .map(|event| event.happening.facts["trouble"]["text"].clone())
        .collect();
    assert_eq!(texts, ["it ran out", "since a day", "since two days"]);
    assert!(
        told.iter()
            .all(|event| event.happening.facts["trouble"]["ended"].is_null() && !event.recovers)
    );
    store.close_case("account:office").await.unwrap();
    assert!(!again("it is over", "4").await);
    // A new case of the same key is told in its turn.
    store.open_case(case("and again")).await.unwrap();
    assert!(again("since a day, again", "1").await);
}

async fn a_case_is_opened_once_told_once_and_opened_again_after_it_closed(place: Place) {
    let store = place.open().await;
    let case = |text: &str| NewCase {
        key: "account:office".to_owned(),
        kind: "account".to_owned(),
        subject: "office".to_owned(),
        reason: Reason {
            reply: Some("AADSTS700082".to_owned()),
            steps: vec!["tidings auth login office".to_owned()],
            ..Reason::new(text)
        },
    };
    assert!(store.open_case(case("the sign-in ran out")).await.unwrap());
    assert!(!store.open_case(case("it still is")).await.unwrap());
    let open = store.open_cases().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].reason.text, "it still is");
    assert!(store.close_case("account:office").await.unwrap());
    assert!(!store.close_case("account:office").await.unwrap());
    assert!(store.open_cases().await.unwrap().is_empty());
    assert!(store.open_case(case("and again")).await.unwrap());
    let told = store.pending_events(9).await.unwrap();
    assert_eq!(told.len(), 3, "opened, over, opened");
    assert_eq!(open[0].event, Some(told[0].id));
    assert!(!told[0].recovers && told[1].recovers);
    let step = |event: &Event| event.happening.case.as_ref().map(|step| step.does);
    assert_eq!(
        told.iter().map(step).collect::<Vec<_>>(),
        [Some(Does::Opens), Some(Does::Closes), Some(Does::Opens)]
    );
    assert!(told[1].happening.facts["trouble"]["ended"].is_string());
    assert_eq!(
        told[0].happening.key,
        format!("trouble:account:office:{}", open[0].number)
    );
    assert_eq!(
        (told[0].happening.kind, told[0].happening.subject.as_str()),
        (Kind::Trouble, "office")
    );
    let facts = &told[0].happening.facts["trouble"];
    assert_eq!(facts["key"], json!("account:office"));
    assert_eq!(facts["kind"], json!("account"));
    assert_eq!(facts["text"], json!("the sign-in ran out (AADSTS700082)"));
    assert_eq!(facts["steps"], json!(["tidings auth login office"]));
    assert_eq!(facts["since"], json!(told[0].happening.time.to_string()));
}

async fn put_one(store: &Store, event: NewEvent) -> Recorded {
    store.record(events(vec![event])).await.unwrap().remove(0)
}

async fn an_event_opens_its_case_once_and_closes_it_once(place: Place) {
    let store = place.open().await;
    let step = |key: &str, does| NewEvent {
        case: Some(CaseStep {
            key: "file_missing:report:2026-03-02".to_owned(),
            does,
            text: "no report by 07:00".to_owned(),
        }),
        ..happened(key, Kind::FileMissing, "report-*.csv")
    };
    let closed = put_one(&store, step("too-early", Does::Closes)).await;
    assert_eq!((closed.id.0, closed.fresh), (0, false));
    let opened = put_one(&store, step("opened", Does::Opens)).await;
    assert!(opened.fresh);
    let again = put_one(&store, step("opened-too", Does::Opens)).await;
    assert_eq!((again.id, again.fresh), (opened.id, false));
    let case = store.open_cases().await.unwrap().remove(0);
    assert_eq!(
        (case.event, case.kind.as_str()),
        (Some(opened.id), "file_missing")
    );
    assert_eq!(case.reason.text, "no report by 07:00");
    assert!(put_one(&store, step("closed", Does::Closes)).await.fresh);
    assert!(!put_one(&store, step("closed-too", Does::Closes)).await.fresh);
    assert!(store.open_cases().await.unwrap().is_empty());
    let again = put_one(&store, step("opened", Does::Opens)).await;
    assert!(!again.fresh, "the same happening opens nothing anew");
    assert!(store.open_cases().await.unwrap().is_empty());
    let told = store.pending_events(9).await.unwrap();
    assert_eq!(told.len(), 2);
    assert!(!told[0].recovers && told[1].recovers);
}

async fn what_is_gathered_changes_with_its_admission_and_its_events_stay(place: Place) {
    let store = place.open().await;
    let one = record_one(&store, happened("one", Kind::FileArrives, "a")).await;
    let two = record_one(&store, happened("two", Kind::FileArrives, "b")).await;
    let due: Timestamp = "2026-01-01T06:00:00Z".parse().unwrap();
    let put = |events: Vec<EventId>, count: u64| {
        GatherStep::Put(
            Gathering {
                rule: "scans".to_owned(),
                key: "group:a".to_owned(),
                state: json!({ "count": count }),
                due: Some(due),
            },
            events,
        )
    };
    for (event, step) in [(one, put(vec![one], 1)), (two, put(vec![two], 2))] {
        let admission = Admission {
            event: Some(event),
            gathers: vec![step],
            ..Admission::default()
        };
        store.admit(vec![admission]).await.unwrap();
    }
    assert_eq!(store.next_gathering().await.unwrap(), Some(due));
    assert!(
        store
            .due_gatherings(Timestamp::UNIX_EPOCH, 9)
            .await
            .unwrap()
            .is_empty()
    );
    let found = store.due_gatherings(due, 9).await.unwrap();
    assert_eq!(found[0].state, json!({ "count": 2 }));
    let events = store.gathered("scans", "group:a", 9).await.unwrap();
    assert_eq!(
        events.iter().map(|event| event.id).collect::<Vec<_>>(),
        [one, two]
    );
    assert_eq!(store.purge(Duration::ZERO).await.unwrap().events, 0);
    let digest = NewEntry {
        event: Some(one),
        answers: vec![two],
        ..mail("digest")
    };
    let admission = Admission {
        entries: vec![digest],
        gathers: vec![GatherStep::End {
            rule: "scans".to_owned(),
            key: "group:a".to_owned(),
        }],
        ..Admission::default()
    };
    store.admit(vec![admission]).await.unwrap();
    assert_eq!(store.next_gathering().await.unwrap(), None);
    for event in [one, two] {
        let detail = store.event(event).await.unwrap().unwrap();
        assert_eq!(detail.entries.len(), 1, "each part leads to the digest");
    }
}

async fn what_is_only_right_while_a_case_is_open_is_cancelled_when_it_is_over(place: Place) {
    let store = place.open().await;
    let reminder = NewEntry {
        of_case: Some("file_missing:report:1".to_owned()),
        ..mail("reminder")
    };
    let id = store.admit_alone(reminder).await.unwrap().id;
    let other = store.admit_alone(mail("other")).await.unwrap().id;
    let admission = Admission {
        over: vec!["file_missing:report:1".to_owned()],
        ..Admission::default()
    };
    store.admit(vec![admission]).await.unwrap();
    let entry = store.entry(id).await.unwrap().unwrap().entry;
    assert_eq!(entry.state, State::Cancelled);
    assert!(entry.reason.unwrap().text.contains("over"));
    let other = store.entry(other).await.unwrap().unwrap().entry;
    assert_eq!(other.state, State::Ready);
}

async fn a_grant_is_compared_and_set(place: Place) {
    let store = place.open().await;
    assert_eq!(store.grant("office").await.unwrap(), None);
    let first = store.put_grant("office", None, b"one".to_vec()).await.unwrap();
    let other = place.open().await;
    let second = other
        .put_grant("office", Some(first), b"two".to_vec())
        .await
        .unwrap();
    for stale in [None, Some(first)] {
        let error = store
            .put_grant("office", stale, b"old".to_vec())
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Stale { .. }), "{error}");
        assert!(store.delete_grant("office", stale).await.is_err());
    }
    let grant = store.grant("office").await.unwrap().unwrap();
    assert_eq!((grant.version, grant.sealed), (second, b"two".to_vec()));
}

async fn a_deleted_grant_never_gives_its_version_to_another(place: Place) {
    let store = place.open().await;
    let first = store.put_grant("office", None, b"one".to_vec()).await.unwrap();
    store.delete_grant("office", Some(first)).await.unwrap();
    assert_eq!(store.grant("office").await.unwrap(), None);
    let next = store.put_grant("office", None, b"two".to_vec()).await.unwrap();
    assert!(next > first);
    // Who slept through all that does not overwrite the new sign-in with the old one's renewal.
    assert!(
        store
            .put_grant("office", Some(first), b"old".to_vec())
            .await
            .is_err()
    );
}

async fn a_mark_is_taken_away_with_the_event_that_ends_it(place: Place) {
    let store = place.open().await;
    let mark = |key: &str| (key.to_owned(), json!(1));
    store
        .set_marks(vec![mark("running:a"), mark("running:ab")])
        .await
        .unwrap();
    let batch = Batch {
        events: vec![schedule("a")],
        unmarked: vec!["running:a".to_owned(), "not there".to_owned()],
        ..Batch::default()
    };
    store.record(batch).await.unwrap();
    assert_eq!(store.marks("").await.unwrap(), [mark("running:ab")]);
}

async fn what_rules_emit_is_recorded_with_the_dispatch_of_its_cause(place: Place) {
    let store = place.open().await;
    let cause = record_one(&store, schedule("a")).await;
    let admission = Admission {
        event: Some(cause),
        events: vec![schedule("b"), schedule("c")],
        ..Admission::default()
    };
    store.admit(vec![admission.clone()]).await.unwrap();
    let keys = || async {
        let pending = store.pending_events(10).await.unwrap();
        pending
            .into_iter()
            .map(|event| event.happening.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys().await.len(), 2);
    store.admit(vec![admission]).await.unwrap();
    assert_eq!(keys().await.len(), 2, "said twice, taken once");
}

async fn what_came_of_a_trouble_through_rules_is_known_to(place: Place) {
    let store = place.open().await;
    let case = NewCase {
        key: "account:office".to_owned(),
        kind: "account".to_owned(),
        subject: "office".to_owned(),
        reason: Reason::new("revoked"),
    };
    store.open_case(case).await.unwrap();
    let trouble = store.pending_events(10).await.unwrap().remove(0).id;
    let of = |key: &str, origin: Option<EventId>| NewEvent {
        origin: origin.map(|event| Origin {
            rule: "r".to_owned(),
            event,
        }),
        ..schedule(key)
    };
    let emitted = record_one(&store, of("emitted", Some(trouble))).await;
    let again = record_one(&store, of("again", Some(emitted))).await;
    let other = record_one(&store, of("other", None)).await;
    for (event, expected) in [(trouble, true), (emitted, true), (again, true), (other, false)] {
        assert_eq!(store.is_of_a_trouble(event).await.unwrap(), expected);
    }
    let held = NewEntry {
        event: Some(again),
        held: Some(Reason::new("no")),
        ..mail("x")
    };
    store.admit_alone(held).await.unwrap();
    assert_eq!(
        store.open_cases().await.unwrap().len(),
        1,
        "it opens no case: that would be news again"
    );
}

async fn marks_are_set_read_and_deleted_by_prefix(place: Place) {
    let store = place.open().await;
    let mark = |key: &str, value: Value| (key.to_owned(), value);
    store
        .set_marks(vec![
            mark("slot:b", json!(2)),
            mark("slot:a", json!(1)),
            mark("slot;", json!(0)),
            mark("slo", json!(null)),
        ])
        .await
        .unwrap();
    store
        .set_marks(vec![mark("slot:b", json!({"x": [1]}))])
        .await
        .unwrap();
    assert_eq!(
        store.marks("slot:").await.unwrap(),
        [mark("slot:a", json!(1)), mark("slot:b", json!({"x": [1]}))]
    );
    store.delete_marks("slot:").await.unwrap();
    assert_eq!(
        store.marks("").await.unwrap(),
        [mark("slo", json!(null)), mark("slot;", json!(0))]
    );
}

// ---- together ----

async fn a_thousand_concurrent_records_are_all_there_after_reopening(place: Place) {
    let store = place.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let store = store.clone();
        tasks.spawn(async move { record_one(&store, schedule(&format!("key-{n}"))).await });
    }
    let ids: HashSet<EventId> = tasks.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1000);
    drop(store);
    let pending = place.open().await.pending_events(2000).await.unwrap();
    assert_eq!(pending.iter().map(|event| event.id).collect::<HashSet<_>>(), ids);
}

async fn a_refused_request_does_not_disturb_its_neighbours(place: Place) {
    let store = place.open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let store = store.clone();
        tasks.spawn(async move {
            if n % 3 == 0 {
                assert!(store.cancel(EntryId(-n)).await.is_err());
                // The last of its parts is refused, so none of them is there.
                let mut ghost = schedule(&format!("ghost-{n}"));
                ghost.origin = None;
                let also = Also {
                    events: vec![ghost],
                    ..Also::default()
                };
                assert!(store.settle(EntryId(-n), Fence(1), done(), also).await.is_err());
            } else {
                record_one(&store, schedule(&format!("key-{n}"))).await;
            }
        });
    }
    tasks.join_all().await;
    let pending = place.open().await.pending_events(999).await.unwrap();
    assert_eq!(pending.len(), 200);
}

async fn readers_are_served_while_a_writer_works(place: Place) {
    let store = place.open().await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..200 {
                store
                    .record(events((0..20).map(|m| schedule(&format!("{n}-{m}"))).collect()))
                    .await
                    .unwrap();
            }
        }
    });
    let other = place.open().await;
    let mut last = 0;
    while !writing.is_finished() {
        for store in [&store, &other] {
            let seen = store.pending_events(5000).await.unwrap().len();
            assert!(seen >= last, "what was seen once is seen again");
            assert_eq!(seen % 20, 0, "a batch is seen whole");
            last = seen;
        }
    }
    writing.await.unwrap();
    assert_eq!(other.pending_events(5000).await.unwrap().len(), 4000);
}

async fn two_handles_see_each_other_and_hear_of_it(place: Place) {
    let (here, there) = (place.open().await, place.open().await);
    here.foreign_change().await;
    let changes = here.changes();
    record_one(&here, schedule("mine")).await;
    assert!(changes.has_changed().unwrap());
    assert!(!here.foreign_change().await, "one's own write is no news");
    let mut changes = here.changes();
    changes.mark_unchanged();
    record_one(&there, schedule("theirs")).await;
    assert!(!changes.has_changed().unwrap());
    assert!(here.foreign_change().await);
    assert!(changes.has_changed().unwrap());
    assert!(!here.foreign_change().await, "told once");
    assert_eq!(here.pending_events(9).await.unwrap().len(), 2);
    // Both write at once; each waits for the other.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = if n % 2 == 0 { here.clone() } else { there.clone() };
        tasks.spawn(async move { record_one(&store, schedule(&format!("{n}"))).await });
    }
    assert_eq!(
        tasks.join_all().await.into_iter().collect::<HashSet<_>>().len(),
        100
    );
}

async fn changes_tick_when_something_became_due(place: Place) {
    let store = place.open().await;
    let mut changes = store.changes();
    let mut ticked = || {
        let ticked = changes.has_changed().unwrap();
        changes.mark_unchanged();
        ticked
    };
    record_one(&store, schedule("a")).await;
    assert!(ticked());
    record_one(&store, schedule("a")).await;
    assert!(!ticked(), "nothing new");
    let id = store.admit_alone(mail("a")).await.unwrap().id;
    assert!(ticked());
    let leased = claim_mail(&store).await;
    assert!(!ticked());
    store
        .settle(
            id,
            leased.fence,
            Settlement::Hold(Reason::new("why")),
            Also::default(),
        )
        .await
        .unwrap();
    assert!(!ticked());
    store.retry(id).await.unwrap();
    assert!(ticked());
    store.set_marks(vec![("x".to_owned(), json!(1))]).await.unwrap();
    assert!(!ticked());
}

// ---- forgetting ----

async fn purge_forgets_what_is_finished_and_old(place: Place) {
    let then = time("2026-05-01T12:00:00Z");
    let store = place.open_at(then).await;
    let mut ids = Vec::new();
    for key in ["sent", "waiting", "nobody"] {
        let event = record_one(&store, schedule(key)).await;
        let entries = if key == "nobody" {
            vec![]
        } else {
            vec![NewEntry {
                event: Some(event),
                lane: key.to_owned(),
                ..mail(key)
            }]
        };
        let admission = Admission {
            event: Some(event),
            entries,
            verdicts: vec![verdict("r", "fired")],
            ..Admission::default()
        };
        store.admit(vec![admission]).await.unwrap();
        ids.push(event);
    }
    ids.push(record_one(&store, schedule("not dispatched")).await);
    let leased = claim_one(&store, entry::Kind::Mail, "sent").await;
    store
        .settle(leased.entry.id, leased.fence, done(), Also::default())
        .await
        .unwrap();
    let gone = SeenFile {
        gone: true,
        ..seen("w", "gone")
    };
    store
        .record(Batch {
            seen: vec![gone, seen("w", "here")],
            ..Batch::default()
        })
        .await
        .unwrap();
    let day = Duration::from_secs(86_400);
    let store = place.open_at(then + SignedDuration::from_hours(23)).await;
    assert_eq!(store.purge(day).await.unwrap(), tidings::store::Purged::default());
    let store = place.open_at(then + SignedDuration::from_hours(25)).await;
    let purged = store.purge(day).await.unwrap();
    assert_eq!((purged.entries, purged.events, purged.seen), (1, 2, 1));
    let mut left = Vec::new();
    for id in ids {
        left.push(store.event(id).await.unwrap().is_some());
    }
    assert_eq!(left, [false, true, false, true]);
    assert_eq!(store.seen("w").await.unwrap(), [seen("w", "here")]);
}

async fn purge_keeps_the_memory_of_a_gone_file_while_an_event_of_it_is_left(place: Place) {
    let store = place.open().await;
    let mut event = happened("file:a:1", Kind::FileArrives, "/srv/in/a");
    event.file = Some(file("a"));
    let gone = SeenFile {
        gone: true,
        ..seen("watch-1", "a")
    };
    let batch = Batch {
        events: vec![event],
        seen: vec![gone],
        ..Batch::default()
    };
    let id = store.record(batch).await.unwrap()[0].id;
    // Its arrivals would be counted from the start, and the next one taken for this event.
    assert_eq!(store.purge(Duration::ZERO).await.unwrap().seen, 0);
    let admission = Admission {
        event: Some(id),
        entries: vec![],
        verdicts: vec![],
        ..Admission::default()
    };
    store.admit(vec![admission]).await.unwrap();
    let purged = store.purge(Duration::ZERO).await.unwrap();
    assert_eq!((purged.events, purged.seen), (1, 1));
}

async fn purge_keeps_a_sent_mail_while_its_event_may_be_dispatched_again(place: Place) {
    let store = place.open().await;
    let event = record_one(&store, schedule("a")).await;
    let sent = NewEntry {
        event: Some(event),
        ..mail("a/sent")
    };
    let uncomposed = NewEntry {
        key: "a/uncomposed".to_owned(),
        effect: Vec::new(),
        held: Some(Reason::new("the template asks for file.nmae")),
        ..sent.clone()
    };
    let admission = || Admission {
        event: Some(event),
        entries: vec![sent.clone(), uncomposed.clone()],
        verdicts: vec![],
        ..Admission::default()
    };
    let admitted = store.admit(vec![admission()]).await.unwrap();
    let leased = claim_mail(&store).await;
    store
        .settle(leased.entry.id, leased.fence, done(), Also::default())
        .await
        .unwrap();
    assert_eq!(store.purge(Duration::ZERO).await.unwrap().entries, 0);
    store.retry(admitted[0][1].id).await.unwrap();
    assert_eq!(store.purge(Duration::ZERO).await.unwrap().entries, 0);
    let again = store.admit(vec![admission()]).await.unwrap();
    assert!(!again[0][0].fresh, "it would be sent twice");
    store.cancel(again[0][1].id).await.unwrap();
    let purged = store.purge(Duration::ZERO).await.unwrap();
    assert_eq!((purged.entries, purged.events), (2, 1));
}

async fn events_are_found_by_rule_mails_by_message_id_and_a_file_by_its_name(place: Place) {
    let store = place.open().await;
    let (one, two) = (
        record_one(&store, schedule("a")).await,
        record_one(&store, schedule("b")).await,
    );
    let digest = NewEntry {
        event: Some(one),
        answers: vec![two],
        summary: json!({ "message_id": "1.tidings@example.org" }),
        ..mail("digest")
    };
    let verdict = |rule: &str, outcome: &str| RuleVerdict {
        rule: rule.to_owned(),
        outcome: outcome.to_owned(),
        detail: String::new(),
    };
    let first = Admission {
        event: Some(one),
        entries: vec![digest],
        verdicts: vec![verdict("mine", "fired"), verdict("other", "fired")],
        ..Admission::default()
    };
    let second = Admission {
        event: Some(two),
        verdicts: vec![verdict("other", "condition_false")],
        ..Admission::default()
    };
    let admitted = store.admit(vec![first, second]).await.unwrap();
    let of_rule = |rule: &str| EventFilter {
        rule: Some(rule.to_owned()),
        ..EventFilter::default()
    };
    let found = |events: Vec<Event>| events.iter().map(|event| event.id).collect::<Vec<_>>();
    assert_eq!(found(store.events(of_rule("mine")).await.unwrap()), [one]);
    assert_eq!(found(store.events(of_rule("other")).await.unwrap()), [two, one]);
    let said = store.said("other", Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(
        said.into_iter().collect::<Vec<_>>(),
        [("condition_false".to_owned(), 1), ("fired".to_owned(), 1)]
    );
    assert!(store.said("other", Timestamp::MAX).await.unwrap().is_empty());
    let by_id = |id: &str| EntryFilter {
        message_id: Some(id.to_owned()),
        ..EntryFilter::default()
    };
    let mails = store.entries(by_id("1.tidings@example.org")).await.unwrap();
    assert_eq!(mails.len(), 1);
    assert!(
        store
            .entries(by_id("2.tidings@example.org"))
            .await
            .unwrap()
            .is_empty()
    );
    let detail = store.entry(admitted[0][0].id).await.unwrap().unwrap();
    assert_eq!(detail.answers, [two]);
    let batch = Batch {
        seen: vec![seen("watch-1", "a"), seen("watch-1", "b")],
        ..Batch::default()
    };
    store.record(batch).await.unwrap();
    let known = store.seen_file("watch-1", "b".as_ref()).await.unwrap();
    assert_eq!(known, Some(seen("watch-1", "b")));
    assert_eq!(store.seen_file("watch-2", "b".as_ref()).await.unwrap(), None);
}

async fn a_digest_with_the_news_of_a_trouble_in_it_opens_no_case(place: Place) {
    let store = place.open().await;
    let trouble = record_one(&store, happened("trouble", Kind::Trouble, "office")).await;
    let by = |key: &str, event| {
        let mut event_of = happened(key, Kind::JobFails, "watchdog");
        event_of.origin = Some(tidings::event::Origin {
            rule: "watchdog".to_owned(),
            event,
        });
        event_of
    };
    let work = record_one(&store, by("work", trouble)).await;
    let later = record_one(&store, by("later", work)).await;
    let other = record_one(&store, schedule("a")).await;
    for (event, comes) in [(trouble, true), (work, true), (later, true), (other, false)] {
        assert_eq!(store.is_of_a_trouble(event).await.unwrap(), comes, "{event}");
    }
    let held = NewEntry {
        event: Some(other),
        answers: vec![later],
        held: Some(Reason::new("not composed")),
        ..mail("digest")
    };
    store.admit_alone(held).await.unwrap();
    assert!(
        store.open_cases().await.unwrap().is_empty(),
        "one of its parts is such news"
    );
}

async fn a_file_that_is_gone_is_told_once_and_never_what_our_own_work_took_or_may_take(place: Place) {
    let store = place.open().await;
    let mut came = happened("came", Kind::FileArrives, "/srv/in/a");
    came.file = Some(file("a"));
    let batch = Batch {
        events: vec![came],
        seen: vec![seen("w", "a"), seen("w", "b")],
        ..Batch::default()
    };
    let event = store.record(batch).await.unwrap()[0].id;
    let removal = |name: &str| Removal {
        file: seen("w", name),
        event: happened(&format!("removed:{name}"), Kind::FileRemoved, name),
    };
    let both = || vec![removal("a"), removal("b")];
    let entry = NewEntry {
        event: Some(event),
        ..work("move")
    };
    let admission = Admission {
        event: Some(event),
        entries: vec![entry],
        ..Admission::default()
    };
    store.admit(vec![admission]).await.unwrap();
    let first = store.record_removed(both()).await.unwrap();
    assert_eq!(first[0], Removed::InHand, "its work waits");
    assert!(matches!(first[1], Removed::Told(_)));
    let leased = claim_one(&store, entry::Kind::Work, "import").await;
    assert_eq!(
        store.record_removed(both()).await.unwrap(),
        [Removed::InHand, Removed::Known]
    );
    let also = Also {
        gone: vec![file("a")],
        ..Also::default()
    };
    store
        .settle(leased.entry.id, leased.fence, done(), also)
        .await
        .unwrap();
    assert_eq!(
        store.record_removed(both()).await.unwrap(),
        [Removed::Known, Removed::Known]
    );
    let told: Vec<String> = store
        .pending_events(9)
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.happening.key)
        .collect();
    assert_eq!(told, ["removed:b"]);
}
