//! How a rule's mails are gathered before they leave: the dispatcher over a real store, on a virtual clock.

#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests fails by panicking, as the tests do

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::dispatch::{Dispatcher, Plan};
use tidings::entry::{Body, Entry, EntryId, Kind, State};
use tidings::event::{self, EventId, FileRef, NewEvent};
use tidings::pulse::Pulse;
use tidings::rule::index::Rules;
use tidings::rule::load;
use tidings::store::{Batch, EntryFilter, EventFilter, Store};
use tokio::sync::watch;

const SETTINGS: &str = "accounts:\n  out: { transport: file, folder: sent, user: robot@contoso.com }\n\
    recipients: { allow: [\"*@contoso.com\"] }\n";

struct House {
    dir: tempfile::TempDir,
    clock: Clock,
    store: Store,
    plan: watch::Sender<Arc<Plan>>,
    dispatcher: Dispatcher,
    files: u32,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn plan(dir: &Path) -> Arc<Plan> {
    let setup = load::setup(dir).unwrap_or_else(|problems| panic!("{problems:#?}"));
    Arc::new(Plan {
        rules: Rules::new(setup.rules),
        settings: setup.settings,
        templates: setup.templates,
        host: "host".to_owned(),
        watches: setup
            .watches
            .iter()
            .map(|watch| (watch.id.clone(), watch.root.clone()))
            .collect(),
    })
}

impl House {
    async fn new(now: &str, rules: &str) -> House {
        House::with(now, SETTINGS, rules).await
    }

    async fn with(now: &str, settings: &str, rules: &str) -> House {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("drop/a")).unwrap();
        std::fs::create_dir_all(dir.path().join("drop/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("rules")).unwrap();
        write(dir.path(), settings, rules);
        let clock = Clock::runtime(at(now));
        let store = Store::open(&dir.path().join("state/tidings.db"), clock.clone())
            .await
            .unwrap();
        let (plan, seen) = watch::channel(plan(dir.path()));
        let dispatcher = Dispatcher::new(store.clone(), seen, clock.clone(), Pulse::new("dispatch"));
        House {
            dir,
            clock,
            store,
            plan,
            dispatcher,
            files: 0,
        }
    }

    /// The process is gone and another one begins, at the same time.
    async fn restart(self) -> House {
        let House {
            dir, clock, files, ..
        } = self;
        let clock = Clock::runtime(clock.now());
        let store = Store::open(&dir.path().join("state/tidings.db"), clock.clone())
            .await
            .unwrap();
        let (plan, seen) = watch::channel(plan(dir.path()));
        let dispatcher = Dispatcher::new(store.clone(), seen, clock.clone(), Pulse::new("dispatch"));
        House {
            dir,
            clock,
            store,
            plan,
            dispatcher,
            files,
        }
    }

    fn reload(&self, settings: &str, rules: &str) {
        write(self.dir.path(), settings, rules);
        self.plan.send_replace(plan(self.dir.path()));
    }

    /// Lets time pass, and what is due be told.
    async fn pass(&self, time: &str) {
        let time: SignedDuration = time.parse().unwrap();
        tokio::time::advance(Duration::try_from(time).unwrap()).await;
        self.dispatcher.drain().await.unwrap();
    }

    async fn pass_until(&self, time: &str) {
        let left = self.clock.until(at(time));
        tokio::time::advance(left).await;
        self.dispatcher.drain().await.unwrap();
    }

    async fn record(&self, event: NewEvent) -> EventId {
        let batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        self.store.record(batch).await.unwrap()[0].id
    }

    /// A file comes; nobody has looked at it yet.
    async fn comes(&mut self, name: &str) -> EventId {
        self.files += 1;
        let root = self.dir.path().join("drop");
        let path = root.join(name);
        std::fs::write(&path, format!("content {}", self.files)).unwrap();
        let about = std::fs::metadata(&path).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let file = FileRef {
            root: root.clone(),
            relative: name.into(),
            size: about.len(),
            mtime_ns: about.mtime() * 1_000_000_000 + about.mtime_nsec(),
        };
        let source = self.plan.borrow().watches.first().map(|(id, _)| id.clone());
        let source = source.unwrap_or_default();
        let facts = json!({ "file": file.facts() });
        self.record(NewEvent {
            key: format!("file:{name}:{}:{source}", self.files),
            kind: event::Kind::FileArrives,
            source,
            subject: name.to_owned(),
            time: self.clock.now(),
            facts: facts.as_object().cloned().unwrap(),
            file: Some(file),
            origin: None,
            case: None,
        })
        .await
    }

    /// A file comes and the rules are asked.
    async fn file(&mut self, name: &str) -> EventId {
        let id = self.comes(name).await;
        self.dispatcher.drain().await.unwrap();
        id
    }

    /// A job ends.
    async fn job(&mut self, name: &str, ok: bool) -> EventId {
        self.files += 1;
        let job = json!({ "job": {
            "name": name, "ok": ok, "exit_code": i32::from(!ok), "signal": null, "duration": 1.0, "attempt": 1,
            "timed_out": false, "lost": false, "skipped": false, "summary": "ended", "output_tail": "",
            "output_incomplete": false, "log": null, "started": "", "ended": "", "command": "", "entry": null,
        }});
        let id = self
            .record(NewEvent {
                key: format!("job:{name}:{}", self.files),
                kind: if ok {
                    event::Kind::JobSucceeds
                } else {
                    event::Kind::JobFails
                },
                source: String::new(),
                subject: name.to_owned(),
                time: self.clock.now(),
                facts: job.as_object().cloned().unwrap(),
                file: None,
                origin: None,
                case: None,
            })
            .await;
        self.dispatcher.drain().await.unwrap();
        id
    }

    /// Mails, the oldest first.
    async fn mails(&self) -> Vec<Entry> {
        let filter = EntryFilter {
            kind: Some(Kind::Mail),
            limit: 10_000,
            ..EntryFilter::default()
        };
        let mut mails = self.store.entries(filter).await.unwrap();
        mails.sort_by_key(|mail| mail.id);
        mails
    }

    async fn subjects(&self) -> Vec<String> {
        let subject = |mail: Entry| mail.summary["subject"].as_str().unwrap_or_default().to_owned();
        self.mails().await.into_iter().map(subject).collect()
    }

    /// The whole message, soft line ends taken out.
    async fn message(&self, id: EntryId) -> String {
        match self.store.entry(id).await.unwrap().unwrap().body {
            Body::Inline(bytes) => String::from_utf8(bytes).unwrap().replace("=\r\n", ""),
            other => panic!("{other:?}"),
        }
    }

    async fn verdict(&self, event: EventId) -> (String, String) {
        let detail = self.store.event(event).await.unwrap().unwrap();
        let verdict = detail.verdicts.first().unwrap();
        (verdict.outcome.clone(), verdict.detail.clone())
    }

    /// Keys of the entries that answer an event.
    async fn answers(&self, event: EventId) -> Vec<EntryId> {
        let detail = self.store.event(event).await.unwrap().unwrap();
        detail.entries.iter().map(|entry| entry.id).collect()
    }
}

fn write(dir: &Path, settings: &str, rules: &str) {
    std::fs::write(dir.join("tidings.yaml"), settings).unwrap();
    std::fs::write(dir.join("rules/test.yaml"), rules).unwrap();
}

const SCANS: &str = "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    \
    group: { by: \"{{file.folder_name}}\", wait: 5m, max: 3 }\n    \
    mail: { to: archive@contoso.com, template: digest, attach: \"{{file.path}}\" }\n";

#[tokio::test(start_paused = true)]
async fn many_events_make_one_mail_a_while_after_the_first() {
    let mut house = House::new("2026-03-02T09:42:00Z", SCANS).await;
    let first = house.file("a/1.pdf").await;
    house.pass("4m").await;
    let second = house.file("a/2.pdf").await;
    assert!(house.mails().await.is_empty());
    let (outcome, detail) = house.verdict(second).await;
    assert_eq!(outcome, "grouped");
    assert!(detail.starts_with("joined the digest of a, due "), "{detail}");
    house.pass("59s").await;
    assert!(house.mails().await.is_empty());
    house.pass("1s").await;
    let mails = house.mails().await;
    assert_eq!(house.subjects().await, ["scans: 2 events, a"]);
    assert_eq!(mails[0].summary["attachments"].as_array().unwrap().len(), 2);
    assert_eq!(mails[0].event, Some(second));
    for event in [first, second] {
        assert_eq!(house.answers(event).await, [mails[0].id]);
    }
    let message = house.message(mails[0].id).await;
    assert!(
        message.contains("a/1.pdf") && message.contains("a/2.pdf"),
        "{message}"
    );
    assert!(house.store.gatherings(None).await.unwrap().is_empty());
    // Nothing is told again, and what comes now is another one.
    house.file("a/3.pdf").await;
    house.pass("5m").await;
    assert_eq!(house.subjects().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_full_is_told_at_once_also_within_one_round() {
    let mut house = House::new("2026-03-02T09:42:00Z", SCANS).await;
    for number in 0..7 {
        house.comes(&format!("a/{number}.pdf")).await;
    }
    house.comes("b/other.pdf").await;
    house.dispatcher.drain().await.unwrap();
    assert_eq!(
        house.subjects().await,
        ["scans: 3 events, a", "scans: 3 events, a"]
    );
    house.pass("5m").await;
    let mut subjects = house.subjects().await.split_off(2);
    subjects.sort();
    assert_eq!(subjects, ["scans: 1 event, a", "scans: 1 event, b"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_may_be_told_at_times_of_day() {
    let rules = "rules:\n  reports:\n    when: { file_arrives: { in: drop } }\n    \
        group: { at: [\"09:00\", \"17:00\"], timezone: Europe/Berlin }\n    \
        mail: { to: ops@contoso.com, template: digest }\n";
    let mut house = House::new("2026-03-28T16:30:00+01:00", rules).await;
    house.file("a/1").await;
    house.pass_until("2026-03-28T17:00:00+01:00").await;
    assert_eq!(house.mails().await.len(), 1);
    house.file("a/2").await;
    // The clocks change in this night: 09:00 is an hour nearer.
    house.pass_until("2026-03-29T08:59:59+02:00").await;
    assert_eq!(house.mails().await.len(), 1);
    house.pass_until("2026-03-29T09:00:00+02:00").await;
    assert_eq!(house.mails().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_goes_to_everybody_and_says_which_file_is_gone() {
    let rules = "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    group: { wait: 5m }\n    \
        mail: { to: \"{{file.folder_name}}@contoso.com\", template: digest, attach: \"{{file.path}}\" }\n";
    let mut house = House::new("2026-03-02T09:42:00Z", rules).await;
    for name in ["a/1.pdf", "b/2.pdf", "a/3.pdf"] {
        house.file(name).await;
    }
    std::fs::remove_file(house.dir.path().join("drop/a/1.pdf")).unwrap();
    house.pass("5m").await;
    let mail = &house.mails().await[0];
    assert_eq!(mail.state, State::Ready, "{mail:?}");
    assert_eq!(mail.summary["to"], json!(["a@contoso.com", "b@contoso.com"]));
    assert_eq!(mail.summary["attachments"].as_array().unwrap().len(), 2);
    assert_eq!(mail.summary["omitted"][0]["name"], "1.pdf");
    assert_eq!(mail.summary["about"], "3 events");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_empty_holds_the_mail_and_a_retry_asks_again() {
    let rules = "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    \
        group: { by: \"{{file.extension}}\", wait: 5m }\n    mail: { to: ops@contoso.com, template: digest }\n";
    let mut house = House::new("2026-03-02T09:42:00Z", rules).await;
    let event = house.file("a/nothing").await;
    let mail = house.mails().await.remove(0);
    assert_eq!(mail.state, State::Held);
    let reason = mail.reason.unwrap().text;
    assert!(
        reason.contains("{{file.extension}}") && reason.contains("gave nothing"),
        "{reason}"
    );
    assert_eq!(house.verdict(event).await.0, "failed");
    house.reload(
        SETTINGS,
        &rules.replace("{{file.extension}}", "{{file.folder_name}}"),
    );
    house.store.retry(mail.id).await.unwrap();
    house.pass("1s").await;
    assert_eq!(house.verdict(event).await.0, "grouped");
    house.pass("5m").await;
    assert_eq!(house.subjects().await, ["scans: 1 event, a"]);
}

const BILLING: &str = "rules:\n  billing:\n    when: { job_fails: { job: \"billing-*\" } }\n    \
    throttle: { at_most: 1, per: 1h, by: \"{{job.name}}\" }\n    mail: { to: ops@contoso.com, template: job-failed }\n";

#[tokio::test(start_paused = true)]
async fn what_is_throttled_is_counted_and_told_by_the_next_mail() {
    let mut house = House::new("2026-03-02T09:42:00Z", BILLING).await;
    house.job("billing-a", false).await;
    for _ in 0..3 {
        house.pass("10m").await;
        let event = house.job("billing-a", false).await;
        assert_eq!(house.verdict(event).await.0, "throttled");
    }
    let last = house.job("billing-a", false).await;
    let (_, detail) = house.verdict(last).await;
    assert!(
        detail.starts_with("1 mail in 1h was enough for billing-a; counted, 4 so far"),
        "{detail}"
    );
    house.job("billing-b", false).await;
    assert_eq!(house.mails().await.len(), 2);
    let mut house = house.restart().await;
    house.pass("30m").await;
    house.job("billing-a", false).await;
    let mails = house.mails().await;
    assert_eq!(mails.len(), 3);
    let message = house.message(mails[2].id).await;
    assert!(message.contains("4 more like this since 2026-03-02"), "{message}");
    assert!(!house.message(mails[0].id).await.contains("more like this"));
    // And what was told is not told again.
    house.pass("1h").await;
    house.job("billing-a", false).await;
    assert!(
        !house
            .message(house.mails().await[3].id)
            .await
            .contains("more like this")
    );
}

const NIGHT: &str = "rules:\n  night:\n    when: { job_fails: { job: \"*\" } }\n    \
    quiet_hours: { from: \"20:00\", to: \"07:00\", timezone: Europe/Berlin }\n    \
    mail: { to: ops@contoso.com, template: job-failed }\n";

#[tokio::test(start_paused = true)]
async fn quiet_hours_end_by_the_wall_clock_in_the_short_and_in_the_long_night() {
    for (evening, almost, morning) in [
        (
            "2026-03-28T21:00:00+01:00",
            "2026-03-29T06:59:59+02:00",
            "2026-03-29T07:00:00+02:00",
        ),
        (
            "2026-10-24T21:00:00+02:00",
            "2026-10-25T06:59:59+01:00",
            "2026-10-25T07:00:00+01:00",
        ),
    ] {
        let mut house = House::new(evening, NIGHT).await;
        let first = house.job("one", false).await;
        house.pass("5h30m").await;
        let second = house.job("two", false).await;
        assert_eq!(house.verdict(second).await.0, "quiet");
        house.pass_until(almost).await;
        assert!(house.mails().await.is_empty(), "{almost}");
        house.pass_until(morning).await;
        let mails = house.mails().await;
        assert_eq!(house.subjects().await, ["night: 2 events"]);
        for event in [first, second] {
            assert_eq!(house.answers(event).await, [mails[0].id]);
        }
        let message = house.message(mails[0].id).await;
        assert!(
            message.contains("one: ended") && message.contains("two: ended"),
            "{message}"
        );
        house.job("three", false).await;
        assert_eq!(house.subjects().await[1], "Failed: three on host");
    }
}

#[tokio::test(start_paused = true)]
async fn one_event_in_quiet_hours_is_told_by_the_rules_own_mail() {
    let mut house = House::new("2026-03-02T23:00:00+01:00", NIGHT).await;
    house.job("one", false).await;
    let house = house.restart().await;
    house.pass_until("2026-03-03T07:00:00+01:00").await;
    assert_eq!(house.subjects().await, ["Failed: one on host"]);
}

#[tokio::test(start_paused = true)]
async fn groups_of_a_night_are_one_digest_in_the_morning() {
    let rules = SCANS.replace(
        "    mail:",
        "    quiet_hours: { from: \"20:00\", to: \"07:00\", timezone: UTC }\n    mail:",
    );
    let mut house = House::new("2026-03-02T23:00:00Z", &rules).await;
    for name in ["a/1", "b/2"] {
        house.file(name).await;
    }
    house.pass("1h").await;
    house.file("a/3").await;
    let house = house.restart().await;
    house.pass_until("2026-03-03T06:59:59Z").await;
    assert!(house.mails().await.is_empty());
    house.pass_until("2026-03-03T07:00:00Z").await;
    assert_eq!(house.subjects().await, ["scans: 3 events"]);
    assert!(house.store.gatherings(None).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn work_is_not_delayed_and_neither_is_it_throttled() {
    let rules = "rules:\n  orders:\n    when: { file_arrives: { in: drop } }\n    copy: archive/\n    \
        throttle: { at_most: 1, per: 1h }\n    quiet_hours: { from: \"20:00\", to: \"07:00\", timezone: UTC }\n    \
        mail: { to: ops@contoso.com }\n";
    let mut house = House::new("2026-03-02T23:00:00Z", rules).await;
    house.file("a/1").await;
    house.file("a/2").await;
    let filter = EntryFilter {
        kind: Some(Kind::Work),
        ..EntryFilter::default()
    };
    assert_eq!(house.store.entries(filter).await.unwrap().len(), 2);
}

fn limits(words: &str) -> String {
    format!("{SETTINGS}limits: {words}\n")
}

const PLAIN: &str = "rules:\n  wild:\n    when: { job_fails: { job: \"*\" } }\n    mail: { to: ops@contoso.com }\n  \
    told:\n    when: { trouble: { of: rule } }\n    mail: { to: it@contoso.com, template: trouble }\n";

#[tokio::test(start_paused = true)]
async fn past_the_fuse_mails_are_held_and_one_trouble_tells() {
    let settings = limits("{ mails_per_rule_per_hour: 3, then: hold }");
    let mut house = House::with("2026-03-02T09:00:00Z", &settings, PLAIN).await;
    for _ in 0..5 {
        house.job("x", false).await;
    }
    let mut house = house.restart().await;
    let event = house.job("x", false).await;
    assert_eq!(house.verdict(event).await.0, "fuse");
    let mails = house.mails().await;
    let of = |rule: &str, state| {
        mails
            .iter()
            .filter(|mail| mail.rule == rule && mail.state == state)
            .count()
    };
    assert_eq!((of("wild", State::Ready), of("wild", State::Held)), (3, 3));
    assert_eq!((of("told", State::Ready), of("told", State::Held)), (1, 0));
    let cases = house.store.open_cases().await.unwrap();
    let keys: Vec<&str> = cases.iter().map(|case| case.key.as_str()).collect();
    assert_eq!(keys, ["fuse:wild"]);
    let held = mails.iter().find(|mail| mail.state == State::Held).unwrap();
    let reason = &held.reason.as_ref().unwrap().text;
    assert!(
        reason.contains("rule `wild` has sent 3 mails within an hour"),
        "{reason}"
    );
    // It is whole, and goes when a person says so.
    assert_eq!(house.store.retry(held.id).await.unwrap().state, State::Ready);
    house.pass("59m").await;
    assert_eq!(house.store.open_cases().await.unwrap().len(), 1);
    house.pass("1m").await;
    assert!(house.store.open_cases().await.unwrap().is_empty());
    house.job("x", false).await;
    assert_eq!(house.mails().await.last().unwrap().state, State::Ready);
}

#[tokio::test(start_paused = true)]
async fn the_news_of_troubles_has_a_fuse_and_makes_no_trouble() {
    let rules =
        "rules:\n  told:\n    when: { trouble: { of: [rule, mail] } }\n    mail: { to: it@contoso.com }\n";
    let settings = limits("{ mails_per_rule_per_hour: 2 }");
    let house = House::with("2026-03-02T09:00:00Z", &settings, rules).await;
    for number in 0..5 {
        house
            .store
            .open_case(tidings::store::NewCase {
                key: format!("rule:{number}"),
                kind: "rule".to_owned(),
                subject: "x".to_owned(),
                reason: tidings::entry::Reason::new("bad"),
            })
            .await
            .unwrap();
        house.dispatcher.drain().await.unwrap();
    }
    let held = house
        .mails()
        .await
        .iter()
        .filter(|mail| mail.state == State::Held)
        .count();
    assert_eq!(held, 3);
    assert_eq!(house.store.open_cases().await.unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn past_the_fuse_mails_may_become_one_summary() {
    let settings = limits("{ mails_per_rule_per_hour: 3, then: summary }");
    let mut house = House::with("2026-03-02T09:00:00Z", &settings, PLAIN).await;
    let mut events = Vec::new();
    for _ in 0..10 {
        events.push(house.job("x", false).await);
    }
    assert_eq!(house.mails().await.len(), 3);
    assert_eq!(house.verdict(events[9]).await.0, "summary");
    let mut house = house.restart().await;
    house.pass("59m").await;
    house.job("x", false).await;
    assert_eq!(house.mails().await.len(), 3);
    house.pass("1m").await;
    assert_eq!(house.subjects().await.split_off(3), ["wild: 8 events"]);
    assert!(house.store.open_cases().await.unwrap().is_empty());
    house.job("x", false).await;
    assert_eq!(house.mails().await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_a_fuse_nothing_is_held() {
    let mut house = House::with("2026-03-02T09:00:00Z", &limits("none"), PLAIN).await;
    for _ in 0..5 {
        house.job("x", false).await;
    }
    assert!(house.mails().await.iter().all(|mail| mail.state == State::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_gone_leaves_nothing_untold() {
    for rules in [
        // Gone; without its group; without its mail.
        "rules:\n  other:\n    when: { job_fails: { job: x } }\n    mail: { to: ops@contoso.com }\n",
        "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    mail: { to: archive@contoso.com }\n",
        "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    move: done/\n",
    ] {
        let mut house = House::new("2026-03-02T09:42:00Z", SCANS).await;
        let first = house.file("a/1.pdf").await;
        let second = house.file("a/2.pdf").await;
        house.reload(SETTINGS, rules);
        house.dispatcher.drain().await.unwrap();
        let mails = house.mails().await;
        assert_eq!(house.subjects().await, ["scans: 2 events, a"], "{rules}");
        assert_eq!(mails[0].state, State::Ready);
        assert_eq!(mails[0].summary["to"], json!(["archive@contoso.com"]));
        for event in [first, second] {
            assert_eq!(house.answers(event).await, [mails[0].id]);
        }
        assert!(house.store.gatherings(None).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_cannot_be_composed_is_made_again_with_all_its_events() {
    let rules = "rules:\n  scans:\n    when: { file_arrives: { in: drop } }\n    group: { wait: 5m }\n    \
        mail: { to: \"{{file.stem}}@contoso.com\", template: digest }\n";
    let narrow = SETTINGS.replace("*@contoso.com", "a*@contoso.com");
    let mut house = House::with("2026-03-02T09:42:00Z", &narrow, rules).await;
    let events = [
        house.file("a/ada.pdf").await,
        house.file("a/bob.pdf").await,
        house.file("a/alan.pdf").await,
    ];
    house.pass("5m").await;
    let held = house.mails().await.remove(0);
    assert_eq!(held.state, State::Held);
    for event in events {
        assert_eq!(house.answers(event).await, [held.id]);
    }
    // Too early: it is held again, with all of them.
    house.store.retry(held.id).await.unwrap();
    house.pass("1s").await;
    let again = house.mails().await.remove(0);
    assert_eq!((again.state, again.key), (State::Held, held.key));
    let mut house = house.restart().await;
    house.reload(SETTINGS, rules);
    house.store.retry(again.id).await.unwrap();
    house.pass("1s").await;
    let mails = house.mails().await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].state, State::Ready);
    assert_eq!(
        mails[0].summary["to"],
        json!(["ada@contoso.com", "bob@contoso.com", "alan@contoso.com"])
    );
    for event in events {
        assert_eq!(house.answers(event).await, [mails[0].id]);
    }
    assert!(house.store.open_cases().await.unwrap().is_empty());
    assert!(house.store.gatherings(None).await.unwrap().is_empty());
    house.file("a/anna.pdf").await;
    house.pass("5m").await;
    assert_eq!(house.mails().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_dispatched_again_is_not_told_twice() {
    let rules = "rules:\n  grouped:\n    when: { job_fails: { job: \"*\" } }\n    group: { wait: 5m }\n    \
        mail: { to: ops@contoso.com, template: digest }\n  \
        throttled:\n    when: { job_fails: { job: \"*\" } }\n    throttle: { at_most: 1, per: 1d }\n    \
        mail: { to: ops@contoso.com }\n  \
        broken:\n    when: { job_fails: { job: \"*\" } }\n    mail: { to: \"{{job.name}}@contoso.com\" }\n";
    let narrow = SETTINGS.replace("*@contoso.com", "ops@contoso.com");
    let mut house = House::with("2026-03-02T09:42:00Z", &narrow, rules).await;
    // Before its group is told, and after.
    for (job, early) in [("one", true), ("two", false)] {
        house.job(job, false).await;
        let broken = |mails: Vec<Entry>| mails.into_iter().find(|mail| mail.state == State::Held).unwrap();
        if !early {
            house.pass("5m").await;
        }
        let held = broken(house.mails().await);
        assert_eq!(held.rule, "broken");
        house.store.retry(held.id).await.unwrap();
        house.pass("1s").await;
        house.pass("5m").await;
        let held = broken(house.mails().await);
        house.store.cancel(held.id).await.unwrap();
    }
    let mails = house.mails().await;
    let of = |rule: &str| mails.iter().filter(|mail| mail.rule == rule).count();
    assert_eq!((of("grouped"), of("throttled")), (2, 1));
    let throttle = house.store.gatherings(Some("throttled")).await.unwrap();
    assert_eq!(throttle[0].state["folded"]["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_two_watches_noticed_is_gathered_once() {
    // In one round, and in two.
    for at_once in [true, false] {
        let mut house = House::new("2026-03-02T09:42:00Z", SCANS).await;
        let id = house.comes("a/1.pdf").await;
        if !at_once {
            house.dispatcher.drain().await.unwrap();
        }
        let event = house.store.event(id).await.unwrap().unwrap().event.happening;
        // As an older setup's watch of the same folder had it.
        let arrival = event.asked().to_owned();
        house
            .record(NewEvent {
                key: format!("{arrival}:older"),
                source: "older".to_owned(),
                ..event
            })
            .await;
        house.dispatcher.drain().await.unwrap();
        house.pass("5m").await;
        assert_eq!(house.subjects().await, ["scans: 1 event, a"], "{at_once}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_events_than_a_mail_can_tell_make_several_and_none_is_lost() {
    let mut house = House::new("2026-03-02T23:00:00+01:00", NIGHT).await;
    let now = house.clock.now();
    let events = (0..1001).map(|number| NewEvent {
        key: format!("job:{number}"),
        kind: event::Kind::JobFails,
        source: String::new(),
        subject: "x".to_owned(),
        time: now,
        facts: json!({ "job": { "name": "x", "summary": "ended" } })
            .as_object()
            .cloned()
            .unwrap(),
        file: None,
        origin: None,
        case: None,
    });
    let batch = Batch {
        events: events.collect(),
        ..Batch::default()
    };
    house.store.record(batch).await.unwrap();
    house.dispatcher.drain().await.unwrap();
    house.job("y", false).await;
    house.pass_until("2026-03-03T07:00:00+01:00").await;
    assert_eq!(house.subjects().await, ["night: 1000 events", "night: 2 events"]);
    let filter = EventFilter {
        limit: 2000,
        ..EventFilter::default()
    };
    let mut told = 0;
    for event in house.store.events(filter).await.unwrap() {
        told += house.answers(event.id).await.len();
    }
    assert_eq!(told, 1002);
}

#[tokio::test(start_paused = true)]
async fn rules_that_gather_nothing_leave_nothing_behind() {
    let mut house = House::new("2026-03-02T09:42:00Z", PLAIN).await;
    house.job("x", false).await;
    assert!(house.store.gatherings(None).await.unwrap().is_empty());
    let (outcome, detail) = house.verdict(EventId(1)).await;
    assert_eq!((outcome.as_str(), detail.as_str()), ("fired", ""));
    assert_eq!(house.mails().await[0].summary.get("held_by"), None::<&Value>);
}

#[tokio::test(start_paused = true)]
async fn the_loop_tells_what_is_due_by_itself() {
    let mut house = House::new("2026-03-02T09:42:00Z", SCANS).await;
    house.comes("a/1.pdf").await;
    let House {
        store,
        plan,
        clock,
        dispatcher,
        dir,
        ..
    } = house;
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(stop.clone()));
    let begun = clock.now();
    loop {
        let mails = store.entries(EntryFilter::default()).await.unwrap();
        if !mails.is_empty() {
            break;
        }
        assert!(clock.now().duration_since(begun) < SignedDuration::from_mins(6));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(clock.now().duration_since(begun) >= SignedDuration::from_mins(5));
    stop.cancel();
    running.await.unwrap();
    drop((plan, dir));
}

/// Line, message and hint of each problem of a setup.
fn problems(settings: &str, rules: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("drop")).unwrap();
    std::fs::create_dir_all(dir.path().join("rules")).unwrap();
    write(dir.path(), settings, rules);
    let found = load::setup(dir.path()).err().unwrap_or_default();
    found
        .iter()
        .map(|problem| {
            let place = problem.place.as_ref().unwrap();
            let hint = problem.hint.clone().unwrap_or_default();
            format!("{}:{} {} ({hint})", place.line, place.column, problem.message)
        })
        .collect()
}

#[test]
fn what_cannot_be_gathered_is_said_with_its_place() {
    let rule = |words: &str| {
        format!(
            "rules:\n  scans:\n    when: {{ file_arrives: {{ in: drop }} }}\n    {words}\n    \
             mail: {{ to: ops@contoso.com }}\n"
        )
    };
    for (words, expected) in [
        (
            "group: { wait: 0s }",
            "4:20 no time at all is too short (write 1s or more)",
        ),
        (
            "throttle: { at_most: 1, per: 0s }",
            "4:34 no time at all is too short (write 1s or more)",
        ),
        (
            "group: { wait: 5m, at: \"09:00\" }",
            "4:14 `at` says when a group is told, and so does `wait` (keep one of them)",
        ),
        (
            "group: { by: \"{{job.name}}\" }",
            "4:21 no trigger of this rule brings `job`, only `file` (`job_fails` (or another job trigger) would \
             bring `job`; so would `on_success` and `on_failure` of a rule with `run:`)",
        ),
        (
            "throttle: { at_most: 1, per: 1h, by: \"{{file.nam}}\" }",
            "4:45 unknown fact `file.nam` (did you mean `file.name`?)",
        ),
        (
            "group: { by: folder }",
            "4:18 `folder` is the same for every event (name a fact, as \"{{file.folder}}\", or leave `by` out)",
        ),
        (
            "quiet_hours: { from: \"07:00\", to: \"07:00\" }",
            "4:35 these quiet hours end when they begin (a rule that shall never tell needs no mail; write two \
             different times)",
        ),
        (
            "quiet_hours: { from: \"20:00\", to: \"07:00\", days: mon-fry }",
            "4:54 `mon-fry` is not a day of the week (mon tue wed thu fri sat sun, or from one to another: mon-fri)",
        ),
        (
            "quiet_hours: { from: \"20:00\", to: \"07:00\", timezone: Europe/Berlni }",
            "4:58 `Europe/Berlni` is not a time zone (did you mean `Europe/Berlin`?)",
        ),
        (
            "if: group.count > 1",
            "4:9 only the mails of a rule with `group:` bring `group` (add `group:` to the rule)",
        ),
    ] {
        assert_eq!(problems(SETTINGS, &rule(words)), [expected], "{words}");
    }
    for words in [
        "group: { at: \"9:00\" }",
        "group: { at: \"24:00\" }",
        "group: { max: 0 }",
        "group: { max: 1001 }",
        "throttle: { at_most: 0, per: 1h }",
        "throttle: { at_most: 1 }",
        "quiet_hours: { from: \"20:00\" }",
    ] {
        let found = problems(SETTINGS, &rule(words));
        assert!(
            found.len() == 1 && found[0].starts_with("4:"),
            "{words}: {found:?}"
        );
    }
    let found = problems(&limits("{ mails_per_rule_per_hour: 0 }"), &rule("description: x"));
    assert!(found.len() == 1 && found[0].starts_with("4:"), "{found:?}");
    let found = problems(&limits("never"), &rule("description: x"));
    assert!(found.len() == 1 && found[0].starts_with("4:"), "{found:?}");
    let digest = rule("description: x").replace("contoso.com }", "contoso.com, template: digest }");
    let found = problems(SETTINGS, &digest);
    assert!(
        found[0].contains("only the mails of a rule with `group:` bring `group`"),
        "{found:?}"
    );
    // What says nothing of a day or time is fine, whatever is in it.
    let fine = rule(
        "group: { by: \"{{file.folder}}\", max: 1 }\n    quiet_hours: { from: \"20:00\", to: \"06:30\", days: [sat-sun, \"mon,tue\"] }",
    );
    assert_eq!(problems(SETTINGS, &fine), Vec::<String>::new());
}
