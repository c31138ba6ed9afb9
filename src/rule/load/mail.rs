//! `mail:`.

use crate::action::email::{MailSpec, Oversize, Priority};
use crate::action::recipients::RecipientSpec;
use crate::config::check::address_hint;
use crate::config::document::At;
use crate::config::raw::{Many, Template, mail as raw};
use crate::config::settings::Account;
use crate::mail::address::{Address, Mailbox};
use crate::rule::load::words::Words;
use crate::rule::load::{Loader, known_template};
use crate::suggest;
use crate::template::Text;

/// How big attachments may be together: below what Exchange Online and Gmail take.
const MAX_SIZE: u64 = 20_000_000;

/// Header fields that are made by us, and where to set what they say.
const OURS: [(&str, &str); 18] = [
    ("from", "write `from:`"),
    ("sender", "write `from:`"),
    ("to", "write `to:`"),
    ("cc", "write `cc:`"),
    ("bcc", "write `bcc:`"),
    ("reply-to", "write `reply_to:`"),
    ("subject", "write `subject:`"),
    ("x-priority", "write `priority:`"),
    ("importance", "write `priority:`"),
    ("date", "it is fixed when the mail is composed"),
    ("message-id", "it is fixed when the mail is composed"),
    ("auto-submitted", "every mail of ours carries it already"),
    ("mime-version", "it belongs to the form of the mail"),
    ("content-type", "it belongs to the form of the mail"),
    ("content-transfer-encoding", "it belongs to the form of the mail"),
    ("content-disposition", "it belongs to the form of the mail"),
    ("return-path", "it is written by the server that delivers"),
    ("received", "it is written by the servers on the way"),
];

impl Loader<'_> {
    /// One mail or several.
    pub(super) fn mails(
        &mut self,
        at: &At<'_>,
        raw: &Many<raw::Mail>,
        words: &Words,
        damaged: bool,
    ) -> Vec<MailSpec> {
        raw.0
            .iter()
            .enumerate()
            .filter_map(|(index, mail)| self.mail(&at.item(index), mail, words, damaged))
            .collect()
    }

    fn mail(&mut self, at: &At<'_>, raw: &raw::Mail, words: &Words, damaged: bool) -> Option<MailSpec> {
        let account = self.account(at, raw, damaged);
        let known = account
            .as_deref()
            .and_then(|name| self.checked.settings.accounts.get(name));
        let from = self.from(at, raw, account.as_deref(), known, damaged);
        let accounts = self.others(at, raw, from.as_ref());
        let to = self.recipients(&at.key("to"), &raw.to.0, words);
        let cc = self.recipients(&at.key("cc"), many(raw.cc.as_ref()), words);
        let bcc = self.recipients(&at.key("bcc"), many(raw.bcc.as_ref()), words);
        let reply_to = raw
            .reply_to
            .as_deref()
            .and_then(|text| self.checker.mailbox(&at.key("reply_to"), text));
        let subject = raw
            .subject
            .as_ref()
            .and_then(|text| self.text(&at.key("subject"), &text.0, words));
        let template = self.template(at, raw.template.as_deref(), words);
        if let Some(signature) = known.and_then(|account| account.signature.as_deref()) {
            self.uses(&at.key("account"), "signature", signature, words);
        }
        let mut attach = Vec::new();
        for (index, text) in many(raw.attach.as_ref()).iter().enumerate() {
            let spot = at.key("attach").item(index);
            if text.0 == "job.log" {
                let path = ["job".to_owned(), "log".to_owned()];
                if let Err(unsaid) = words.say(&path, false) {
                    self.complain(
                        spot.error(format!("there is no job.log here: {}", unsaid.message))
                            .hint(unsaid.hint),
                    );
                    continue;
                }
            }
            let text = self.text(&spot, &text.0, words);
            let of_file = |text: &Text| {
                let said = text.variables();
                said.iter()
                    .any(|said| !said.guarded && said.path.first().is_some_and(|root| root == "file"))
            };
            if words.tells_of_gone() && text.as_ref().is_some_and(of_file) {
                self.complain(
                    spot.error("a file that went away cannot be attached")
                        .hint("make a rule of its own for `file_removed`, without `attach`"),
                );
            }
            attach.extend(text);
        }
        let max = raw.max_size.as_ref().map(|size| size.0.as_str());
        let max_size = self.checker.size(&at.key("max_size"), max, MAX_SIZE);
        let headers = self.headers(at, raw, words);
        Some(MailSpec {
            account: account?,
            account_named: raw.account.is_some(),
            accounts,
            from: from?,
            to,
            cc,
            bcc,
            reply_to,
            subject,
            template,
            attach,
            oversize: match raw.oversize {
                None | Some(raw::Oversize::Note) => Oversize::Note,
                Some(raw::Oversize::Zip) => Oversize::Zip,
                Some(raw::Oversize::Fail) => Oversize::Fail,
            },
            max_size,
            priority: match raw.priority {
                Some(raw::Priority::High) => Priority::High,
                None | Some(raw::Priority::Normal) => Priority::Normal,
                Some(raw::Priority::Low) => Priority::Low,
            },
            headers,
        })
    }

    /// Which account sends; `None` when that is not known, and has been said.
    fn account(&mut self, at: &At<'_>, raw: &raw::Mail, damaged: bool) -> Option<String> {
        let settings = &self.checked.settings;
        let unsure = &self.checked.unsure;
        match &raw.account {
            Some(names) => {
                let mut problems = Vec::new();
                for (index, name) in names.0.iter().enumerate() {
                    let spot = at.key("account").item(index);
                    if names.0[..index].contains(name) {
                        problems.push(
                            spot.error(format!("`{name}` is named twice"))
                                .hint("keep one of them"),
                        );
                    } else if !settings.accounts.contains_key(name)
                        && !unsure.all_accounts
                        && !unsure.accounts.contains(name)
                    {
                        problems.push(
                            spot.error(format!("there is no account `{name}`"))
                                .hint(suggest::hint(name, settings.accounts.keys().map(String::as_str))),
                        );
                    }
                }
                let fine = problems.is_empty();
                problems.into_iter().for_each(|problem| self.complain(problem));
                names.0.first().filter(|_| fine).cloned()
            }
            None => {
                if settings.defaults.account.is_none() && !unsure.all_accounts && !unsure.defaults && !damaged
                {
                    let names: Vec<&str> = settings.accounts.keys().map(String::as_str).collect();
                    let mut hint =
                        format!("add `account:` ({}), here or under `defaults:`", names.join(", "));
                    // The sender often tells which account was meant.
                    let from = raw.from.as_deref().and_then(|from| from.parse::<Mailbox>().ok());
                    let lists = |account: &&Account| {
                        from.as_ref()
                            .is_some_and(|from| account.senders.contains(&from.address))
                    };
                    if let Some(account) = settings.accounts.values().find(lists) {
                        hint = format!(
                            "the account `{}` lists this sender: add `account: {}`",
                            account.name, account.name
                        );
                    }
                    let problem = at.error("which account sends this mail?").hint(hint);
                    self.complain(problem);
                }
                settings.defaults.account.clone()
            }
        }
    }

    /// All accounts of a rule that names several. Each must be allowed to send what the first one would have: the
    /// bytes are the same, and so is From.
    fn others(&mut self, at: &At<'_>, raw: &raw::Mail, from: Option<&Mailbox>) -> Vec<String> {
        let names = raw.account.as_ref().map_or(&[][..], |names| &names.0);
        if names.len() < 2 {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for (index, name) in names.iter().enumerate().skip(1) {
            let known = self.checked.settings.accounts.get(name);
            if let (Some(account), Some(from)) = (known, from)
                && !self.checked.unsure.accounts.contains(name)
                && !account.may_send_as(&from.address)
            {
                let spot = at.key("account").item(index);
                let accounts = &self.checked.settings.accounts;
                problems.push(not_a_sender(&spot, account, &from.address, accounts));
            }
        }
        problems.into_iter().for_each(|problem| self.complain(problem));
        names.to_vec()
    }

    /// Who it is from; `None` when that is not known, and has been said.
    fn from(
        &mut self,
        at: &At<'_>,
        raw: &raw::Mail,
        name: Option<&str>,
        account: Option<&Account>,
        damaged: bool,
    ) -> Option<Mailbox> {
        let unsure = name.is_none_or(|name| self.checked.unsure.accounts.contains(name));
        if let Some(text) = &raw.from {
            let spot = at.key("from");
            let from = self.checker.mailbox(&spot, text)?;
            if let (Some(account), false) = (account, unsure)
                && !account.may_send_as(&from.address)
            {
                self.complain(not_a_sender(
                    &spot,
                    account,
                    &from.address,
                    &self.checked.settings.accounts,
                ));
            }
            return Some(from);
        }
        let default = self
            .checked
            .settings
            .defaults
            .from
            .clone()
            .filter(|from| account.is_none_or(|account| account.may_send_as(&from.address)));
        let own = account
            .and_then(|account| account.user.as_deref())
            .and_then(|user| user.parse::<Mailbox>().ok());
        let only = account
            .filter(|account| account.senders.len() == 1)
            .and_then(|account| account.senders.first())
            .map(|address| Mailbox::from(address.clone()));
        let from = default.or(own).or(only);
        if from.is_none() && !unsure && !damaged && !self.checked.unsure.defaults {
            let name = name.unwrap_or_default();
            self.complain(
                at.error(format!(
                    "who is this mail from? The account `{name}` has no address of its own"
                ))
                .hint("add `from:`, here or under `defaults:`"),
            );
        }
        from
    }

    /// The template, and whether all it says is there.
    fn template(&mut self, at: &At<'_>, written: Option<&str>, words: &Words) -> String {
        let name = written
            .unwrap_or(&self.checked.settings.defaults.template)
            .to_owned();
        let spot = at.key("template");
        if written.is_some()
            && let Err(hint) = known_template(self.templates, self.broken, &name)
        {
            self.complain(spot.error(format!("there is no template `{name}`")).hint(hint));
            return name;
        }
        self.uses(&spot, "template", &name, words);
        name
    }

    /// Complains about facts that a template uses and the rule does not have, each kind once.
    fn uses(&mut self, spot: &At<'_>, what: &str, name: &str, words: &Words) {
        let mut said = std::collections::BTreeSet::new();
        for used in self.templates.variables(name) {
            self.asks.texts.note(&used.path);
            if let Err(unsaid) = words.say(&used.path, used.guarded)
                && said.insert(unsaid.message.clone())
            {
                let file = used.file.strip_prefix(self.checker.dir).unwrap_or(&used.file);
                self.complain(
                    spot.error(format!(
                        "the {what} `{name}` says `{}`, but {}",
                        used.path.join("."),
                        lower(&unsaid.message)
                    ))
                    .hint(format!(
                        "it says so in {}:{}:{}; {}",
                        file.display(),
                        used.line,
                        used.column,
                        lower(&unsaid.hint)
                    )),
                );
            }
        }
    }

    fn recipients(&mut self, at: &At<'_>, raw: &[Template], words: &Words) -> Vec<RecipientSpec> {
        let mut out = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let spot = at.item(index);
            let text = text.0.as_str();
            if text.contains("{{") {
                if let Some(template) = self.text(&spot, text, words) {
                    self.admissible(&spot, text);
                    out.push(RecipientSpec::Template(template));
                }
                continue;
            }
            let recipients = &self.checked.settings.recipients;
            let unsure = self.checked.unsure.recipients;
            if let Some(members) = recipients.groups.get(text) {
                out.extend(members.iter().cloned().map(RecipientSpec::Fixed));
                continue;
            }
            if !text.contains('@') {
                if !unsure {
                    let names: Vec<&str> = recipients.groups.keys().map(String::as_str).collect();
                    let hint = if names.is_empty() {
                        "write an address, or make a group: recipients: { groups: { ops: [..] } }".to_owned()
                    } else {
                        suggest::hint(text, names)
                    };
                    let problem = spot
                        .error(format!("`{text}` is neither a mail address nor a group"))
                        .hint(hint);
                    self.complain(problem);
                }
                continue;
            }
            match text.parse::<Mailbox>() {
                Ok(mailbox) => {
                    if !unsure {
                        let allow = recipients.allow.as_ref();
                        self.checker.allowed(&spot, &mailbox, allow);
                    }
                    out.push(RecipientSpec::Fixed(mailbox));
                }
                Err(_) => self.complain(
                    spot.error(format!("`{text}` is not a mail address"))
                        .hint(address_hint(text)),
                ),
            }
        }
        out
    }

    /// A recipient made by a template that nothing could ever allow is a mail that is always held.
    fn admissible(&mut self, at: &At<'_>, text: &str) {
        if self.checked.unsure.recipients || self.checked.unsure.all_accounts {
            return;
        }
        let end = text.rfind("}}").map_or(0, |end| end + 2);
        let tail = text[end..].trim_end().trim_end_matches('>').to_lowercase();
        let recipients = &self.checked.settings.recipients;
        let possible = match &recipients.allow {
            None => self
                .written
                .iter()
                .any(|address| address.to_string().to_lowercase().ends_with(&tail)),
            // Any local part could come; the domain, where it is written out, is what can be judged.
            Some(allow) => match tail.split_once('@') {
                Some((_, domain)) => {
                    let some = ["a", "ops", "x-1"]
                        .iter()
                        .any(|name| allow.is_match(format!("{name}@{domain}")));
                    some || self.written.iter().any(|address| {
                        let address = address.to_string().to_lowercase();
                        address.ends_with(&tail) && allow.is_match(&address)
                    })
                }
                None => true,
            },
        };
        if possible {
            return;
        }
        let domain = tail.split_once('@').map_or("example.com", |(_, domain)| domain);
        self.complain(
            at.error("no address that this gives would be allowed, so the mail would always be held")
                .hint(format!(
                    "say who a template may write to: recipients: {{ allow: [\"*@{domain}\"] }}"
                )),
        );
    }

    fn headers(
        &mut self,
        at: &At<'_>,
        raw: &raw::Mail,
        words: &Words,
    ) -> Vec<(String, crate::template::Text)> {
        let mut out: Vec<(String, crate::template::Text)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in raw.headers.iter().flatten() {
            let at = at.key("headers");
            let place = at.name(name);
            let lower = name.to_ascii_lowercase();
            // RFC 5322 3.6.8: printable ASCII without the colon.
            let fine = !name.is_empty()
                && name.len() <= 70
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            if !fine {
                self.complain(
                    place
                        .error(format!("`{name}` cannot be the name of a header field"))
                        .hint("letters, digits and `-`, as X-Ticket"),
                );
            } else if let Some((_, hint)) = OURS.iter().find(|(ours, _)| *ours == lower) {
                self.complain(
                    place
                        .error(format!("the header field {name} cannot be set here"))
                        .hint(hint),
                );
            } else if lower.starts_with("x-tidings-") {
                self.complain(
                    place
                        .error("header fields that begin with X-Tidings- are set by tidings")
                        .hint("choose another name"),
                );
            } else if !seen.insert(lower) {
                self.complain(
                    place
                        .error(format!("the header field {name} is here twice"))
                        .hint("upper and lower case make no difference; keep one"),
                );
            }
            if let Some(text) = self.text(&at.key(name), &value.0, words) {
                out.push((name.clone(), text));
            }
        }
        out
    }
}

fn many(raw: Option<&Many<Template>>) -> &[Template] {
    raw.map_or(&[], |many| many.0.as_slice())
}

fn not_a_sender(
    at: &At<'_>,
    account: &Account,
    address: &Address,
    all: &std::collections::BTreeMap<String, Account>,
) -> crate::config::diagnostic::Problem {
    let senders: Vec<String> = account.senders.iter().map(Address::to_string).collect();
    let shown = address.to_string();
    // What comes behind the @ is alike all too often; each side must be near by itself.
    let near = senders.iter().zip(&account.senders).find_map(|(text, sender)| {
        let local = suggest::nearest(address.local(), [sender.local()])?;
        let domain = suggest::nearest(address.domain(), [sender.domain()])?;
        (!local.is_empty() && !domain.is_empty()).then_some(text.as_str())
    });
    let other = all
        .values()
        .find(|other| other.name != account.name && other.senders.contains(address));
    let hint = match (near, other) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(other)) => format!(
            "the account `{}` lists it: add `account: {}`",
            other.name, other.name
        ),
        (None, None) => format!(
            "if it is a shared mailbox that {} may use, add it under accounts: {}: senders:",
            account.user.as_deref().unwrap_or(&account.name),
            account.name
        ),
    };
    at.error(format!("the account `{}` may not send as {shown}", account.name))
        .hint(hint)
}

/// The same sentence, to stand behind a comma.
fn lower(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
