//! Killed at any moment, the store keeps every word it gave: a child process records, admits and settles
//! and says on its standard output what was promised to it; it is killed, and the promises are checked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper that cannot go on says so by panicking"
)]

use jiff::Timestamp;
use serde_json::{Map, json};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tidings::clock::Clock;
use tidings::entry::{self, Body, Entry, NewEntry, OnUnknown, Reason, Settlement, State};
use tidings::event::{Kind, NewEvent};
use tidings::store::{Admission, Also, Batch, EntryFilter, EventFilter, Store};

/// Where the child finds the store; unset, it is no child.
const CHILD: &str = "TIDINGS_TEST_STORE";
const ROUNDS: usize = 12;
const CALLERS: usize = 8;

fn event(key: &str) -> NewEvent {
    NewEvent {
        key: key.to_owned(),
        kind: Kind::Schedule,
        source: "rule".to_owned(),
        subject: "nightly".to_owned(),
        time: Timestamp::now(),
        facts: Map::new(),
        file: None,
        origin: None,
        case: None,
    }
}

fn mail(key: &str, lane: &str) -> NewEntry {
    NewEntry {
        key: key.to_owned(),
        kind: entry::Kind::Mail,
        rule: "rule".to_owned(),
        event: None,
        lane: lane.to_owned(),
        effect: b"effect".to_vec(),
        body: Body::Inline(vec![b'x'; 2000]),
        summary: json!({}),
        on_unknown: OnUnknown::Hold,
        due: Timestamp::UNIX_EPOCH,
        held: None,
        answers: Vec::new(),
        of_case: None,
    }
}

fn none(_: &Entry, _: &[u8]) -> Vec<NewEvent> {
    Vec::new()
}

fn say(word: &str, key: &str) {
    // One write a line: a line is there whole or not at all.
    let _ = std::io::stdout().write_all(format!("{word} {key}\n").as_bytes());
}

#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move {
        let store = Store::open(Path::new(&path), Clock::system()).await.unwrap();
        let round = std::process::id();
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let store = store.clone();
            tasks.spawn(async move {
                let lane = format!("{round}-{caller}");
                for n in 0_u64.. {
                    let key = format!("{lane}-{n}");
                    let batch = Batch {
                        events: vec![event(&key)],
                        ..Batch::default()
                    };
                    let id = store.record(batch).await.unwrap()[0].id;
                    say("recorded", &key);
                    let admission = Admission {
                        event: Some(id),
                        entries: vec![mail(&key, &lane)],
                        verdicts: vec![],
                        ..Admission::default()
                    };
                    store.admit(vec![admission]).await.unwrap();
                    say("admitted", &key);
                    let leased = store
                        .claim(entry::Kind::Mail, &lane, 1, Duration::from_secs(60))
                        .await
                        .unwrap()
                        .remove(0);
                    store.gate(leased.entry.id, leased.fence).await.unwrap();
                    say("gated", &key);
                    let done = Settlement::Accept(Reason::new("250"));
                    store
                        .settle(leased.entry.id, leased.fence, done, Also::default())
                        .await
                        .unwrap();
                    say("accepted", &key);
                }
            });
        }
        tasks.join_all().await;
    });
}

/// Runs the child until it has made so many promises, kills it, and returns all it made.
fn promises(path: &Path, kill_after: usize) -> Vec<(String, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut made = Vec::new();
    for line in lines.map_while(Result::ok) {
        if let Some((word, key)) = line.split_once(' ')
            && ["recorded", "admitted", "gated", "accepted"].contains(&word)
        {
            made.push((word.to_owned(), key.to_owned()));
        }
        if made.len() == kill_after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(made.len() >= kill_after, "the child ended by itself: {made:?}");
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_made_before_a_kill_holds_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("state").join("tidings.db");
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        // Spread over the first few hundred, at places that differ with each run.
        let noise = usize::try_from(Timestamp::now().subsec_nanosecond()).unwrap() % 97;
        let at = path.clone();
        all.extend(
            tokio::task::spawn_blocking(move || promises(&at, 1 + round * 40 + noise))
                .await
                .unwrap(),
        );
        let store = Store::open(&path, Clock::system()).await.unwrap();
        let recovery = store.recover(none).await.unwrap();
        // At most what was in flight is in doubt.
        assert!(recovery.unknown.len() <= CALLERS, "{recovery:?}");
        assert!(recovery.resent.is_empty() && recovery.lost_work.is_empty());
        let every = EntryFilter {
            limit: usize::MAX,
            ..EntryFilter::default()
        };
        let states: HashMap<String, State> = store
            .entries(every)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| (entry.key, entry.state))
            .collect();
        let every = EventFilter {
            limit: usize::MAX,
            ..EventFilter::default()
        };
        let recorded: HashMap<String, ()> = store
            .events(every)
            .await
            .unwrap()
            .into_iter()
            .map(|event| (event.happening.key, ()))
            .collect();
        for (word, key) in &all {
            let state = states.get(key);
            let kept = match word.as_str() {
                "recorded" => recorded.contains_key(key),
                "admitted" => state.is_some(),
                // Never ready again: it may have been sent.
                "gated" => matches!(state, Some(State::Unknown | State::Accepted)),
                "accepted" => state == Some(&State::Accepted),
                _ => false,
            };
            assert!(kept, "round {round}: {key} was {word} and is {state:?}");
        }
    }
}
