//! Settings as written become settings as meant.
//!
//! [`account`] has the accounts, `sign_in` who signs in for them; here are the other sections. Everything that can be said about a
//! section is said, whatever is wrong with the others: [`Unsure`] remembers what could not be
//! understood, so that nobody complains about its consequences.

pub mod account;
mod api;
mod calendar;
mod grant;
mod handed;
mod life;
mod sign_in;
mod submission;

use crate::config::diagnostic::Problem;
use crate::config::document::{At, Document};
use crate::config::handed::HandedIn;
use crate::config::raw::settings as raw;
use crate::config::settings::{Defaults, Limits, Outbox, Recipients, Settings, Then};
use crate::config::shape::{self, Sound};
use crate::config::{capability, quantity, schema};
use crate::entry::OnUnknown;
use crate::ground::Ground;
use crate::mail::address::{Address, Mailbox};
use crate::suggest;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings, as far as they could be understood.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What was understood.
    pub settings: Settings,
    /// Time between two full looks into a watched folder.
    pub scan_every: Duration,
    /// What was not.
    pub unsure: Unsure,
}

/// What could not be understood, and must not be complained about a second time.
#[derive(Clone, Debug, Default)]
pub struct Unsure {
    /// Accounts that are written, but not understood.
    pub accounts: BTreeSet<String>,
    /// Not even the names of the accounts are known.
    pub all_accounts: bool,
    /// The defaults.
    pub defaults: bool,
    /// Groups or allow-list.
    pub recipients: bool,
    /// The calendars.
    pub calendars: bool,
}

/// What checks share: where the setup is, and where complaints go.
pub struct Checker<'a> {
    /// The setup folder, absolute.
    pub dir: &'a Path,
    /// Whether there is a template of that name.
    pub template: &'a dyn Fn(&str) -> Result<(), String>,
    /// Where complaints go.
    pub problems: &'a mut Vec<Problem>,
}

/// Understands `tidings.yaml`. Without a document, everything is unsure.
pub fn settings(checker: &mut Checker<'_>, document: Option<Document>) -> Checked {
    let sound: Option<Sound<raw::Settings>> =
        document.and_then(|document| shape::read(document, &schema::SETTINGS, checker.problems));
    let Some(Sound { document, shape, raw }) = sound else {
        return Checked {
            settings: nothing(checker.dir),
            scan_every: SCAN_EVERY,
            unsure: Unsure {
                all_accounts: true,
                defaults: true,
                recipients: true,
                calendars: true,
                ..Unsure::default()
            },
        };
    };
    let at = document.at();
    let mut unsure = Unsure {
        defaults: shape.damaged(&["defaults"]),
        recipients: shape.damaged(&["recipients"]),
        calendars: shape.damaged(&["calendars"]),
        ..Unsure::default()
    };
    let outbox = checker.outbox(&at.key("outbox"), raw.outbox.unwrap_or_default());
    let limits = limits(raw.limits.as_ref());
    let recipients = checker.recipients(
        &at.key("recipients"),
        raw.recipients.unwrap_or_default(),
        &mut unsure,
    );
    let calendars = checker.calendars(&at.key("calendars"), raw.calendars.unwrap_or_default());
    let mut accounts = BTreeMap::new();
    // An account whose shape is so damaged that nothing is left of it is still one that was meant.
    unsure.accounts.extend(shape.below("accounts").map(str::to_owned));
    if raw.accounts.is_empty() && unsure.accounts.is_empty() {
        checker.problems.push(
            at.name("accounts")
                .error("there is no account")
                .hint("an account says who sends, and how; `tidings init DIR` makes a setup with examples"),
        );
    }
    for (name, account) in raw.accounts {
        if checker.problems.len() > MOST {
            unsure.all_accounts = true;
            break;
        }
        let at = at.key("accounts");
        let damaged = unsure.accounts.contains(&name);
        checker.name(&at.name(&name), "an account", &name);
        let (meant, senders_known) = checker.account(&at.key(&name), &name, account, damaged);
        if !senders_known {
            unsure.accounts.insert(name.clone());
        }
        accounts.insert(name, meant);
    }
    let (defaults, scan_every) = checker.defaults(
        &at.key("defaults"),
        raw.defaults.unwrap_or_default(),
        &accounts,
        &mut unsure,
    );
    if outbox.on_unknown.verifies() {
        let deaf = accounts
            .values()
            .map(|account| (account, capability::of(&account.transport)));
        for (account, can) in deaf.filter(|(_, can)| !can.searchable && !can.idempotent) {
            checker.complain(
                at.key("outbox")
                    .key("on_unknown")
                    .warning(format!(
                        "nobody can be asked what account `{}` sent ({}): its unknown mails are {}",
                        account.name,
                        can.name,
                        capability::otherwise(outbox.on_unknown)
                    ))
                    .hint("only `transport: graph` and `gmail` can be asked; the second word of [verify, hold] says what else"),
            );
        }
    }
    let state = outbox
        .store
        .parent()
        .map_or_else(|| checker.dir.to_owned(), Path::to_owned);
    let emitted = raw
        .emitted
        .and_then(|emitted| checker.emitted(&at.key("emitted"), emitted, &state));
    let alive = raw.alive.map(|alive| checker.alive(&at.key("alive"), alive));
    let handed_in = checker.handed_in(
        &at.key("handed_in"),
        raw.handed_in.unwrap_or_default(),
        &accounts,
        &recipients,
        &unsure,
    );
    let submission = raw
        .submission
        .map(|submission| checker.submission(&at.key("submission"), submission));
    Checked {
        settings: Settings {
            dir: checker.dir.to_owned(),
            accounts,
            defaults,
            recipients,
            outbox,
            calendars,
            emitted,
            alive,
            limits,
            handed_in,
            submission,
            state,
            advice: None,
            ground: Ground::default(),
        },
        scan_every,
        unsure,
    }
}

/// Most problems that are gathered: more help nobody, and what costs time must end.
pub const MOST: usize = 500;

const SCAN_EVERY: Duration = Duration::from_secs(60);
const STORE: &str = "state/tidings.db";

/// Settings of a setup that says nothing.
pub fn nothing(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        accounts: BTreeMap::new(),
        defaults: Defaults {
            account: None,
            from: None,
            timezone: TimeZone::system(),
            template: "plain".to_owned(),
        },
        recipients: Recipients::default(),
        outbox: Outbox {
            store: dir.join(STORE),
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
            give_up: Duration::from_secs(2 * 86_400),
            on_unknown: OnUnknown::Resend,
            fail_over: Duration::from_secs(15 * 60),
            keep: Duration::from_secs(30 * 86_400),
        },
        calendars: BTreeMap::new(),
        emitted: None,
        alive: None,
        limits: Some(Limits::default()),
        handed_in: HandedIn::default(),
        submission: None,
        state: dir.join("state"),
        advice: None,
        ground: Ground::default(),
    }
}

/// The fuse. The schema has seen to it that the number is one.
fn limits(raw: Option<&raw::Limits>) -> Option<Limits> {
    match raw {
        None => Some(Limits::default()),
        Some(raw::Limits::None) => None,
        Some(raw::Limits::Fuse(raw)) => {
            let default = Limits::default();
            Some(Limits {
                mails_per_rule_per_hour: raw
                    .mails_per_rule_per_hour
                    .unwrap_or(default.mails_per_rule_per_hour)
                    .max(1),
                then: match raw.then {
                    None | Some(raw::Then::Hold) => Then::Hold,
                    Some(raw::Then::Summary) => Then::Summary,
                },
            })
        }
    }
}

impl Checker<'_> {
    fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// Notes a complaint.
    pub fn complain(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// A name that becomes part of file names, headers and output.
    pub fn name(&mut self, at: &At<'_>, what: &str, name: &str) {
        let fine = name.len() <= 100
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.'));
        if !fine {
            self.complain(
                at.error(format!("`{name}` cannot be the name of {what}"))
                    .hint("letters, digits, `-`, `_` and `.`, at most 100, a letter or digit first"),
            );
        }
    }

    /// A time, or a complaint and `default`.
    pub fn time(&mut self, at: &At<'_>, text: Option<&str>, default: Duration) -> Duration {
        match text.map(quantity::time) {
            None => default,
            Some(Ok(time)) => time,
            Some(Err(help)) => {
                let text = text.unwrap_or_default();
                self.complain(at.error(format!("`{text}` is not a time")).hint(help));
                default
            }
        }
    }

    /// A time that is not zero.
    pub fn some_time(&mut self, at: &At<'_>, text: Option<&str>, default: Duration) -> Duration {
        let time = self.time(at, text, default);
        if time.is_zero() {
            self.complain(at.error("no time at all is too short").hint("write 1s or more"));
        }
        time
    }

    /// A size, or a complaint and `default`.
    pub fn size(&mut self, at: &At<'_>, text: Option<&str>, default: u64) -> u64 {
        match text.map(quantity::size) {
            None => default,
            Some(Ok(size)) => size,
            Some(Err(help)) => {
                let text = text.unwrap_or_default();
                self.complain(at.error(format!("`{text}` is not a size")).hint(help));
                default
            }
        }
    }

    /// A time zone by name.
    pub fn timezone(&mut self, at: &At<'_>, name: &str) -> Option<TimeZone> {
        if let Ok(zone) = TimeZone::get(name) {
            return Some(zone);
        }
        let names: Vec<String> = jiff::tz::db()
            .available()
            .map(|zone| zone.as_str().to_owned())
            .collect();
        let near = suggest::nearest(name, names.iter().map(String::as_str));
        // People know their city; the continent before it is what gets forgotten.
        let city = names.iter().find(|known| {
            known
                .rsplit('/')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case(name.rsplit('/').next().unwrap_or(name)))
        });
        let hint = match near.or(city.map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "a name of the IANA time zone database: Europe/Berlin, America/New_York, UTC".to_owned(),
        };
        self.complain(at.error(format!("`{name}` is not a time zone")).hint(hint));
        None
    }

    /// One mailbox: `address` or `Name <address>`.
    pub fn mailbox(&mut self, at: &At<'_>, text: &str) -> Option<Mailbox> {
        match text.parse() {
            Ok(mailbox) => Some(mailbox),
            Err(_) => {
                self.complain(
                    at.error(format!("`{text}` is not a mail address"))
                        .hint(address_hint(text)),
                );
                None
            }
        }
    }

    /// One bare address.
    pub fn address(&mut self, at: &At<'_>, text: &str) -> Option<Address> {
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let hint = match text.parse::<Mailbox>() {
                    Ok(mailbox) => format!("only the address: {}", mailbox.address),
                    Err(_) => address_hint(text),
                };
                self.complain(at.error(format!("`{text}` is not a mail address")).hint(hint));
                None
            }
        }
    }

    /// A path below the setup folder, or an absolute one.
    pub fn path(&self, text: &str) -> PathBuf {
        // Taking it to pieces drops `./` and a slash at the end, so equal folders look equal.
        self.dir.join(text).components().collect()
    }

    /// A file that must be there.
    pub fn file(&mut self, at: &At<'_>, text: &str) -> PathBuf {
        let path = self.path(text);
        match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => {}
            Ok(_) => self.complain(at.error(format!("`{text}` is not a file"))),
            Err(error) => self.complain(
                at.error(format!("cannot read `{text}`: {}", plain(&error)))
                    .hint(format!("looked for {}", path.display())),
            ),
        }
        path
    }

    fn outbox(&mut self, at: &At<'_>, raw: raw::Outbox) -> Outbox {
        let mut outbox = nothing(self.dir).outbox;
        if let Some(store) = &raw.store {
            let place = at.key("store");
            match store.split_once(':') {
                Some(("sqlite", file)) if !file.is_empty() && !file.ends_with('/') => {
                    outbox.store = self.path(file);
                    if outbox.store.parent() == Some(self.dir) {
                        self.complain(
                            place
                                .error("the database needs a folder of its own")
                                .hint("tidings keeps messages and keys beside it: sqlite:state/tidings.db"),
                        );
                    }
                }
                _ => self.complain(
                    place
                        .error(format!("`{store}` is not a place for the outbox"))
                        .hint("write sqlite: and a file: sqlite:state/tidings.db"),
                ),
            }
        }
        let retry = raw.retry.unwrap_or_default();
        let times = at.key("retry");
        let text = |time: &Option<crate::config::raw::Time>| time.as_ref().map(|time| time.0.clone());
        outbox.first = self.some_time(&times.key("first"), text(&retry.first).as_deref(), outbox.first);
        outbox.longest = self.some_time(
            &times.key("longest"),
            text(&retry.longest).as_deref(),
            outbox.longest.max(outbox.first),
        );
        outbox.give_up = self.some_time(
            &times.key("give_up"),
            text(&retry.give_up).as_deref(),
            outbox.give_up.max(outbox.longest),
        );
        if outbox.first > outbox.longest {
            self.complain(
                times
                    .key("longest")
                    .error("the longest wait is shorter than the first")
                    .hint("make `longest` at least as long as `first`"),
            );
        }
        if outbox.longest > outbox.give_up {
            self.complain(
                times
                    .key("give_up")
                    .error("a mail would be given up before its longest wait is over")
                    .hint("make `give_up` longer than `longest`"),
            );
        }
        if let Some(crate::config::raw::Many(words)) = &raw.on_unknown {
            use raw::OnUnknown::{Hold, Resend, Verify};
            match words.as_slice() {
                [Resend] => outbox.on_unknown = OnUnknown::Resend,
                [Hold] => outbox.on_unknown = OnUnknown::Hold,
                [Verify, Resend] => outbox.on_unknown = OnUnknown::VerifyOrResend,
                [Verify] | [Verify, Hold] => outbox.on_unknown = OnUnknown::VerifyOrHold,
                _ => self.complain(
                    at.key("on_unknown")
                        .error("this says more than one thing at once")
                        .hint("resend, hold, [verify, resend] or [verify, hold]"),
                ),
            }
        }
        outbox.fail_over = self.time(
            &at.key("fail_over"),
            text(&raw.fail_over).as_deref(),
            outbox.fail_over,
        );
        outbox.keep = self.some_time(&at.key("keep"), text(&raw.keep).as_deref(), outbox.keep);
        outbox
    }

    fn recipients(&mut self, at: &At<'_>, raw: raw::Recipients, unsure: &mut Unsure) -> Recipients {
        let before = self.errors();
        let allow = raw
            .allow
            .map(|patterns| self.allow(&at.key("allow"), &patterns.0));
        unsure.recipients |= self.errors() > before;
        let mut groups = BTreeMap::new();
        for (name, members) in raw.groups.unwrap_or_default() {
            let at = at.key("groups");
            if name.contains(['@', '{', ',']) || name.trim().is_empty() {
                self.complain(
                    at.name(&name)
                        .error(format!("`{name}` cannot be the name of a group"))
                        .hint("a plain word, so that it cannot be taken for an address"),
                );
            }
            let at = at.key(&name);
            let mut boxes = Vec::new();
            for (index, member) in members.0.iter().enumerate() {
                let at = at.item(index);
                let Some(mailbox) = self.mailbox(&at, member) else {
                    unsure.recipients = true;
                    continue;
                };
                self.allowed(&at, &mailbox, allow.as_ref());
                boxes.push(mailbox);
            }
            groups.insert(name, boxes);
        }
        Recipients { groups, allow }
    }

    /// Complains about an address that the allow-list leaves out.
    pub fn allowed(&mut self, at: &At<'_>, mailbox: &Mailbox, allow: Option<&GlobSet>) {
        let address = mailbox.address.to_string().to_lowercase();
        if allow.is_some_and(|allow| !allow.is_match(&address)) {
            self.complain(
                at.error(format!(
                    "`{}` is not among the allowed recipients",
                    mailbox.address
                ))
                .hint(format!(
                    "add a pattern under recipients: allow:, as \"*@{}\"",
                    mailbox.address.domain()
                )),
            );
        }
    }

    fn allow(&mut self, at: &At<'_>, patterns: &[String]) -> GlobSet {
        let mut set = GlobSetBuilder::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let at = at.item(index);
            if !pattern.contains('@') {
                self.complain(
                    at.error(format!("`{pattern}` matches no address: it has no @"))
                        .hint(format!(
                            "write \"*@{}\"",
                            pattern.trim_start_matches('*').trim_start_matches('.')
                        )),
                );
                continue;
            }
            match GlobBuilder::new(&pattern.to_lowercase()).build() {
                Ok(glob) => {
                    set.add(glob);
                }
                Err(error) => self.complain(
                    at.error(format!("`{pattern}` is not a pattern: {}", error.kind()))
                        .hint("`*` stands for anything: *@contoso.com"),
                ),
            }
        }
        set.build().unwrap_or_else(|_| GlobSet::empty())
    }

    fn defaults(
        &mut self,
        at: &At<'_>,
        raw: raw::Defaults,
        accounts: &BTreeMap<String, crate::config::settings::Account>,
        unsure: &mut Unsure,
    ) -> (Defaults, Duration) {
        let account = match raw.account {
            None => {
                let written: BTreeSet<&String> = accounts.keys().chain(&unsure.accounts).collect();
                written
                    .first()
                    .filter(|_| written.len() == 1)
                    .map(|only| (*only).clone())
            }
            Some(name) if accounts.contains_key(&name) => Some(name),
            Some(name) => {
                if !unsure.accounts.contains(&name) {
                    self.complain(
                        at.key("account")
                            .error(format!("there is no account `{name}`"))
                            .hint(suggest::hint(&name, accounts.keys().map(String::as_str))),
                    );
                }
                unsure.defaults = true;
                None
            }
        };
        let from = raw.from.and_then(|text| {
            let from = self.mailbox(&at.key("from"), &text);
            unsure.defaults |= from.is_none();
            from
        });
        if let (Some(from), Some(name)) = (&from, &account)
            && let Some(account) = accounts.get(name)
            && !unsure.accounts.contains(name)
            && !account.may_send_as(&from.address)
        {
            self.complain(
                at.key("from")
                    .error(format!("the account `{name}` may not send as {}", from.address))
                    .hint(format!("add {} under accounts: {name}: senders:", from.address)),
            );
        }
        let timezone = raw
            .timezone
            .and_then(|name| self.timezone(&at.key("timezone"), &name))
            .unwrap_or_else(TimeZone::system);
        let template = raw.template.unwrap_or_else(|| "plain".to_owned());
        if let Err(hint) = (self.template)(&template) {
            self.complain(
                at.key("template")
                    .error(format!("there is no template `{template}`"))
                    .hint(hint),
            );
        }
        let scan_every = self.some_time(
            &at.key("scan_every"),
            raw.scan_every.as_ref().map(|time| time.0.as_str()),
            SCAN_EVERY,
        );
        let defaults = Defaults {
            account,
            from,
            timezone,
            template,
        };
        (defaults, scan_every)
    }
}

/// An I/O error without the number that means nothing to most people.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// What to write instead of something that is no address.
pub fn address_hint(text: &str) -> String {
    if text.contains([',', ';']) && text.contains('@') {
        if text.matches('@').count() == 1 {
            return "a name with a comma stands in double quotes: '\"Name, Inc.\" <local@domain>'".to_owned();
        }
        return "one address each: write a list, [first@example.com, second@example.com]".to_owned();
    }
    if !text.contains('@') {
        return "an address is name@domain, or Name <name@domain>".to_owned();
    }
    if text.contains(' ') && !text.contains('<') {
        return "a name beside the address needs angle brackets: Name <name@domain>".to_owned();
    }
    "an address is name@domain, or Name <name@domain>; look for a character too much".to_owned()
}
