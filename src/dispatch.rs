//! Dispatch: from a recorded event to entries in the outbox.
//!
//! Theory of operation. The dispatcher asks the journal for events nobody dispatched yet, finds the
//! rules each concerns, lets their actions prepare effects, and admits these together with what each
//! rule decided, in the transaction that marks the event as dispatched. It owns no state between two
//! events: killed anywhere, it begins again with the same events, and the outbox takes each key once.
//! It is woken by the store's commits, and looks by itself now and then.
//!
//! ```text
//!   journal --pending--> [ find rules > condition > prepare ] --admit--> outbox
//!                                     |
//!                                     +--> what each rule decided, and why (`explain`)
//! ```
//!
//! `ask` puts one event to one rule, `compose` makes its entries.

mod ask;
mod compose;

use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::event::{self, Event, EventId};
use crate::mail::header::one_line;
use crate::pulse::Pulse;
use crate::rule::index::{Match, Rules};
use crate::store::{Admission, Store, StoreError};
use crate::template::Templates;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events taken in one go.
const BATCH: usize = 256;

/// How long events may be prepared before those that are done are admitted.
const LONG: Duration = Duration::from_secs(1);

/// Longest time between two looks at the journal, should a wake-up be lost.
const LOOK: Duration = Duration::from_millis(500);

/// What the dispatcher works by; replaced whole at a reload.
#[derive(Debug)]
pub struct Plan {
    /// The rules, indexed.
    pub rules: Rules,
    /// The settings they were checked with.
    pub settings: Settings,
    /// The templates they name.
    pub templates: Templates,
    /// This machine's name, for facts.
    pub host: String,
    /// Ids and roots of the watches the rules know.
    pub watches: Vec<(String, PathBuf)>,
}

impl Plan {
    /// The rules an event concerns. A file that was recorded under a watch which the setup no longer has, since
    /// it was changed meanwhile, is asked about under the watches of the same folder there are now: what was
    /// recorded is not lost by a reload or a restart.
    fn find(&self, event: &Event) -> Vec<Match> {
        let source = &event.happening.source;
        let Some(file) = &event.happening.file else {
            return self.rules.find(event);
        };
        let of_watch = matches!(
            event.happening.kind,
            event::Kind::FileArrives | event::Kind::FileRemoved
        );
        if !of_watch || self.watches.iter().any(|(id, _)| id == source) {
            return self.rules.find(event);
        }
        let mut found: Vec<Match> = Vec::new();
        for (id, _) in self.watches.iter().filter(|(_, root)| *root == file.root) {
            let mut moved = event.clone();
            moved.happening.source.clone_from(id);
            for each in self.rules.find(&moved) {
                if found.iter().all(|known| known.rule.name != each.rule.name) {
                    found.push(each);
                }
            }
        }
        found
    }
}

/// The task.
#[derive(Debug)]
pub struct Dispatcher {
    store: Store,
    plan: watch::Receiver<Arc<Plan>>,
    clock: Clock,
    pulse: Pulse,
}

impl Dispatcher {
    /// A dispatcher that has not begun.
    pub fn new(store: Store, plan: watch::Receiver<Arc<Plan>>, clock: Clock, pulse: Pulse) -> Dispatcher {
        Dispatcher {
            store,
            plan,
            clock,
            pulse,
        }
    }

    /// Works until stopped. A store that cannot write is waited for; nothing is skipped.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.store.changes();
        loop {
            self.pulse.tick();
            let pause = match self.drain().await {
                Ok(_) => LOOK,
                Err(error) => {
                    tracing::error!(%error, "cannot dispatch; trying again");
                    Duration::from_secs(5)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dispatches until the journal has nothing pending. Tells how many events that were.
    pub async fn drain(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        loop {
            let events = self.store.pending_events(BATCH).await?;
            if events.is_empty() {
                return Ok(count);
            }
            let plan = Arc::clone(&self.plan.borrow());
            let (store, now, pulse) = (self.store.clone(), self.clock.now(), self.pulse.clone());
            let prepared = tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                let each = events.iter().map(|event| {
                    // Large attachments take their time; each one done is progress.
                    pulse.tick();
                    let made = ask::admission(event, &plan, &store, now).map_err(|error| (event.id, error));
                    (made, begun.elapsed())
                });
                // Those that are done need not wait for large files among the rest.
                let mut done = Vec::new();
                for (made, passed) in each {
                    done.push(made);
                    if passed > LONG {
                        break;
                    }
                }
                done
            });
            // A panic in a template engine must not lose the batch: it stays pending, and is told.
            let prepared = match prepared.await {
                Ok(prepared) => prepared,
                Err(error) => {
                    tracing::error!(%error, "preparing effects failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            count += prepared.len();
            // What the spool could not take stays pending, and everything else goes its way.
            let (admissions, disk): (Vec<_>, Vec<_>) = prepared.into_iter().partition(Result::is_ok);
            let admissions: Vec<Admission> = admissions.into_iter().flatten().collect();
            for admission in &admissions {
                tracing::debug!(
                    event = admission.event.map(|event| event.0),
                    entries = admission.entries.len(),
                    "event dispatched"
                );
            }
            let held: Vec<_> = admissions.iter().flat_map(held).collect();
            let admitted = self.store.admit(admissions).await?;
            for (entry, held) in admitted.iter().flatten().zip(held) {
                if let Some((event, rule, reason)) = held
                    && entry.fresh
                {
                    tracing::warn!(entry = %entry.id, %event, rule, reason, "held, a person must mend something");
                }
            }
            self.pulse.tick();
            if let Some((event, source)) = disk.into_iter().find_map(Result::err) {
                tracing::error!(%event, error = %source, "no space for a mail; its event waits");
                return Err(StoreError::File {
                    what: "cannot write to",
                    path: self.store.path().with_file_name("spool"),
                    source: Arc::new(source),
                });
            }
        }
    }
}

/// For each entry of an admission, what the log says of it if it is held.
fn held(admission: &Admission) -> impl Iterator<Item = Option<(EventId, String, String)>> {
    admission.entries.iter().map(|entry| {
        let reason = entry.held.as_ref()?;
        Some((
            entry.event?,
            one_line(&entry.rule, 200),
            one_line(&reason.text, 500),
        ))
    })
}
