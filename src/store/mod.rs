//! The store: what happened and what is to be done about it, on disk before anybody is told so.
//!
//! This page is the contract. `sqlite` keeps it in one file for one machine; another store keeps the
//! same promises by the same verbs, and `tests/store_contract.rs` runs over it. The store knows no rule
//! and no mail: an effect crosses it as kind and bytes.
//!
//! # What is kept
//!
//! | | holds | one for each |
//! |---|---|---|
//! | journal | events, and what each rule made of them | event key |
//! | outbox | entries with effect and body, and every attempt at them | entry key |
//! | seen files | what a scan knows already | watch and relative path |
//! | cases | troubles and absences, opened and closed | open case key |
//! | gatherings | what rules gather before they tell, and since when | rule and key |
//! | grants | sealed credentials with a version | account |
//! | marks | small JSON values: schedule slots, live status | key |
//! | jobs | how each job ended last, for `recovers` | job name |
//!
//! # Promises that hold for every verb
//!
//! - **A verb that changes something returns after the change is durable**: a power cut later takes
//!   nothing back. A verb that returns an error changed nothing, with one exception: where the error is
//!   about the commit itself ([`StoreError::Io`]), the change may turn out to be there. Every verb may
//!   therefore be said again after an error.
//!   One more exception: a [`claim`](Store::claim) by itself is durable only with the next other write,
//!   which anything done under its lease needs first. It has done nothing yet, so a power cut that takes
//!   it back leaves an entry that is ready; a kill takes nothing back.
//! - **A verb is atomic**: everything it is given happens, or nothing does.
//! - **Requests do not disturb each other**: they may share a commit, but one that is refused is rolled
//!   back alone.
//! - **What was returned is seen** by every later read through any handle, in this process or another.
//! - Several processes may have the store open (`tidings exec`, `tidings outbox retry` beside the
//!   daemon). Only one, the holder of [`lock::Lock`], claims, recovers and purges.
//! - **All decisions take their time from the clock given to [`Store::open`].** Times are kept to the
//!   microsecond.
//! - A full disk is an answer ([`StoreError::Full`]), never the end of the writer. Outcomes
//!   ([`Store::settle`], [`Store::put_grant`]) can still be written then: space is kept back for them.
//!
//! # The verbs
//!
//! | verb | atomic | said twice |
//! |---|---|---|
//! | [`record`](Store::record) | events, the cases they open and close, seen files, baselines, marks | a key is taken once; the first id comes back, `fresh` is false |
//! | [`record_removed`](Store::record_removed) | each file gone and its event, or neither | it is known |
//! | [`admit`](Store::admit) | entries, verdicts, events that rules emit, the event is dispatched; the case of each entry that is held from the start; what is gathered | an entry key is taken once |
//! | [`take_in`](Store::take_in) | an event and its mail, dispatched | within a time: the entry there comes back, `fresh` is false |
//! | [`claim`](Store::claim) | lease, fence, attempt | claims others, or none |
//! | [`gate`](Store::gate) | | nothing changes |
//! | [`settle`](Store::settle) | the state, its attempt, the events, effect, files, cases of [`Also`] | refused: the lease is over |
//! | [`recover`](Store::recover), [`rescue`](Store::rescue) | all entries found, the events of lost work | finds none |
//! | [`retry`](Store::retry), [`cancel`](Store::cancel) | the state; the case of what is cancelled or composed anew is closed | refused by the state, nothing changes |
//! | [`open_case`](Store::open_case) | the case, its trouble event | the reason is renewed, no event |
//! | [`tell_case`](Store::tell_case) | the reason, one more trouble event | the reason is renewed, no event |
//! | [`close_case`](Store::close_case) | the case, the event that it is over, what waits for it is due | nothing changes |
//! | [`put_grant`](Store::put_grant) | compare and set | [`StoreError::Stale`] |
//! | [`purge`](Store::purge) | piece by piece, each whole | removes what has become old since |
//!
//! # Entries
//!
//! [`entry::State::after`](crate::entry::State::after) decides every move, and the store makes no other.
//! A lease ends by `settle`, or by `recover`/`rescue`; in all of them the state and the fence stand in
//! the condition of the write itself, so a bearer who slept too long changes nothing
//! ([`StoreError::Fenced`]).
//!
//! The **gate** is the durable sentence "from here on it may have happened". It is said before the point
//! of no return. An entry whose lease is found orphaned was, before the gate, certainly not done: it is
//! ready again. Past it we cannot know: mail becomes `unknown`, and its attempt says so for ever, also
//! after `OnUnknown::Resend` made it ready again; work is failed, and the events that `lost` makes tell.
//!
//! A mail that could not be composed is an entry without effect, held. Retrying it removes it and
//! dispatches its event again, where the keys of its other entries are still taken: so purge lets the
//! entries of an event go only all together, and none while its event waits for dispatch. Where its rule
//! keeps a gathering under the entry's own key (a digest, with all its events), that is due instead and the
//! event is left alone; it is forgotten with the entry.
//!
//! # Cost
//!
//! No verb that delivery or a source says for each event or mail may cost more as the outbox or journal
//! grows: claims walk an index of what waits, [`Store::lanes`] reads counters. Bodies up to
//! [`INLINE_LIMIT`] live apart from the entries, larger ones in the [`spool`].

pub mod lock;
pub mod spool;
mod sqlite;
mod verbs;

use crate::clock::Clock;
use crate::entry::{self, Body, Entry, EntryId, Fence, NewEntry, Reason, State, Verb};
use crate::event::{self, Event, EventId, FileRef, NewEvent};
use crate::store::spool::Spool;
use crate::store::sqlite::Sqlite;
use jiff::Timestamp;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Largest body kept in the store itself, bytes. A larger one is moved to the spool at admission.
pub const INLINE_LIMIT: usize = 256 * 1024;

/// A handle to the store; cheap to clone. The verbs are in `store/verbs.rs`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    sqlite: Sqlite,
    spool: Spool,
    clock: Clock,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish()
    }
}

/// What can go wrong with the store. Cloned where several requests shared a failed commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The lease is over, or somebody else holds a newer one. Nothing was changed.
    #[error(
        "entry {id}: the lease of fence {} is over; somebody else has taken it over or moved it since",
        fence.0
    )]
    Fenced {
        /// Which entry.
        id: EntryId,
        /// The fence that was shown.
        fence: Fence,
    },
    /// The state of the entry does not allow what was asked.
    #[error("entry {id} is {} and cannot be {}{}", state.as_str(), participle(*verb), refusal_hint(*state))]
    Refused {
        /// Which entry.
        id: EntryId,
        /// Where it stands.
        state: State,
        /// What was asked.
        verb: Verb,
    },
    /// The mail was never composed and no event can make it again.
    #[error("entry {0} was never composed and answers no event: ask for it anew")]
    NotComposed(EntryId),
    /// There is no such entry.
    #[error("there is no entry {0}")]
    NoEntry(EntryId),
    /// Somebody stored a newer grant meanwhile; read it again.
    #[error("the grant of account {account} has changed meanwhile")]
    Stale {
        /// Whose.
        account: String,
    },
    /// No space is left. Nothing was changed; the same request may be made again later.
    #[error("no space is left for the store: {0}; free some space on its disk, work goes on by itself")]
    Full(Arc<rusqlite::Error>),
    /// The disk failed.
    #[error("the store cannot be read or written: {0}; check the disk it is on")]
    Io(Arc<rusqlite::Error>),
    /// The database file was moved away, removed or replaced while it was open. Nothing is taken in any more.
    #[error(
        "{} was removed or replaced while it was in use: nothing more is recorded; \
         stop tidings, put the state folder back, and start again (without it, a start begins anew)",
        path.display()
    )]
    Replaced {
        /// Where it was.
        path: PathBuf,
    },
    /// The file is no database, or a damaged one.
    #[error(
        "{} cannot be read, it is damaged: {source}; keep a copy of the folder and put a backup in its place, \
         or move it away to begin anew (what lies in the watched folders then counts as known)",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// SQLite's own words.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Another process kept the store for itself for longer than five seconds.
    #[error("another process keeps the store busy; try again")]
    Busy,
    /// A file beside the database (folder, lock, spool) failed.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried: `cannot create`.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A newer version wrote it.
    #[error(
        "{} was written by a newer version (schema {found}, this version knows {known}); \
         run that version, or give this one a state folder of its own",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The schema it has.
        found: i64,
        /// The newest one we know.
        known: i64,
    },
    /// It belongs to another program.
    #[error("{} is a database of another program; choose another path for outbox.store", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// It lies on a file system that is shared over a network, where locks and durability do not hold.
    #[error(
        "{} is on a network file system ({kind}), where a commit may be lost and a lock may not hold; \
         choose a folder on a local disk for outbox.store",
        path.display()
    )]
    Network {
        /// The state folder.
        path: PathBuf,
        /// `nfs`, `cifs`, ..
        kind: String,
    },
    /// The SQLite in this process is older than the first one without the WAL-reset bug.
    #[error("SQLite {0} may lose commits; 3.51.3 or newer is needed")]
    OldSqlite(&'static str),
    /// What was read makes no sense.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(Arc<rusqlite::Error>),
    /// Any other refusal of the database.
    #[error("the store refused: {0}")]
    Database(Arc<rusqlite::Error>),
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

/// `retried`, `settled`, ..: the word that fits "cannot be".
fn participle(verb: Verb) -> &'static str {
    match verb {
        Verb::Claim => "claimed",
        Verb::Accept => "accepted",
        Verb::Defer => "deferred",
        Verb::Hold => "held",
        Verb::Lose => "marked unknown",
        Verb::Fail => "failed",
        Verb::Release => "given back",
        Verb::Retry => "retried",
        Verb::Cancel => "cancelled",
    }
}

/// What a person can do about a refusal.
fn refusal_hint(state: State) -> &'static str {
    match state {
        State::Leased => " while it is being performed; wait for the outcome",
        State::Accepted => ": it is done",
        State::Ready => ": it is waiting to be performed already",
        _ => "",
    }
}

impl StoreError {
    /// The bearer of the lease must stop: it is not his any more.
    pub fn is_fenced(&self) -> bool {
        matches!(self, StoreError::Fenced { .. })
    }

    /// The disk is full: take in nothing more, try again later.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Full(_) => true,
            StoreError::File { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }

    /// The same request may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        self.is_full() || matches!(self, StoreError::Busy | StoreError::Io(_))
    }
}

// ---- the journal ----

/// What is recorded in one go. Fill what is needed, leave the rest.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Happenings.
    pub events: Vec<NewEvent>,
    /// What is known of files from now on; replaces what was known under the same watch and path.
    pub seen: Vec<SeenFile>,
    /// Watches and whether their first look is complete.
    pub baselines: Vec<WatchMemory>,
    /// Small values by key.
    pub marks: Vec<(String, Value)>,
    /// Keys of marks that are taken away.
    pub unmarked: Vec<String>,
}

/// What became of one event of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number, also if the key was taken long ago.
    pub id: EventId,
    /// False: the key was taken, or the case stands so already: nothing new happened. Where a case to be closed
    /// was not open, the number is 0.
    pub fresh: bool,
}

/// Which events to list. Newest first, unless `after` is given: then oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFilter {
    /// Only this kind.
    pub kind: Option<event::Kind>,
    /// Only those whose subject contains this text.
    pub subject: Option<String>,
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those that opened or closed the case of this key.
    pub case: Option<String>,
    /// Only those this rule was asked about.
    pub rule: Option<String>,
    /// Only those about exactly this file, whatever its version: root and relative path count.
    pub file: Option<FileRef>,
    /// Only those recorded before this one: the next page.
    pub before: Option<EventId>,
    /// Only those recorded after this one: following.
    pub after: Option<EventId>,
    /// At most so many.
    pub limit: usize,
}

impl Default for EventFilter {
    /// The hundred newest.
    fn default() -> EventFilter {
        EventFilter {
            kind: None,
            subject: None,
            source: None,
            case: None,
            rule: None,
            file: None,
            before: None,
            after: None,
            limit: 100,
        }
    }
}

/// An event and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventDetail {
    /// The event.
    pub event: Event,
    /// When the rules were asked; `None` while it waits.
    pub dispatched: Option<Timestamp>,
    /// What each rule made of it.
    pub verdicts: Vec<RuleVerdict>,
    /// What was admitted because of it, and where that stands.
    pub entries: Vec<Entry>,
}

// ---- admission ----

/// What the dispatcher made of one event, or of time that passed.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The event; it is dispatched with this. `None`: something that was gathered fell due.
    pub event: Option<EventId>,
    /// What is to be done.
    pub entries: Vec<NewEntry>,
    /// What is gathered from now on, or no longer.
    pub gathers: Vec<GatherStep>,
    /// Cases that are over: of their entries those that wait still, and are only right while the case is
    /// open, are cancelled.
    pub over: Vec<String>,
    /// What rules emit because of it: recorded with it.
    pub events: Vec<NewEvent>,
    /// What each rule said. Replaces the verdicts of an earlier dispatch of the same event.
    pub verdicts: Vec<RuleVerdict>,
    /// The one case that stands for all entries of this admission that are held: it is opened, unless one is
    /// open under its key, and they open none of their own.
    pub case: Option<NewCase>,
}

/// What a rule gathers under a key until it is due: the events of a digest, a count, the steps of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathering {
    /// The rule.
    pub rule: String,
    /// What is gathered: a word of the dispatcher's.
    pub key: String,
    /// How it stands, as the dispatcher wrote it.
    pub state: Value,
    /// When something must be done about it.
    pub due: Option<Timestamp>,
}

/// One change to what is gathered. All of them happen in the transaction of their [`Admission`].
#[derive(Clone, Debug, PartialEq)]
pub enum GatherStep {
    /// It stands like this from now on, and these events belong to it besides those that do already.
    Put(Gathering, Vec<EventId>),
    /// Nothing is gathered there any more; its events are let go.
    End {
        /// The rule.
        rule: String,
        /// What was gathered.
        key: String,
    },
}

/// What one rule made of one event, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleVerdict {
    /// The rule.
    pub rule: String,
    /// `fired`, `condition_false`, ..
    pub outcome: String,
    /// Why, one sentence; may be empty.
    pub detail: String,
}

/// What became of one new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its number, also if the key was taken long ago.
    pub id: EntryId,
    /// False: the key was taken; the entry there was left as it is.
    pub fresh: bool,
}

// ---- the outbox ----

/// A lane with something in it that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Mail or work.
    pub kind: entry::Kind,
    /// Its name: the account of mails, the job of work.
    pub lane: String,
    /// How many are ready or deferred.
    pub waiting: u64,
    /// When the first of them is due; may have passed.
    pub due: Timestamp,
}

/// What else happens in the transaction of a [`Store::settle`].
#[derive(Clone, Debug, Default)]
pub struct Also {
    /// Outcomes to record.
    pub events: Vec<NewEvent>,
    /// The effect from now on: after a partial refusal, only those recipients still to be tried.
    pub effect: Option<Vec<u8>>,
    /// The lane from now on, and the account that gave it its name: it goes on by another account.
    pub lane: Option<(String, String)>,
    /// Files we moved away or deleted: marked gone in every watch that knew exactly these versions.
    pub gone: Vec<FileRef>,
    /// With [`Settlement::Lose`](crate::entry::Settlement::Lose): after it became unknown (and its
    /// attempt says so), make it ready again for this time. For `OnUnknown::Resend`.
    pub resend: Option<Timestamp>,
    /// With [`Settlement::Defer`](crate::entry::Settlement::Defer): the key of the case whose end makes
    /// it due at once.
    pub awaits: Option<String>,
    /// A trouble to open, as by [`Store::open_case`]: no crash comes between an entry that needs a
    /// person and the news of it.
    pub open: Option<NewCase>,
    /// Keys of cases to close, as by [`Store::close_case`].
    pub close: Vec<String>,
}

/// What [`Store::recover`] or [`Store::rescue`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Not past the gate: ready again, certainly not done.
    pub released: Vec<EntryId>,
    /// Mails past the gate: every one whose fate became unknown, whatever follows from it.
    pub unknown: Vec<EntryId>,
    /// Those of them that are ready again, because their rule says `resend`.
    pub resent: Vec<EntryId>,
    /// Work past the gate: failed, and told by the events `lost` made.
    pub lost_work: Vec<EntryId>,
    /// Spool files nobody referred to, removed.
    pub orphans: usize,
}

impl Recovery {
    /// Whether no lease was left behind.
    pub fn is_empty(&self) -> bool {
        self.released.is_empty() && self.unknown.is_empty() && self.lost_work.is_empty()
    }
}

/// Which entries to list, newest first. Empty lists and `None` mean all.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryFilter {
    /// In one of these states.
    pub states: Vec<State>,
    /// Mail or work.
    pub kind: Option<entry::Kind>,
    /// Asked for by this rule.
    pub rule: Option<String>,
    /// In this lane.
    pub lane: Option<String>,
    /// Answering this event.
    pub event: Option<EventId>,
    /// The mail of this Message-ID, without angle brackets.
    pub message_id: Option<String>,
    /// Only those with an attempt that ended `unknown`, whatever became of them since.
    pub ever_unknown: bool,
    /// Only those admitted before this one: the next page.
    pub before: Option<EntryId>,
    /// At most so many.
    pub limit: usize,
}

impl Default for EntryFilter {
    /// The hundred newest.
    fn default() -> EntryFilter {
        EntryFilter {
            states: Vec::new(),
            kind: None,
            rule: None,
            lane: None,
            event: None,
            message_id: None,
            ever_unknown: false,
            before: None,
            limit: 100,
        }
    }
}

/// An entry with all there is.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryDetail {
    /// Where it stands.
    pub entry: Entry,
    /// What to do.
    pub effect: Vec<u8>,
    /// With what.
    pub body: Body,
    /// Every attempt, the first one first.
    pub attempts: Vec<Attempt>,
    /// Further events it answers: the other parts of a digest.
    pub answers: Vec<EventId>,
}

/// One try at an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it was claimed.
    pub started: Timestamp,
    /// When it ended; `None` while it runs.
    pub ended: Option<Timestamp>,
    /// What it led to: `accepted`, `deferred`, `held`, `failed`, `unknown`, or `ready` where it was
    /// found orphaned before the gate.
    pub outcome: Option<State>,
    /// Why.
    pub reason: Option<Reason>,
    /// Whether it passed the point of no return.
    pub gated: bool,
}

// ---- files ----

/// What a watch knows of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFile {
    /// Which watch.
    pub watch: String,
    /// Its folder, absolute.
    pub root: PathBuf,
    /// The path below it, byte for byte.
    pub relative: PathBuf,
    /// Bytes when last seen.
    pub size: u64,
    /// Modification time when last seen, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Hash of the content, where the watch asks for it.
    pub hash: Option<[u8; 32]>,
    /// How often it has arrived here.
    pub arrivals: u32,
    /// Seen to be away; when it comes back it arrives again.
    pub gone: bool,
}

/// A file that lies in a watched folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// The path below the folder, byte for byte.
    pub relative: PathBuf,
    /// Bytes when last seen.
    pub size: u64,
    /// Modification time when last seen, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Since when it is known as it is.
    pub since: Timestamp,
}

/// A file that a complete scan no longer met, and whose going is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// As it was known.
    pub file: SeenFile,
    /// What tells it.
    pub event: NewEvent,
}

/// What became of a [`Removal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone from now on, and that is an event.
    Told(EventId),
    /// It was gone already, since we took it away ourselves: nothing to tell.
    Known,
    /// Work on this file waits or is being done, and may be what took it away: nothing was changed, ask again.
    InHand,
}

/// A watch the store remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMemory {
    /// `source::file::Watch::id`.
    pub id: String,
    /// Its folder, absolute.
    pub root: PathBuf,
    /// Whether the first look is complete: from then on an unknown file is new.
    pub baseline: bool,
}

// ---- cases and grants ----

/// A trouble to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCase {
    /// Which trouble: `account:office`. One open case for each.
    pub key: String,
    /// `account`, `mail`, `watch`, `rule`.
    pub kind: String,
    /// For people: the account's name, the folder.
    pub subject: String,
    /// What is wrong and what mends it.
    pub reason: Reason,
}

/// An open case: a trouble or an absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its number; the event that told it has the key `trouble:KEY:NUMBER`.
    pub number: i64,
    /// Which trouble.
    pub key: String,
    /// `account`, `mail`, `watch`, `rule`.
    pub kind: String,
    /// For people.
    pub subject: String,
    /// What is wrong, as last told.
    pub reason: Reason,
    /// Since when.
    pub opened: Timestamp,
    /// The event that opened it; `None` where an older version did.
    pub event: Option<EventId>,
}

/// A sealed credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Rises with every write, also across a deletion.
    pub version: i64,
    /// The bytes, sealed by the keeper.
    pub sealed: Vec<u8>,
    /// When it was stored.
    pub updated: Timestamp,
}

/// What [`Store::purge`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Entries that were accepted or cancelled.
    pub entries: u64,
    /// Events all of whose entries are gone.
    pub events: u64,
    /// Memories of files long gone.
    pub seen: u64,
    /// Cases long closed.
    pub cases: u64,
}
