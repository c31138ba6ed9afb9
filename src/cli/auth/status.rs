//! How the accounts' grants stand, in lines for people or as JSON.

use crate::cli::Exit;
use crate::cli::face::Face;
use crate::clock::Clock;
use crate::config::settings::{Account, Credential, Grant, Settings};
use crate::delivery::perform::account_case;
use crate::entry::Reason;
use crate::http::answer;
use crate::oauth::keeper::{GrantStatus, Keeper};
use crate::store::Case;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};
use std::time::Duration;

/// Tells how the accounts' grants stand.
pub(super) async fn status(
    settings: &Settings,
    keeper: &Keeper,
    cases: &[Case],
    only: Option<&str>,
    as_json: bool,
    clock: &Clock,
    face: &dyn Face,
) -> Exit {
    if let Some(name) = only
        && !settings.accounts.contains_key(name)
    {
        let names: Vec<&str> = settings.accounts.keys().map(String::as_str).collect();
        face.tell(&format!(
            "there is no account `{}`; there are: {}",
            answer::shown(name),
            names.join(", ")
        ));
        return Exit::Usage;
    }
    let mut list: Vec<Value> = Vec::new();
    let mut exit = Exit::Done;
    for account in settings
        .accounts
        .values()
        .filter(|account| only.is_none_or(|only| only == account.name))
    {
        let refused = cases.iter().find(|case| case.key == account_case(&account.name));
        if refused.is_some() && exit == Exit::Done {
            exit = Exit::Credential;
        }
        let Credential::OAuth2(oauth2) = &account.credential else {
            list.push(json!({
                "account": account.name, "credential": kind(account), "user": account.user,
                "state": "not_applicable", "verified": null, "mail_server": refused.map(case_json),
            }));
            if !as_json {
                let mut lines = vec![match refused {
                    None => format!(
                        "{}: signs in with {}; nothing to look after",
                        account.name,
                        kind(account)
                    ),
                    Some(_) => format!("{}: signs in with {}", account.name, kind(account)),
                }];
                lines.extend(
                    refused.map(|case| refused_lines(case, &settings.defaults.timezone, clock.now())),
                );
                face.out(&lines.join("\n"));
            }
            continue;
        };
        let grant = keeper.status(&account.name).await;
        exit = match (grant.state, exit) {
            ("valid" | "not_asked", exit) => exit,
            ("needs_config" | "unreadable", _) | (_, Exit::Config) => Exit::Config,
            _ => Exit::Credential,
        };
        if as_json {
            let mut value = serde_json::to_value(&grant).unwrap_or_default();
            value["credential"] = json!("oauth2");
            value["grant"] = json!(grant_word(&oauth2.grant));
            value["user"] = json!(account.user);
            value["mail_server"] = json!(refused.map(case_json));
            list.push(value);
        } else {
            face.out(&described(
                &grant,
                account,
                refused,
                &settings.defaults.timezone,
                clock.now(),
            ));
        }
    }
    if as_json {
        face.out(&serde_json::to_string_pretty(&list).unwrap_or_default());
    } else if only.is_none() {
        face.tell(&format!("Grants are sealed with {}.", keeper.sealed_with()));
    }
    exit
}

fn case_json(case: &Case) -> Value {
    json!({ "since": case.opened.to_string(), "reason": case.reason })
}

/// What the mail server says to an account, however well its grant stands.
fn refused_lines(case: &Case, zone: &TimeZone, now: Timestamp) -> String {
    let mut lines = vec![line(
        "mail",
        &format!(
            "refused since {} ({})",
            time(case.opened, zone),
            ago(case.opened, now)
        ),
    )];
    lines.extend(reason_lines(&case.reason));
    lines.join("\n")
}

fn line(name: &str, text: &str) -> String {
    format!("  {name:<11}{text}")
}

fn reason_lines(reason: &Reason) -> Vec<String> {
    let mut lines = vec![line("why", &reason.text)];
    lines.extend(reason.reply.as_ref().map(|reply| line("it said", reply)));
    lines.extend(reason.steps.iter().map(|step| line("do", step)));
    lines.extend(reason.takes.as_ref().map(|takes| line("takes", takes)));
    lines.extend(reason.who.as_ref().map(|who| line("who", who)));
    lines
}

/// One account's grant in lines for people.
fn described(
    grant: &GrantStatus,
    account: &Account,
    refused: Option<&Case>,
    zone: &TimeZone,
    now: Timestamp,
) -> String {
    let what = match grant.state {
        "valid" if grant.verified && refused.is_some() => "signed in, but its mail server refuses it",
        "valid" if grant.verified => "verified",
        "valid" => "cannot be renewed at the moment",
        "needs_person" => "needs a person",
        "needs_config" => "needs configuration",
        "signed_out" => "nobody has signed in",
        "not_asked" => "gets its token by itself, and has not asked for one yet",
        _ => "cannot be read",
    };
    let mut lines = vec![format!("{}: {what}", grant.account)];
    let mut line = |name: &str, text: String| lines.push(self::line(name, &text));
    match (&grant.signed_in, &account.user) {
        (Some(identity), _) if identity.name().is_some() => {
            line("signed in", identity.name().unwrap_or_default().to_owned());
        }
        (_, Some(user)) => line("user", user.clone()),
        _ => {}
    }
    if let Some(since) = grant.since {
        line("since", format!("{} ({})", time(since, zone), ago(since, now)));
    }
    if let Some(obtained) = grant.obtained {
        line(
            "grant",
            format!("given {} ({})", time(obtained, zone), ago(obtained, now)),
        );
    }
    if let (Some(expires), Some(refreshed)) = (grant.access_expires, grant.refreshed) {
        let word = if expires > now { "until" } else { "ended" };
        line(
            "access",
            format!(
                "{word} {}, last renewed {}",
                time(expires, zone),
                ago(refreshed, now)
            ),
        );
    }
    if !grant.renewable && grant.access_expires.is_some() {
        line(
            "",
            "no refresh token: when access ends, somebody must sign in".to_owned(),
        );
    }
    if !grant.scopes.is_empty() {
        line("granted", answer::shown(&grant.scopes.join(" ")));
    }
    if !grant.lacking.is_empty() {
        let named = answer::shown(&grant.lacking.join(" "));
        line("lacks", format!("{named}, unless it is allowed elsewhere"));
    }
    if let Some(date) = grant.secret_expires {
        let today = now.to_zoned(zone.clone()).date();
        let days = today
            .until((Unit::Day, date))
            .map(|span| span.get_days())
            .unwrap_or_default();
        let when = match days {
            ..0 => format!("ended {} days ago", -days),
            0 => "ends today".to_owned(),
            days => format!("ends in {days} days"),
        };
        line("secret", format!("{when}, {date}"));
    }
    if let Some(skew) = grant.skew.filter(|skew| skew.abs() > 60) {
        line(
            "clock",
            format!("the server's is {skew} s ahead of ours; check the time service of this machine"),
        );
    }
    let troubled = grant.trouble.as_ref().map(|trouble| &trouble.reason);
    for reason in [grant.reason.as_ref(), troubled].into_iter().flatten() {
        lines.extend(reason_lines(reason));
    }
    lines.extend(refused.map(|case| refused_lines(case, zone, now)));
    lines.join("\n")
}

/// A time as people write it, with its zone.
pub(super) fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M %Z")
        .to_string()
}

/// How long ago, in the largest unit that says enough.
fn ago(time: Timestamp, now: Timestamp) -> String {
    let passed = Duration::try_from(now.duration_since(time))
        .unwrap_or_default()
        .as_secs();
    match passed {
        0..120 => "just now".to_owned(),
        120..7_200 => format!("{} minutes ago", passed / 60),
        7_200..172_800 => format!("{} hours ago", passed / 3_600),
        _ => format!("{} days ago", passed / 86_400),
    }
}

/// A grant as it is written.
pub(super) fn grant_word(grant: &Grant) -> &'static str {
    match grant {
        Grant::AuthorizationCode => "authorization_code",
        Grant::DeviceCode => "device_code",
        Grant::ClientCredentials => "client_credentials",
        Grant::JwtBearer(_) => "jwt_bearer",
        Grant::ManagedIdentity => "managed_identity",
    }
}

pub(super) fn kind(account: &Account) -> &'static str {
    match account.credential {
        Credential::None => "no credential",
        Credential::Password { .. } => "a password",
        Credential::OAuth2(_) => "oauth2",
    }
}
