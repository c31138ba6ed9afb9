//! What is to be done now and then, whatever happens: forget what is old, rescue what was left behind.

use crate::action::{output, work};
use crate::app::space;
use crate::config::settings::Settings;
use crate::pulse::Pulse;
use crate::source::{emitted, job, running};
use crate::store::{Store, StoreError};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often old entries, events and logs are purged.
const PURGE: Duration = Duration::from_secs(3600);

/// How often leases that ran out are looked for.
const RESCUE: Duration = Duration::from_secs(60);

/// How often events dropped as files are looked for, and reports of jobs left as files.
const PICK_UP: Duration = Duration::from_secs(1);

/// Time between two proofs that the store writes.
const PROOF: Duration = Duration::from_secs(20);

/// Writes something tiny and durable now and then. An answer that says no (a full disk, a busy database)
/// is an answer all the same: the writer moves, and whoever needed it has told.
pub async fn prove(store: Store, writes: Pulse, stop: CancellationToken) {
    let mut every = tokio::time::interval(PROOF);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let mark = ("pulse".to_owned(), json!(jiff::Timestamp::now().to_string()));
        match store.set_marks(vec![mark]).await {
            Err(StoreError::Closed) => tracing::error!("the writer of the store has ended"),
            _ => writes.tick(),
        }
    }
}

/// Works until stopped, by the settings there are; new ones are followed at once.
pub async fn run(store: Store, mut settings: watch::Receiver<Arc<Settings>>, stop: CancellationToken) {
    let [mut purge, mut rescue, mut pick_up] = [PURGE, RESCUE, PICK_UP].map(|every| {
        let mut every = tokio::time::interval(every);
        // A machine that slept does not make up for it.
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every
    });
    loop {
        let current = Arc::clone(&settings.borrow_and_update());
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = settings.changed() => purge.reset_immediately(),
            _ = purge.tick() => forget(&store, &current).await,
            _ = rescue.tick() => {
                match store.rescue(work::lost).await {
                    Ok(recovery) if !recovery.is_empty() => tracing::warn!(?recovery, "leases ran out"),
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "cannot look for leases that ran out"),
                }
                space::look(&store).await;
            }
            _ = pick_up.tick() => self::pick_up(&current, &store).await,
        }
    }
}

/// Forgets what is finished and older than `outbox.keep`: entries, events, the logs of jobs.
pub async fn forget(store: &Store, settings: &Settings) {
    match store.purge(settings.outbox.keep).await {
        Ok(purged) => tracing::debug!(?purged, "purged"),
        Err(error) => tracing::error!(%error, "cannot purge"),
    }
    let (logs, keep) = (logs(settings), settings.outbox.keep);
    match tokio::task::spawn_blocking(move || output::purge_logs(&logs, keep)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "old logs of jobs removed"),
        Ok(Err(error)) => tracing::error!(%error, "cannot remove old logs of jobs"),
        Err(error) => tracing::error!(%error, "removing old logs of jobs failed"),
    }
}

/// Where the output of jobs is kept.
pub fn logs(settings: &Settings) -> std::path::PathBuf {
    settings.state.join("jobs")
}

/// Records what was left or dropped as files: reports of jobs, and events.
pub async fn pick_up(settings: &Settings, store: &Store) {
    for folder in event_folders(settings) {
        let needed = settings.emitted.as_ref() == Some(&folder);
        match emitted::pick_up(&folder, needed, store, jiff::Timestamp::now()).await {
            Ok(picked) if picked.recorded > 0 => {
                tracing::info!(count = picked.recorded, folder = %folder.display(), "picked up events");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot pick up events; they stay where they are"),
        }
    }
    match running::find_lost(&settings.state, store).await {
        Ok(0) => {}
        Ok(count) => tracing::warn!(count, "jobs of `tidings exec` ended without a report"),
        Err(error) => tracing::error!(%error, "cannot look for jobs that are lost"),
    }
    match job::pick_up(&settings.state, store).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "picked up job reports that were left as files"),
        Err(error) => tracing::error!(%error, "cannot pick up job reports; they stay where they are"),
    }
}

/// The folders that events are dropped into.
fn event_folders(settings: &Settings) -> impl Iterator<Item = std::path::PathBuf> {
    std::iter::once(settings.state.join(emitted::FOLDER)).chain(settings.emitted.clone())
}

/// Closes the cases of accounts and event folders that the settings no longer have: nobody could mend
/// them any more.
pub async fn close_cases_of_former_accounts(store: &Store, settings: &Settings) -> Result<(), StoreError> {
    for case in store.open_cases().await? {
        if let Some(account) = case.key.strip_prefix("account:")
            && !settings.accounts.contains_key(account)
        {
            tracing::info!(account, "the account is gone, and its trouble with it");
            store.close_case(&case.key).await?;
        }
        if emitted::is_of_folder(&case.key)
            && !event_folders(settings).any(|folder| emitted::case_of(&folder) == case.key)
        {
            tracing::info!(
                folder = case.subject,
                "no events are dropped there any more, and its trouble is over"
            );
            store.close_case(&case.key).await?;
        }
    }
    Ok(())
}
