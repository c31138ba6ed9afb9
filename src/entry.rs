//! Entries: effects in the outbox, the states they can be in and the verbs that move them.
//!
//! ```text
//!            admit                 claim               settle
//!   effect ---------> ready ----------------> leased ---------> accepted
//!                       ^  ^                  |  |  \---------> failed
//!                 retry |  | due              |  \------------> held
//!                       |  |                  v
//!               held, failed,  deferred <-----+---> unknown (the gate was passed, no answer came)
//!               unknown, cancelled
//! ```
//!
//! Every transition is decided by [`State::after`]; the store applies what it allows and nothing else.

use crate::event::EventId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Number the outbox gave an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub i64);

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Rises with every lease. A write that bears an older fence than the entry's is refused: its
/// bearer was paused, and somebody else has taken over since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub i64);

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// May be claimed as soon as it is due.
    Ready,
    /// Somebody performs it now, until the lease ends.
    Leased,
    /// Done: the server took responsibility, or the work ended.
    Accepted,
    /// Will be tried again by itself when it is due.
    Deferred,
    /// A person must mend something first; the reason says what.
    Held,
    /// The point of no return was passed and no answer came: done or not, we cannot say.
    Unknown,
    /// Given up, with the reason. A person may retry it.
    Failed,
    /// A person decided that it shall not be done.
    Cancelled,
}

impl State {
    /// All of them, in the order people read them.
    pub const ALL: [State; 8] = [
        State::Ready,
        State::Leased,
        State::Deferred,
        State::Held,
        State::Unknown,
        State::Failed,
        State::Accepted,
        State::Cancelled,
    ];

    /// The word for it in the store and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Leased => "leased",
            State::Accepted => "accepted",
            State::Deferred => "deferred",
            State::Held => "held",
            State::Unknown => "unknown",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Reads the word back; `None` for one a newer version wrote.
    pub fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The state `verb` leads to from here, or `None` where it may not be said.
    pub fn after(self, verb: Verb) -> Option<State> {
        use State::*;
        match (self, verb) {
            (Ready | Deferred, Verb::Claim) => Some(Leased),
            (Leased, Verb::Accept) => Some(Accepted),
            (Leased, Verb::Defer) => Some(Deferred),
            (Leased, Verb::Hold) => Some(Held),
            (Leased, Verb::Lose) => Some(Unknown),
            (Leased, Verb::Fail) => Some(Failed),
            (Leased, Verb::Release) => Some(Ready),
            (Deferred | Held | Unknown | Failed | Cancelled, Verb::Retry) => Some(Ready),
            (Ready | Deferred | Held | Unknown | Failed, Verb::Cancel) => Some(Cancelled),
            _ => None,
        }
    }

    /// Nothing more happens to it unless a person says so.
    pub fn is_final(self) -> bool {
        matches!(self, State::Accepted | State::Failed | State::Cancelled)
    }
}

/// What moves an entry from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Delivery takes it, for the time of a lease.
    Claim,
    /// It is done.
    Accept,
    /// Try again later.
    Defer,
    /// Wait for a person.
    Hold,
    /// Past the gate, and no answer.
    Lose,
    /// Give up.
    Fail,
    /// Given back untouched: the lease ended, or we stop before beginning.
    Release,
    /// A person, or the `resend` policy, says: again, the same bytes.
    Retry,
    /// A person says: never.
    Cancel,
}

/// What kind of effect an entry holds. The store passes it on unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One message to one envelope.
    Mail,
    /// A rule's work: a command, or a file moved, copied, deleted.
    Work,
}

impl Kind {
    /// The word for it in the store and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mail => "mail",
            Kind::Work => "work",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Kind> {
        [Kind::Mail, Kind::Work]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// What to do with an entry whose fate is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Say so, then do the same again, byte for byte. A receiver may see it twice.
    Resend,
    /// Say so and wait for a person. Nobody sees it twice.
    Hold,
    /// Say so, then ask the mail service whether it was sent; where nobody can tell, as `Resend`.
    VerifyOrResend,
    /// The same; where nobody can tell, as `Hold`.
    VerifyOrHold,
}

impl OnUnknown {
    /// All of them.
    pub const ALL: [OnUnknown; 4] = [
        OnUnknown::Resend,
        OnUnknown::Hold,
        OnUnknown::VerifyOrResend,
        OnUnknown::VerifyOrHold,
    ];

    /// Whether the entry is taken up again by itself, to be sent or to be asked about.
    pub fn comes_back(self) -> bool {
        self != OnUnknown::Hold
    }

    /// Whether the mail service is asked first.
    pub fn verifies(self) -> bool {
        matches!(self, OnUnknown::VerifyOrResend | OnUnknown::VerifyOrHold)
    }

    /// What is done where nobody can tell.
    pub fn otherwise(self) -> OnUnknown {
        match self {
            OnUnknown::Resend | OnUnknown::VerifyOrResend => OnUnknown::Resend,
            OnUnknown::Hold | OnUnknown::VerifyOrHold => OnUnknown::Hold,
        }
    }
}

/// Why an entry is where it is, for people: what happened, the server's own words, what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One sentence.
    pub text: String,
    /// The server's reply, unchanged but for masked secrets and control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Which entry of the advice catalog explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<Box<str>>,
    /// Steps to mend it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Who can mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Box<str>>,
    /// How long a change takes to bite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Box<str>>,
}

impl Reason {
    /// All there is to read about the cure, as sentences: the steps, how long they take to bite, and who can
    /// do them.
    pub fn cure(&self) -> Vec<String> {
        let mut lines = self.steps.clone();
        lines.extend(
            self.takes
                .as_ref()
                .map(|takes| format!("It takes time to bite: {takes}.")),
        );
        lines.extend(self.who.as_ref().map(|who| format!("Who can do it: {who}.")));
        lines
    }

    /// A reason of one sentence.
    pub fn new(text: impl Into<String>) -> Reason {
        Reason {
            text: text.into(),
            ..Reason::default()
        }
    }
}

/// The bytes an effect carries besides its description: a frozen message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// Kept in the store itself.
    Inline(Vec<u8>),
    /// Kept as a file of the spool, already durable. The store removes it with the entry.
    Spooled {
        /// Its name in the spool.
        name: String,
        /// Its bytes.
        len: u64,
    },
}

/// An effect on its way into the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// Same effect of the same event, same key; the outbox takes a key once.
    pub key: String,
    /// Mail or work.
    pub kind: Kind,
    /// The rule that asked for it.
    pub rule: String,
    /// The event it answers, if one did.
    pub event: Option<EventId>,
    /// What is paced together: the account of a mail, the job of some work.
    pub lane: String,
    /// The effect, as its action wrote it.
    pub effect: Vec<u8>,
    /// The frozen message.
    pub body: Body,
    /// For lists and `explain`: `{"from","to","subject","attachments",..}` or `{"job","command",..}`. With a
    /// `fault` (`condition`, `template`) what is wrong with a held mail is its rule, and the trouble is the rule's.
    pub summary: Value,
    /// What to do should its fate become unknown.
    pub on_unknown: OnUnknown,
    /// Not before this time.
    pub due: Timestamp,
    /// Admitted, but a person must mend this first.
    pub held: Option<Reason>,
    /// Further events it answers: the other parts of a digest.
    pub answers: Vec<EventId>,
    /// It is only right while this case is open: what still waits is cancelled when the case is over.
    pub of_case: Option<String>,
}

/// An entry as the outbox knows it; without effect and body, which only its performer reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number.
    pub id: EntryId,
    /// Its key.
    pub key: String,
    /// Mail or work.
    pub kind: Kind,
    /// The rule that asked for it.
    pub rule: String,
    /// The event it answers.
    pub event: Option<EventId>,
    /// What is paced together.
    pub lane: String,
    /// For lists and `explain`.
    pub summary: Value,
    /// Where it stands.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// Due at, for ready and deferred ones.
    pub due: Timestamp,
    /// Attempts begun.
    pub attempts: u32,
    /// What to do should its fate become unknown.
    pub on_unknown: OnUnknown,
    /// When it was admitted.
    pub created: Timestamp,
    /// From when giving up is counted: when it was first due, or when a person last said retry.
    pub since: Timestamp,
    /// When it last moved.
    pub changed: Timestamp,
}

/// An entry in hand: the right to perform it until the lease ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    /// What it is.
    pub entry: Entry,
    /// To be shown with every write about it.
    pub fence: Fence,
    /// Until when.
    pub until: Timestamp,
    /// What to do.
    pub effect: Vec<u8>,
    /// With what.
    pub body: Body,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// Done, with the last word of the server.
    Accept(Reason),
    /// Again, not before the time.
    Defer(Timestamp, Reason),
    /// A person first.
    Hold(Reason),
    /// Past the gate, no answer.
    Lose(Reason),
    /// Never.
    Fail(Reason),
    /// Not begun; given back as it was, and no attempt is counted.
    Release,
}

impl Settlement {
    /// The verb it says.
    pub fn verb(&self) -> Verb {
        match self {
            Settlement::Accept(_) => Verb::Accept,
            Settlement::Defer(..) => Verb::Defer,
            Settlement::Hold(_) => Verb::Hold,
            Settlement::Lose(_) => Verb::Lose,
            Settlement::Fail(_) => Verb::Fail,
            Settlement::Release => Verb::Release,
        }
    }

    /// The reason it gives.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Settlement::Accept(reason)
            | Settlement::Defer(_, reason)
            | Settlement::Hold(reason)
            | Settlement::Lose(reason)
            | Settlement::Fail(reason) => Some(reason),
            Settlement::Release => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    const VERBS: [Verb; 9] = [
        Verb::Claim,
        Verb::Accept,
        Verb::Defer,
        Verb::Hold,
        Verb::Lose,
        Verb::Fail,
        Verb::Release,
        Verb::Retry,
        Verb::Cancel,
    ];

    /// The states reached from `state`, verb by verb, in the order of [`VERBS`].
    fn row(state: State) -> [Option<State>; 9] {
        VERBS.map(|verb| state.after(verb))
    }

    #[test]
    fn each_state_is_left_by_its_verbs_and_by_no_other() {
        let none = None;
        #[rustfmt::skip]
        let table = [
            //           claim         accept          defer           hold        lose           fail          release      retry        cancel
            (Ready,     [Some(Leased), none,           none,           none,       none,          none,         none,        none,        Some(Cancelled)]),
            (Leased,    [none,         Some(Accepted), Some(Deferred), Some(Held), Some(Unknown), Some(Failed), Some(Ready), none,        none]),
            (Deferred,  [Some(Leased), none,           none,           none,       none,          none,         none,        Some(Ready), Some(Cancelled)]),
            (Held,      [none,         none,           none,           none,       none,          none,         none,        Some(Ready), Some(Cancelled)]),
            (Unknown,   [none,         none,           none,           none,       none,          none,         none,        Some(Ready), Some(Cancelled)]),
            (Failed,    [none,         none,           none,           none,       none,          none,         none,        Some(Ready), Some(Cancelled)]),
            (Accepted,  [none,         none,           none,           none,       none,          none,         none,        none,        none]),
            (Cancelled, [none,         none,           none,           none,       none,          none,         none,        Some(Ready), none]),
        ];
        assert_eq!(table.map(|(state, _)| state).len(), State::ALL.len());
        for (state, expected) in table {
            assert_eq!(row(state), expected, "{}", state.as_str());
        }
    }

    #[test]
    fn only_a_lease_leads_to_an_outcome() {
        for state in State::ALL {
            for verb in VERBS {
                let outcome = matches!(
                    state.after(verb),
                    Some(Accepted | Deferred | Held | Unknown | Failed)
                );
                assert!(!outcome || state == Leased, "{state:?} {verb:?}");
            }
        }
    }

    #[test]
    fn every_state_but_accepted_can_be_brought_back_by_a_person() {
        for state in State::ALL {
            let comes_back = [Verb::Retry, Verb::Release]
                .into_iter()
                .any(|verb| state.after(verb) == Some(Ready));
            assert_eq!(comes_back || state == Ready, state != Accepted, "{state:?}");
        }
    }

    #[test]
    fn words_are_read_back_and_unknown_ones_are_not_guessed() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(
                serde_json::to_value(state).ok(),
                Some(Value::from(state.as_str()))
            );
        }
        for kind in [Kind::Mail, Kind::Work] {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(State::parse("Ready"), None);
        assert_eq!(Kind::parse("fax"), None);
    }
}
