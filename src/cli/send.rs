//! `tidings send`: one test message through one account, step by step.

use super::{Exit, Global, out, outbox, tell};
use crate::action::email::{self, Composing, MailSpec};
use crate::action::recipients::RecipientSpec;
use crate::advice::catalog;
use crate::clock::Clock;
use crate::config::settings::{Account, Credential, OAuth2, Settings, Tls, Transport};
use crate::delivery::perform::account_case;
use crate::entry::{Body, Reason};
use crate::http::way::host;
use crate::mail::address::{Address, Mailbox};
use crate::oauth::keeper::Keeper;
use crate::rule::load::{self, Setup};
use crate::sender::{Outcome, Sender};
use crate::store::Store;
use crate::template::Templates;
use crate::transport::{Content, Open, Parcel};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Options of `tidings send`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Through which account [default: the default account]
    #[arg(long, short = 'A')]
    pub(super) account: Option<String>,
    /// To whom
    #[arg(long, required = true)]
    pub(super) to: Vec<String>,
    /// From whom: the account's own address or one of its senders
    #[arg(long)]
    pub(super) from: Option<String>,
    /// Instead of the template's subject
    #[arg(long)]
    pub(super) subject: Option<String>,
    /// Which template
    #[arg(long, default_value = "test-message")]
    pub(super) template: String,
    /// Files to attach
    #[arg(long, value_name = "FILE")]
    pub(super) attach: Vec<PathBuf>,
    /// Record the session in this file, secrets masked
    #[arg(long, value_name = "FILE")]
    pub(super) transcript: Option<PathBuf>,
    /// What came of it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// A test message through that account, from and to these.
    pub(super) fn plain(account: &str, from: &str, to: &str) -> Args {
        Args {
            account: Some(account.to_owned()),
            to: vec![to.to_owned()],
            from: Some(from.to_owned()),
            subject: None,
            template: "test-message".to_owned(),
            attach: Vec::new(),
            transcript: None,
            json: false,
        }
    }
}

/// Does it. Nothing is kept in the outbox: what happens is shown here and now.
pub async fn run(global: &Global, args: Args) -> Exit {
    let dir = global.setup();
    let setup = match tokio::task::spawn_blocking(move || load::setup(&dir)).await {
        Ok(Ok(setup)) => setup,
        Ok(Err(problems)) => return super::run::failed(&crate::app::AppError::Setup(problems)),
        Err(error) => {
            tell(format_args!("error: {error}"));
            return Exit::Software;
        }
    };
    catalog::adopt(setup.settings.advice.clone());
    let spec = match spec(&args, &setup.settings) {
        Ok(spec) => spec,
        Err(why) => {
            tell(format_args!("error: {why}"));
            return Exit::Usage;
        }
    };
    let Some(account) = setup.settings.accounts.get(&spec.account).cloned() else {
        tell(format_args!("error: there is no account `{}`", spec.account));
        return Exit::Usage;
    };
    match deliver(setup, account, spec, args.transcript, args.json).await {
        Ok(exit) => exit,
        Err(why) => {
            tell(format_args!("error: {why}"));
            Exit::Unavailable
        }
    }
}

/// What the message shall be.
pub(super) fn spec(args: &Args, settings: &Settings) -> Result<MailSpec, String> {
    let account = args
        .account
        .clone()
        .or_else(|| settings.defaults.account.clone())
        .ok_or("say through which account with --account")?;
    let known = settings.accounts.get(&account).ok_or_else(|| {
        let names: Vec<_> = settings.accounts.keys().map(String::as_str).collect();
        format!(
            "there is no account `{account}`; the accounts are {}",
            names.join(", ")
        )
    })?;
    let from = match &args.from {
        Some(from) => from.parse::<Mailbox>().map_err(|error| error.to_string())?,
        None => own_mailbox(known, settings).ok_or("say from whom with --from")?,
    };
    if !known.any_sender && !known.senders.contains(&from.address) {
        return Err(format!(
            "account `{account}` may not send as {}; list it under `senders:` of the account",
            from.address
        ));
    }
    let to = args
        .to
        .iter()
        .map(|to| {
            to.parse::<Mailbox>()
                .map(RecipientSpec::Fixed)
                .map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = |text: &str| crate::template::Text::compile(text).map_err(|error| error.to_string());
    let attach = args
        .attach
        .iter()
        .map(|path| {
            let path = std::path::absolute(path).map_err(|error| error.to_string())?;
            text(&path.display().to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(MailSpec {
        account,
        account_named: true,
        accounts: Vec::new(),
        from,
        to,
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: known.reply_to.clone(),
        subject: args.subject.as_deref().map(text).transpose()?,
        template: args.template.clone(),
        attach,
        oversize: email::Oversize::Fail,
        max_size: 25_000_000,
        priority: email::Priority::Normal,
        headers: Vec::new(),
    })
}

/// The default From if the account may use it, else the account's own address.
fn own_mailbox(account: &Account, settings: &Settings) -> Option<Mailbox> {
    let default = settings.defaults.from.clone();
    let own = account
        .user
        .as_ref()
        .and_then(|user| user.parse::<Mailbox>().ok());
    default
        .filter(|from| account.any_sender || account.senders.contains(&from.address))
        .or(own)
        .or_else(|| account.senders.first().cloned().map(Mailbox::from))
}

async fn deliver(
    setup: Setup,
    account: Account,
    spec: MailSpec,
    transcript: Option<PathBuf>,
    as_json: bool,
) -> Result<Exit, String> {
    let (settings, templates) = (Arc::new(setup.settings), Arc::new(setup.templates));
    let clock = Clock::system();
    let store = Store::open(&settings.outbox.store, clock.clone())
        .await
        .map_err(|error| error.to_string())?;
    let grants: Vec<(String, OAuth2)> = match &account.credential {
        Credential::OAuth2(oauth) => vec![(account.name.clone(), (**oauth).clone())],
        _ => Vec::new(),
    };
    let keeper = Keeper::open(grants, store.clone(), &settings.state, clock.clone())
        .await
        .map_err(|error| error.to_string())?;
    let name = account.name.clone();
    let sender = Sender::new(account, Arc::clone(&keeper), transcript.as_deref())
        .map_err(|error| error.to_string())?;

    tell(format_args!("composing `{}` from {}", spec.template, spec.from));
    let from = spec.from.address.clone();
    let composed = match compose(&settings, &templates, &store, &clock, spec).await? {
        Ok(composed) => composed,
        Err(reason) => {
            tell("the message cannot be composed");
            tell(outbox::reason_lines(&reason, "  "));
            return Ok(Exit::BadInput);
        }
    };
    tell(handing_over(&sender, &from));
    let outcome = sender.send(&composed.parcel, &from, &Open).await;
    composed.forget();
    if matches!(
        outcome,
        Outcome::Answered {
            accepted: Some(_),
            ..
        }
    ) {
        proven(&store, &name).await;
    }
    let told = Told::of(outcome);
    if as_json {
        out(told.to_json(&name));
    } else {
        told.show(&name);
    }
    Ok(told.exit)
}

/// A message that is kept nowhere else: the outbox does not know it.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) parcel: Parcel,
    spooled: Option<PathBuf>,
}

impl Composed {
    /// Removes what lies in the spool of it.
    pub(super) fn forget(self) {
        if let Some(path) = self.spooled {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Composes a message, or says why the message cannot be. The outer error is of the machine.
pub(super) async fn compose(
    settings: &Arc<Settings>,
    templates: &Arc<Templates>,
    store: &Store,
    clock: &Clock,
    spec: MailSpec,
) -> Result<Result<Composed, Reason>, String> {
    let host = crate::app::host();
    let facts = json!({
        "host": host, "now": clock.now().to_zoned(settings.defaults.timezone.clone()).to_string(),
        "event": { "id": 0, "type": "test", "key": "test", "time": clock.now().to_string() },
        "rule": { "name": "send", "description": "" }, "data": {}, "account": { "name": spec.account },
    });
    let (settings, templates) = (Arc::clone(settings), Arc::clone(templates));
    let (store_too, now) = (store.clone(), clock.now());
    let entry = tokio::task::spawn_blocking(move || {
        email::prepare(
            &spec,
            "send",
            &Composing {
                settings: &settings,
                templates: &templates,
                spool: store_too.spool(),
                rule: "send",
                event: None,
                facts: &facts,
                file: None,
                job_log: None,
                now,
                host: &host,
            },
        )
    })
    .await
    .map_err(|error| error.to_string())?
    .map_err(|error| format!("the message cannot be written to the spool: {error}"))?;
    if let Some(reason) = entry.held {
        return Ok(Err(reason));
    }
    let mail: crate::action::Mail =
        serde_json::from_slice(&entry.effect).map_err(|error| error.to_string())?;
    let (content, spooled) = match entry.body {
        Body::Inline(bytes) => (Content::Bytes(Arc::from(bytes)), None),
        Body::Spooled { name, len } => {
            let path = store.spool().path(&name);
            let content = Content::File {
                path: path.clone(),
                len,
            };
            (content, Some(path))
        }
        Body::None => return Err("the message has no text".to_owned()),
    };
    let parcel = Parcel {
        envelope: mail.envelope,
        content,
        message_id: mail.message_id,
    };
    Ok(Ok(Composed { parcel, spooled }))
}

/// The proof that the account works again: what waited for that goes.
pub(super) async fn proven(store: &Store, account: &str) {
    if let Err(error) = store.close_case(&account_case(account)).await {
        tell(format_args!(
            "its waiting mails go at their next turn only: {error}"
        ));
    }
}

/// Where the message goes, and who says so there.
fn handing_over(sender: &Sender, from: &Address) -> String {
    let account = sender.account();
    let to = match &account.transport {
        Transport::Smtp(smtp) => {
            let tls = match smtp.tls {
                Tls::Starttls => "STARTTLS",
                Tls::Implicit => "TLS",
                Tls::None => "no encryption",
            };
            format!("{} port {} ({tls})", smtp.host, smtp.port)
        }
        Transport::Graph(graph) => format!("{} (Microsoft Graph)", host(&graph.url)),
        Transport::Gmail(gmail) => format!("{} (Gmail API)", host(&gmail.url)),
        Transport::File { folder } => return format!("writing it to {}", folder.display()),
    };
    let who = match &account.credential {
        Credential::None => "without signing in".to_owned(),
        Credential::Password { user, .. } => format!("signing in as {user} with a password"),
        Credential::OAuth2(_) => {
            let (user, mailbox) = (account.user.as_deref().unwrap_or("-"), sender.mailbox(from));
            if user == mailbox {
                format!("signing in as {user} with OAuth2")
            } else {
                format!("signing in as {user} with OAuth2, to the mailbox {mailbox}")
            }
        }
    };
    format!("handing it over to {to}, {who} (account `{}`)", account.name)
}

/// What came of it: a headline, what the server said of single recipients, why, and the exit code.
struct Told {
    headline: &'static str,
    reply: Option<String>,
    refused: Vec<(Address, Reason)>,
    reason: Option<Reason>,
    exit: Exit,
}

impl Told {
    fn of(outcome: Outcome) -> Told {
        let because = |headline, reason, exit| Told {
            headline,
            reply: None,
            refused: Vec::new(),
            reason: Some(reason),
            exit,
        };
        match outcome {
            Outcome::Answered {
                accepted,
                mut refused,
                later,
                ..
            } => {
                refused.extend(later);
                Told {
                    headline: if accepted.is_some() { "accepted" } else { "refused" },
                    exit: if refused.is_empty() {
                        Exit::Done
                    } else {
                        Exit::BadInput
                    },
                    reply: accepted,
                    refused,
                    reason: None,
                }
            }
            Outcome::Later { reason, .. } => because("not now", reason, Exit::TryLater),
            Outcome::Grant(reason) => because("nobody is signed in as it needs", reason, Exit::Credential),
            Outcome::Account(reason) => {
                because("the mail server refuses the account", reason, Exit::Credential)
            }
            Outcome::Mail { reason, .. } => {
                because("the server refused this mail", reason, Exit::Unavailable)
            }
            Outcome::Never(reason) => {
                because("the server refused this mail for good", reason, Exit::BadInput)
            }
            Outcome::Unknown(reason) => because("sent or not, nobody can say", reason, Exit::TryLater),
            Outcome::NotSent(why) => because("not sent", Reason::new(why), Exit::TryLater),
        }
    }

    fn show(&self, account: &str) {
        match &self.reply {
            Some(reply) => out(format_args!("accepted: {reply}")),
            None => out(format_args!("{} (account `{account}`)", self.headline)),
        }
        for (address, reason) in &self.refused {
            out(format_args!("refused for {address}:"));
            out(outbox::reason_lines(reason, "  "));
        }
        if let Some(reason) = &self.reason {
            out(outbox::reason_lines(reason, "  "));
        }
    }

    fn to_json(&self, account: &str) -> serde_json::Value {
        let refused: Vec<_> = self
            .refused
            .iter()
            .map(|(address, reason)| json!({ "address": address, "reason": reason }))
            .collect();
        json!({
            "account": account, "outcome": self.headline, "reply": self.reply, "refused": refused,
            "reason": self.reason,
        })
    }
}
