//! `handed_in:`: whose the mails of scripts and devices are, and who is meant.

use crate::config::check::{Checker, Unsure};
use crate::config::document::At;
use crate::config::handed::HandedIn;
use crate::config::raw::handed as raw;
use crate::config::settings::{Account, Recipients};
use crate::mail::address::Mailbox;
use crate::suggest;
use std::collections::BTreeMap;

impl Checker<'_> {
    /// Whose mails are taken, and who is meant.
    pub(super) fn handed_in(
        &mut self,
        at: &At<'_>,
        raw: raw::HandedIn,
        accounts: &BTreeMap<String, Account>,
        recipients: &Recipients,
        unsure: &Unsure,
    ) -> HandedIn {
        let default = HandedIn::default();
        let sure = !unsure.all_accounts && unsure.accounts.is_empty();
        if let Some(name) = raw
            .account
            .as_ref()
            .filter(|name| sure && !accounts.contains_key(*name))
        {
            self.complain(
                at.key("account")
                    .error(format!("there is no account `{name}`"))
                    .hint(suggest::hint(name, accounts.keys().map(String::as_str))),
            );
        }
        let mut senders = BTreeMap::new();
        for (key, text) in raw.senders.unwrap_or_default() {
            let at = at.key("senders");
            if !is_pattern(&key) {
                self.complain(
                    at.name(&key)
                        .error(format!("`{key}` stands for no sender"))
                        .hint("a name (root), an address, \"*@web1\", or \"*\" for all others"),
                );
            }
            let Some(mailbox) = self.mailbox(&at.key(&key), &text) else {
                continue;
            };
            if sure
                && !accounts
                    .values()
                    .any(|account| account.may_send_as(&mailbox.address))
            {
                self.complain(
                    at.key(&key)
                        .error(format!("no account may send as {}", mailbox.address))
                        .hint("list it under `senders:` of an account"),
                );
            }
            senders.insert(key.to_lowercase(), mailbox);
        }
        let mut meant = BTreeMap::new();
        for (name, whom) in raw.recipients.unwrap_or_default() {
            let at = at.key("recipients");
            if name.contains(['@', ',', '{']) || name.trim().is_empty() {
                self.complain(
                    at.name(&name)
                        .error(format!("`{name}` is no name without a domain"))
                        .hint("a local name (root), or \"*\" for all others"),
                );
            }
            let at = at.key(&name);
            let mut boxes: Vec<Mailbox> = Vec::new();
            for (index, whom) in whom.0.iter().enumerate() {
                let at = at.item(index);
                if let Some(group) = recipients.groups.get(whom) {
                    boxes.extend(group.iter().cloned());
                } else if let Some(mailbox) = self.mailbox(&at, whom) {
                    if !unsure.recipients {
                        self.allowed(&at, &mailbox, recipients.allow.as_ref());
                    }
                    boxes.push(mailbox);
                }
            }
            meant.insert(name.to_lowercase(), boxes);
        }
        let size = raw.max_size.map(|size| size.0);
        HandedIn {
            account: raw.account,
            senders,
            recipients: meant,
            max_size: self.size(&at.key("max_size"), size.as_deref(), default.max_size),
        }
    }
}

/// A name, an address, `*@domain`, or `*`.
fn is_pattern(key: &str) -> bool {
    let (local, domain) = key
        .split_once('@')
        .map_or((key, None), |(local, domain)| (local, Some(domain)));
    let plain = |text: &str| {
        !text.is_empty()
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "*@,<>".contains(c))
    };
    (local == "*" || plain(local)) && domain.is_none_or(plain)
}
