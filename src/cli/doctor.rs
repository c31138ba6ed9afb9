//! `tidings doctor`: walks the way of a mail step by step, and says of the first step that fails what the server
//! said, what that means, who can mend it and how.
//!
//! Nothing is sent unless `--send-to` says so. Grants are renewed on the way: only that proves that they can be.

pub mod finding;
mod letter;
mod machine;
mod token;
mod wire;

use super::{Exit, Global, auth};
use crate::advice::{Local, Symptom, advise_with};
use crate::cli::face::{Face, Terminal};
use crate::clock::Clock;
use crate::config::capability;
use crate::config::known;
use crate::config::settings::{Account, Credential, LoginAs, Settings, SmtpSettings, Tls, Transport};
use crate::entry::Reason;
use crate::mail::address::Address;
use crate::oauth::keeper::Keeper;
use crate::rule::load;
use crate::store::Store;
use crate::transport::Login;
use finding::{Finding, Report, Standing, Step};
use letter::Desk;
use serde_json::json;
use std::sync::Arc;

/// Options of `tidings doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only this account [default: all of them, and this machine]
    pub account: Option<String>,
    /// Only this sender [default: each of the account's]
    #[arg(long, value_name = "ADDRESS")]
    pub sender: Option<String>,
    /// Also send one real message from each sender to this address: Exchange looks at the sender only then
    #[arg(long, value_name = "ME")]
    pub send_to: Option<String>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    match super::settings(global).await {
        Ok(settings) => perform(&settings, &args, Clock::system(), &Terminal).await,
        Err(exit) => exit,
    }
}

/// Does it for settings that were read.
pub async fn perform(settings: &Settings, args: &Args, clock: Clock, face: &dyn Face) -> Exit {
    let accounts: Vec<&Account> = match &args.account {
        None => settings.accounts.values().collect(),
        Some(name) => match settings.accounts.get(name) {
            Some(account) => vec![account],
            None => {
                let names: Vec<&str> = settings.accounts.keys().map(String::as_str).collect();
                face.tell(&format!(
                    "there is no account `{name}`; there are: {}",
                    names.join(", ")
                ));
                return Exit::Usage;
            }
        },
    };
    let sender = match args
        .sender
        .as_ref()
        .map(|text| text.parse::<Address>())
        .transpose()
    {
        Ok(sender) => sender,
        Err(error) => {
            face.tell(&format!("error: {error}"));
            return Exit::Usage;
        }
    };
    if let Some(sender) = &sender
        && !accounts.iter().any(|account| account.may_send_as(sender))
    {
        face.tell(&format!(
            "no account may send as {sender}; list it under `senders:` of the account that shall"
        ));
        return Exit::Usage;
    }
    let opened = Store::open(&settings.outbox.store, clock.clone()).await;
    let keeper = match &opened {
        Ok(store) => auth::keep(settings, store.clone(), clock.clone())
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let desk = match desk(settings, args, &opened, &keeper, &clock).await {
        Ok(desk) => desk,
        Err(exit) => return exit,
    };
    let patient = Patient {
        settings,
        keeper: keeper.as_ref(),
        sender: sender.as_ref(),
        desk: desk.as_ref().zip(args.send_to.as_deref()),
        clock: &clock,
    };
    let mut reports = Vec::new();
    for account in accounts {
        if sender.as_ref().is_some_and(|sender| !account.may_send_as(sender)) {
            continue;
        }
        let report = patient.examine(account).await;
        if !args.json {
            face.out(&format!("{}\n", report.shown()));
        }
        reports.push(report);
    }
    if args.account.is_none() {
        let found = machine::examine(settings, opened.as_ref()).await;
        let report = Report::new(None, String::new(), found);
        if !args.json {
            face.out(&report.shown());
        }
        reports.push(report);
    }
    if args.json {
        let of = |machine: bool| {
            let reports = reports
                .iter()
                .filter(move |report| report.account.is_none() == machine);
            reports.map(Report::to_json).collect::<Vec<_>>()
        };
        let all = json!({ "accounts": of(false), "machine": of(true).pop() });
        face.out(&serde_json::to_string_pretty(&all).unwrap_or_default());
    }
    reports
        .iter()
        .map(Report::exit)
        .find(|exit| *exit != Exit::Done)
        .unwrap_or(Exit::Done)
}

/// What letters are written with, if any are to be.
async fn desk(
    settings: &Settings,
    args: &Args,
    store: &Result<Store, crate::store::StoreError>,
    keeper: &Result<Arc<Keeper>, String>,
    clock: &Clock,
) -> Result<Option<Desk>, Exit> {
    let (Some(_), Ok(store), Ok(keeper)) = (&args.send_to, store, keeper) else {
        return Ok(None);
    };
    let dir = settings.dir.clone();
    match tokio::task::spawn_blocking(move || load::setup(&dir)).await {
        Ok(Ok(setup)) => Ok(Some(Desk {
            settings: Arc::new(setup.settings),
            templates: Arc::new(setup.templates),
            store: store.clone(),
            keeper: Arc::clone(keeper),
            clock: clock.clone(),
        })),
        Ok(Err(problems)) => Err(super::run::failed(&crate::app::AppError::Setup(problems))),
        Err(_) => Err(Exit::Software),
    }
}

/// An account that sends over an HTTP interface, and what that can do.
fn over_api(account: &Account, url: &url::Url) -> String {
    let can = capability::of(&account.transport);
    let user = account.user.as_deref().unwrap_or("the application");
    let most = can
        .recipients
        .map(|most| format!(", at most {most} recipients a mail"))
        .unwrap_or_default();
    format!(
        "{user} over {} at {}; copies {}; a Message-ID can be looked up where the token may read{most}",
        can.name,
        crate::http::way::host(url),
        can.sent_copy
    )
}

/// What an examination goes by.
struct Patient<'a> {
    settings: &'a Settings,
    keeper: Result<&'a Arc<Keeper>, &'a String>,
    sender: Option<&'a Address>,
    desk: Option<(&'a Desk, &'a str)>,
    clock: &'a Clock,
}

impl Patient<'_> {
    async fn examine(&self, account: &Account) -> Report {
        let senders = self.senders(account);
        let mut findings = Vec::new();
        let login = self.login(account, &mut findings).await;
        let about = match &account.transport {
            Transport::File { folder } => {
                findings.push(written_to(folder));
                format!("writes into {}", folder.display())
            }
            Transport::Smtp(smtp) => {
                let boxes = boxes(account, smtp, &senders, login.as_ref());
                findings.extend(wire::examine(account, smtp, &boxes, self.clock.now()).await);
                let user = account.user.as_deref().unwrap_or("nobody");
                let tls = match smtp.tls {
                    Tls::Starttls => "STARTTLS",
                    Tls::Implicit => "TLS",
                    Tls::None => "no encryption",
                };
                format!("{user} over {} port {} ({tls})", smtp.host, smtp.port)
            }
            Transport::Graph(graph) => over_api(account, &graph.url),
            Transport::Gmail(gmail) => over_api(account, &gmail.url),
        };
        let fails = findings
            .iter()
            .any(|finding| finding.standing == Standing::Failed);
        match self.desk {
            Some(_) if fails => {
                findings.push(Finding::not_tried(Step::Message, "something before it failed"));
            }
            Some((desk, to)) => findings.extend(letter::send(desk, account, &senders, to).await),
            None if !matches!(account.transport, Transport::File { .. }) => findings.push(Finding::not_tried(
                Step::Message,
                "--send-to ADDRESS sends one real message from each sender; some servers look at the sender only then",
            )),
            None => {}
        }
        Report::new(Some(account.name.clone()), about, findings)
    }

    /// Who mails may be from, the account's own address first.
    fn senders(&self, account: &Account) -> Vec<Address> {
        if let Some(sender) = self.sender {
            return vec![sender.clone()];
        }
        let own = account
            .user
            .as_ref()
            .and_then(|user| user.parse::<Address>().ok());
        let default = self
            .settings
            .defaults
            .from
            .as_ref()
            .map(|from| from.address.clone());
        let mut senders: Vec<Address> = own.filter(|own| account.may_send_as(own)).into_iter().collect();
        senders.extend(account.senders.iter().cloned());
        if senders.is_empty() && account.any_sender {
            senders.extend(default);
        }
        let mut known = Vec::new();
        senders.retain(|sender| {
            let new = !known.contains(sender);
            known.push(sender.clone());
            new
        });
        senders
    }

    /// With what to sign in, and what was found on the way to it.
    async fn login(&self, account: &Account, findings: &mut Vec<Finding>) -> Option<Login> {
        let user = account.user.clone().unwrap_or_default();
        match &account.credential {
            Credential::None => Some(Login::Anonymous),
            Credential::Password { user, secret } => match secret.read().await {
                Ok(secret) => Some(Login::Password {
                    user: user.clone(),
                    secret,
                }),
                Err(error) => {
                    let symptom = Symptom {
                        local: Some(Local::SecretUnreadable),
                        text: error.to_string(),
                        ..Symptom::default()
                    };
                    let values = known::of_account(account, user, user);
                    let advice = advise_with(&symptom, account.provider, &values);
                    findings.push(Finding::refused(Step::Settings, &symptom, &advice));
                    None
                }
            },
            Credential::OAuth2(oauth2) => match self.keeper {
                Err(why) => {
                    findings.push(Finding::failed(
                        Step::Grant,
                        Reason::new(why.split("\n\n").next().unwrap_or_default()),
                        Exit::Config,
                    ));
                    None
                }
                Ok(keeper) => {
                    let (found, token) = token::examine(account, oauth2, keeper, self.clock).await;
                    findings.extend(found);
                    token.map(|token| Login::Bearer {
                        user,
                        token: token.secret().clone(),
                    })
                }
            },
        }
    }
}

/// Which mailboxes are signed in to, the account's own first, each with the senders that go with it.
fn boxes<'a>(
    account: &Account,
    smtp: &SmtpSettings,
    senders: &'a [Address],
    login: Option<&Login>,
) -> Vec<wire::Mailbox<'a>> {
    let user = account.user.clone().unwrap_or_default();
    let each = smtp.login_as == LoginAs::Sender && matches!(account.credential, Credential::OAuth2(_));
    let as_mailbox = |mailbox: &str| {
        login.map(|login| match login {
            Login::Bearer { token, .. } => Login::Bearer {
                user: mailbox.to_owned(),
                token: token.clone(),
            },
            other => other.clone(),
        })
    };
    let is_own = |sender: &&Address| !each || sender.to_string().eq_ignore_ascii_case(&user);
    let mut boxes = vec![wire::Mailbox {
        mailbox: user.clone(),
        login: as_mailbox(&user),
        senders: senders.iter().filter(is_own).collect(),
    }];
    for sender in senders.iter().filter(|sender| !is_own(sender)) {
        let mailbox = sender.to_string().to_lowercase();
        boxes.push(wire::Mailbox {
            login: as_mailbox(&mailbox),
            mailbox,
            senders: vec![sender],
        });
    }
    boxes
}

/// A folder that messages are written into.
fn written_to(folder: &std::path::Path) -> Finding {
    use rustix::fs::Access;
    let shown = folder.display();
    let trouble = match rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if folder.is_dir() => return Finding::ok(Step::Folder, format!("{shown} can be written to")),
        // Made at the first message.
        Err(rustix::io::Errno::NOENT) => {
            return Finding::ok(Step::Folder, format!("{shown} is made with the first message"));
        }
        Ok(()) => "it is no folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Finding::failed(
        Step::Folder,
        Reason {
            steps: vec![format!(
                "Let the user tidings runs as write there: ls -ld {shown}"
            )],
            who: Some("whoever looks after this machine".into()),
            ..Reason::new(format!("{shown} cannot be written to: {trouble}"))
        },
        Exit::Unavailable,
    )
}
