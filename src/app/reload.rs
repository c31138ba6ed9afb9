//! Reading the setup again: all of it, or nothing and why.
//!
//! The new setup is loaded and checked whole, every part that depends on it is made, and only then are
//! the plans swapped, one after the other, none of which can fail. What was admitted under the old setup
//! stays as it is.

use super::{
    Options, close_cases, expectations_of, host, oauth_accounts, plan_of, rules_plan_of, schedules_of,
};
use crate::advice::catalog;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::delivery;
use crate::dispatch;
use crate::oauth::keeper::Keeper;
use crate::rule::load::{self, Away, Setup};
use crate::sender::Senders;
use crate::source::absence::Handle as AbsenceHandle;
use crate::source::file::Handle as FilesHandle;
use crate::source::file::status::{self, Mode, WatchStatus};
use crate::source::schedule::Handle as SchedulesHandle;
use crate::store::Store;
use crate::submission::listener::Door;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for the first look at all folders before it is said that everything runs.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// What a reload replaces in the running parts.
pub(super) struct Live {
    pub(super) settings: watch::Sender<Arc<Settings>>,
    pub(super) door: watch::Sender<Arc<Door>>,
    pub(super) keeper: watch::Sender<Arc<Keeper>>,
    pub(super) rules: watch::Sender<Arc<dispatch::Plan>>,
    pub(super) delivery: watch::Sender<Arc<delivery::Plan>>,
    pub(super) files: FilesHandle,
    pub(super) schedules: SchedulesHandle,
    pub(super) absence: AbsenceHandle,
    /// Ids of the watches.
    pub(super) watched: Vec<String>,
}

impl Live {
    /// Reloads, and leaves the result where `tidings reload` finds it. That it went well is said when
    /// the folders that came in were looked at: a file dropped from then on arrives.
    pub(super) async fn reload(
        &mut self,
        options: &Options,
        store: &Store,
        clock: &Clock,
        stop: &CancellationToken,
    ) {
        let began = clock.now();
        let problems = match self.swap(options, store, clock).await {
            Ok(came) => {
                tokio::select! {
                    () = first_look(store.clone(), came, began) => {}
                    () = stop.cancelled() => {}
                }
                tracing::info!("setup reloaded");
                Vec::new()
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "not reloaded; the old setup stays");
                }
                problems
            }
        };
        // Whoever asked compares `began` with the time he asked at: an answer to somebody who asked
        // before him may be about files as they were before he changed them.
        let note = json!({
            "began": began.to_string(), "at": clock.now().to_string(),
            "ok": problems.is_empty(), "problems": problems,
        });
        if let Err(error) = store.set_marks(vec![("reload".to_owned(), note)]).await {
            tracing::error!(%error, "cannot record the result of the reload");
        }
    }

    /// Swaps everything and tells which watches are new; or nothing, and why.
    async fn swap(
        &mut self,
        options: &Options,
        store: &Store,
        clock: &Clock,
    ) -> Result<Vec<String>, Vec<String>> {
        let one = |error: &dyn std::fmt::Display| vec![error.to_string()];
        let dir = options.setup.clone();
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
        let old = Arc::clone(&self.settings.borrow());
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
            store.clone(),
            &settings.state,
            clock.clone(),
        )
        .await
        .map_err(|error| one(&error))?;
        let senders =
            Senders::build(&settings, &keeper, options.transcript.as_deref()).map_err(|error| one(&error))?;
        let before = Arc::clone(&self.door.borrow());
        let door = Door::open(Arc::new(settings.clone()), host(), &before)
            .await
            .map_err(|error| one(&error))?;
        let watched: Vec<String> = watches.iter().map(|watch| watch.id.clone()).collect();
        let came = watched
            .iter()
            .filter(|id| !self.watched.contains(id))
            .cloned()
            .collect();
        // Nothing below can fail. Accounts come before the rules that name them.
        catalog::adopt(settings.advice.clone());
        self.keeper.send_replace(keeper);
        self.door.send_replace(Arc::new(door));
        self.delivery
            .send_replace(Arc::new(plan_of(&settings, &rules, senders)));
        self.schedules.replace(schedules_of(&rules));
        let expectations = expectations_of(&rules);
        self.rules.send_replace(Arc::new(rules_plan_of(
            settings.clone(),
            templates,
            rules,
            &watches,
        )));
        self.files.replace(watches);
        self.absence.replace(expectations);
        self.watched = watched;
        close_cases(store, &settings).await;
        self.settings.send_replace(Arc::new(settings));
        Ok(came)
    }
}

/// Waits until each of these watches had its first look since `began`, or cannot look; at most a minute,
/// so that one slow share does not keep the service manager waiting.
pub(super) async fn first_look(store: Store, watched: Vec<String>, began: Timestamp) {
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
                        // What an earlier run left in the store says nothing about this one.
                        let since = |time: Option<Timestamp>| time.is_some_and(|time| time >= began);
                        since(status.last_scan) || (status.mode == Mode::Away && since(status.away_since))
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
