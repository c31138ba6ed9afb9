//! The news of an account's trouble leaves by an account that does not share it.
//!
//! Where the rule names an account, that one sends, whatever its state: somebody meant it. Where it names several, the
//! first of them that is well. Pure.

use crate::action::email::MailSpec;
use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Whether the accounts must be looked at: the rule names several, or the mail tells of a trouble and the rule names none.
pub fn may_be_needed(spec: &MailSpec, facts: &Value) -> bool {
    let kind = facts.pointer("/event/type").and_then(Value::as_str);
    spec.accounts.len() > 1 || (kind == Some("trouble") && !spec.account_named)
}

/// The mail as it shall leave, where it [may be needed](may_be_needed): as the rule says, or, where its account is
/// in trouble itself, by the first other account that is well and may send from an address of its
/// own. If there is none, as the rule says: the mail waits for the account.
///
/// `ailing` are the accounts that need a person.
pub fn sparing<'a>(spec: &'a MailSpec, settings: &Settings, ailing: &BTreeSet<String>) -> Cow<'a, MailSpec> {
    if !ailing.contains(&spec.account) {
        return Cow::Borrowed(spec);
    }
    if spec.account_named {
        // The next one of those the rule names; the same mail.
        let well = spec.accounts.iter().find(|name| !ailing.contains(*name));
        return match well {
            Some(account) => Cow::Owned(MailSpec {
                account: account.clone(),
                ..spec.clone()
            }),
            None => Cow::Borrowed(spec),
        };
    }
    let other = settings.accounts.values().find_map(|account| {
        let well = account.name != spec.account && !ailing.contains(&account.name);
        let own = account.user.as_deref()?.parse::<Mailbox>().ok()?;
        (well && account.may_send_as(&own.address)).then_some((account, own))
    });
    let Some((account, own)) = other else {
        return Cow::Borrowed(spec);
    };
    let name = spec.from.name.clone();
    Cow::Owned(MailSpec {
        account: account.name.clone(),
        from: Mailbox { name, ..own },
        ..spec.clone()
    })
}
