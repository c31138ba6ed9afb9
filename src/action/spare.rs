//! The news of an account's trouble leaves by an account that does not share it.
//!
//! Where the rule names an account, that one sends, whatever its state: somebody meant it. Pure.

use crate::action::email::MailSpec;
use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The mail as it shall leave: as the rule says, or, where it tells of a trouble, the rule names no account, and the
/// default one is in trouble itself, by the first other account that is well and may send from an address of its
/// own. If there is none, as the rule says: the mail waits for the account.
///
/// `ailing` are the accounts that need a person.
pub fn sparing<'a>(
    spec: &'a MailSpec,
    facts: &Value,
    settings: &Settings,
    ailing: &BTreeSet<String>,
) -> Cow<'a, MailSpec> {
    let is_trouble = facts.pointer("/event/type").and_then(Value::as_str) == Some("trouble");
    if !is_trouble || spec.account_named || !ailing.contains(&spec.account) {
        return Cow::Borrowed(spec);
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
