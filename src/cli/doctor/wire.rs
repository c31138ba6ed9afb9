//! The way to the mail server and what it says: name, route, connection, greeting, encryption, offers, sign-in,
//! sender. The same code carries mails; only the message is missing.

use super::finding::{Finding, Standing, Step};
use crate::advice::{Local, Provider, Symptom, advise_with};
use crate::certificate;
use crate::cli::{Exit, show};
use crate::config::known;
use crate::config::settings::{Account, SmtpSettings, Tls};
use crate::entry::Reason;
use crate::mail::address::Address;
use crate::transport::smtp::Smtp;
use crate::transport::smtp::look::Look;
use crate::transport::transcript::Said;
use crate::transport::{Limits, Login, Verdict};
use jiff::{SignedDuration, Timestamp};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a step may take: a person waits for it.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    reply: Duration::from_secs(20),
    final_reply: Duration::from_secs(120),
    total: Duration::from_secs(60),
};
/// A server's certificate that ends sooner deserves a word.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Steps that a look goes through, in order.
const STEPS: [Step; 8] = [
    Step::Dns,
    Step::Tcp,
    Step::Greeting,
    Step::Tls,
    Step::Certificate,
    Step::Ehlo,
    Step::Auth,
    Step::MailFrom,
];

/// Somebody to sign in as, and the senders that go with it.
#[derive(Debug)]
pub struct Mailbox<'a> {
    /// The mailbox that is opened.
    pub mailbox: String,
    /// With what; `None`: there is nothing to sign in with.
    pub login: Option<Login>,
    /// Who mails may be from there.
    pub senders: Vec<&'a Address>,
}

/// All steps on the way to the mail server. The first of `boxes` is the account's own.
pub async fn examine(
    account: &Account,
    smtp: &SmtpSettings,
    boxes: &[Mailbox<'_>],
    now: Timestamp,
) -> Vec<Finding> {
    let server = match Smtp::new(smtp, LIMITS, 1) {
        Ok(server) => server,
        Err(error) => {
            return vec![Finding::failed(
                Step::Settings,
                Reason::new(error.to_string()),
                Exit::Config,
            )];
        }
    };
    let mut findings = way(smtp).await;
    let mut own: Option<Look> = None;
    for one in boxes {
        let login = one.login.clone().unwrap_or(Login::Anonymous);
        let senders: Vec<Address> = match one.login {
            Some(_) => one.senders.iter().map(|sender| (*sender).clone()).collect(),
            None => Vec::new(),
        };
        let look = server.look(&login, &senders).await;
        let Some(own) = &own else {
            let told = session(account, smtp, &look, one, now);
            let failed =
                |finding: &Finding| finding.step < Step::Auth && finding.standing == Standing::Failed;
            let early = told.iter().any(failed);
            findings.extend(told);
            if early || one.login.is_none() {
                break;
            }
            own = Some(look);
            continue;
        };
        findings.extend(sign_in(account, &look, one, own));
    }
    findings
}

/// Name and route, without saying a word to anybody but the DNS.
async fn way(smtp: &SmtpSettings) -> Vec<Finding> {
    let looked_up = tokio::time::timeout(
        LIMITS.connect,
        tokio::net::lookup_host((smtp.host.as_str(), smtp.port)),
    );
    let found: Vec<SocketAddr> = match looked_up.await {
        Ok(Ok(found)) => found.collect(),
        // The look says so too, with advice.
        _ => return Vec::new(),
    };
    let mut addresses: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
    addresses.dedup();
    let mut findings = vec![Finding::ok(
        Step::Dns,
        format!("{} is {}", smtp.host, addresses.join(", ")),
    )];
    let routes: Vec<(IpAddr, std::io::Result<IpAddr>)> = found
        .iter()
        .map(|address| (address.ip(), route(*address)))
        .collect();
    let from = routes
        .iter()
        .find_map(|(to, from)| Some((to, from.as_ref().ok()?)));
    findings.push(match (from, routes.first()) {
        (Some((to, from)), _) => Finding::ok(Step::Route, format!("from {from} to {to}")),
        (None, Some((to, Err(error)))) => Finding::failed(
            Step::Route,
            Reason {
                steps: vec![format!(
                    "Look at the addresses and routes of this machine: ip route get {to}"
                )],
                who: Some("whoever looks after this machine's network".into()),
                ..Reason::new(format!("this machine has no route to {to}: {error}"))
            },
            Exit::Unavailable,
        ),
        _ => Finding::not_tried(Step::Route, "there is no address"),
    });
    findings
}

/// From which address of ours the way would lead there. A datagram socket that is connected sends nothing.
fn route(to: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Everything the first session tells.
fn session(
    account: &Account,
    smtp: &SmtpSettings,
    look: &Look,
    one: &Mailbox<'_>,
    now: Timestamp,
) -> Vec<Finding> {
    let failed = look.refused.as_ref().map(|verdict| place(verdict, look));
    let mut findings = Vec::new();
    for step in STEPS {
        match failed {
            Some(at) if step == at => findings.push(refusal(step, account, look.refused.as_ref(), one)),
            Some(at) if step > at => {
                findings.push(Finding::not_tried(step, &format!("{} failed", at.name())))
            }
            _ => findings.extend(passed(step, smtp, look, one, now)),
        }
    }
    if failed.is_none() {
        findings.extend(senders(account, look, one));
    }
    findings
}

/// Signing in to a further mailbox; what comes before was told already.
fn sign_in(account: &Account, look: &Look, one: &Mailbox<'_>, own: &Look) -> Vec<Finding> {
    let own_opens = own.refused.is_none();
    let words = |look: &Look| match &look.refused {
        Some(Verdict::Refused(symptom)) => Some(symptom.text.clone()),
        _ => None,
    };
    if words(look).is_some() && words(look) == words(own) {
        let text = format!("{}: refused with the same words", one.mailbox);
        return vec![Finding::failed(Step::Auth, Reason::new(text), Exit::Credential)];
    }
    match &look.refused {
        None => {
            let mut findings = vec![auth_ok(look, one)];
            findings.extend(senders(account, look, one));
            findings
        }
        Some(Verdict::Refused(symptom)) if own_opens && is_shut(symptom, account.provider) => {
            let symptom = Symptom {
                local: Some(Local::SharedMailbox),
                ..symptom.clone()
            };
            vec![advised(Step::Auth, account, &symptom, one)]
        }
        Some(verdict) => {
            let at = place(verdict, look);
            vec![refusal(at, account, Some(verdict), one)]
        }
    }
}

/// Exchange says the same to a bad token and to a mailbox that is not ours; the token was good a moment ago.
fn is_shut(symptom: &Symptom, provider: Provider) -> bool {
    provider == Provider::Microsoft
        && symptom.code == Some(535)
        && symptom.enhanced.as_deref() == Some("5.7.3")
}

/// Where a session ended that did not come to be.
fn place(verdict: &Verdict, look: &Look) -> Step {
    use crate::advice::Stage;
    let last = look.said.iter().rev().find(|(who, _)| *who == Said::Client);
    let last = last.map(|(_, line)| line.split(' ').next().unwrap_or_default());
    let by_line = match last {
        None => Step::Greeting,
        Some("EHLO" | "HELO") => Step::Ehlo,
        Some("STARTTLS") => Step::Tls,
        Some("MAIL" | "RSET") => Step::MailFrom,
        Some("QUIT") => Step::Auth,
        Some(_) => Step::Auth,
    };
    match verdict {
        Verdict::Refused(symptom) => match symptom.stage {
            Some(Stage::Connect) if last.is_none_or(|word| word == "QUIT") => Step::Greeting,
            Some(Stage::Connect) => by_line,
            Some(Stage::Tls) => Step::Tls,
            Some(Stage::SmtpMail) => Step::MailFrom,
            _ => Step::Auth,
        },
        Verdict::Unreached { local, .. } => match local {
            Local::DnsFailure => Step::Dns,
            Local::ConnectFailed => Step::Tcp,
            Local::TlsCertificate | Local::TlsFailed => Step::Tls,
            _ => by_line,
        },
        _ => by_line,
    }
}

/// What a step that went well has to tell.
fn passed(
    step: Step,
    smtp: &SmtpSettings,
    look: &Look,
    one: &Mailbox<'_>,
    now: Timestamp,
) -> Option<Finding> {
    let note = |start: &str| {
        let notes = look.said.iter().filter(|(who, _)| *who == Said::Note);
        notes
            .map(|(_, text)| text)
            .find(|text| text.starts_with(start))
            .cloned()
    };
    let replies = || {
        look.said
            .iter()
            .filter(|(who, _)| *who == Said::Server)
            .map(|(_, text)| text.clone())
    };
    let after = |verb: &str| {
        let at = look
            .said
            .iter()
            .rposition(|(who, text)| *who == Said::Client && text.starts_with(verb))?;
        let reply = look.said[at..].iter().find(|(who, _)| *who == Said::Server)?;
        Some(reply.1.clone())
    };
    match step {
        // Told by the way, or by the senders.
        Step::Dns | Step::MailFrom => None,
        Step::Tcp => note("connected to").map(|text| Finding::ok(step, text)),
        Step::Greeting => replies().next().map(|text| Finding::ok(step, text)),
        Step::Tls => Some(match (smtp.tls, note("encrypted with")) {
            (Tls::None, _) => Finding::ok(step, "none, as the settings say"),
            (_, Some(text)) => Finding::ok(step, text),
            (_, None) => Finding::not_tried(step, "the session ended before"),
        }),
        Step::Certificate => look
            .certificates
            .first()
            .map(|first| shown_certificate(first, look, now)),
        Step::Ehlo => after("EHLO")
            .or_else(|| after("HELO"))
            .map(|text| Finding::ok(step, offers(&text))),
        Step::Auth => Some(auth_ok(look, one)),
        _ => None,
    }
}

/// The capabilities of `250 name / 250 SIZE 1`, without the name.
fn offers(reply: &str) -> String {
    let lines: Vec<&str> = reply.split(" / ").skip(1).collect();
    match lines.is_empty() {
        true => "no extensions".to_owned(),
        false => lines.join(", "),
    }
}

fn shown_certificate(der: &[u8], look: &Look, now: Timestamp) -> Finding {
    let Some(read) = certificate::read(der) else {
        return Finding::ok(Step::Certificate, "trusted");
    };
    let whom = match (read.names.as_slice(), &read.subject) {
        ([], Some(subject)) => subject.clone(),
        ([], None) => "an unnamed host".to_owned(),
        (names, _) => names.iter().take(4).cloned().collect::<Vec<_>>().join(", "),
    };
    let left = read.not_after.duration_since(now);
    let text = format!(
        "for {whom}, by {}, {} in the chain, until {} ({})",
        read.issuer.as_deref().unwrap_or("somebody"),
        show::count(look.certificates.len() as u64, "certificate"),
        read.not_after.strftime("%F"),
        show::when(read.not_after, now)
    );
    if left < SOON {
        let reason = Reason {
            steps: vec!["Its operator must renew it; nothing can be done here.".to_owned()],
            ..Reason::new(text)
        };
        return Finding::warning(Step::Certificate, reason);
    }
    Finding::ok(Step::Certificate, text)
}

fn auth_ok(look: &Look, one: &Mailbox<'_>) -> Finding {
    let Some(login) = &one.login else {
        return Finding::not_tried(Step::Auth, "there is nothing to sign in with");
    };
    let said = look.said.iter().find_map(|(who, text)| {
        let mechanism = text.strip_prefix("AUTH ").filter(|_| *who == Said::Client)?;
        mechanism.split(' ').next().map(str::to_owned)
    });
    match (login, said) {
        (Login::Anonymous, _) => Finding::ok(Step::Auth, "none, as the settings say"),
        (_, Some(mechanism)) => Finding::ok(Step::Auth, format!("{} by {mechanism}", one.mailbox)),
        (_, None) => Finding::ok(Step::Auth, one.mailbox.clone()),
    }
}

/// What was said of each sender.
fn senders(account: &Account, look: &Look, one: &Mailbox<'_>) -> Vec<Finding> {
    let answered = look.senders.iter().map(|(sender, verdict)| match verdict {
        Verdict::Accepted { reply } => Finding::ok(Step::MailFrom, format!("{sender}: {reply}")),
        verdict => {
            let mailbox = Mailbox {
                mailbox: one.mailbox.clone(),
                login: None,
                senders: vec![sender],
            };
            refusal(Step::MailFrom, account, Some(verdict), &mailbox)
        }
    });
    let mut findings: Vec<Finding> = answered.collect();
    if one.login.is_none() && findings.is_empty() {
        findings.push(Finding::not_tried(Step::MailFrom, "nobody is signed in"));
    }
    findings
}

fn refusal(step: Step, account: &Account, verdict: Option<&Verdict>, one: &Mailbox<'_>) -> Finding {
    match verdict {
        Some(Verdict::Unreached { text, .. }) => {
            let symptom = verdict.and_then(Verdict::symptom).unwrap_or_default();
            let mut finding = advised(step, account, &symptom, one);
            // What was tried and what happened says more than the catalog's general sentence.
            finding.text.clone_from(text);
            if let Some(reason) = &mut finding.reason {
                reason.text.clone_from(text);
                reason.reply = None;
            }
            finding
        }
        Some(verdict) => advised(step, account, &verdict.symptom().unwrap_or_default(), one),
        None => Finding::not_tried(step, "the session ended before"),
    }
}

fn advised(step: Step, account: &Account, symptom: &Symptom, one: &Mailbox<'_>) -> Finding {
    let from = one
        .senders
        .first()
        .map_or_else(|| one.mailbox.clone(), ToString::to_string);
    let values = known::of_account(account, &one.mailbox, &from);
    Finding::refused(step, symptom, &advise_with(symptom, account.provider, &values))
}
