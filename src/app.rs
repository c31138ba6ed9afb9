//! The program put together: build, start, reload, stop, in one straight line.
//!
//! [`App::build`] makes every part and starts none. [`App::run`] is the daemon; [`App::once`] the
//! scheduled worker. Both hold the owner's lock for as long as they live, so that one state has one
//! owner. What other processes write (`tidings exec`, `outbox retry`, `auth login`) is noticed in the
//! store.
//!
//! Stopping has two steps, see [`Stop`]. Asked once, nothing new begins, jobs are told to end, what is on
//! the wire is waited for, and the rest is given back. Asked again, what is on the wire is left: the next
//! start lists it as `unknown`.

pub mod alive;
pub mod endings;
mod housekeeping;
pub mod notify;
mod reload;
pub mod space;

use crate::action::run::Commands;
use crate::action::work;
use crate::advice::catalog;
use crate::app::notify::{Stop, Supervisor};
use crate::app::reload::{Live, first_look};
use crate::clock::Clock;
use crate::config::diagnostic::Problem;
use crate::config::settings::{Credential, Settings};
use crate::delivery::{self, Delivery, verdict::Retry};
use crate::dispatch::{self, Dispatcher};
use crate::entry::{self, State};
use crate::event::FileRef;
use crate::oauth::keeper::{Keeper, KeeperError};
use crate::pulse::{Progress, Pulse};
use crate::rule::index::Rules;
use crate::rule::load::{self, Away, Setup};
use crate::rule::{Rule, Trigger};
use crate::sender::{SenderError, Senders};
use crate::source::Watch;
use crate::source::absence::{AbsenceSource, Expectation};
use crate::source::file::FileSource;
use crate::source::schedule::{Schedule, ScheduleSource};
use crate::store::lock::{Lock, LockError};
use crate::store::{Store, StoreError};
use crate::submission::listener::{self, Door, DoorError};
use crate::task::{TaskError, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// A part that did not come round for this long hangs.
const HANGS: Duration = Duration::from_secs(90);

/// Longest time to stop: the wait for a server's last answer, and a little.
const STOPPING: Duration = Duration::from_secs(660);

/// The same when asked again.
const STOPPING_NOW: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The setup folder.
    pub setup: PathBuf,
    /// Record every session here, secrets masked.
    pub transcript: Option<PathBuf>,
    /// For the lock: [`DAEMON`], [`WORKER`], or another word for a daemon.
    pub what: &'static str,
}

/// What the lock says of the daemon.
pub const DAEMON: &str = "run";

/// What the lock says of the scheduled worker, which cannot be told to reload.
pub const WORKER: &str = "run --once";

/// Why the program cannot start, or did not end as it should.
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
    Submission(#[from] DoorError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error("stopped at once; what was on the wire is sorted out at the next start")]
    Hurried,
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

impl Left {
    /// Whether it looked everywhere, did what could be done, and no account needs a person. Mails may
    /// wait for a server.
    fn is_well(&self) -> bool {
        !self.stopped && self.accounts.is_empty() && self.blind.is_empty()
    }
}

/// Every part, made and not yet started.
pub struct App {
    options: Options,
    _lock: Lock,
    hangups: Signal,
    store: Store,
    clock: Clock,
    live: Live,
    files: FileSource,
    schedules: ScheduleSource,
    absence: AbsenceSource,
    dispatcher: Dispatcher,
    delivery: Delivery,
    gone: mpsc::UnboundedReceiver<FileRef>,
    jobs_stop: CancellationToken,
    store_pulse: Pulse,
    progress: Progress,
}

impl App {
    /// Loads the setup, takes the lock, opens the store, reads what a crash left, makes every part.
    pub async fn build(options: Options) -> Result<App, AppError> {
        // Before the lock is taken: who reads there that we run may say reload at once.
        let hangups = notify::hangups().map_err(AppError::Signals)?;
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
        catalog::adopt(settings.advice.clone());
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
        housekeeping::pick_up(&settings, &store).await;
        close_cases(&store, &settings).await;

        let keeper = Keeper::open(
            oauth_accounts(&settings),
            store.clone(),
            &settings.state,
            clock.clone(),
        )
        .await?;
        let senders = Senders::build(&settings, &keeper, options.transcript.as_deref())?;
        let watched = watches.iter().map(|watch| watch.id.clone()).collect();
        let (schedules, schedules_handle) =
            ScheduleSource::new(schedules_of(&rules), store.clone(), clock.clone());
        let (rules_plan, delivery_plan) = (
            rules_plan_of(settings.clone(), templates, rules.clone(), &watches),
            plan_of(&settings, &rules, senders),
        );
        let (files, files_handle) = FileSource::new(watches, store.clone(), clock.clone());
        let (absence, absence_handle) = AbsenceSource::new(
            expectations_of(&rules),
            store.clone(),
            clock.clone(),
            Some(files_handle.clone()),
        );
        let live = Live {
            keeper: watch::Sender::new(keeper),
            delivery: watch::Sender::new(Arc::new(delivery_plan)),
            rules: watch::Sender::new(Arc::new(rules_plan)),
            door: watch::Sender::new(Arc::new(Door::shut(Arc::new(settings.clone()), host()))),
            settings: watch::Sender::new(Arc::new(settings)),
            files: files_handle,
            schedules: schedules_handle,
            absence: absence_handle,
            watched,
        };
        let (dispatch_pulse, delivery_pulse, store_pulse) = (
            Pulse::new("dispatch"),
            Pulse::new(delivery::NAME),
            Pulse::new("store"),
        );
        let progress = Progress::new(
            vec![
                files.pulse(),
                schedules.pulse(),
                absence.pulse(),
                dispatch_pulse.clone(),
                delivery_pulse.clone(),
                store_pulse.clone(),
            ],
            HANGS,
        );
        let dispatcher = Dispatcher::new(
            store.clone(),
            live.rules.subscribe(),
            clock.clone(),
            dispatch_pulse,
        );
        let (gone_told, gone) = mpsc::unbounded_channel();
        let jobs_stop = CancellationToken::new();
        let delivery = Delivery::new(
            store.clone(),
            live.delivery.subscribe(),
            clock.clone(),
            delivery_pulse,
            gone_told,
            jobs_stop.clone(),
        );
        Ok(App {
            options,
            _lock: lock,
            hangups,
            store,
            clock,
            live,
            files,
            schedules,
            absence,
            dispatcher,
            delivery,
            gone,
            jobs_stop,
            store_pulse,
            progress,
        })
    }

    /// The store, for whoever wants to watch.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The token keeper, for a sign-in before it runs.
    pub fn keeper(&self) -> Arc<Keeper> {
        Arc::clone(&self.live.keeper.borrow())
    }

    /// The settings it was built with.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.live.settings.borrow())
    }

    /// The daemon: runs until `stop`, or until a part fails that it cannot live without. `started` is
    /// told when every part runs and every folder was looked at: a file dropped from then on arrives.
    pub async fn run(self, stop: Stop, started: oneshot::Sender<()>) -> Result<(), AppError> {
        // One long straight line, so that what starts before what, and stops after what, can be read.
        let App {
            options,
            _lock,
            mut hangups,
            store,
            clock,
            mut live,
            files,
            schedules,
            absence,
            dispatcher,
            delivery,
            mut gone,
            jobs_stop,
            store_pulse,
            progress,
        } = self;
        let (current, before) = (
            Arc::clone(&live.settings.borrow()),
            Arc::clone(&live.door.borrow()),
        );
        let door = Door::open(current, host(), &before).await?;
        for address in door.addresses() {
            tracing::info!(%address, "mails may be handed in");
        }
        live.door.send_replace(Arc::new(door));
        let mut tasks = Tasks::new();
        let stopping = tasks.stop();
        tasks.spawn(
            "alive",
            alive::run(
                store.clone(),
                live.settings.subscribe(),
                progress.clone(),
                stopping.clone(),
            ),
        );
        let mut supervisor = Supervisor::start(progress, delivery::NAME, stopping.clone());
        let looked = first_look(store.clone(), live.watched.clone(), clock.now());
        tasks.spawn("files", files.run(stopping.clone()));
        tasks.spawn("schedules", schedules.run(stopping.clone()));
        tasks.spawn("absence", absence.run(stopping.clone()));
        tasks.spawn("dispatch", dispatcher.run(stopping.clone()));
        tasks.spawn(delivery::NAME, delivery.run(stopping.clone(), stop.now.clone()));
        tasks.spawn(
            "housekeeping",
            housekeeping::run(store.clone(), live.settings.subscribe(), stopping.clone()),
        );
        tasks.spawn(
            "proof",
            housekeeping::prove(store.clone(), store_pulse, stopping.clone()),
        );
        tasks.spawn(
            "submission",
            listener::run(
                store.clone(),
                clock.clone(),
                live.door.subscribe(),
                stopping.clone(),
            ),
        );
        let forgetting = live.files.clone();
        tasks.spawn("forgetting", async move {
            while let Some(file) = gone.recv().await {
                forgetting.forget(file);
            }
        });
        tasks.spawn(
            "endings",
            endings::run(
                store.clone(),
                live.settings.subscribe(),
                live.keeper.subscribe(),
                clock.clone(),
                stopping.clone(),
            ),
        );
        tasks.spawn("keeper", keep(live.keeper.subscribe(), stopping.clone()));
        let mut looked = std::pin::pin!(looked);
        let mut started = Some(started);
        let mut broken = None;

        loop {
            tokio::select! {
                () = stop.soon.cancelled() => break,
                error = tasks.ended() => {
                    tracing::error!(%error, "stopping, to be started again");
                    broken = Some(error);
                    break;
                }
                () = &mut looked, if started.is_some() => {
                    supervisor.ready();
                    // Nobody may be waiting.
                    let _ = started.take().map(|started| started.send(()));
                }
                _ = hangups.recv() => {
                    supervisor.reloading(live.reload(&options, &store, &clock, &stop.soon)).await;
                }
            }
        }
        supervisor.stopping();
        // In this order: a job that began now would only be ended.
        stopping.cancel();
        jobs_stop.cancel();
        let deadline = async {
            stop.now.cancelled().await;
            tokio::time::sleep(STOPPING_NOW).await;
        };
        tokio::select! {
            errors = tasks.join_all(STOPPING) => {
                for error in errors {
                    tracing::error!(%error, "while stopping");
                }
            }
            () = deadline => {}
        }
        match broken {
            Some(error) => Err(error.into()),
            None if stop.now.is_cancelled() => Err(AppError::Hurried),
            None => Ok(()),
        }
    }

    /// The scheduled worker: one complete look, then everything that is due, and what follows from it.
    /// Stops as the daemon does.
    pub async fn once(mut self, stop: Stop) -> Result<Left, AppError> {
        let settings = self.settings();
        let keeper = self.keeper();
        // Nobody else keeps the grants alive where no daemon runs.
        let tending = Arc::clone(&keeper);
        let tending = tokio::spawn(async move { tending.look().await });
        let (jobs_stop, soon) = (self.jobs_stop.clone(), stop.soon.clone());
        tokio::spawn(async move {
            soon.cancelled().await;
            jobs_stop.cancel();
        });
        // Before what is due leaves: a warning is a mail like any other.
        let urgent = endings::look(&self.store, &settings, &keeper, self.clock.now()).await?;
        let before = self.store.counts().await?;
        let notice = async {
            self.files.look().await?;
            self.schedules.look().await?;
            self.absence.look().await
        };
        // What was not noticed is noticed next time.
        tokio::select! {
            noticed = notice => drop(noticed?),
            () = stop.soon.cancelled() => {}
        }
        while !stop.soon.is_cancelled() {
            let dispatched = self.dispatcher.drain().await?;
            self.delivery.drain(&stop.soon, &stop.now).await?;
            // Work that ended may be what was missing.
            self.absence.look().await?;
            if dispatched == 0 && self.store.pending_events(1).await?.is_empty() {
                break;
            }
        }
        let stopped = stop.soon.is_cancelled();
        if stop.now.is_cancelled() {
            return Err(AppError::Hurried);
        }
        let senders = Arc::clone(&self.live.delivery.borrow());
        senders.senders.close().await;
        let after = self.store.counts().await?;
        tokio::select! {
            _ = tending => {}
            () = stop.soon.cancelled() => {}
        }
        // A renewal under way is waited for all the same: given up, somebody would have to sign in again.
        keeper.quiet().await;
        let mut left = left(&before, &after, &self.store.open_cases().await?, stopped);
        left.accounts.extend(
            urgent
                .into_iter()
                .filter(|account| settings.accounts.contains_key(account)),
        );
        left.accounts.sort();
        left.accounts.dedup();
        if let Some(alive) = settings.alive.as_ref().filter(|_| left.is_well()) {
            let called = tokio::select! {
                called = alive::call(alive, None) => Some(called),
                () = stop.soon.cancelled() => None,
            };
            if let Some(called) = called {
                alive::note(&self.store, &called).await;
            }
        }
        housekeeping::forget(&self.store, &settings).await;
        Ok(left)
    }
}

type Counts = BTreeMap<(entry::Kind, State), u64>;

/// What a run changed, and what is left.
fn left(before: &Counts, after: &Counts, cases: &[crate::store::Case], stopped: bool) -> Left {
    let sum = |counts: &Counts, states: &[State]| -> u64 {
        counts
            .iter()
            .filter(|((_, state), _)| states.contains(state))
            .map(|(_, count)| count)
            .sum()
    };
    let of = |kind: &str| {
        cases
            .iter()
            .filter(|case| case.kind == kind && !case.key.starts_with(endings::CASES))
            .map(|case| case.subject.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    Left {
        stopped,
        done: sum(after, &[State::Accepted]).saturating_sub(sum(before, &[State::Accepted])),
        waiting: sum(
            after,
            &[State::Ready, State::Deferred, State::Held, State::Unknown],
        ),
        accounts: of("account"),
        blind: of("watch"),
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

/// What a set of rules expects, or does not want to go on.
pub fn expectations_of(rules: &[Rule]) -> Vec<Expectation> {
    let triggers = rules.iter().flat_map(|rule| &rule.triggers);
    triggers
        .filter_map(|trigger| match trigger {
            Trigger::Absence(expectation) => Some((**expectation).clone()),
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

/// What the dispatcher works by, of a setup.
pub fn rules_plan_of(
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

/// What delivery works by, of a setup.
pub fn plan_of(settings: &Settings, rules: &[Rule], senders: Senders) -> delivery::Plan {
    delivery::Plan {
        senders,
        overlap: rules
            .iter()
            .filter(|rule| !rule.work.is_empty())
            .map(|rule| (rule.name.clone(), rule.overlap))
            .collect(),
        fail_over: settings.outbox.fail_over,
        retry: Retry {
            first: settings.outbox.first,
            longest: settings.outbox.longest,
            give_up: settings.outbox.give_up,
        },
        setup: settings.dir.clone(),
        logs: housekeeping::logs(settings),
        ground: settings.ground.clone(),
        commands: Commands::Real,
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

/// Ends the troubles of accounts that the settings no longer have.
async fn close_cases(store: &Store, settings: &Settings) {
    if let Err(error) = housekeeping::close_cases_of_former_accounts(store, settings).await {
        tracing::error!(%error, "cannot close the cases of accounts that are gone");
    }
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
