//! From which mailbox a mail leaves that was handed in, and to whom it may go. Pure.
//!
//! A From that an account may send as leaves as it is. One that means this machine (`root`, `root@localhost`) leaves
//! from the default mailbox, or from the one that `handed_in: senders` names, which is asked first. Any other is
//! refused: a mailbox service would refuse it later, when nobody listens any more.

use crate::config::settings::{Account, Settings};
use crate::mail::address::{Address, Mailbox};
use crate::mail::encoded;
use crate::mail::header::one_line;
use crate::mail::list::Listed;

/// Why a mail is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What of it.
    pub what: What,
    /// One sentence.
    pub text: String,
    /// What mends it; may be empty.
    pub step: String,
}

/// What of a mail is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nobody may send as its From.
    Sender,
    /// A recipient is nobody we know.
    Unknown,
    /// A recipient may not be written to.
    Forbidden,
    /// It has no recipient.
    Nobody,
    /// The message itself.
    Message,
    /// Its size.
    Size,
}

impl Refusal {
    /// A refusal with what mends it.
    pub fn new(what: What, text: impl Into<String>, step: impl Into<String>) -> Refusal {
        Refusal {
            what,
            text: text.into(),
            step: step.into(),
        }
    }
}

/// As whom a mail leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// By which account.
    pub account: String,
    /// From which mailbox.
    pub mailbox: Mailbox,
    /// It is not what the message says.
    pub changed: bool,
}

/// Where mails are handed in.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Accounts, senders, groups, the allow-list.
    pub settings: &'a Settings,
    /// This machine's name.
    pub host: &'a str,
}

/// A text of a stranger within a sentence.
fn quoted(text: &str) -> String {
    one_line(text, 200)
}

impl Policy<'_> {
    /// As whom a mail leaves whose From is `written`; without one, `other` (the address given beside it, or the name
    /// of who calls) is asked.
    pub fn sender(&self, written: Option<&Listed>, other: &str) -> Result<From, Refusal> {
        let text = written.map_or(other, |listed| listed.address.as_str());
        let name = written
            .and_then(|listed| listed.name.as_deref())
            .map(encoded::decode);
        if let Some(mapped) = self.mapped(text) {
            let account = self
                .account_for(&mapped.address)
                .ok_or_else(|| self.nobody(&mapped.address))?;
            return Ok(From {
                account: account.name.clone(),
                mailbox: Mailbox {
                    name: mapped.name.clone().or(name),
                    address: mapped.address.clone(),
                },
                changed: true,
            });
        }
        let own = match text.rsplit_once('@') {
            Some((_, domain)) => self.is_here(domain),
            None => true,
        };
        let address: Option<Address> = text.parse().ok();
        // An account that names it knows it, even if it looks like a name of this machine.
        if let Some(address) = &address {
            let named = |account: &&Account| account.senders.contains(address);
            let account = match own {
                true => self.accounts().find(named),
                false => self.account_for(address),
            };
            if let Some(account) = account {
                return Ok(From {
                    account: account.name.clone(),
                    mailbox: Mailbox {
                        name,
                        address: address.clone(),
                    },
                    changed: written.is_none(),
                });
            }
        }
        match (own, address) {
            (true, _) => self.default(text),
            (false, Some(address)) => Err(self.nobody(&address)),
            (false, None) => Err(Refusal::new(
                What::Sender,
                format!("`{}` is not a mail address to send as", quoted(text)),
                "Give the mail a From that is one.",
            )),
        }
    }

    /// Who is meant by a recipient: an address that is allowed, or all members of what a name stands for.
    pub fn recipient(&self, text: &str) -> Result<Vec<Mailbox>, Refusal> {
        let local = match text.rsplit_once('@') {
            Some((local, domain)) if self.is_here(domain) => local,
            Some(_) => return self.address(text).map(|mailbox| vec![mailbox]),
            None => text,
        };
        let (known, name) = (&self.settings.handed_in.recipients, local.to_lowercase());
        let groups = &self.settings.recipients.groups;
        let group = groups.iter().find(|(group, _)| group.to_lowercase() == name);
        let found = known
            .get(&name)
            .or(group.map(|(_, members)| members))
            .or_else(|| known.get("*"));
        match found {
            Some(members) => Ok(members.clone()),
            None => Err(Refusal::new(
                What::Unknown,
                format!("nobody is known here by the name `{}`", quoted(local)),
                format!(
                    "Say who it is in tidings.yaml: `handed_in: {{ recipients: {{ {}: somebody@example.com }} }}`, or \
                     a group of that name.",
                    quoted(&name)
                ),
            )),
        }
    }

    /// An address with a domain, if it may be written to.
    fn address(&self, text: &str) -> Result<Mailbox, Refusal> {
        let refuse = |what, why: String, step: String| {
            Err(Refusal::new(what, format!("`{}` {why}", quoted(text)), step))
        };
        let Ok(address) = text.parse::<Address>() else {
            return refuse(What::Unknown, "is not a mail address".to_owned(), String::new());
        };
        let mailbox = Mailbox::from(address);
        if let Some(why) = crate::action::recipients::is_trick(&mailbox) {
            return refuse(What::Forbidden, format!("is not taken, {why}"), String::new());
        }
        let lower = mailbox.address.to_string().to_lowercase();
        match &self.settings.recipients.allow {
            Some(allow) if allow.is_match(&lower) => Ok(mailbox),
            None if self.settings.written_out().any(|known| *known == mailbox.address) => Ok(mailbox),
            Some(_) => refuse(
                What::Forbidden,
                "may not be written to: `recipients.allow` does not allow it".to_owned(),
                format!("If it shall get mail, add it under `recipients: allow:` in tidings.yaml: \"{lower}\"."),
            ),
            None => refuse(
                What::Forbidden,
                "may not be written to: without `recipients.allow` only addresses that tidings.yaml writes out are \
                 allowed"
                    .to_owned(),
                format!("If it shall get mail, allow it in tidings.yaml: `recipients: {{ allow: [\"{lower}\"] }}`."),
            ),
        }
    }

    /// Whether a domain means this machine.
    fn is_here(&self, domain: &str) -> bool {
        let short = self.host.split('.').next().unwrap_or_default();
        [self.host, short, "localhost", "localhost.localdomain"]
            .iter()
            .any(|known| !known.is_empty() && domain.eq_ignore_ascii_case(known))
    }

    /// What `handed_in: senders` says: of the whole, of its name alone where it means this machine, of its domain.
    fn mapped(&self, text: &str) -> Option<&Mailbox> {
        let senders = &self.settings.handed_in.senders;
        let text = text.to_lowercase();
        let (local, domain) = match text.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (text.as_str(), None),
        };
        senders
            .get(&text)
            .or_else(|| match domain {
                Some(domain) if !self.is_here(domain) => None,
                _ => senders.get(local),
            })
            .or_else(|| senders.get(&format!("*@{}", domain?)))
            .or_else(|| {
                // `*` is for who may not send as he is.
                let address: Option<Address> = text.parse().ok();
                let fine = address.is_some_and(|address| self.account_for(&address).is_some());
                if fine { None } else { senders.get("*") }
            })
    }

    /// The accounts, the one for mails like this first.
    fn accounts(&self) -> impl Iterator<Item = &Account> {
        let settings = self.settings;
        let first = settings
            .handed_in
            .account
            .as_ref()
            .or(settings.defaults.account.as_ref());
        let first = first.and_then(|name| settings.accounts.get(name));
        let others = settings
            .accounts
            .values()
            .filter(move |account| first.is_none_or(|first| first.name != account.name));
        first.into_iter().chain(others)
    }

    /// The account that sends as `address`: the one for mails like this, else the first that names the address.
    fn account_for(&self, address: &Address) -> Option<&Account> {
        self.accounts()
            .enumerate()
            .find(|(place, account)| match place {
                0 => account.may_send_as(address),
                _ => account.senders.contains(address),
            })
            .map(|(_, account)| account)
    }

    /// The mailbox for whom this machine's own names stand.
    fn default(&self, text: &str) -> Result<From, Refusal> {
        let default = self.settings.defaults.from.as_ref();
        let of_default = default.and_then(|from| Some((self.account_for(&from.address)?, from.clone())));
        let own = || {
            let account = self.accounts().next()?;
            let own = account.senders.first()?;
            Some((account, Mailbox::from(own.clone())))
        };
        let (account, mailbox) = of_default.or_else(own).ok_or_else(|| {
            Refusal::new(
                What::Sender,
                format!("no mailbox is known to send as for `{}`", quoted(text)),
                "Name one in tidings.yaml: `defaults: { from: .. }`, or `handed_in: { senders: { \"*\": .. } }`.",
            )
        })?;
        Ok(From {
            account: account.name.clone(),
            mailbox,
            changed: true,
        })
    }

    fn nobody(&self, address: &Address) -> Refusal {
        let account = self
            .accounts()
            .next()
            .map_or("office", |account| account.name.as_str());
        Refusal::new(
            What::Sender,
            format!("no account may send as {}", quoted(&address.to_string())),
            format!(
                "If the account `{account}` may, list it there under `senders:` in tidings.yaml; else say from which \
                 mailbox it leaves: `handed_in: {{ senders: {{ {}: .. }} }}`.",
                quoted(&address.to_string())
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::list;

    fn settings(yaml: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
        crate::rule::load::settings(folder.path()).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    const OFFICE: &str = "accounts:
  office:
    transport: file
    user: it@contoso.com
    senders: [scan@contoso.com, root@web1]
  other: { transport: file, user: edi@partner.example }
defaults: { account: office, from: 'Contoso IT <it@contoso.com>' }
recipients: { groups: { Ops: [a@contoso.com, b@contoso.com] }, allow: ['*@contoso.com'] }
handed_in:
  senders: { backup: 'Backup <scan@contoso.com>', '*@old.local': scan@contoso.com }
  recipients: { root: Ops, postmaster: it@contoso.com }
";

    fn from(settings: &Settings, text: &str) -> String {
        let policy = Policy {
            settings,
            host: "web2.contoso.com",
        };
        let listed = list::parse(text).unwrap();
        match policy.sender(listed.first(), "nightly") {
            Ok(from) => format!(
                "{} {}{}",
                from.account,
                from.mailbox,
                if from.changed { " *" } else { "" }
            ),
            Err(refusal) => format!("{:?}", refusal.what),
        }
    }

    #[test]
    fn a_from_is_kept_mapped_or_refused() {
        let settings = settings(OFFICE);
        for (written, leaves) in [
            ("Ann <it@contoso.com>", "office Ann <it@contoso.com>"),
            ("SCAN@contoso.com", "office SCAN@contoso.com"),
            ("edi@partner.example", "other edi@partner.example"),
            ("root (Cron Daemon)", "office Contoso IT <it@contoso.com> *"),
            ("root@web2.contoso.com", "office Contoso IT <it@contoso.com> *"),
            ("root@localhost", "office Contoso IT <it@contoso.com> *"),
            ("root@web1", "office root@web1"),
            ("backup@localhost", "office Backup <scan@contoso.com> *"),
            (
                "Printer 3 <p3@old.local>",
                "office \"Printer 3\" <scan@contoso.com> *",
            ),
            ("", "office Contoso IT <it@contoso.com> *"),
            ("backup@elsewhere.example", "Sender"),
            ("ceo@contoso.com", "Sender"),
            ("it@contoso.com.evil.example", "Sender"),
            ("\"a b\"@contoso.com", "Sender"),
        ] {
            let shown = from(&settings, written).replace("\"Printer 3\"", "Printer 3");
            assert_eq!(shown, leaves.replace("\"Printer 3\"", "Printer 3"), "{written}");
        }
    }

    #[test]
    fn a_star_is_for_all_who_may_not_send_as_they_are() {
        let settings = settings(&OFFICE.replace("'*@old.local'", "'*'"));
        assert_eq!(from(&settings, "ceo@contoso.com"), "office scan@contoso.com *");
        assert_eq!(from(&settings, "it@contoso.com"), "office it@contoso.com");
    }

    #[test]
    fn recipients_are_allowed_or_known_by_name_or_refused() {
        let settings = settings(OFFICE);
        let policy = Policy {
            settings: &settings,
            host: "web2",
        };
        let to = |text: &str| match policy.recipient(text) {
            Ok(all) => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(refusal) => format!("{:?}", refusal.what),
        };
        for (written, meant) in [
            ("x@contoso.com", "x@contoso.com"),
            ("root", "a@contoso.com b@contoso.com"),
            ("Root@web2", "a@contoso.com b@contoso.com"),
            ("ops", "a@contoso.com b@contoso.com"),
            ("postmaster@localhost", "it@contoso.com"),
            ("nobody", "Unknown"),
            ("x@elsewhere.example", "Forbidden"),
            ("x%elsewhere.example@contoso.com", "Forbidden"),
            ("-oQ/tmp@contoso.com", "Forbidden"),
            ("x@", "Unknown"),
        ] {
            assert_eq!(to(written), meant, "{written}");
        }
    }
}
