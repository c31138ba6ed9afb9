//! A dispatcher at its desk: a real setup, a real store, and a clock that a test moves.
#![allow(dead_code, reason = "each test file uses its part")]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;
use tidings::clock::Clock;
use tidings::dispatch::{Dispatcher, Plan};
use tidings::entry::{Entry, Reason, State};
use tidings::event::{Event, EventId, Kind, NewEvent};
use tidings::pulse::Pulse;
use tidings::rule::index::Rules;
use tidings::rule::load;
use tidings::source::job::JobReport;
use tidings::store::{Batch, EntryFilter, EventFilter, NewCase, Store};
use tokio::sync::watch;

/// The settings of every desk: times are those of Berlin.
pub const SETTINGS: &str = "defaults: { account: out, from: desk@example.org, timezone: Europe/Berlin }\n\
    accounts:\n  out: { smtp: { host: 127.0.0.1, port: 2525, tls: none }, user: desk@example.org }\n";

pub struct Desk {
    dir: tempfile::TempDir,
    pub store: Store,
    dispatcher: Dispatcher,
    plan: watch::Sender<Arc<Plan>>,
    clock: Clock,
}

/// A time in Berlin.
pub fn at(text: &str) -> Timestamp {
    let zoned: jiff::Zoned = format!("{text}[Europe/Berlin]").parse().unwrap();
    zoned.timestamp()
}

fn loaded(dir: &std::path::Path) -> Arc<Plan> {
    let setup = load::setup(dir).unwrap_or_else(|problems| panic!("{problems:#?}"));
    Arc::new(Plan {
        watches: Vec::new(),
        rules: Rules::new(setup.rules),
        settings: setup.settings,
        templates: setup.templates,
        host: "desk".to_owned(),
    })
}

impl Desk {
    /// With these rules, at that time in Berlin. The runtime's time must be paused.
    pub async fn new(rules: &str, time: &str) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tidings.yaml"), SETTINGS).unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("rules/all.yaml"), rules).unwrap();
        Desk::open(dir, at(time)).await
    }

    async fn open(dir: tempfile::TempDir, time: Timestamp) -> Desk {
        let clock = Clock::runtime(time);
        let store = Store::open(&dir.path().join("tidings.db"), clock.clone())
            .await
            .unwrap();
        let (plan, seen) = watch::channel(loaded(dir.path()));
        let dispatcher = Dispatcher::new(store.clone(), seen, clock.clone(), Pulse::new("desk"));
        Desk {
            dir,
            store,
            dispatcher,
            plan,
            clock,
        }
    }

    /// Ends and begins again, with the clock set to that time.
    pub async fn restarted(self, time: Timestamp) -> Desk {
        let Desk {
            dir,
            store,
            dispatcher,
            plan,
            ..
        } = self;
        drop((dispatcher, plan, store));
        Desk::open(dir, time).await
    }

    /// Takes other rules.
    pub fn reload(&self, rules: &str) {
        std::fs::write(self.dir.path().join("rules/all.yaml"), rules).unwrap();
        self.plan.send_replace(loaded(self.dir.path()));
    }

    /// Sets `limits`.
    pub fn limits(&self, limits: &str) {
        let settings = format!("{SETTINGS}limits: {limits}\n");
        std::fs::write(self.dir.path().join("tidings.yaml"), settings).unwrap();
        self.plan.send_replace(loaded(self.dir.path()));
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Does what there is to do now.
    pub async fn drain(&self) {
        self.dispatcher.drain().await.unwrap();
    }

    /// Lets time pass to that moment, doing what falls due on the way when it does.
    pub async fn until(&self, time: Timestamp) {
        loop {
            self.drain().await;
            let next = self.store.next_gathering().await.unwrap();
            let step = next.unwrap_or(time).min(time).duration_since(self.now());
            if step > SignedDuration::ZERO {
                let step = Duration::try_from(step).unwrap() + Duration::from_micros(1);
                tokio::time::advance(step).await;
            } else if self.now() >= time {
                return;
            }
        }
    }

    /// Lets so much time pass.
    pub async fn pass(&self, time: SignedDuration) {
        self.until(self.now().saturating_add(time).unwrap()).await;
    }

    /// An account is in trouble: a case opens.
    pub async fn trouble(&self, account: &str) {
        let case = NewCase {
            key: format!("account:{account}"),
            kind: "account".to_owned(),
            subject: account.to_owned(),
            reason: Reason::new("the sign-in was refused"),
        };
        self.store.open_case(case).await.unwrap();
    }

    /// It is over.
    pub async fn mended(&self, account: &str) -> bool {
        self.store
            .close_case(&format!("account:{account}"))
            .await
            .unwrap()
    }

    /// A job ended.
    pub async fn job(&self, name: &str, run: u32, ok: bool) {
        let report = JobReport {
            name: name.to_owned(),
            ok,
            exit_code: Some(i32::from(!ok)),
            ..JobReport::default()
        };
        let event = NewEvent {
            key: format!("job:{name}:{run}"),
            kind: if ok { Kind::JobSucceeds } else { Kind::JobFails },
            source: String::new(),
            subject: name.to_owned(),
            time: self.now(),
            facts: Map::from_iter([("job".to_owned(), json!(report))]),
            file: None,
            origin: None,
            case: None,
        };
        let batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        self.store.record(batch).await.unwrap();
    }

    /// All entries, in the order in which they were admitted.
    pub async fn entries(&self) -> Vec<Entry> {
        let all = EntryFilter {
            limit: 100_000,
            ..EntryFilter::default()
        };
        let mut entries = self.store.entries(all).await.unwrap();
        entries.reverse();
        entries
    }

    /// What was told: when in Berlin, to whom, the subject; what was cancelled is marked.
    pub async fn told(&self) -> Vec<String> {
        let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let entries = self.entries().await;
        let lines = entries.iter().map(|entry| {
            let time = entry
                .created
                .to_zoned(zone.clone())
                .strftime("%a %H:%M")
                .to_string();
            let to = entry.summary["to"][0].as_str().unwrap_or("-");
            let to = to.split('@').next().unwrap_or_default();
            let subject = entry.summary["subject"].as_str().unwrap_or("(not composed)");
            let state = match entry.state {
                State::Ready => String::new(),
                other => format!(" ({})", other.as_str()),
            };
            format!("{time} {to}: {subject}{state}")
        });
        lines.collect()
    }

    /// What the rules said of each event, oldest first.
    pub async fn verdicts(&self) -> Vec<String> {
        let filter = EventFilter {
            after: Some(EventId(0)),
            limit: 100_000,
            ..EventFilter::default()
        };
        let events: Vec<Event> = self.store.events(filter).await.unwrap();
        let mut all = Vec::new();
        for event in events {
            let detail = self.store.event(event.id).await.unwrap().unwrap();
            all.extend(
                detail
                    .verdicts
                    .iter()
                    .map(|verdict| format!("{} {}: {}", event.id, verdict.rule, verdict.outcome)),
            );
        }
        all
    }

    /// Every mail that waits is sent now, as delivery would.
    pub async fn deliver(&self) {
        use tidings::entry::Settlement;
        for entry in self.entries().await {
            if entry.state != State::Ready {
                continue;
            }
            let claimed = self
                .store
                .claim(entry.kind, &entry.lane, 1_000, Duration::from_secs(60))
                .await
                .unwrap();
            for leased in claimed {
                self.store
                    .settle(
                        leased.entry.id,
                        leased.fence,
                        Settlement::Accept(Reason::new("250 ok")),
                        tidings::store::Also::default(),
                    )
                    .await
                    .unwrap();
            }
        }
    }
}
