//! The program put together: build, start, reload, stop, in one straight line.
//!
//! [`App::build`] makes every part and starts none. [`App::run`] is the daemon; [`App::once`] the
//! scheduled worker. Both hold the owner's lock for as long as they live, so that one state has one
//! owner. What other processes write (`tidings exec`, `outbox retry`, `auth login`) is noticed in the
//! store.
//!
//! A reload is all or nothing: the new setup is loaded and checked whole, every part that depends on
//! it is made, and only then are the plans swapped. With any problem the old set stays.

pub mod notify;

use crate::action::{output, work};
use crate::app::notify::Supervisor;
use crate::clock::Clock;
use crate::config::diagnostic::Problem;
use crate::config::settings::{Credential, Settings};
use crate::delivery::{self, Delivery, verdict::Retry};
use crate::dispatch::{self, Dispatcher};
use crate::entry::State;
use crate::event::FileRef;
use crate::oauth::keeper::{Keeper, KeeperError};
use crate::pulse::Pulse;
use crate::rule::index::Rules;
use crate::rule::load::{self, Away, Setup};
use crate::rule::{Rule, Trigger};
use crate::sender::{SenderError, Senders};
use crate::source::file::status::{self, Mode, WatchStatus};
use crate::source::file::{FileSource, Handle as FilesHandle};
use crate::source::schedule::{Handle as SchedulesHandle, Schedule, ScheduleSource};
use crate::source::{Watch, job};
use crate::store::lock::{Lock, LockError};
use crate::store::{Store, StoreError};
use crate::task::{TaskError, Tasks};
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How often old entries and events are purged.
const PURGE: Duration = Duration::from_secs(3600);

/// How often leases that ran out are looked for.
const RESCUE: Duration = Duration::from_secs(60);

/// How often job reports left as files are looked for.
const PICK_UP: Duration = Duration::from_secs(5);

/// Longest wait for the first look at all folders before it is said that everything runs.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Longest time to stop: the wait for a server's last answer, and a little.
const STOPPING: Duration = Duration::from_secs(660);

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The setup folder.
    pub setup: PathBuf,
    /// Record every session here, secrets masked.
    pub transcript: Option<PathBuf>,
    /// For the lock: `run` or `run --once`.
    pub what: &'static str,
}

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AppError {
    #[error("the setup has {} problem{}", .0.len(), if .0.len() == 1 { "" } else { "s" })]
    Setup(Vec<Problem>),
    #[error("{0}")]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Sender(#[from] SenderError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// How a scheduled run left things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Mails and work that were done in this run.
    pub done: u64,
    /// Entries that will be tried again, or wait for a person.
    pub waiting: u64,
    /// Accounts whose credential needs a person.
    pub accounts: Vec<String>,
    /// Watches that could not look.
    pub blind: Vec<String>,
    /// It was told to stop before all was done.
    pub stopped: bool,
}

/// Every part, made and not yet started.
pub struct App {
    options: Options,
    _lock: Lock,
    store: Store,
    clock: Clock,
    settings: Settings,
    keeper: Arc<Keeper>,
    rules_plan: watch::Sender<Arc<dispatch::Plan>>,
    delivery_plan: watch::Sender<Arc<delivery::Plan>>,
    files: FileSource,
    files_handle: FilesHandle,
    schedules: ScheduleSource,
    schedules_handle: SchedulesHandle,
    dispatcher: Dispatcher,
    delivery: Delivery,
    gone: mpsc::UnboundedReceiver<FileRef>,
    pulses: Vec<Pulse>,
    jobs_stop: CancellationToken,
    /// Ids of the watches.
    watched: Vec<String>,
}

impl App {
    /// Loads the setup, takes the lock, opens the store, reads what a crash left, makes every part.
    pub async fn build(options: Options) -> Result<App, AppError> {
        let Setup {
            settings,
            templates,
            rules,
            watches,
            warnings,
        } = load::load(&options.setup, Away::BadLuck).map_err(AppError::Setup)?;
        for warning in &warnings {
            tracing::warn!(problem = %warning.message, file = %warning.file.display(), "setup");
        }
        let clock = Clock::system();
        let store = Store::open(&settings.outbox.store, clock.clone()).await?;
        let lock = Lock::acquire(&settings.state, options.what)?;
        let recovery = store.recover(work::lost).await?;
        if !recovery.is_empty() {
            tracing::warn!(
                released = recovery.released.len(),
                unknown = recovery.unknown.len(),
                resent = recovery.resent.len(),
                lost_work = recovery.lost_work.len(),
                "the last run ended without a stop"
            );
        }
        pick_up_reports(&settings, &store).await;

        let keeper = Keeper::open(
            oauth_accounts(&settings),
            store.clone(),
            &settings.state,
            clock.clone(),
        )
        .await?;
        let senders = Senders::build(&settings, &keeper, options.transcript.as_deref())?;
        let schedules = schedules_of(&rules);
        let (rules_plan, rules_seen) = watch::channel(Arc::new(rules_plan_of(
            settings.clone(),
            templates,
            rules.clone(),
            &watches,
        )));
        let (delivery_plan, delivery_seen) = watch::channel(Arc::new(plan_of(&settings, &rules, senders)));

        let watched = watches.iter().map(|watch| watch.id.clone()).collect();
        let (files, files_handle) = FileSource::new(watches, store.clone(), clock.clone());
        let (schedules, schedules_handle) = ScheduleSource::new(schedules, store.clone(), clock.clone());
        let pulses = vec![Pulse::new("dispatch"), Pulse::new("delivery")];
        let dispatcher = Dispatcher::new(store.clone(), rules_seen, clock.clone(), pulses[0].clone());
        let (gone_told, gone) = mpsc::unbounded_channel();
        let jobs_stop = CancellationToken::new();
        let delivery = Delivery::new(
            store.clone(),
            delivery_seen,
            clock.clone(),
            pulses[1].clone(),
            gone_told,
            jobs_stop.clone(),
        );
        Ok(App {
            options,
            _lock: lock,
            store,
            clock,
            settings,
            keeper,
            rules_plan,
            delivery_plan,
            files,
            files_handle,
            schedules,
            schedules_handle,
            dispatcher,
            delivery,
            gone,
            pulses,
            jobs_stop,
            watched,
        })
    }

    /// The store, for whoever wants to watch.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The token keeper, for a sign-in before it runs.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// The settings it was built with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The daemon: runs until `stop`, or until a part fails that it cannot live without. `started` is
    /// told when every part runs and every folder was looked at: a file dropped from then on arrives.
    pub async fn run(self, stop: CancellationToken, started: oneshot::Sender<()>) -> Result<(), AppError> {
        // One long straight line, so that what starts before what, and stops after what, can be read.
        let App {
            options,
            _lock,
            store,
            clock,
            settings,
            keeper,
            rules_plan,
            delivery_plan,
            files,
            files_handle,
            schedules,
            schedules_handle,
            dispatcher,
            delivery,
            mut gone,
            pulses,
            jobs_stop,
            watched,
        } = self;
        let mut hangups = notify::hangups().map_err(AppError::Signals)?;
        let mut tasks = Tasks::new();
        let noticing = tasks.stop();
        let began = clock.now();
        tasks.spawn("files", files.run(noticing.clone()));
        tasks.spawn("schedules", schedules.run(noticing.clone()));
        tasks.spawn("dispatch", dispatcher.run(noticing.clone()));
        tasks.spawn("delivery", delivery.run(noticing.clone()));
        tasks.spawn(
            "housekeeping",
            housekeeping(store.clone(), rules_plan.subscribe(), noticing.clone()),
        );
        let forgetting = files_handle.clone();
        tasks.spawn("forgetting", async move {
            while let Some(file) = gone.recv().await {
                forgetting.forget(file);
            }
        });
        let (keeper_told, keeper_seen) = watch::channel(keeper);
        tasks.spawn("keeper", keep(keeper_seen, noticing.clone()));
        let supervisor = Supervisor::start(pulses, noticing.clone());
        let looked = first_look(store.clone(), watched, began);
        tokio::spawn(async move {
            looked.await;
            supervisor.ready();
            // Nobody may be waiting.
            let _ = started.send(());
        });
        let mut current = settings;
        let mut broken = None;

        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                error = tasks.ended() => {
                    tracing::error!(%error, "stopping, to be started again");
                    broken = Some(error);
                    break;
                }
                _ = hangups.recv() => {
                    supervisor.reloading();
                    let parts = Reloading {
                        options: &options, store: &store, clock: &clock, rules_plan: &rules_plan,
                        delivery_plan: &delivery_plan, files: &files_handle, schedules: &schedules_handle,
                    };
                    match parts.reload(&current).await {
                        Ok((settings, keeper)) => {
                            keeper_told.send_replace(keeper);
                            current = settings;
                            note_reload(&store, &clock, &[]).await;
                            tracing::info!("setup reloaded");
                        }
                        Err(problems) => {
                            for problem in &problems {
                                tracing::error!(%problem, "not reloaded; the old setup stays");
                            }
                            note_reload(&store, &clock, &problems).await;
                        }
                    }
                    supervisor.ready();
                }
            }
        }
        supervisor.stopping();
        jobs_stop.cancel();
        for error in tasks.join_all(STOPPING).await {
            tracing::error!(%error, "while stopping");
        }
        broken.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The scheduled worker: one complete look, then everything that is due, and what follows from it. With `stop`
    /// it finishes what is on the wire, and nothing else.
    pub async fn once(mut self, stop: &CancellationToken) -> Result<Left, AppError> {
        let before = self.store.counts().await?;
        tokio::select! {
            // What was recorded by then stays recorded; the rest is found by the next look.
            () = stop.cancelled() => {}
            looked = self.files.look() => { looked?; }
        }
        let (stopping, jobs_stop) = (stop.clone(), self.jobs_stop.clone());
        tokio::spawn(async move {
            stopping.cancelled().await;
            jobs_stop.cancel();
        });
        if !stop.is_cancelled() {
            // Nobody else keeps the grants alive where no daemon runs.
            self.keeper.look().await;
            self.schedules.look().await?;
        }
        while !stop.is_cancelled() {
            let dispatched = self.dispatcher.drain().await?;
            self.delivery.drain(stop).await?;
            if dispatched == 0 && self.store.pending_events(1).await?.is_empty() {
                break;
            }
        }
        forget(&self.store, &self.settings).await;
        self.delivery_plan.borrow().clone().senders.close().await;
        self.keeper.quiet().await;
        let after = self.store.counts().await?;
        let sum = |counts: &BTreeMap<_, u64>, states: &[State]| -> u64 {
            counts
                .iter()
                .filter(|((_, state), _): &(&(crate::entry::Kind, State), _)| states.contains(state))
                .map(|(_, count)| count)
                .sum()
        };
        let cases = self.store.open_cases().await?;
        let of = |kind: &str| {
            cases
                .iter()
                .filter(|case| case.kind == kind)
                .map(|case| case.subject.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        Ok(Left {
            stopped: stop.is_cancelled(),
            done: sum(&after, &[State::Accepted]).saturating_sub(sum(&before, &[State::Accepted])),
            waiting: sum(
                &after,
                &[State::Ready, State::Deferred, State::Held, State::Unknown],
            ),
            accounts: of("account"),
            blind: of("watch"),
        })
    }
}

fn oauth_accounts(settings: &Settings) -> Vec<(String, crate::config::settings::OAuth2)> {
    settings
        .accounts
        .values()
        .filter_map(|account| match &account.credential {
            Credential::OAuth2(oauth) => Some((account.name.clone(), (**oauth).clone())),
            _ => None,
        })
        .collect()
}

/// The schedules of a set of rules, each under its rule's name.
pub fn schedules_of(rules: &[Rule]) -> Vec<(String, Schedule)> {
    rules
        .iter()
        .flat_map(|rule| {
            rule.triggers.iter().filter_map(|trigger| match trigger {
                Trigger::Schedule(schedule) => Some((rule.name.clone(), schedule.clone())),
                _ => None,
            })
        })
        .collect()
}

fn rules_plan_of(
    settings: Settings,
    templates: crate::template::Templates,
    rules: Vec<Rule>,
    watches: &[Watch],
) -> dispatch::Plan {
    dispatch::Plan {
        watches: watches
            .iter()
            .map(|watch| (watch.id.clone(), watch.root.clone()))
            .collect(),
        rules: Rules::new(rules),
        settings,
        templates,
        host: host(),
    }
}

fn plan_of(settings: &Settings, rules: &[Rule], senders: Senders) -> delivery::Plan {
    delivery::Plan {
        senders,
        overlap: rules
            .iter()
            .filter(|rule| !rule.work.is_empty())
            .map(|rule| (rule.name.clone(), rule.overlap))
            .collect(),
        retry: Retry {
            first: settings.outbox.first,
            longest: settings.outbox.longest,
            give_up: settings.outbox.give_up,
        },
        setup: settings.dir.clone(),
        logs: settings.state.join("jobs"),
    }
}

/// The parts a reload touches.
struct Reloading<'a> {
    options: &'a Options,
    store: &'a Store,
    clock: &'a Clock,
    rules_plan: &'a watch::Sender<Arc<dispatch::Plan>>,
    delivery_plan: &'a watch::Sender<Arc<delivery::Plan>>,
    files: &'a FilesHandle,
    schedules: &'a SchedulesHandle,
}

impl Reloading<'_> {
    /// Swaps everything, or nothing and says why.
    async fn reload(&self, old: &Settings) -> Result<(Settings, Arc<Keeper>), Vec<String>> {
        let one = |error: &dyn std::fmt::Display| vec![error.to_string()];
        let dir = self.options.setup.clone();
        let loaded = tokio::task::spawn_blocking(move || load::load(&dir, Away::BadLuck))
            .await
            .map_err(|error| one(&error))?;
        let Setup {
            settings,
            templates,
            rules,
            watches,
            warnings,
        } = loaded.map_err(|problems| {
            problems
                .iter()
                .map(|problem| problem.render(false))
                .collect::<Vec<_>>()
        })?;
        if settings.state != old.state || settings.outbox.store != old.outbox.store {
            return Err(vec![
                "the state folder or the store was changed: that needs a restart".to_owned(),
            ]);
        }
        for warning in &warnings {
            tracing::warn!(problem = %warning.message, file = %warning.file.display(), "setup");
        }
        let keeper = Keeper::open(
            oauth_accounts(&settings),
            self.store.clone(),
            &settings.state,
            self.clock.clone(),
        )
        .await
        .map_err(|error| one(&error))?;
        let senders = Senders::build(&settings, &keeper, self.options.transcript.as_deref())
            .map_err(|error| one(&error))?;
        // Nothing below can fail.
        self.schedules.replace(schedules_of(&rules));
        self.delivery_plan
            .send_replace(Arc::new(plan_of(&settings, &rules, senders)));
        self.rules_plan.send_replace(Arc::new(rules_plan_of(
            settings.clone(),
            templates,
            rules,
            &watches,
        )));
        self.files.replace(watches);
        Ok((settings, keeper))
    }
}

/// Waits until every watch had its first look, or cannot look; at most a minute, so that one slow share
/// does not keep the service manager waiting.
async fn first_look(store: Store, watched: Vec<String>, began: Timestamp) {
    let looked = async {
        loop {
            let marks = store.marks("watch:").await.unwrap_or_default();
            let statuses: BTreeMap<&str, WatchStatus> = marks
                .iter()
                .filter_map(|(key, mark)| Some((key.as_str(), serde_json::from_value(mark.clone()).ok()?)))
                .collect();
            let done = |id: &String| {
                statuses
                    .get(status::mark(id).as_str())
                    .is_some_and(|status: &WatchStatus| {
                        status.mode == Mode::Away || status.last_scan.is_some_and(|scan| scan >= began)
                    })
            };
            if watched.iter().all(done) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(FIRST_LOOK, looked).await.is_err() {
        tracing::warn!("some folders are still being looked at for the first time");
    }
}

/// Runs the keeper there is, and after a reload the next one. A refresh under way is not cut short: it
/// runs in a task of its own.
async fn keep(mut keepers: watch::Receiver<Arc<Keeper>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let keeper = Arc::clone(&keepers.borrow_and_update());
        let this = stop.child_token();
        tokio::select! {
            () = keeper.run(this.clone()) => {}
            Ok(()) = keepers.changed() => this.cancel(),
        }
    }
}

/// Leaves the result of a reload where `tidings reload` finds it.
async fn note_reload(store: &Store, clock: &Clock, problems: &[String]) {
    let note = json!({ "at": clock.now().to_string(), "ok": problems.is_empty(), "problems": problems });
    if let Err(error) = store.set_marks(vec![("reload".to_owned(), note)]).await {
        tracing::error!(%error, "cannot record the result of the reload");
    }
}

/// Records the reports that `tidings exec` had to leave as files.
async fn pick_up_reports(settings: &Settings, store: &Store) {
    match job::pick_up(&settings.state, store).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "picked up job reports that were left as files"),
        Err(error) => tracing::error!(%error, "cannot pick up job reports; they stay where they are"),
    }
}

/// Forgets what is older than the settings keep: entries, events, and the logs of jobs.
async fn forget(store: &Store, settings: &Settings) {
    let keep = settings.outbox.keep;
    match store.purge(keep).await {
        Ok(purged) => tracing::debug!(?purged, "purged"),
        Err(error) => tracing::error!(%error, "cannot purge"),
    }
    let logs = settings.state.join("jobs");
    match tokio::task::spawn_blocking(move || output::purge_logs(&logs, keep)).await {
        Ok(Ok(count)) => tracing::debug!(count, "logs of jobs removed"),
        Ok(Err(error)) => tracing::error!(%error, "cannot remove old logs of jobs"),
        Err(error) => tracing::error!(%error, "cannot remove old logs of jobs"),
    }
}

/// What is to be done now and then, whatever happens, by the settings of the plan in force.
async fn housekeeping(store: Store, plan: watch::Receiver<Arc<dispatch::Plan>>, stop: CancellationToken) {
    let (mut purge, mut rescue, mut pick_up) = (
        tokio::time::interval(PURGE),
        tokio::time::interval(RESCUE),
        tokio::time::interval(PICK_UP),
    );
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = purge.tick() => {
                let plan = Arc::clone(&plan.borrow());
                forget(&store, &plan.settings).await;
            }
            _ = rescue.tick() => match store.rescue(work::lost).await {
                Ok(recovery) if !recovery.is_empty() => tracing::warn!(?recovery, "leases ran out"),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "cannot look for leases that ran out"),
            },
            _ = pick_up.tick() => {
                let plan = Arc::clone(&plan.borrow());
                pick_up_reports(&plan.settings, &store).await;
            }
        }
    }
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
