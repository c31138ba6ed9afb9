//! `tidings explain mail`: from the event to the server's last word, and what comes next.

use super::Sight;
use super::event::{self, Told};
use super::story::{Lines, Story, Times, long};
use crate::action::Mail;
use crate::app::endings::CASES;
use crate::cli::{events, outbox};
use crate::config::settings::Transport;
use crate::entry::{Entry, EntryId, Kind, Reason, State};
use crate::event::Event;
use crate::store::{Attempt, EntryDetail, EntryFilter, EventDetail, EventFilter, Store, StoreError};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A mail, or some work, with all around it.
#[derive(Debug)]
pub struct Sent {
    /// The entry.
    pub detail: EntryDetail,
    /// The event it answers.
    pub event: Option<Told>,
    /// Further events it answers: a digest's.
    pub others: Vec<Event>,
    /// How people were told that something is wrong with it.
    pub troubles: Vec<EventDetail>,
}

/// Longest list of the other parts of a digest.
const PARTS: usize = 20;

/// The entries a number or a Message-ID stands for.
pub async fn find(store: &Store, id: &str) -> Result<Vec<EntryId>, StoreError> {
    if let Ok(number) = id.trim().parse() {
        return Ok(vec![EntryId(number)]);
    }
    let message_id = id.trim().trim_start_matches('<').trim_end_matches('>');
    let filter = EntryFilter {
        message_id: Some(message_id.to_owned()),
        ..EntryFilter::default()
    };
    let found = store.entries(filter).await?;
    Ok(found.into_iter().map(|entry| entry.id).collect())
}

/// Reads all there is about an entry.
pub async fn read(store: &Store, id: EntryId) -> Result<Option<Sent>, StoreError> {
    let Some(detail) = store.entry(id).await? else {
        return Ok(None);
    };
    let event = match detail.entry.event {
        Some(event) => super::told(store, event).await?,
        None => None,
    };
    let mut others = Vec::new();
    for id in detail.answers.iter().take(PARTS) {
        others.extend(store.event(*id).await?.map(|detail| detail.event));
    }
    let about_it = EventFilter {
        case: Some(format!("mail:{id}")),
        limit: 10,
        ..EventFilter::default()
    };
    let mut troubles = Vec::new();
    for trouble in store.events(about_it).await?.into_iter().rev() {
        troubles.extend(store.event(trouble.id).await?);
    }
    Ok(Some(Sent {
        detail,
        event,
        others,
        troubles,
    }))
}

/// The whole answer.
pub fn story(sent: &Sent, sight: &Sight) -> Story {
    let detail = &sent.detail;
    let entry = &detail.entry;
    let times = &sight.times;
    let mut story = Story::new(headline(entry, sight));
    let mut happened = Lines::default();
    match (&sent.event, entry.event) {
        (Some(told), _) => {
            happened = event::happening(told, times);
            story.part("What happened", std::mem::take(&mut happened));
            story.part("What the rules made of it", event::rules(told, sight));
        }
        (None, Some(id)) => happened.say(
            0,
            format!("Event {id} led to it; the journal has forgotten that one by now."),
        ),
        (None, None) => happened.say(
            0,
            format!("No event: somebody asked for it by hand ({}).", entry.rule),
        ),
    }
    story.part("What happened", happened);
    let mut others = Lines::default();
    for other in &sent.others {
        others.say(
            0,
            format!(
                "Event {}: {}, {}.",
                other.id,
                event::happened(other),
                times.at(other.happening.time)
            ),
        );
    }
    if let Some(more) = detail.answers.len().checked_sub(PARTS).filter(|more| *more > 0) {
        others.say(0, format!("And {more} more."));
    }
    story.part("It also tells of", others);
    story.part(
        match entry.kind {
            Kind::Mail => "The mail",
            Kind::Work => "The work",
        },
        contents(entry),
    );
    story.part("Attempts", attempts(detail, times));
    story.part("Where it stands", stands(sent, sight));
    let (reason, blocked) = (entry.reason.as_ref(), blocked(entry, sight));
    let steps = blocked.or(reason).filter(|_| !done(entry.state));
    let mut cure = Lines::default();
    cure.steps(0, steps.map(|reason| reason.cure()).unwrap_or_default());
    story.part("What mends it", cure);
    story.part("What you can say", verbs(entry));
    story.part("Who was told of the trouble", told_of(sent, times));
    story.with("entry", outbox::detail_json(detail));
    let of_event = sent.event.as_ref().map(event::to_json);
    story.with("event", of_event.unwrap_or(Value::Null));
    story.with("also", sent.others.iter().map(events::as_json).collect());
    story.with(
        "troubles",
        sent.troubles.iter().map(events::detail_json).collect(),
    );
    story.with("running", json!(sight.running));
    story
}

fn done(state: State) -> bool {
    matches!(state, State::Accepted | State::Cancelled)
}

/// The trouble of the account that keeps it from leaving.
fn blocked<'a>(entry: &Entry, sight: &'a Sight) -> Option<&'a Reason> {
    let account = entry.lane.split(' ').next().unwrap_or_default();
    let waits = entry.kind == Kind::Mail && matches!(entry.state, State::Ready | State::Deferred);
    let case = sight
        .cases
        .iter()
        .find(|case| case.kind == "account" && case.subject == account && !case.key.starts_with(CASES));
    case.map(|case| &case.reason).filter(|_| waits)
}

fn text<'a>(entry: &'a Entry, name: &str) -> &'a str {
    entry
        .summary
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn names(entry: &Entry, name: &str) -> String {
    let list = entry.summary.get(name).and_then(Value::as_array);
    let list = list.into_iter().flatten().filter_map(Value::as_str);
    list.collect::<Vec<_>>().join(", ")
}

fn headline(entry: &Entry, sight: &Sight) -> String {
    let times = &sight.times;
    let (when, due) = (times.how_far(entry.changed), times.how_far(entry.due));
    let to = names(entry, "to");
    let subject = text(entry, "subject");
    let what = match (entry.kind, to.is_empty(), subject.is_empty()) {
        (Kind::Work, ..) => format!("The work {} of rule {}", entry.id, entry.rule),
        (Kind::Mail, true, _) => format!("Mail {}", entry.id),
        (Kind::Mail, false, true) => format!("Mail {} to {to}", entry.id),
        (Kind::Mail, false, false) => format!("Mail {} to {to} (\"{subject}\")", entry.id),
    };
    let stands = match (entry.kind, entry.state) {
        (Kind::Mail, State::Accepted) if writes_files(entry, sight) => {
            format!("was written as a file {when}")
        }
        (Kind::Mail, State::Accepted) => format!("was accepted by the mail server {when}"),
        (Kind::Work, State::Accepted) => format!("was done {when}"),
        (_, State::Ready) if !sight.running => "waits, for tidings is not running".to_owned(),
        (_, State::Ready) if entry.due > times.now => format!("is due {due}"),
        (_, State::Ready) => "is ready, and next in turn".to_owned(),
        (Kind::Mail, State::Leased) => "is being sent right now".to_owned(),
        (Kind::Work, State::Leased) => "is being done right now".to_owned(),
        (_, State::Deferred) if !sight.running => {
            format!("has not left, is due again {due}, and tidings is not running")
        }
        (Kind::Mail, State::Deferred) => format!("has not left yet; it is tried again {due}"),
        (Kind::Work, State::Deferred) => format!("is not done yet; it is tried again {due}"),
        (_, State::Held) => format!("was held {when}, and a person must mend something first"),
        (_, State::Unknown) => {
            format!("was handed over {when} and no answer came: nobody can say whether it went out")
        }
        (_, State::Failed) => format!("was given up {when}"),
        (_, State::Cancelled) => format!("was cancelled {when}: a person decided that it shall not leave"),
    };
    format!("{what} {stands}.")
}

fn writes_files(entry: &Entry, sight: &Sight) -> bool {
    let account = sight.settings.accounts.get(text(entry, "account"));
    account.is_some_and(|account| matches!(account.transport, Transport::File { .. }))
}

fn contents(entry: &Entry) -> Lines {
    let mut lines = Lines::default();
    for (label, value) in outbox::summary(entry) {
        lines.pair(0, &label, value);
    }
    lines.pair(0, "rule", entry.rule.clone());
    lines
}

fn attempts(detail: &EntryDetail, times: &Times) -> Lines {
    let mut lines = Lines::default();
    let work = detail.entry.kind == Kind::Work;
    for attempt in &detail.attempts {
        lines.say(
            0,
            format!(
                "{}. {}{}: {}",
                attempt.number,
                times.at(attempt.started),
                took(attempt),
                ended(attempt, work)
            ),
        );
        if let Some(reason) = &attempt.reason {
            if reason.text != State::Accepted.as_str() {
                lines.say(1, reason.text.clone());
            }
            if let Some(reply) = &reason.reply {
                lines.pair(1, "server", reply.clone());
            }
        }
    }
    lines
}

fn took(attempt: &Attempt) -> String {
    let took = attempt.ended.map(|ended| ended.duration_since(attempt.started));
    took.filter(|took| *took >= SignedDuration::from_secs(2))
        .map(|took| format!(", {}", long(took)))
        .unwrap_or_default()
}

fn ended(attempt: &Attempt, work: bool) -> &'static str {
    match attempt.outcome {
        None => "under way",
        Some(State::Accepted) if work => "done",
        Some(State::Accepted) => "accepted",
        Some(State::Deferred) => "not now, to be tried again",
        Some(State::Held) => "held for a person",
        Some(State::Failed) => "failed",
        Some(State::Unknown) => "handed over, and no answer came",
        Some(State::Ready) => "broken off before anything was sent",
        Some(State::Leased | State::Cancelled) => "over",
    }
}

/// Where it stands and what happens next by itself.
fn stands(sent: &Sent, sight: &Sight) -> Lines {
    let mut lines = Lines::default();
    let entry = &sent.detail.entry;
    let times = &sight.times;
    let last = sent
        .detail
        .attempts
        .last()
        .and_then(|attempt| attempt.reason.as_ref());
    if let Some(reason) = entry.reason.as_ref().filter(|reason| Some(*reason) != last) {
        lines.pair(0, "why", reason.text.clone());
        if let Some(reply) = &reason.reply {
            lines.pair(0, "server", reply.clone());
        }
    }
    if let Some(reason) = blocked(entry, sight) {
        lines.say(0, format!("Its account needs a person: {}", reason.text));
        if let Some(reply) = &reason.reply {
            lines.pair(0, "server", reply.clone());
        }
        lines.say(0, "It leaves by itself once that is mended.");
    }
    let effect = serde_json::from_slice::<Mail>(&sent.detail.effect).ok();
    for (address, reason) in effect.iter().flat_map(|mail| &mail.refused) {
        let reply = reason.reply.as_deref().unwrap_or(&reason.text);
        lines.say(0, format!("Refused for {address}, for good: {reply}"));
    }
    match entry.state {
        State::Accepted if entry.kind == Kind::Work => {}
        State::Accepted if writes_files(entry, sight) => {
            lines.say(0, "Its account writes files and sends nothing to anybody.");
        }
        State::Accepted => {
            lines.say(
                0,
                "From here on the mail service has it. If it is not in the mailbox, look into the spam folder and the \
                 rules of the mailbox; then ask whoever runs the mail service to trace it by its Message-ID, its time \
                 and the server's words above. A bounce goes to the sender's mailbox.",
            );
            let id = text(entry, "message_id");
            if !id.is_empty() {
                lines.pair(0, "msg-id", format!("<{id}>"));
            }
        }
        State::Ready | State::Deferred if !sight.running => {
            lines.say(0, "Nothing leaves while tidings is not running: start `tidings run`.");
        }
        State::Ready if entry.due > times.now => lines.say(0, format!("It is due {}.", times.at(entry.due))),
        State::Ready => lines.say(0, "It waits its turn: an account sends only so many mails at a time."),
        State::Deferred => {
            lines.say(
                0,
                format!(
                    "It is tried again by itself {}, then at growing distances{}.",
                    times.at(entry.due),
                    give_up(entry, sight)
                ),
            );
        }
        State::Leased => lines.say(0, "It is in hand at this moment."),
        State::Held => lines.say(0, "Nothing happens to it by itself; it stays until somebody decides."),
        State::Unknown => lines.say(
            0,
            "Nothing happens to it by itself, lest somebody get it twice. Look into the sent mails of the mailbox, or \
             ask a recipient; then decide.",
        ),
        State::Failed | State::Cancelled => {
            lines.say(0, "Nothing more happens to it unless somebody says so.");
        }
    }
    if sent
        .detail
        .attempts
        .iter()
        .any(|attempt| attempt.outcome == Some(State::Unknown))
        && entry.state == State::Accepted
    {
        lines.say(
            0,
            "An attempt before may have arrived as well: a recipient may have it twice.",
        );
    }
    lines
}

fn give_up(entry: &Entry, sight: &Sight) -> String {
    let until = SignedDuration::try_from(sight.settings.outbox.give_up)
        .ok()
        .and_then(|time| entry.since.checked_add(time).ok());
    match until {
        Some(until) if entry.kind == Kind::Mail => format!(
            ", until {}; after that it is held and somebody is told",
            sight.times.clock(until)
        ),
        _ => String::new(),
    }
}

/// The commands that fit.
fn verbs(entry: &Entry) -> Lines {
    let mut lines = Lines::default();
    let id = entry.id;
    let mut say = |command: &str, does: &str| lines.say(0, format!("`tidings outbox {command} {id}` {does}"));
    match entry.state {
        State::Held => {
            say("retry", "does it once what is wrong is mended");
            say("cancel", "decides that it shall never be done");
        }
        State::Deferred => {
            say("retry", "tries it at once");
            say("cancel", "decides that it shall never be done");
        }
        State::Unknown => {
            say("retry", "sends the same mail again");
            say("cancel", "leaves it at that");
        }
        State::Failed | State::Cancelled => say("retry", "does it after all"),
        State::Ready => say("cancel", "decides that it shall never be done"),
        State::Accepted | State::Leased => {}
    }
    if entry.summary.get("size").is_some() {
        say("show --message", "prints the mail itself");
    }
    lines
}

fn told_of(sent: &Sent, times: &Times) -> Lines {
    let mut lines = Lines::default();
    for trouble in &sent.troubles {
        let event = &trouble.event;
        lines.say(
            0,
            format!(
                "Event {}: {}, {}.",
                event.id,
                event::happened(event),
                times.at(event.happening.time)
            ),
        );
        for entry in &trouble.entries {
            lines.say(1, event::entry(entry, times));
        }
        if trouble.entries.is_empty() {
            let closes = event.recovers;
            lines.say(1, match closes {
                true => "No mail told that.",
                false => "No rule has `when: { trouble: {} }` for it: only `tidings status` and the log say so.",
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests;
