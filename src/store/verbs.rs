//! The verbs of [`Store`]. What is atomic and what may be said twice stands on the front page.
//!
//! A verb that changes something is carried out even if its future is dropped before the answer.

use crate::clock::Clock;
use crate::entry::{self, Body, Entry, EntryId, Fence, Leased, NewEntry, Settlement, State};
use crate::event::{Event, EventId, NewEvent};
use crate::store::spool::{ORPHAN_AGE, Spool};
use crate::store::sqlite::writer::{Tx, Urgency};
use crate::store::sqlite::{self, Durable, Sqlite};
use crate::store::{
    Admission, Admitted, Also, Batch, Case, EntryDetail, EntryFilter, EventDetail, EventFilter, Gathering,
    Grant, INLINE_LIMIT, Inner, Lane, Lying, NewCase, Purged, Recorded, Recovery, Removal, Removed,
    RuleVerdict, SeenFile, Store, StoreError, WatchMemory,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlite::{
    admission, cases, files, gatherings, grants, handed, journal, lists, marks, orphans, outbox, purge,
    record,
};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{oneshot, watch};

impl Store {
    /// What keeps it, with its version.
    pub fn engine() -> String {
        super::sqlite::engine()
    }

    /// Opens the database file `path`, made if it is not there (0600, in a folder of 0700); spool,
    /// lock and ballast lie beside it. Brings an older schema up to date.
    ///
    /// Refuses a newer schema, another program's database, and a network file system.
    pub async fn open(path: &Path, clock: Clock) -> Result<Store, StoreError> {
        Store::open_as(path, Durable::Yes, clock).await
    }

    /// The same for a test of rules: nothing waits for the disk, so a power cut loses what was promised. Never
    /// for a state that is to be kept.
    pub async fn open_for_a_trial(path: &Path, clock: Clock) -> Result<Store, StoreError> {
        Store::open_as(path, Durable::No, clock).await
    }

    async fn open_as(path: &Path, durable: Durable, clock: Clock) -> Result<Store, StoreError> {
        let path = path.to_owned();
        let (changes, _) = watch::channel(0);
        let ticks = changes.clone();
        let opened = blocking(move || {
            let sqlite = Sqlite::open(&path, durable, ticks)?;
            let folder = sqlite::folder_of(sqlite.path()).join("spool");
            let spool = Spool::open(folder.clone()).map_err(|source| StoreError::File {
                what: "cannot create the spool",
                path: folder,
                source: Arc::new(source),
            })?;
            Ok((sqlite, spool))
        });
        let (sqlite, spool) = opened.await?;
        Ok(Store {
            inner: Arc::new(Inner {
                sqlite,
                spool,
                clock,
                changes,
            }),
        })
    }

    /// The database file, absolute.
    pub fn path(&self) -> &Path {
        self.inner.sqlite.path()
    }

    /// Where bodies too large for the database lie.
    pub fn spool(&self) -> &Spool {
        &self.inner.spool
    }

    // ---- the journal ----

    /// Records what happened, in one transaction, and says for each event of the batch, in order, its
    /// number and whether it is new. For the end of a job, works out whether it recovers.
    pub async fn record(&self, batch: Batch) -> Result<Vec<Recorded>, StoreError> {
        let now = self.now();
        self.write(move |tx| record::record(tx, &batch, now)).await
    }

    /// Records that files are gone, in one transaction, and says for each, in order, whether that is news. What
    /// [`Also::gone`] marked before is not, and what may yet be marked so is not decided.
    pub async fn record_removed(&self, removals: Vec<Removal>) -> Result<Vec<Removed>, StoreError> {
        let now = self.now();
        self.write(move |tx| files::remove(tx, &removals, now)).await
    }

    /// Up to `limit` events that no rule was asked about yet, in the order of recording.
    pub async fn pending_events(&self, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(move |connection| journal::pending(connection, limit))
            .await
    }

    /// Puts what rules made of events into the outbox and marks the events dispatched, all in one
    /// transaction. The answer has the shape of `admissions` and their entries. Large bodies go to the
    /// spool; a spooled body whose key was taken is removed.
    pub async fn admit(&self, admissions: Vec<Admission>) -> Result<Vec<Vec<Admitted>>, StoreError> {
        let now = self.now();
        let mut admissions = admissions;
        if admissions.iter().flat_map(|a| &a.entries).any(is_large) {
            let spool = self.inner.spool.clone();
            admissions = blocking(move || {
                for entry in admissions.iter_mut().flat_map(|a| &mut a.entries) {
                    spool_large(&spool, entry)?;
                }
                Ok(admissions)
            })
            .await?;
        }
        self.write(move |tx| admission::admit(tx, &admissions, now)).await
    }

    /// Puts one entry into the outbox that answers no event: a test mail.
    pub async fn admit_alone(&self, entry: NewEntry) -> Result<Admitted, StoreError> {
        let now = self.now();
        let entry = self.spooled(entry).await?;
        self.write(move |tx| outbox::insert(tx, &entry, true, now)).await
    }

    /// Records that somebody handed a mail in, and puts the mail into the outbox, in one transaction; no rule is
    /// asked about it. An event whose key was taken less than `within` ago is the same once more: the entry there is
    /// left as it was. One that is older does not count.
    pub async fn take_in(
        &self,
        event: NewEvent,
        entry: NewEntry,
        within: Duration,
    ) -> Result<Admitted, StoreError> {
        let now = self.now();
        let since = SignedDuration::try_from(within)
            .ok()
            .and_then(|within| now.checked_sub(within).ok())
            .unwrap_or(Timestamp::MIN);
        let entry = self.spooled(entry).await?;
        self.write(move |tx| handed::take_in(tx, &event, &entry, since, now))
            .await
    }

    /// Whether an event is a trouble, or came of one through what rules did.
    pub async fn is_of_a_trouble(&self, event: EventId) -> Result<bool, StoreError> {
        self.read(move |connection| journal::is_of_a_trouble(connection, event))
            .await
    }

    // ---- the outbox ----

    /// Lanes with ready or deferred entries. Costs the number of lanes, not of entries.
    pub async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.read(outbox::lanes).await
    }

    /// Leases up to `limit` due entries of a lane, the longest due first. For each an attempt begins
    /// and the fence rises. A power cut may take this back until the gate or an outcome is durable.
    pub async fn claim(
        &self,
        kind: entry::Kind,
        lane: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Leased>, StoreError> {
        let now = self.now();
        let until = later(now, lease);
        let lane = lane.to_owned();
        self.write_as(Urgency::Lease, move |tx| {
            outbox::claim(tx, kind, &lane, limit, until, now)
        })
        .await
    }

    /// Passes the point of no return: when this returns it is on disk that the effect may have
    /// happened. Refused ([`StoreError::Fenced`]) when the lease is over: then do nothing.
    pub async fn gate(&self, id: EntryId, fence: Fence) -> Result<(), StoreError> {
        let now = self.now();
        self.write(move |tx| outbox::gate(tx, id, fence, now)).await
    }

    /// Keeps a lease for `lease` from now.
    pub async fn renew(&self, id: EntryId, fence: Fence, lease: Duration) -> Result<(), StoreError> {
        let until = later(self.now(), lease);
        self.write_outcome(move |tx| outbox::renew(tx, id, fence, until))
            .await
    }

    /// Ends a lease with what came of it, and all that goes with that. Past the gate,
    /// [`Settlement::Release`] is refused: it may have happened.
    pub async fn settle(
        &self,
        id: EntryId,
        fence: Fence,
        settlement: Settlement,
        also: Also,
    ) -> Result<(), StoreError> {
        let now = self.now();
        self.write_outcome(move |tx| outbox::settle(tx, id, fence, &settlement, &also, now))
            .await
    }

    /// At the start of the owner, before it claims: nobody can bear a lease, so all of them are
    /// settled as `store` says of the gate. `lost` makes the events of work that was lost. Also removes
    /// old orphans from the spool and keeps space for outcomes back.
    pub async fn recover(&self, lost: fn(&Entry, &[u8]) -> Vec<NewEvent>) -> Result<Recovery, StoreError> {
        let now = self.now();
        let mut recovery = self
            .write_outcome(move |tx| orphans::settle(tx, Timestamp::MAX, lost, now))
            .await?;
        recovery.orphans = self.sweep_spool(SystemTime::now() - ORPHAN_AGE).await?;
        self.answered(self.inner.sqlite.writer.reserve(true)).await?;
        Ok(recovery)
    }

    /// The same for leases that ran out: their bearer hangs, or its machine slept. Said from time to
    /// time by the owner. Also lays down again what a full disk used up, once there is room.
    pub async fn rescue(&self, lost: fn(&Entry, &[u8]) -> Vec<NewEvent>) -> Result<Recovery, StoreError> {
        let now = self.now();
        let recovery = self
            .write_outcome(move |tx| orphans::settle(tx, now, lost, now))
            .await?;
        self.answered(self.inner.sqlite.writer.reserve(false)).await?;
        Ok(recovery)
    }

    // ---- people ----

    /// Entries that the filter lets through, newest first.
    pub async fn entries(&self, filter: EntryFilter) -> Result<Vec<Entry>, StoreError> {
        self.read(move |connection| lists::entries(connection, &filter))
            .await
    }

    /// One entry with all there is; reads an inline body, not a spooled one.
    pub async fn entry(&self, id: EntryId) -> Result<Option<EntryDetail>, StoreError> {
        self.read(move |connection| lists::entry(connection, id)).await
    }

    /// Events that the filter lets through.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, StoreError> {
        self.read(move |connection| lists::events(connection, &filter))
            .await
    }

    /// One event with what became of it.
    pub async fn event(&self, id: EventId) -> Result<Option<EventDetail>, StoreError> {
        self.read(move |connection| lists::event(connection, id)).await
    }

    /// How often a rule said what (`fired`, `condition_false`, ..) of the events recorded since then.
    pub async fn said(&self, rule: &str, since: Timestamp) -> Result<BTreeMap<String, u64>, StoreError> {
        let rule = rule.to_owned();
        self.read(move |connection| lists::said(connection, &rule, since))
            .await
    }

    /// Makes an entry ready again, due now. One that could not be composed (its effect is empty) is
    /// removed instead and its event is dispatched again, or what is gathered under its key is due; the
    /// entry returned is then as it was, not `ready`.
    pub async fn retry(&self, id: EntryId) -> Result<Entry, StoreError> {
        let now = self.now();
        self.write(move |tx| outbox::retry(tx, id, now)).await
    }

    /// Decides that an entry shall never be done. It and its body stay until they are purged.
    pub async fn cancel(&self, id: EntryId) -> Result<Entry, StoreError> {
        let now = self.now();
        self.write(move |tx| outbox::cancel(tx, id, now)).await
    }

    /// What each rule said of an event when it was last dispatched, in their order.
    pub async fn verdicts(&self, event: EventId) -> Result<Vec<RuleVerdict>, StoreError> {
        self.read(move |connection| lists::verdicts(connection, event.0))
            .await
    }

    /// Mails admitted since then: their rule, when, and their summary; newest first. Costs what is younger
    /// than `since`, not what there is.
    pub async fn mails_since(&self, since: Timestamp) -> Result<Vec<(String, Timestamp, Value)>, StoreError> {
        self.read(move |connection| lists::mails_since(connection, since))
            .await
    }

    /// How many entries there are of each kind in each state.
    pub async fn counts(&self) -> Result<BTreeMap<(entry::Kind, State), u64>, StoreError> {
        self.read(lists::counts).await
    }

    /// When entries of a lane passed the gate since then, oldest first: what a provider may have
    /// counted against the mailbox.
    pub async fn attempts_since(
        &self,
        kind: entry::Kind,
        lane: &str,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let lane = lane.to_owned();
        self.read(move |connection| lists::attempts_since(connection, kind, &lane, since))
            .await
    }

    // ---- seen files ----

    /// All that a watch knows, files that are gone too.
    pub async fn seen(&self, watch: &str) -> Result<Vec<SeenFile>, StoreError> {
        let watch = watch.to_owned();
        self.read(move |connection| files::seen(connection, &watch)).await
    }

    /// What lies in a watched folder, as far as it is known, and since when.
    pub async fn lying(&self, watch: &str) -> Result<Vec<Lying>, StoreError> {
        let watch = watch.to_owned();
        self.read(move |connection| files::lying(connection, &watch))
            .await
    }

    /// What a watch knows of one file; one that is gone too.
    pub async fn seen_file(&self, watch: &str, relative: &Path) -> Result<Option<SeenFile>, StoreError> {
        let (watch, relative) = (watch.to_owned(), relative.to_owned());
        self.read(move |connection| files::seen_file(connection, &watch, &relative))
            .await
    }

    /// All watches there ever were.
    pub async fn watches(&self) -> Result<Vec<WatchMemory>, StoreError> {
        self.read(files::watches).await
    }

    // ---- cases ----

    /// Opens a case and records its trouble event, in one transaction; true. If one is open under the
    /// key, only its subject and reason are renewed; false.
    pub async fn open_case(&self, case: NewCase) -> Result<bool, StoreError> {
        let now = self.now();
        self.write(move |tx| cases::open(tx, &case, now)).await
    }

    /// Tells of an open case again: renews its reason and records a further trouble event of it, once for each `tag`.
    /// False if no such case is open, or that was told before.
    pub async fn tell_case(&self, case: NewCase, tag: String) -> Result<bool, StoreError> {
        let now = self.now();
        self.write(move |tx| cases::tell(tx, &case, &tag, now)).await
    }

    /// Closes the open case of that key and records the event that it is over; false if there was none. Entries that were deferred because of
    /// it are due now.
    pub async fn close_case(&self, key: &str) -> Result<bool, StoreError> {
        let now = self.now();
        let key = key.to_owned();
        self.write(move |tx| outbox::close_case(tx, &key, now)).await
    }

    /// Makes the entries that were deferred because of that case due now, though it is open still:
    /// somebody did something about it, and the next attempt tells. How many there are.
    pub async fn hasten(&self, case: &str) -> Result<u64, StoreError> {
        let now = self.now();
        let case = case.to_owned();
        self.write(move |tx| outbox::hasten(tx, &case, now)).await
    }

    /// All open cases, oldest first.
    pub async fn open_cases(&self) -> Result<Vec<Case>, StoreError> {
        self.read(cases::list).await
    }

    /// The open case of that key.
    pub async fn open_case_of(&self, key: &str) -> Result<Option<Case>, StoreError> {
        let key = key.to_owned();
        self.read(move |connection| cases::find(connection, &key)).await
    }

    // ---- what is gathered ----

    /// Up to `limit` gatherings that are due by `by`, the longest due first. Their changes go with
    /// [`Store::admit`].
    pub async fn due_gatherings(&self, by: Timestamp, limit: usize) -> Result<Vec<Gathering>, StoreError> {
        self.read(move |connection| gatherings::due(connection, by, limit))
            .await
    }

    /// When the next gathering is due; may have passed.
    pub async fn next_gathering(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(gatherings::next).await
    }

    /// What a rule gathers under a key.
    pub async fn gathering(&self, rule: &str, key: &str) -> Result<Option<Gathering>, StoreError> {
        let (rule, key) = (rule.to_owned(), key.to_owned());
        self.read(move |connection| gatherings::find(connection, &rule, &key))
            .await
    }

    /// All gatherings, or those of a rule, by rule and key.
    pub async fn gatherings(&self, rule: Option<&str>) -> Result<Vec<Gathering>, StoreError> {
        let rule = rule.map(str::to_owned);
        self.read(move |connection| gatherings::list(connection, rule.as_deref()))
            .await
    }

    /// The events that belong to a gathering, oldest first, up to `limit`.
    pub async fn gathered(&self, rule: &str, key: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        let (rule, key) = (rule.to_owned(), key.to_owned());
        self.read(move |connection| gatherings::events(connection, &rule, &key, EventId(0), limit))
            .await
    }

    /// The same, only those recorded after `after`: the next page.
    pub async fn gathered_after(
        &self,
        rule: &str,
        key: &str,
        after: EventId,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let (rule, key) = (rule.to_owned(), key.to_owned());
        self.read(move |connection| gatherings::events(connection, &rule, &key, after, limit))
            .await
    }

    /// How many events belong to a gathering.
    pub async fn count_gathered(&self, rule: &str, key: &str) -> Result<u64, StoreError> {
        let (rule, key) = (rule.to_owned(), key.to_owned());
        self.read(move |connection| gatherings::count(connection, &rule, &key))
            .await
    }

    /// Where an event is gathered now: rules and keys.
    pub async fn gathered_in(&self, event: EventId) -> Result<Vec<(String, String)>, StoreError> {
        self.read(move |connection| gatherings::places(connection, event.0))
            .await
    }

    // ---- grants ----

    /// The sealed grant of an account.
    pub async fn grant(&self, account: &str) -> Result<Option<Grant>, StoreError> {
        let account = account.to_owned();
        self.read(move |connection| grants::get(connection, &account))
            .await
    }

    /// Stores a grant if the one there is still of version `expected` (`None`: there is none), and
    /// returns its version. Otherwise [`StoreError::Stale`]: read again.
    pub async fn put_grant(
        &self,
        account: &str,
        expected: Option<i64>,
        sealed: Vec<u8>,
    ) -> Result<i64, StoreError> {
        let now = self.now();
        let account = account.to_owned();
        self.write_outcome(move |tx| grants::put(tx, &account, expected, Some(&sealed), now))
            .await
    }

    /// Deletes the grant if it is still of version `expected`.
    pub async fn delete_grant(&self, account: &str, expected: Option<i64>) -> Result<(), StoreError> {
        let now = self.now();
        let account = account.to_owned();
        self.write(move |tx| grants::put(tx, &account, expected, None, now).map(drop))
            .await
    }

    // ---- marks ----

    /// All marks whose key begins with `prefix`, by key.
    pub async fn marks(&self, prefix: &str) -> Result<Vec<(String, Value)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| marks::get(connection, &prefix)).await
    }

    /// Sets marks, all or none.
    pub async fn set_marks(&self, values: Vec<(String, Value)>) -> Result<(), StoreError> {
        self.write(move |tx| marks::set(tx, &values)).await
    }

    /// Removes all marks whose key begins with `prefix`.
    pub async fn delete_marks(&self, prefix: &str) -> Result<(), StoreError> {
        let prefix = prefix.to_owned();
        self.write(move |tx| marks::delete(tx, &prefix)).await
    }

    // ---- news ----

    /// Changes whenever a commit of this handle, or of others that [`Store::foreign_change`] saw, may
    /// have added an event or made an entry due. A hint: who waits for it looks by himself as well.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Whether another handle or process has written since this was last asked; if so, everybody who
    /// waits for [`Store::changes`] is woken. Cheap: ask four times a second.
    pub async fn foreign_change(&self) -> bool {
        // A writer that has ended has no news.
        self.answered(self.inner.sqlite.writer.probe())
            .await
            .unwrap_or(false)
    }

    // ---- forgetting ----

    /// Forgets what is finished and was last touched longer than `keep` ago: accepted and cancelled
    /// entries with their bodies, once no other entry of their event is unfinished or younger; dispatched
    /// events of which no entry is left; files seen to be gone;
    /// closed cases. Never anything that waits, is held, unknown, failed, or being done.
    pub async fn purge(&self, keep: Duration) -> Result<Purged, StoreError> {
        let now = self.now();
        let before = SignedDuration::try_from(keep)
            .ok()
            .and_then(|keep| now.checked_sub(keep).ok())
            .unwrap_or(Timestamp::MIN);
        let mut purged = Purged::default();
        loop {
            let ids = self
                .read(move |connection| purge::old_entries(connection, before))
                .await?;
            let all = ids.len() < purge::PIECE;
            purged.entries += self
                .write(move |tx| purge::forget_entries(tx, &ids, before))
                .await?;
            if all {
                break;
            }
        }
        loop {
            let ids = self
                .read(move |connection| purge::old_events(connection, before))
                .await?;
            let all = ids.len() < purge::PIECE;
            purged.events += self
                .write(move |tx| purge::forget_events(tx, &ids, before))
                .await?;
            if all {
                break;
            }
        }
        (purged.seen, purged.cases) = self.write(move |tx| purge::forget_rest(tx, before)).await?;
        self.sweep_spool(SystemTime::now() - ORPHAN_AGE).await?;
        Ok(purged)
    }

    // ---- within ----

    /// The entry with a large body in the spool.
    async fn spooled(&self, mut entry: NewEntry) -> Result<NewEntry, StoreError> {
        if !is_large(&entry) {
            return Ok(entry);
        }
        let spool = self.inner.spool.clone();
        blocking(move || {
            spool_large(&spool, &mut entry)?;
            Ok(entry)
        })
        .await
    }

    /// Cut to what is stored, so that what a verb returns is what a later read returns.
    fn now(&self) -> Timestamp {
        let now = self.inner.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.inner.sqlite.read(query).await
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(Urgency::Ordinary, work).await
    }

    /// A write that may use the space that is kept back for it.
    async fn write_outcome<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(Urgency::Outcome, work).await
    }

    async fn write_as<T, F>(&self, urgency: Urgency, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let answer = self.inner.sqlite.writer.ask(urgency, work);
        self.answered(answer).await?
    }

    async fn answered<T: Send + 'static>(&self, answer: oneshot::Receiver<T>) -> Result<T, StoreError> {
        if self.inner.clock.is_virtual() {
            // A paused clock jumps ahead when the runtime is idle, and it does not know of our thread.
            // It does know of its blocking threads.
            return blocking(move || answer.blocking_recv().map_err(|_| StoreError::Closed)).await;
        }
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Removes spool files written before `before` that no entry refers to. The folder is read first:
    /// what is admitted after that is younger.
    async fn sweep_spool(&self, before: SystemTime) -> Result<usize, StoreError> {
        let spool = self.inner.spool.clone();
        let names = blocking(move || {
            spool.older(before).map_err(|source| StoreError::File {
                what: "cannot list the spool",
                path: spool.folder().to_owned(),
                source: Arc::new(source),
            })
        })
        .await?;
        if names.is_empty() {
            return Ok(0);
        }
        let referred = self.read(orphans::referred).await?;
        let spool = self.inner.spool.clone();
        blocking(move || Ok(spool.sweep(names, &referred))).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::Closed)?
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

fn is_large(entry: &NewEntry) -> bool {
    matches!(&entry.body, Body::Inline(bytes) if bytes.len() > INLINE_LIMIT)
}

fn spool_large(spool: &Spool, entry: &mut NewEntry) -> Result<(), StoreError> {
    let Body::Inline(bytes) = &entry.body else {
        return Ok(());
    };
    if bytes.len() <= INLINE_LIMIT {
        return Ok(());
    }
    let written = spool.create().and_then(|mut file| {
        file.write_all(bytes)?;
        file.keep()
    });
    entry.body = written.map_err(|source| StoreError::File {
        what: "cannot write to the spool",
        path: spool.folder().to_owned(),
        source: Arc::new(source),
    })?;
    Ok(())
}
