//! The grant: is the secret the right thing, is the clock right, who signed in, does it renew itself, is the token
//! what the mail server wants.

use super::finding::{Finding, Standing, Step};
use crate::advice::values::Values;
use crate::advice::{Local, Provider, Stage, Symptom, advise_with};
use crate::cli::Exit;
use crate::cli::show;
use crate::clock::Clock;
use crate::config::known;
use crate::config::settings::{Account, OAuth2, Proof, Transport};
use crate::oauth::claims::{self, Claims};
use crate::oauth::grants::Client;
use crate::oauth::http::Http;
use crate::oauth::keeper::{GrantStatus, Keeper};
use crate::oauth::token::AccessToken;
use jiff::{SignedDuration, Timestamp};

/// A clock that is off by more breaks what is signed with a time in it.
const BROKEN: i64 = 240;
/// A clock that is off by more deserves a word.
const OFF: i64 = 60;
/// Graph, as tokens name it.
const GRAPH: [&str; 2] = [
    "https://graph.microsoft.com",
    "00000003-0000-0000-c000-000000000000",
];

/// All steps about the grant, and a token if there is one.
pub async fn examine(
    account: &Account,
    oauth2: &OAuth2,
    keeper: &Keeper,
    clock: &Clock,
) -> (Vec<Finding>, Option<AccessToken>) {
    let values = known::of_grant(&account.name, oauth2);
    let mut findings = settings(account, oauth2, &values).await;
    let Some(client) = keeper.client(&account.name) else {
        return (findings, None);
    };
    findings.push(server_clock(client, clock, &values, oauth2.provider).await);
    let before = keeper.status(&account.name).await;
    findings.extend(person(account, &before, &values));
    let stands = grant(&before, oauth2, &values, clock.now());
    let renewable = (before.renewable || oauth2.unattended()) && stands.standing != Standing::Failed;
    // An application of its own right gets its first token when somebody wants one.
    let has_grant = before.access_expires.is_some() || oauth2.unattended();
    if !has_grant || before.state == "needs_person" {
        findings.extend(sign_in_page(client, oauth2, &values).await);
    }
    findings.push(stands);
    let mut token = None;
    if !has_grant {
        findings.push(Finding::not_tried(Step::Token, "nobody has signed in"));
    } else if renewable || before.state.starts_with("needs") {
        match keeper.refresh(&account.name).await {
            Ok(fresh) => {
                let life = fresh.expires().duration_since(clock.now());
                findings.push(Finding::ok(
                    Step::Token,
                    format!("renewed just now, good for {}", show::span(life)),
                ));
                token = Some(fresh);
            }
            Err(error) => {
                // What the keeper knows says more: the server's own words, and what they mean.
                let after = keeper.status(&account.name).await;
                let told = after.reason.or(after.trouble.map(|trouble| trouble.reason));
                let mut finding = Finding::no_token(Step::Token, error);
                if let Some(reason) = told {
                    finding = Finding::failed(Step::Token, reason, finding.exit);
                }
                findings.push(finding);
            }
        }
    }
    if token.is_none() && has_grant {
        // Where it cannot be renewed, the one in hand still shows how the mail server stands to it.
        token = keeper.token(&account.name).await.ok();
    }
    let status = keeper.status(&account.name).await;
    findings.push(match &token {
        Some(_) => scopes(account, &status, &values),
        None => Finding::not_tried(Step::Scopes, "there is no token"),
    });
    findings.push(match &token {
        Some(token) => audience(account, claims::of(token).as_ref(), oauth2, &values),
        None => Finding::not_tried(Step::Audience, "there is no token"),
    });
    (findings, token)
}

fn ours(step: Step, local: Local, text: String, provider: Provider, values: &Values) -> Finding {
    let symptom = Symptom {
        stage: Some(Stage::Token),
        local: Some(local),
        text,
        ..Symptom::default()
    };
    let advice = advise_with(&symptom, provider, values);
    let mut finding = Finding::refused(step, &symptom, &advice);
    if let Some(reason) = &mut finding.reason {
        // What we found is no reply of a server.
        let found = reason.reply.take().unwrap_or_default();
        if !found.is_empty() {
            finding.text = format!("{} ({found})", advice.meaning.trim_end_matches('.'));
            reason.text.clone_from(&finding.text);
        }
    }
    finding
}

/// What can be seen in the settings alone.
async fn settings(account: &Account, oauth2: &OAuth2, values: &Values) -> Vec<Finding> {
    let mut findings = Vec::new();
    for proof in &oauth2.proofs {
        let Proof::Secret(source) = proof else { continue };
        match source.read().await {
            Err(error) => findings.push(ours(
                Step::Settings,
                Local::SecretUnreadable,
                error.to_string(),
                oauth2.provider,
                values,
            )),
            Ok(secret) if oauth2.provider == Provider::Microsoft && is_guid(secret.expose()) => {
                findings.push(ours(
                    Step::Settings,
                    Local::SecretId,
                    format!("read from {source}"),
                    oauth2.provider,
                    values,
                ));
            }
            Ok(_) => {}
        }
    }
    let offline = oauth2
        .scopes
        .iter()
        .any(|scope| scope == "offline_access" || scope.ends_with("/.default"));
    let attended = !oauth2.unattended();
    if attended && oauth2.provider == Provider::Microsoft && !offline && !oauth2.scopes.is_empty() {
        findings.push(ours(
            Step::Settings,
            Local::NoRefreshToken,
            format!("asked for: {}", oauth2.scopes.join(" ")),
            oauth2.provider,
            values,
        ));
    }
    if findings.is_empty() {
        let user = account.user.as_deref().unwrap_or("nobody");
        let tenant = oauth2
            .tenant
            .as_deref()
            .map(|tenant| format!(", directory {tenant}"));
        findings.push(Finding::ok(
            Step::Settings,
            format!(
                "{user}, application {}{}",
                oauth2.client_id,
                tenant.unwrap_or_default()
            ),
        ));
    }
    findings
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.trim().split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Our clock against the sign-in server's.
async fn server_clock(client: &Client, clock: &Clock, values: &Values, provider: Provider) -> Finding {
    let glanced = async {
        let url = client.endpoints().await.ok()?.token.clone();
        let http = Http::new(client.settings().ca_file.as_deref()).ok()?;
        http.glance(&url).await.ok()?.2
    };
    match glanced.await {
        None => Finding::not_tried(Step::Clock, "the sign-in server told no time"),
        Some(theirs) => judged_clock(theirs.duration_since(clock.now()), values, provider),
    }
}

/// To the minute: the answer itself took a moment.
fn rounded(off: SignedDuration) -> SignedDuration {
    let seconds = off.abs().as_secs();
    if seconds < 60 {
        return off.abs();
    }
    SignedDuration::from_mins((seconds + 30) / 60)
}

fn judged_clock(ahead: SignedDuration, values: &Values, provider: Provider) -> Finding {
    let seconds = ahead.as_secs();
    let off = format!(
        "this machine's clock is {} {} the sign-in server's",
        show::span(rounded(ahead)),
        if seconds > 0 { "behind" } else { "ahead of" }
    );
    match seconds.abs() {
        0..=OFF => Finding::ok(Step::Clock, "as the sign-in server's"),
        seconds if seconds > BROKEN => ours(Step::Clock, Local::ClockSkew, off, provider, values),
        _ => {
            let finding = ours(Step::Clock, Local::ClockSkew, off, provider, values);
            Finding::warning(Step::Clock, finding.reason.unwrap_or_default())
        }
    }
}

/// What the sign-in page says before anybody signs in: an address that is not registered, an application or a
/// directory that is not there.
async fn sign_in_page(client: &Client, oauth2: &OAuth2, values: &Values) -> Option<Finding> {
    let mut redirect = oauth2.redirect.clone();
    if redirect.port() == Some(0) {
        let _ = redirect.set_port(None);
    }
    let question = client.ask(&redirect, None).await.ok()?;
    let http = Http::new(oauth2.ca_file.as_deref()).ok()?;
    let (status, page, _) = http.glance(&question.url).await.ok()?;
    Some(judged_page(status, &page, oauth2.provider, values))
}

fn judged_page(status: u16, page: &str, provider: Provider, values: &Values) -> Finding {
    // As messages have it: the number, a colon, words. Scripts of a page may name numbers too.
    let numbered = page.match_indices("AADSTS").find_map(|(at, _)| {
        let rest = &page[at + 6..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest.get(..digits)?.parse::<u32>().ok()?;
        let words = rest[digits..].strip_prefix(':')?;
        let words: String = words
            .chars()
            .take_while(|c| !matches!(c, '<' | '"' | '\n'))
            .take(300)
            .collect();
        Some((number, format!("AADSTS{number}:{words}")))
    });
    let named = [
        "redirect_uri_mismatch",
        "deleted_client",
        "invalid_client",
        "org_internal",
        "admin_policy_enforced",
    ];
    let named = named
        .into_iter()
        .find(|error| status >= 400 && page.contains(error));
    let symptom = match (numbered, named) {
        (Some((number, text)), _) => Symptom {
            aadsts: Some(number),
            text,
            ..Symptom::default()
        },
        (None, Some(error)) => Symptom {
            oauth_error: Some(error.to_owned()),
            http_status: Some(status),
            text: format!("HTTP {status}: {error}"),
            ..Symptom::default()
        },
        (None, None) => return Finding::ok(Step::SignIn, "the sign-in page opens"),
    };
    let symptom = Symptom {
        stage: Some(Stage::Authorize),
        ..symptom
    };
    let advice = advise_with(&symptom, provider, values);
    Finding::refused(Step::SignIn, &symptom, &advice)
}

/// How the grant stands by what is kept of it.
fn grant(status: &GrantStatus, oauth2: &OAuth2, values: &Values, now: Timestamp) -> Finding {
    if oauth2.unattended() {
        return Finding::ok(Step::Grant, "the application's own: nobody signs in");
    }
    if status.access_expires.is_none() {
        let mut reason = status.reason.clone().unwrap_or_default();
        values.fill_in(&mut reason);
        let exit = match status.state {
            "signed_out" => Exit::Credential,
            _ => Exit::Config,
        };
        return Finding::failed(Step::Grant, reason, exit);
    }
    if !status.renewable {
        let text = format!("granted: {}", status.scopes.join(" "));
        return ours(Step::Grant, Local::NoRefreshToken, text, oauth2.provider, values);
    }
    let given = status.obtained.map(|at| show::when(at, now)).unwrap_or_default();
    let renewed = status.refreshed.map(|at| show::when(at, now)).unwrap_or_default();
    let mut text = format!("given {given}, last renewed {renewed}");
    if let Some(date) = status.secret_expires {
        text = format!("{text}; its client secret ends on {date}");
    }
    Finding::ok(Step::Grant, text)
}

/// Whether it is the right person.
fn person(account: &Account, status: &GrantStatus, values: &Values) -> Option<Finding> {
    let identity = status.signed_in.as_ref()?;
    let expected = account.user.as_deref()?;
    let name = identity.name().unwrap_or("somebody");
    let directory = identity
        .tid
        .as_ref()
        .map(|tid| format!(", directory {tid}"))
        .unwrap_or_default();
    Some(match identity.is(expected) {
        Some(false) => {
            let text = format!("{name} signed in, the settings say {expected}");
            ours(
                Step::Person,
                Local::AccountMismatch,
                text,
                account.provider,
                values,
            )
        }
        _ => Finding::ok(Step::Person, format!("signed in as {name}{directory}")),
    })
}

/// What must be among the granted rights to submit, by provider and transport. `None`: we do not know.
fn needed(account: &Account) -> Option<&'static [&'static str]> {
    match (&account.transport, account.provider) {
        (Transport::Smtp(_), Provider::Microsoft) => Some(&["SMTP.Send", "SMTP.SendAsApp", ".default"]),
        (Transport::Smtp(_), Provider::Google) => Some(&["mail.google.com"]),
        _ => None,
    }
}

/// Whether what is needed was granted.
fn scopes(account: &Account, status: &GrantStatus, values: &Values) -> Finding {
    let granted = &status.scopes;
    let last = |scope: &str| {
        let scope = scope.trim_end_matches('/');
        scope.rsplit('/').next().unwrap_or(scope).to_owned()
    };
    let Some(needed) = needed(account) else {
        return Finding::ok(Step::Scopes, granted.join(" "));
    };
    let enough = granted.iter().any(|scope| {
        needed
            .iter()
            .any(|needed| last(scope).eq_ignore_ascii_case(needed))
    });
    if enough || granted.is_empty() {
        return Finding::ok(Step::Scopes, granted.join(" "));
    }
    let text = format!("granted is only: {}", granted.join(" "));
    ours(
        Step::Scopes,
        Local::ScopeNotGranted,
        text,
        account.provider,
        values,
    )
}

/// Whether the token is for the service that gets it.
fn audience(account: &Account, claims: Option<&Claims>, oauth2: &OAuth2, values: &Values) -> Finding {
    let Some(claims) = claims else {
        return Finding::ok(Step::Audience, "the token does not tell, as is its right");
    };
    let for_whom = claims.audience.join(" ");
    let over_smtp = matches!(account.transport, Transport::Smtp(_));
    let is_graph = claims
        .audience
        .iter()
        .any(|audience| GRAPH.contains(&audience.trim_end_matches('/')));
    if over_smtp && oauth2.provider == Provider::Microsoft && is_graph {
        let text = format!("it is for {for_whom}");
        return ours(Step::Audience, Local::Audience, text, oauth2.provider, values);
    }
    let mut text = format!("for {for_whom}");
    for (name, value) in [("directory", &claims.tenant), ("person", &claims.user)] {
        if let Some(value) = value {
            text = format!("{text}, {name} {value}");
        }
    }
    let rights: Vec<&str> = claims
        .scopes
        .iter()
        .chain(&claims.roles)
        .map(String::as_str)
        .collect();
    if !rights.is_empty() {
        text = format!("{text}, rights {}", rights.join(" "));
    }
    Finding::ok(Step::Audience, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_id_looks_like_one() {
        assert!(is_guid("4f0c8a52-1111-2222-3333-0123456789ab"));
        assert!(!is_guid("xyz8Q~abc.def-4f0c8a52"));
        assert!(!is_guid("4f0c8a52-1111-2222-3333-0123456789ag"));
    }

    #[test]
    fn a_clock_is_right_worth_a_word_or_broken() {
        let judged = |seconds| {
            judged_clock(
                SignedDuration::from_secs(seconds),
                &Values::default(),
                Provider::Microsoft,
            )
        };
        assert_eq!(judged(-59).standing, Standing::Ok);
        assert_eq!(judged(100).standing, Standing::Warning);
        let behind = judged(600);
        assert_eq!(behind.standing, Standing::Failed);
        assert!(behind.text.contains("10m behind"), "{behind:?}");
        assert!(judged(599).text.contains("10m behind"));
        assert!(judged(-600).text.contains("10m ahead of"));
    }

    #[test]
    fn a_page_is_read_for_messages_and_not_for_scripts() {
        let judged = |status, page: &str| judged_page(status, page, Provider::Microsoft, &Values::default());
        let scripts = judged(200, "var errors = ['AADSTS50011', 'redirect_uri_mismatch'];");
        assert_eq!(scripts.standing, Standing::Ok);
        let page = judged(200, "<div>AADSTS50011: The redirect URI 'x' does not match</div>");
        assert_eq!(
            page.reason.unwrap().advice.as_deref(),
            Some("ms-redirect-uri-mismatch")
        );
        let google = judged_page(
            400,
            "Error 400: redirect_uri_mismatch",
            Provider::Google,
            &Values::default(),
        );
        assert_eq!(
            google.reason.unwrap().advice.as_deref(),
            Some("google-redirect-uri-mismatch")
        );
    }
}
