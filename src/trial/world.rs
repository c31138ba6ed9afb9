//! The engine: a world of its own, gone through instant by instant.

mod happens;

use super::ledger::{Case, Held, Ledger, Looked};
use super::script::Ends;
use super::sources::Sources;
use super::{Trial, Wish};
use crate::action::run::Commands;
use crate::app;
use crate::clock::{Clock, Hand};
use crate::config::settings::Settings;
use crate::delivery::{self, Delivery};
use crate::dispatch::{self, Dispatcher};
use crate::entry::State;
use crate::event::{Does, Event, EventId, FileRef, Kind};
use crate::ground::Ground;
use crate::oauth::keeper::{Keeper, KeeperError};
use crate::pulse::Pulse;
use crate::rule::load::Setup;
use crate::sender::Senders;
use crate::store::{EntryFilter, EventFilter, Store, StoreError};
use crate::template::RenderError;
use crate::transport::stand_in::StandIn;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What `host` is in a test, on every machine.
pub const HOST: &str = "test.example";

/// Most turns at one instant: a setup that goes on at one instant for ever goes round in a circle.
const TURNS: usize = 1_000;

/// Most instants of one test.
const INSTANTS: usize = 5_000_000;

/// Time between two clearings of what is older than the settings keep.
const PURGE: Duration = Duration::from_secs(86_400);

/// Why a trial could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The folder it plays in.
    #[error("cannot make or use the folder of a test: {0}")]
    Folder(#[from] io::Error),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its token keeper, which is never asked.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A path or content of the test.
    #[error("a text of the test cannot be rendered: {0}")]
    Text(#[from] RenderError),
    /// What the test takes away is not there.
    #[error("line {line}: there is no {} to take away", path.display())]
    NotThere {
        /// Where the test says so.
        line: usize,
        /// What.
        path: PathBuf,
    },
    /// Nothing comes to rest.
    #[error("at {0} one thing follows from the other without end: the rules go round in a circle")]
    Circle(Timestamp),
    /// Too much is due.
    #[error("more than {INSTANTS} instants")]
    TooLong,
}

/// A folder that is removed with all that is in it.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("tidings-test-{}-{count}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Scratch(folder.canonicalize()?)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The parts of the daemon that a restart makes anew.
struct Parts {
    sources: Sources,
    dispatcher: Dispatcher,
    delivery: Delivery,
    gone: mpsc::UnboundedReceiver<FileRef>,
}

/// A world in which a test plays.
struct World<'a> {
    setup: &'a Setup,
    settings: Settings,
    store: Store,
    clock: Clock,
    hand: Hand,
    stand_in: Arc<StandIn>,
    ends: Arc<Ends>,
    rules: watch::Sender<Arc<dispatch::Plan>>,
    delivery: watch::Sender<Arc<delivery::Plan>>,
    keeper: Arc<Keeper>,
    ledger: Ledger,
    last_event: EventId,
    known_held: BTreeSet<(i64, Timestamp)>,
    /// Reports, starts and events so far: each needs a key of its own.
    told: u64,
    /// The jobs elsewhere that run, by name: the keys their reports will have.
    running: BTreeMap<String, String>,
    // The last: everything else is dropped before it.
    _folder: Scratch,
}

/// Plays a trial to its end. An error is of ours, or of a test that does the impossible; whether what must follow
/// followed is for [`super::judge`] to say.
pub async fn play(trial: &Trial, setup: &Setup) -> (Ledger, Result<(), WorldError>) {
    let (mut world, mut parts) = match World::begin(trial, setup).await {
        Ok(begun) => begun,
        Err(error) => return (Ledger::default(), Err(error)),
    };
    let played = world.play(trial, &mut parts).await;
    parts.delivery.abort().await;
    (world.ledger, played)
}

impl World<'_> {
    async fn begin<'a>(trial: &Trial, setup: &'a Setup) -> Result<(World<'a>, Parts), WorldError> {
        let folder = Scratch::new()?;
        let ground = Ground::below(&folder.0.join("files"), &setup.settings.dir);
        let settings = Settings {
            ground: ground.clone(),
            ..setup.settings.clone()
        };
        for watch in &setup.watches {
            fs::create_dir_all(ground.at(&watch.root))?;
        }
        fs::create_dir_all(ground.at(&settings.state))?;
        let (clock, hand) = Clock::by_hand(trial.start);
        let store =
            Store::open_for_a_trial(&folder.0.join("store").join("tidings.db"), clock.clone()).await?;
        let keeper = Keeper::open(Vec::new(), store.clone(), &folder.0.join("store"), clock.clone()).await?;
        let stand_in = Arc::new(StandIn::new(clock.clone()));
        let ends = Arc::new(Ends::new(&trial.jobs, clock.clone()));
        let (rules_plan, delivery_plan) = plans(setup, &settings, &keeper, &stand_in, &ends);
        let mut world = World {
            setup,
            settings,
            store,
            clock,
            hand,
            stand_in,
            ends,
            rules: watch::Sender::new(Arc::new(rules_plan)),
            delivery: watch::Sender::new(Arc::new(delivery_plan)),
            keeper,
            ledger: Ledger::of(&setup.settings.dir),
            last_event: EventId(0),
            known_held: BTreeSet::new(),
            told: 0,
            running: BTreeMap::new(),
            _folder: folder,
        };
        world.ledger.line(trial.start, "the test begins", Vec::new());
        for file in &trial.given {
            world.make(file)?;
        }
        let parts = world.parts().await?;
        Ok((world, parts))
    }

    /// Everything that a start makes.
    async fn parts(&self) -> Result<Parts, WorldError> {
        let (gone_told, gone) = mpsc::unbounded_channel();
        Ok(Parts {
            sources: self.sources().await?,
            dispatcher: Dispatcher::new(
                self.store.clone(),
                self.rules.subscribe(),
                self.clock.clone(),
                Pulse::new("dispatch"),
            ),
            delivery: Delivery::new(
                self.store.clone(),
                self.delivery.subscribe(),
                self.clock.clone(),
                Pulse::new("delivery"),
                gone_told,
                CancellationToken::new(),
            ),
            gone,
        })
    }

    async fn sources(&self) -> Result<Sources, StoreError> {
        Sources::begin(
            &self.setup.rules,
            self.setup.watches.clone(),
            &self.store,
            &self.clock,
            &self.settings.ground,
        )
        .await
    }

    async fn play(&mut self, trial: &Trial, parts: &mut Parts) -> Result<(), WorldError> {
        let mut waiting = trial.happenings.iter().peekable();
        let mut looks: Vec<(Timestamp, usize)> = trial
            .expected
            .iter()
            .enumerate()
            .filter(|(_, expected)| matches!(expected.what, Wish::File(_)))
            .map(|(number, expected)| (last_instant(expected.to).min(trial.until), number))
            .collect();
        looks.sort();
        let mut looks = looks.into_iter().peekable();
        let mut purged = trial.start;
        let mut next = self.rest(parts).await?;
        for _ in 0..INSTANTS {
            let instant = [
                waiting.peek().map(|happening| happening.at),
                looks.peek().map(|(at, _)| *at),
                next,
            ]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(trial.until);
            if instant > trial.until {
                break;
            }
            self.hand.set(instant);
            if instant.duration_since(purged).unsigned_abs() >= PURGE {
                self.store.purge(self.settings.outbox.keep).await?;
                purged = instant;
            }
            while let Some(happening) = waiting.next_if(|happening| happening.at <= instant) {
                self.happen(happening, parts).await?;
                self.rest(parts).await?;
            }
            next = self.rest(parts).await?;
            while let Some((_, number)) = looks.next_if(|(at, _)| *at <= instant) {
                self.look_for(trial, number);
            }
            if waiting.peek().is_none() && looks.peek().is_none() && next.is_none() {
                break;
            }
            if instant == trial.until {
                break;
            }
        }
        if self.clock.now() < trial.until
            && [waiting.peek().map(|happening| happening.at), next]
                .into_iter()
                .flatten()
                .any(|more| more <= trial.until)
        {
            return Err(WorldError::TooLong);
        }
        self.hand.set(trial.until);
        self.ledger.line(trial.until, "the test ends", Vec::new());
        Ok(())
    }

    /// Lets every part do what it can until nothing moves. Tells when something is due next.
    async fn rest(&mut self, parts: &mut Parts) -> Result<Option<Timestamp>, WorldError> {
        let first = self.ledger.timeline.len();
        let changes = self.store.changes();
        for _ in 0..TURNS {
            let before = *changes.borrow();
            parts.sources.look().await?;
            let dispatched = parts.dispatcher.drain().await?;
            let stepped = parts.delivery.step(&self.hand).await?;
            while let Ok(file) = parts.gone.try_recv() {
                parts.sources.files.forget(&file);
            }
            if stepped.ended > 0 {
                // Work may have put files where somebody looks.
                parts.sources.files.told(None);
            }
            // Not every commit is told to who waits for one.
            let moved = dispatched > 0 || stepped.ended > 0 || before != *changes.borrow();
            if moved {
                self.note().await?;
            } else {
                self.explain(first).await?;
                let now = self.clock.now();
                return Ok([
                    stepped.next,
                    parts.sources.next_due(),
                    self.hand.next(),
                    self.store.next_gathering().await?,
                ]
                .into_iter()
                .flatten()
                .filter(|due| *due > now)
                .min());
            }
        }
        self.explain(first).await?;
        Err(WorldError::Circle(self.clock.now()))
    }

    // ---- what came of it ----

    fn look_for(&mut self, trial: &Trial, number: usize) {
        if let Wish::File(wanted) = &trial.expected[number].what {
            let path: PathBuf = self.settings.dir.join(&wanted.path).components().collect();
            let there = self.settings.ground.at(&path).symlink_metadata().is_ok();
            self.ledger.looked.push(Looked {
                expected: number,
                there,
            });
        }
    }

    /// Writes down what is new.
    async fn note(&mut self) -> Result<(), WorldError> {
        let first = self.ledger.timeline.len();
        loop {
            let filter = EventFilter {
                after: Some(self.last_event),
                limit: 500,
                ..EventFilter::default()
            };
            let events = self.store.events(filter).await?;
            let Some(last) = events.last() else { break };
            self.last_event = last.id;
            for event in events {
                self.note_event(event);
            }
        }
        for ran in self.ends.take() {
            let what = format!("rule {} runs {}", ran.rule, ran.command);
            self.ledger.line(ran.at, what, Vec::new());
            self.ledger.ran.push(ran);
        }
        for handed in self.stand_in.take() {
            self.ledger.handed(&handed);
        }
        let filter = EntryFilter {
            states: vec![State::Held, State::Failed, State::Unknown],
            limit: 1_000,
            ..EntryFilter::default()
        };
        let entries = self.store.entries(filter).await?;
        for entry in entries.into_iter().rev() {
            if !self.known_held.insert((entry.id.0, entry.changed)) {
                continue;
            }
            let reason = entry.reason.unwrap_or_default();
            let state = entry.state.as_str();
            let what = format!("{state}: {} of rule {}", entry.kind.as_str(), entry.rule);
            self.ledger.line(entry.changed, what, vec![reason.text.clone()]);
            self.ledger.held.push(Held {
                at: entry.changed,
                rule: entry.rule,
                reason: reason.text,
            });
        }
        self.ledger.put_in_order(first);
        Ok(())
    }

    /// Adds to the events of the timeline from `first` on what the rules said of them.
    async fn explain(&mut self, first: usize) -> Result<(), WorldError> {
        for event in self.ledger.events(first) {
            let verdicts = match self.store.event(event).await? {
                Some(detail) => detail.verdicts,
                None => Vec::new(),
            };
            let mut why: Vec<String> = verdicts
                .iter()
                .map(|verdict| {
                    let outcome = verdict.outcome.replace('_', " ");
                    match verdict.detail.as_str() {
                        "" => format!("rule {}: {outcome}", verdict.rule),
                        detail => format!("rule {}: {outcome}: {detail}", verdict.rule),
                    }
                })
                .collect();
            if why.is_empty() {
                why.push("no rule is concerned".to_owned());
            }
            self.ledger.explain(first, event, &why);
        }
        Ok(())
    }

    fn note_event(&mut self, event: Event) {
        let happening = &event.happening;
        let mut what = format!("{} {}", happening.kind.as_str(), happening.subject);
        if let Some(step) = &happening.case {
            let opened = step.does == Does::Opens;
            let kind = match happening.kind {
                Kind::Trouble => happening
                    .facts
                    .get("trouble")
                    .and_then(|trouble| trouble["kind"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
                kind => kind.as_str().to_owned(),
            };
            what = format!(
                "{} case {}: {kind}: {}: {}",
                happening.kind.as_str(),
                if opened { "opened" } else { "closed" },
                happening.subject,
                step.text
            );
            let rules = self.setup.rules.iter().map(|rule| &rule.name);
            let mut parts = step.key.split(':');
            let (first, second) = (parts.next(), parts.next());
            let rule = rules
                .filter(|name| {
                    **name == happening.source
                        || (second == Some(name.as_str()) && first == Some(kind.as_str()))
                })
                .max_by_key(|name| name.len())
                .cloned();
            self.ledger.cases.push(Case {
                at: event.recorded,
                opened,
                kind,
                rule,
                about: happening.subject.clone(),
                text: step.text.clone(),
            });
        }
        self.ledger.event(event.recorded, event.id, what);
    }
}

/// The plans of dispatcher and delivery: as ever, but for who takes mails and who runs commands.
fn plans(
    setup: &Setup,
    settings: &Settings,
    keeper: &Arc<Keeper>,
    stand_in: &Arc<StandIn>,
    ends: &Arc<Ends>,
) -> (dispatch::Plan, delivery::Plan) {
    let rules = app::rules_plan_of(
        settings.clone(),
        setup.templates.clone(),
        setup.rules.clone(),
        &setup.watches,
    );
    let senders = Senders::stand_in(settings, keeper, stand_in);
    let delivery = app::plan_of(settings, &setup.rules, senders);
    (
        dispatch::Plan {
            host: HOST.to_owned(),
            ..rules
        },
        delivery::Plan {
            commands: Commands::Scripted(ends.clone()),
            ..delivery
        },
    )
}

/// The last instant before an end that does not belong to it.
fn last_instant(end: Timestamp) -> Timestamp {
    end.saturating_sub(Duration::from_nanos(1)).unwrap_or(end)
}
