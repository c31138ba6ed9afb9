//! Schedules in a real journal: each slot once, across restarts, clock steps and two processes.

#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests fails by panicking, as the tests do

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::event::{Event, Kind};
use tidings::source::schedule::{Missed, Schedule, ScheduleSource, ScheduleSpec};
use tidings::store::{EventFilter, Store};
use tokio_util::sync::CancellationToken;

fn cron(pattern: &str, missed: Missed) -> Schedule {
    Schedule::compile(&ScheduleSpec {
        cron: Some(pattern),
        every: None,
        timezone: TimeZone::get("Europe/Berlin").unwrap(),
        missed,
    })
    .unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn open(folder: &Path, now: Timestamp) -> Store {
    Store::open(&folder.join("state/tidings.db"), Clock::runtime(now))
        .await
        .unwrap()
}

async fn events(store: &Store) -> Vec<Event> {
    let filter = EventFilter {
        limit: 100_000,
        ..EventFilter::default()
    };
    let mut events = store.events(filter).await.unwrap();
    events.sort_by_key(|event| event.id);
    events
}

/// One `run --once` at that time: opens, looks, goes.
async fn look(folder: &Path, schedules: &[(&str, Schedule)], now: Timestamp) -> usize {
    let store = open(folder, now).await;
    let named = schedules
        .iter()
        .map(|(rule, schedule)| ((*rule).to_owned(), schedule.clone()))
        .collect();
    let (mut source, _handle) = ScheduleSource::new(named, store, Clock::runtime(now));
    source.look().await.unwrap()
}

#[tokio::test]
async fn a_slot_that_passed_while_nobody_ran_is_made_up_once() {
    let folder = tempfile::tempdir().unwrap();
    let nightly = [("nightly", cron("0 2 * * *", Missed::Once))];
    assert_eq!(look(folder.path(), &nightly, at("2026-05-01T10:00:00Z")).await, 0);
    assert_eq!(look(folder.path(), &nightly, at("2026-05-04T10:00:00Z")).await, 1);
    assert_eq!(look(folder.path(), &nightly, at("2026-05-04T10:00:01Z")).await, 0);
    let store = open(folder.path(), at("2026-05-04T11:00:00Z")).await;
    let events = events(&store).await;
    let event = &events[0].happening;
    assert_eq!(
        (event.kind, event.source.as_str(), event.subject.as_str()),
        (Kind::Schedule, "nightly", "nightly")
    );
    assert_eq!(event.key, "schedule:nightly:2026-05-04T00:00:00Z");
    assert_eq!(event.facts["schedule"]["due"], "2026-05-04T02:00:00+02:00");
    assert_eq!(event.facts["schedule"]["missed"], true);
    assert_eq!(event.facts["schedule"]["late"], 36_000);
}

#[tokio::test]
async fn each_slot_is_recorded_once_however_the_clock_steps() {
    let folder = tempfile::tempdir().unwrap();
    let all = [("tick", cron("*/10 * * * *", Missed::All))];
    // Forward, back by a second, an hour, a month, forward by 40 days, back again; each a restart.
    let times = [
        "2026-10-24T22:00:30Z",
        "2026-10-25T03:00:30Z",
        "2026-10-25T03:00:29Z",
        "2026-10-25T02:00:00Z",
        "2026-10-25T03:10:00Z",
        "2026-09-25T03:00:00Z",
        "2026-09-25T03:30:00Z",
        "2026-10-25T03:20:00Z",
        "2026-11-03T00:00:00Z",
        "2026-10-25T03:20:00Z",
        "2026-10-25T04:00:00Z",
    ];
    for time in times {
        look(folder.path(), &all, at(time)).await;
    }
    let store = open(folder.path(), at("2026-10-25T04:00:00Z")).await;
    let events = events(&store).await;
    let mut times: Vec<Timestamp> = events.iter().map(|event| event.happening.time).collect();
    let count = times.len();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), count);
    // None of the day is missing either, the doubled hour with both its halves.
    let mut slot = at("2026-10-24T22:10:00Z");
    while slot <= at("2026-10-25T04:00:00Z") {
        assert!(times.contains(&slot), "{slot}");
        slot += SignedDuration::from_mins(10);
    }
}

#[tokio::test]
async fn a_changed_schedule_begins_anew_and_one_that_stays_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (early, late) = (cron("0 2 * * *", Missed::Once), cron("0 3 * * *", Missed::Once));
    look(
        folder.path(),
        &[("a", early.clone()), ("b", early.clone())],
        at("2026-05-01T10:00:00Z"),
    )
    .await;
    let fresh = look(
        folder.path(),
        &[("a", early.clone()), ("b", late)],
        at("2026-05-02T10:00:00Z"),
    )
    .await;
    assert_eq!(fresh, 1);
    // `b` as it was before was forgotten: it owes nothing.
    let fresh = look(
        folder.path(),
        &[("a", early.clone()), ("b", early)],
        at("2026-05-02T10:00:01Z"),
    )
    .await;
    assert_eq!(fresh, 0);
}

#[tokio::test]
async fn the_loop_takes_slots_as_they_come_and_new_rules_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store = Store::open(&folder.path().join("state/tidings.db"), clock.clone())
        .await
        .unwrap();
    let (source, handle) = ScheduleSource::new(vec![], store.clone(), clock);
    let stop = CancellationToken::new();
    let running = tokio::spawn(source.run(stop.clone()));
    let mut changes = store.changes();
    handle.replace(vec![("tick".to_owned(), cron("* * * * * *", Missed::Skip))]);
    tokio::time::timeout(Duration::from_secs(20), async {
        while events(&store).await.len() < 2 {
            changes.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    stop.cancel();
    running.await.unwrap();
    for event in events(&store).await {
        assert_eq!(event.happening.facts["schedule"]["missed"], false);
        let late = event.recorded.duration_since(event.happening.time);
        assert!(late < SignedDuration::from_secs(10), "{late:?}");
    }
}

#[tokio::test]
async fn two_who_look_at_once_record_a_slot_once() {
    let folder = tempfile::tempdir().unwrap();
    let all = [("tick", cron("* * * * *", Missed::All))];
    look(folder.path(), &all, at("2026-05-01T10:00:30Z")).await;
    let later = at("2026-05-01T11:00:30Z");
    let (one, other) = tokio::join!(look(folder.path(), &all, later), look(folder.path(), &all, later));
    assert_eq!(one + other, 60);
}
