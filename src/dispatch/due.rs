//! What was gathered, when its time has come: told, held on, or let go.
//!
//! Each is decided and composed alone and admitted alone, its end in the same transaction: killed before that, it
//! is due still. A digest that cannot be composed is an entry that is held, and its events stay gathered under
//! the key of that entry, so that a retry makes it again with all of them.

use crate::action::email::{self, Composing, MailSpec, Member, Oversize, Priority};
use crate::action::recipients::RecipientSpec;
use crate::dispatch::Plan;
use crate::dispatch::asked::{Made, Unready};
use crate::dispatch::compose::job_log;
use crate::dispatch::desk::Desk;
use crate::dispatch::gathering::{self, HOUR, gathers, mails_of, sums_up};
use crate::event::{self, Event, EventId};
use crate::mail::address::Mailbox;
use crate::rule::Rule;
use crate::rule::demand::Learned;
use crate::rule::facts::{self, gathered};
use crate::rule::gather::{self, Addressed, Batch, Due, MOST, Telling, What, Window};
use crate::store::{Gathering, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// The template of what several events have in common, where the rule has none for that.
const DIGEST: &str = "digest";

/// Largest attachments of a rule that is gone: there are none.
const NOTHING: u64 = 0;

/// A digest that could not be composed, under the key of its entry.
#[derive(Debug, Serialize, Deserialize)]
struct Unmade {
    /// Which part of the rule.
    part: String,
    /// Which of its mails.
    number: usize,
    /// Whether the shipped template is to be taken.
    shipped: bool,
    /// What was gathered.
    batch: Batch,
}

/// What is due, and what to do about it.
#[derive(Debug, Default)]
pub(super) struct Fallen {
    /// What is admitted.
    pub(super) made: Made,
    /// A case that is over.
    pub(super) closes: Option<String>,
}

/// The words before the colons of a gathering's key.
fn words(key: &str) -> (&str, &str) {
    let (kind, rest) = key.split_once(':').unwrap_or((key, ""));
    (kind, rest.split(':').next().unwrap_or_default())
}

/// Whether it is one of those that are decided here.
pub(super) fn is_ours(key: &str) -> bool {
    matches!(words(key).0, "throttle" | "group" | "quiet" | "fuse" | "digest")
}

/// Whether a gathering has lost what made it: its rule, the rule's `group`, the mails it is about.
pub(super) fn is_orphan(plan: &Plan, key: &str, rule: &str) -> bool {
    let (kind, part) = words(key);
    let Some(rule) = plan.rules.get(rule) else {
        return is_ours(key) && kind != "digest" && key != "fuse";
    };
    let told = !mails_of(rule, part).is_empty();
    match kind {
        "throttle" => !told || rule.telling.throttle.is_none(),
        "group" => !told || rule.telling.group.is_none(),
        "quiet" => !told || rule.telling.quiet.is_none(),
        "fuse" if !part.is_empty() => !told || plan.settings.limits.is_none(),
        _ => false,
    }
}

/// Decides about one gathering that is due, and composes what is told. Reads files; changes nothing.
pub(super) fn fall(gathering: &Gathering, desk: &mut Desk) -> Result<Fallen, Unready> {
    let mut fallen = Fallen::default();
    let (kind, part) = words(&gathering.key);
    let plan = Arc::clone(&desk.plan);
    let name = gathering.rule.as_str();
    let rule = plan.rules.get(name).map(Arc::as_ref);
    desk.begin();
    let what = match kind {
        "throttle" => {
            forget_window(gathering, rule, desk, &mut fallen.made);
            return Ok(fallen);
        }
        "fuse" if part.is_empty() => {
            desk.end(name, &gathering.key, &mut fallen.made.main.gathers);
            fallen.closes = Some(format!("fuse:{name}"));
            return Ok(fallen);
        }
        "digest" => {
            if let Err(error) = again(gathering, desk, &mut fallen.made) {
                fallen.made.discard(&desk.store);
                return Err(error);
            }
            return Ok(fallen);
        }
        "group" => What::Group,
        "quiet" => What::Quiet,
        _ => What::Summary,
    };
    let batch = batch_of(gathering);
    let none = Telling::default();
    let telling = rule.map_or(&none, |rule| &rule.telling);
    let (due, reason) = gather::fall_due(telling, what, desk.now);
    tracing::debug!(
        rule = name,
        key = gathering.key,
        ?due,
        reason,
        "gathered events fell due"
    );
    let gathers = &mut fallen.made.main.gathers;
    match due {
        Due::Wait(until) => {
            let events = Vec::new();
            desk.put((name, &gathering.key), &batch, Some(until), events, gathers);
        }
        Due::Hold(until) => {
            let ids = all_ids(gathering, desk)?;
            move_on(
                gathering,
                batch,
                (&format!("quiet:{part}"), until),
                ids,
                desk,
                &mut fallen.made,
            )?;
        }
        Due::Release => {
            if what != What::Summary && sums_up(desk) && !has_room(rule, part, desk) {
                let ids = all_ids(gathering, desk)?;
                let until = desk.now.saturating_add(HOUR).unwrap_or(Timestamp::MAX);
                let due = move_on(
                    gathering,
                    batch,
                    (&format!("fuse:{part}"), until),
                    ids,
                    desk,
                    &mut fallen.made,
                )?;
                desk.fuses
                    .entry(name.to_owned())
                    .or_default()
                    .sum_until(Some(due));
            } else if let Err(error) = release(gathering, what, &batch, desk, &mut fallen.made) {
                fallen.made.discard(&desk.store);
                desk.undo();
                return Err(error);
            }
        }
    }
    Ok(fallen)
}

fn batch_of(gathering: &Gathering) -> Batch {
    serde_json::from_value(gathering.state.clone()).unwrap_or_else(|error| {
        tracing::warn!(rule = gathering.rule, key = gathering.key, %error, "what was gathered cannot be understood");
        Batch {
            key: String::new(),
            count: 0,
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            folded: None,
            told: Vec::new(),
        }
    })
}

/// A throttle that says nothing any more; what it folded is kept for the next mail.
fn forget_window(gathering: &Gathering, rule: Option<&Rule>, desk: &mut Desk, made: &mut Made) {
    let window: Window = serde_json::from_value(gathering.state.clone()).unwrap_or_default();
    let throttles = rule.is_some_and(|rule| rule.telling.throttle.is_some());
    let gathers = &mut made.main.gathers;
    if window.folded.is_some() && throttles {
        let place = (gathering.rule.as_str(), gathering.key.as_str());
        desk.put(place, &window, None, Vec::new(), gathers);
    } else {
        desk.end(&gathering.rule, &gathering.key, gathers);
    }
}

fn all_ids(gathering: &Gathering, desk: &Desk) -> Result<Vec<EventId>, StoreError> {
    let mut ids = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or(EventId(0));
        let page = desk.page(gathering, after, MOST)?;
        ids.extend(page.iter().map(|event| event.id));
        if page.len() < MOST {
            return Ok(ids);
        }
    }
}

/// Puts what was gathered to what is gathered elsewhere. When that is due.
fn move_on(
    gathering: &Gathering,
    batch: Batch,
    (key, until): (&str, Timestamp),
    ids: Vec<EventId>,
    desk: &mut Desk,
    made: &mut Made,
) -> Result<Timestamp, StoreError> {
    let name = gathering.rule.as_str();
    let standing = desk.standing::<Batch>(name, key)?;
    let (batch, due) = match standing {
        Some((standing, due)) => (standing.and(batch), due.unwrap_or(until)),
        None => (batch, until),
    };
    desk.end(name, &gathering.key, &mut made.main.gathers);
    desk.put((name, key), &batch, Some(due), ids, &mut made.main.gathers);
    Ok(due)
}

fn has_room(rule: Option<&Rule>, part: &str, desk: &mut Desk) -> bool {
    let mails = rule.map_or(1, |rule| mails_of(rule, part).len().max(1));
    let name = rule.map(|rule| rule.name.clone()).unwrap_or_default();
    if desk.pass(&name, mails) {
        // Counted when it is composed.
        desk.undo();
        return true;
    }
    false
}

/// Tells what was gathered, by as many mails as that takes.
fn release(
    gathering: &Gathering,
    what: What,
    batch: &Batch,
    desk: &mut Desk,
    made: &mut Made,
) -> Result<(), Unready> {
    let name = gathering.rule.as_str();
    let (_, part) = words(&gathering.key);
    if what == What::Summary {
        desk.fuses.entry(name.to_owned()).or_default().sum_until(None);
    }
    let mut after = EventId(0);
    let mut folded = batch.folded.clone();
    loop {
        let events = desk.page(gathering, after, MOST)?;
        let Some(last) = events.last() else {
            break;
        };
        after = last.id;
        let all = events.len() < MOST;
        let times = || events.iter().map(|event| event.happening.time);
        let page = Batch {
            key: batch.key.clone(),
            count: events.len(),
            first: times().min().unwrap_or(batch.first),
            last: times().max().unwrap_or(batch.last),
            folded: folded.take(),
            told: batch.told.clone(),
        };
        let key = format!("digest:{name}:{}:{}", gathering.key, events[0].id);
        let digest = Digest::of(name, part, &page, None, &desk.plan);
        let mut entries = Vec::new();
        for number in 0..digest.mails.len() {
            let key = format!("{key}/mail-{number}");
            entries.extend(digest.compose(number, &key, &page, &events, desk, made)?);
        }
        let count = entries.len();
        if what == What::Summary || desk.pass(name, count) {
            if what == What::Summary {
                let fuse = desk.fuses.entry(name.to_owned()).or_default();
                fuse.add(desk.now, u32::try_from(count).unwrap_or(u32::MAX));
            }
            made.main.entries.append(&mut entries);
        } else {
            let about = events
                .last()
                .map_or(event::Kind::Event, |event| event.happening.kind);
            gathering::hold(entries, name, about, desk, made);
        }
        if all {
            break;
        }
    }
    desk.end(name, &gathering.key, &mut made.main.gathers);
    Ok(())
}

/// Composes a digest once more that could not be composed before.
fn again(gathering: &Gathering, desk: &mut Desk, made: &mut Made) -> Result<(), Unready> {
    let events = desk.page(gathering, EventId(0), MOST)?;
    let unmade: Result<Unmade, _> = serde_json::from_value(gathering.state.clone());
    desk.end(&gathering.rule, &gathering.key, &mut made.main.gathers);
    let Ok(unmade) = unmade else {
        tracing::error!(
            rule = gathering.rule,
            key = gathering.key,
            "this digest cannot be understood"
        );
        return Ok(());
    };
    let digest = Digest::of(
        &gathering.rule,
        &unmade.part,
        &unmade.batch,
        Some((unmade.number, unmade.shipped)),
        &desk.plan,
    );
    let entry = digest.compose(unmade.number, &gathering.key, &unmade.batch, &events, desk, made)?;
    made.main.entries.extend(entry);
    Ok(())
}

/// The mails that tell a batch.
struct Digest {
    rule: Rule,
    part: String,
    mails: Vec<MailSpec>,
    /// Whether `mails` speak of several events by the shipped template.
    shipped: bool,
}

impl Digest {
    /// By the rule's own mails, where it has them; else by the defaults, to whom the rule would have told.
    fn of(name: &str, part: &str, batch: &Batch, before: Option<(usize, bool)>, plan: &Plan) -> Digest {
        let rule = plan.rules.get(name).map(Arc::as_ref);
        let own = rule.map_or(&[][..], |rule| mails_of(rule, part));
        let number = before.map_or(0, |(number, _)| number);
        let groups = rule.is_some_and(|rule| gathers(part) && rule.telling.group.is_some());
        let mut digest = Digest {
            rule: rule.cloned().unwrap_or_else(|| Rule {
                name: name.to_owned(),
                place: "a rule that is gone".to_owned(),
                ..Rule::default()
            }),
            part: part.to_owned(),
            mails: own.to_vec(),
            shipped: !groups && batch.count > 1,
        };
        if own.len() <= number {
            digest.shipped = true;
            digest.mails = batch
                .told
                .iter()
                .filter_map(|told| by_defaults(told, plan))
                .collect();
            if digest.mails.is_empty() {
                // Nobody is known: the mail is held for that reason, and the events stay with it.
                digest.mails.extend(by_defaults(&Addressed::default(), plan));
            }
        }
        if digest.shipped {
            for mail in &mut digest.mails {
                mail.template = DIGEST.to_owned();
                mail.subject = None;
            }
        }
        digest
    }

    /// One of the mails, as an entry that answers all the events.
    fn compose(
        &self,
        number: usize,
        key: &str,
        batch: &Batch,
        events: &[Event],
        desk: &mut Desk,
        made: &mut Made,
    ) -> Result<Option<crate::entry::NewEntry>, Unready> {
        let (Some(spec), Some(last)) = (self.mails.get(number), events.last()) else {
            return Ok(None);
        };
        let plan = Arc::clone(&desk.plan);
        let surroundings = plan.surroundings(desk.now);
        let zone = &plan.settings.defaults.timezone;
        let told: Vec<(Value, Option<PathBuf>)> = events
            .iter()
            .map(|event| {
                let mut facts = facts::facts(event, &self.rule, &surroundings);
                // A file that is gone by now lacks what stood in it: a template that says so holds the digest.
                let wish = &self.rule.asks.texts;
                if let Err(why) = Learned::default().tell(&plan.settings.ground, &event.happening, wish, &mut facts) {
                    tracing::warn!(rule = self.rule.name, event = %event.id, why, "facts of a file are not known");
                }
                let log = job_log(&facts);
                (facts, log)
            })
            .collect();
        let members: Vec<Member<'_>> = told
            .iter()
            .zip(events)
            .map(|((facts, log), event)| Member {
                facts,
                file: event.happening.file.as_ref(),
                job_log: log.as_deref(),
            })
            .collect();
        let mut facts = match told.last() {
            Some((facts, _)) => facts.clone(),
            None => facts::facts(last, &self.rule, &surroundings),
        };
        if self.shipped || gathers(&self.part) && self.rule.telling.group.is_some() {
            let each = told.iter().zip(events);
            let each = each
                .map(|((facts, _), event)| gathered::member(event, facts))
                .collect();
            facts["group"] = gathered::group(batch, each, zone);
        }
        if batch.folded.is_some() || gathers(&self.part) && self.rule.telling.throttle.is_some() {
            facts["throttle"] = gathered::throttle(batch.folded.as_ref(), zone);
        }
        let log = job_log(&facts);
        let with = Composing {
            settings: &plan.settings,
            templates: &plan.templates,
            spool: desk.store.spool(),
            rule: &self.rule.name,
            event: Some(last.id),
            facts: &facts,
            file: last.happening.file.as_ref(),
            job_log: log.as_deref(),
            now: desk.now,
            host: &plan.host,
        };
        let spec = plan.sparing(spec, &facts, &desk.store);
        let mut entry = email::prepare_digest(&spec, key, &with, &members)?;
        plan.lane(&spec, &mut entry);
        let others = events.iter().filter(|event| event.id != last.id);
        entry.answers = others.map(|event| event.id).collect();
        if entry.held.is_some() && entry.effect.is_empty() {
            let unmade = Unmade {
                part: self.part.clone(),
                number,
                shipped: self.shipped,
                batch: batch.clone(),
            };
            let ids = events.iter().map(|event| event.id).collect();
            desk.put((&self.rule.name, key), &unmade, None, ids, &mut made.main.gathers);
        }
        Ok(Some(entry))
    }
}

/// A mail of a rule that is gone: from the account it had, if that is still there, to those it would have told
/// and the settings still allow.
fn by_defaults(told: &Addressed, plan: &Plan) -> Option<MailSpec> {
    let settings = &plan.settings;
    let allow = settings.recipients.allow.as_ref();
    let own = settings.accounts.get_key_value(&told.account);
    let default = || settings.defaults.account.as_ref();
    let account = own
        .map(|(name, _)| name)
        .or_else(default)
        .unwrap_or(&told.account);
    let may = |mailbox: &Mailbox| {
        settings
            .accounts
            .get(account)
            .is_some_and(|account| account.may_send_as(&mailbox.address))
    };
    let user = settings
        .accounts
        .get(account)
        .and_then(|account| account.user.as_deref());
    let written: Option<Mailbox> = told.from.parse().ok();
    let from = written
        .clone()
        .filter(&may)
        .or_else(|| settings.defaults.from.clone().filter(&may))
        .or_else(|| user?.parse().ok())
        .or(written)
        .or_else(|| settings.defaults.from.clone())
        .or_else(|| "postmaster@localhost".parse().ok())?;
    let allowed = |addresses: &[String]| -> Vec<RecipientSpec> {
        let parsed = addresses
            .iter()
            .filter_map(|address| address.parse::<Mailbox>().ok());
        let allowed = parsed.filter(|mailbox| {
            allow.is_none_or(|allow| allow.is_match(mailbox.address.to_string().to_lowercase()))
        });
        allowed.map(RecipientSpec::Fixed).collect()
    };
    Some(MailSpec {
        account_named: false,
        accounts: Vec::new(),
        account: account.clone(),
        from,
        to: allowed(&told.to),
        cc: Vec::new(),
        bcc: allowed(&told.bcc),
        reply_to: None,
        subject: None,
        template: DIGEST.to_owned(),
        attach: Vec::new(),
        oversize: Oversize::Note,
        max_size: NOTHING,
        priority: Priority::Normal,
        headers: Vec::new(),
    })
}
