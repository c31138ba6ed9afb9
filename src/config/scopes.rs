//! Which scopes an account needs: they follow from how mail leaves and from who signs in. Pure.
//!
//! | | a person signs in | the application itself |
//! |---|---|---|
//! | Microsoft, `smtp` | `SMTP.Send` | the role `SMTP.SendAsApp`, asked for as `.default` |
//! | Microsoft, `graph` | `Mail.Send`; `.Shared` for other mailboxes; `Mail.ReadWrite` for drafts | the roles `Mail.Send`, `Mail.ReadWrite` |
//! | Google, `smtp` | `https://mail.google.com/`: SMTP takes nothing smaller | the same, by delegation |
//! | Google, `gmail` | `gmail.send` | the same, by delegation |
//!
//! A bare `SMTP.Send` belongs to Graph, and its token opens no SMTP session; hence whole addresses.

use crate::advice::Provider;
use crate::config::preset::Known;

/// Scopes of the protocol itself: servers take them and do not name them again.
pub const PROTOCOL: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// How mail leaves, as far as scopes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// SMTP.
    Smtp,
    /// Microsoft Graph.
    Graph,
    /// The Gmail API.
    Gmail,
}

/// What an account has to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How mail leaves.
    pub way: Way,
    /// Nobody signs in: the application has rights of its own.
    pub unattended: bool,
    /// It sends from mailboxes other than that of who signs in.
    pub others: bool,
    /// It makes drafts, as large mails over Graph need.
    pub drafts: bool,
}

/// What is to be asked for at a known provider.
pub fn wanted(known: &Known, need: Need) -> Vec<String> {
    let api = |right: &str| format!("{}/{right}", known.api);
    let mut scopes = match (known.provider, need.way, need.unattended) {
        (Provider::Microsoft, Way::Graph, true) => return vec![api(".default")],
        (Provider::Microsoft, Way::Graph, false) => {
            let mut scopes = vec![api("Mail.Send")];
            if need.others {
                scopes.push(api("Mail.Send.Shared"));
            }
            if need.drafts {
                scopes.push(api("Mail.ReadWrite"));
            }
            if need.drafts && need.others {
                scopes.push(api("Mail.ReadWrite.Shared"));
            }
            scopes
        }
        (_, Way::Gmail, _) => vec![api("gmail.send")],
        (_, _, true) => return vec![known.smtp_app_scope.to_owned()],
        (_, _, false) => vec![known.smtp_scope.to_owned()],
    };
    // Without it there is no refresh token at Microsoft, and no error either.
    if known.provider == Provider::Microsoft {
        scopes.push("offline_access".to_owned());
    }
    scopes
}

/// The roles an application's token should name, compared with the last part of what it does.
pub fn roles(provider: Provider, need: Need) -> &'static [&'static str] {
    match (provider, need.way, need.drafts) {
        (Provider::Microsoft, Way::Smtp, _) => &["SMTP.SendAsApp"],
        (Provider::Microsoft, Way::Graph, false) => &["Mail.Send"],
        (Provider::Microsoft, Way::Graph, true) => &["Mail.Send", "Mail.ReadWrite"],
        _ => &[],
    }
}

/// What is asked for and not needed. Nothing is said of providers we do not know.
pub fn beyond(known: &Known, need: Need, asked: &[String]) -> Vec<String> {
    let wanted = wanted(known, need);
    let more = asked.iter().filter(|scope| {
        !PROTOCOL.contains(&scope.as_str()) && !wanted.iter().any(|wanted| same(wanted, scope))
    });
    more.cloned().collect()
}

/// Which of `wanted` are not among `granted`. What stands for whatever was consented to, and what
/// belongs to the protocol, is not looked for.
pub fn lacking(wanted: &[String], granted: &[String]) -> Vec<String> {
    let lacking = wanted.iter().filter(|scope| {
        !PROTOCOL.contains(&scope.as_str())
            && !scope.ends_with("/.default")
            && !granted.iter().any(|granted| same(granted, scope))
    });
    lacking.cloned().collect()
}

/// Compared by the last part: the same right of Exchange has two addresses.
fn same(one: &str, other: &str) -> bool {
    let last = |scope: &str| {
        let trimmed = scope.trim_end_matches('/');
        trimmed.rsplit('/').next().unwrap_or(trimmed).to_lowercase()
    };
    last(one) == last(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset;
    use crate::config::raw::settings::{Cloud, Preset};

    const NEED: Need = Need {
        way: Way::Smtp,
        unattended: false,
        others: false,
        drafts: false,
    };

    fn microsoft(cloud: Cloud) -> &'static Known {
        preset::known(Preset::Microsoft365, cloud, None)
    }

    #[test]
    fn scopes_follow_from_the_way_and_from_who_signs_in() {
        let at = |need| wanted(microsoft(Cloud::Worldwide), need).join(" ");
        assert_eq!(at(NEED), "https://outlook.office.com/SMTP.Send offline_access");
        let app = Need {
            unattended: true,
            ..NEED
        };
        assert_eq!(at(app), "https://outlook.office365.com/.default");
        let graph = Need {
            way: Way::Graph,
            ..NEED
        };
        assert_eq!(at(graph), "https://graph.microsoft.com/Mail.Send offline_access");
        let shared = Need {
            others: true,
            drafts: true,
            ..graph
        };
        assert_eq!(at(shared).split(' ').count(), 5);
        assert_eq!(
            at(Need {
                unattended: true,
                ..shared
            }),
            "https://graph.microsoft.com/.default"
        );
        let google = preset::known(Preset::Google, Cloud::Worldwide, None);
        assert_eq!(wanted(google, app), ["https://mail.google.com/"]);
        let gmail = Need {
            way: Way::Gmail,
            ..NEED
        };
        assert_eq!(
            wanted(google, gmail),
            ["https://www.googleapis.com/auth/gmail.send"]
        );
    }

    #[test]
    fn each_cloud_asks_its_own_servers() {
        for (cloud, scope) in [
            (Cloud::GccHigh, "https://outlook.office365.us/SMTP.Send"),
            (Cloud::Dod, "https://outlook.office365.us/SMTP.Send"),
            (Cloud::China, "https://partner.outlook.cn/SMTP.Send"),
        ] {
            assert_eq!(wanted(microsoft(cloud), NEED)[0], scope);
        }
        let graph = Need {
            way: Way::Graph,
            unattended: true,
            ..NEED
        };
        assert_eq!(
            wanted(microsoft(Cloud::Dod), graph),
            ["https://dod-graph.microsoft.us/.default"]
        );
    }

    #[test]
    fn more_than_needed_is_found_and_another_address_of_the_same_right_is_not_more() {
        let asked = |scopes: &[&str]| -> Vec<String> { scopes.iter().map(|&s| s.to_owned()).collect() };
        let known = microsoft(Cloud::Worldwide);
        let fine = asked(&[
            "https://outlook.office365.com/SMTP.Send",
            "offline_access",
            "openid",
        ]);
        assert!(beyond(known, NEED, &fine).is_empty());
        let much = asked(&[
            "https://outlook.office.com/SMTP.Send",
            "https://outlook.office.com/IMAP.AccessAsUser.All",
        ]);
        assert_eq!(
            beyond(known, NEED, &much),
            ["https://outlook.office.com/IMAP.AccessAsUser.All"]
        );
    }

    #[test]
    fn what_was_not_granted_is_found() {
        let wanted = wanted(microsoft(Cloud::Worldwide), NEED);
        assert!(lacking(&wanted, &["https://outlook.office365.com/SMTP.Send".to_owned()]).is_empty());
        assert_eq!(lacking(&wanted, &["openid".to_owned()]), [wanted[0].clone()]);
    }
}
