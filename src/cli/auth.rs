//! `tidings auth`: sign in accounts, see how their grants stand, renew them, give them back.
//!
//! The address to visit goes to stdout alone on its line, so that a script can pick it up; all that
//! is said to people goes to stderr.

mod device;
mod import;
mod list;
mod parcel;
mod status;

use super::{Exit, Global};
use crate::cli::face::{Face, Terminal};
use crate::clock::Clock;
use crate::config::known;
use crate::config::settings::{Account, Credential, Grant, OAuth2, Settings};
use crate::delivery::perform::account_case;
use crate::entry::{Kind, Reason};
use crate::http::answer;
use crate::oauth::callback::{CallbackError, PATIENCE};
use crate::oauth::grants::Answer;
use crate::oauth::keeper::{KeepError, Keeper, KeeperError};
use crate::oauth::login::{self, LoginError, SignIn};
use crate::oauth::refusal::{self, Failure, Outcome};
use crate::oauth::token::TokenError;
use crate::store::lock::Lock;
use crate::store::{Store, StoreError};
use status::{kind, status, time};
use std::path::PathBuf;
use std::sync::Arc;

/// Options of `tidings auth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do about grants.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Sign in: prints the address to visit, waits for the browser, stores the grant
    Login(Login),
    /// All accounts, a line each: who signs in, how, how it stands
    List {
        /// Only those in which this occurs: name, description, user, tenant, grant, state
        filter: Option<String>,
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Grants sealed with a passphrase, to stdout, for moving to another host
    Export {
        /// Which accounts [default: all]
        accounts: Vec<String>,
        /// Read the passphrase from this file instead of asking for it
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
    },
    /// Take a refresh token that another tool obtained, from stdin: tried at once, then kept. Or,
    /// with --from, what `auth export` made
    Import {
        /// Which account
        #[arg(required_unless_present = "from")]
        account: Option<String>,
        /// What `auth export` made
        #[arg(long)]
        from: Option<PathBuf>,
        /// Read the passphrase from this file instead of asking for it
        #[arg(long, requires = "from")]
        passphrase_file: Option<PathBuf>,
    },
    /// How each account stands: verified or not, why, since when, until when
    Status {
        /// Only this account
        account: Option<String>,
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Renew a grant now
    Refresh {
        /// Which account [default: the only one with OAuth2]
        account: Option<String>,
    },
    /// Give a grant back to the provider, where it takes it, and delete it here
    Logout {
        /// Which account
        account: String,
    },
}

/// Options of `tidings auth login`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Login {
    /// Which account [default: the only one with OAuth2]
    pub account: Option<String>,
    /// Do not open a browser here; only print the address
    #[arg(long)]
    pub no_browser: bool,
    /// Read the address the browser ended at from stdin: for a machine the browser cannot reach
    #[arg(long)]
    pub paste: bool,
    /// Show a code to be typed on any other device, where the provider has that
    #[arg(long, conflicts_with = "paste")]
    pub device: bool,
}

/// Does it.
pub async fn run(global: &Global, args: Args) -> Exit {
    match super::settings(global).await {
        Ok(settings) => perform(&settings, args, Clock::system(), &Terminal).await,
        Err(exit) => exit,
    }
}

/// Does it for settings that were read.
pub async fn perform(settings: &Settings, args: Args, clock: Clock, face: &dyn Face) -> Exit {
    let (keeper, store) = match keeper(settings, clock.clone()).await {
        Ok(opened) => opened,
        Err(error) => {
            face.tell(&error.to_string());
            return error.exit();
        }
    };
    match args.command {
        Command::Login(options) => match choose(settings, options.account.as_deref(), face) {
            Ok((account, oauth2)) => {
                let waiting = waiting(&store, &account.name).await;
                let exit = if oauth2.unattended() {
                    by_itself(account, &keeper, settings, face).await
                } else {
                    sign_in(&account.name, oauth2, &keeper, &options, &clock, face).await
                };
                if exit == Exit::Done {
                    hasten(settings, &store, &account.name, waiting, face).await;
                }
                exit
            }
            Err(exit) => exit,
        },
        Command::Status { account, json } => {
            let cases = match store.open_cases().await {
                Ok(cases) => cases,
                Err(error) => return super::store_failed(&error),
            };
            status(settings, &keeper, &cases, account.as_deref(), json, &clock, face).await
        }
        Command::List { filter, json } => list::list(settings, &keeper, filter.as_deref(), json, face).await,
        Command::Export {
            accounts,
            passphrase_file,
        } => parcel::export(settings, &keeper, &accounts, passphrase_file.as_deref(), face).await,
        Command::Import {
            account,
            from: Some(from),
            passphrase_file,
        } => {
            let only = account.as_deref();
            let taken =
                parcel::import(settings, &keeper, only, &from, passphrase_file.as_deref(), face).await;
            match taken {
                Ok(accounts) => {
                    for name in &accounts {
                        let waiting = waiting(&store, name).await;
                        hasten(settings, &store, name, waiting, face).await;
                    }
                    Exit::Done
                }
                Err(exit) => exit,
            }
        }
        Command::Import { account, .. } => match choose(settings, account.as_deref(), face) {
            Ok((account, oauth2)) => {
                let waiting = waiting(&store, &account.name).await;
                let text = zeroize::Zeroizing::new(face.line().await);
                let exit = import::import(&account.name, oauth2, &keeper, &text, &clock, face).await;
                if exit == Exit::Done {
                    hasten(settings, &store, &account.name, waiting, face).await;
                }
                exit
            }
            Err(exit) => exit,
        },
        Command::Refresh { account } => match choose(settings, account.as_deref(), face) {
            Ok((account, _)) => refresh(&account.name, &keeper, settings, face).await,
            Err(exit) => exit,
        },
        Command::Logout { account } => match choose(settings, Some(&account), face) {
            Ok((account, _)) => sign_out(&account.name, &keeper, face).await,
            Err(exit) => exit,
        },
    }
}

/// Why grants cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key, the locks, or an account.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

impl OpenError {
    fn exit(&self) -> Exit {
        match self {
            OpenError::Store(_) => Exit::Unavailable,
            OpenError::Keeper(KeeperError::Locks { .. }) => Exit::CannotCreate,
            OpenError::Keeper(_) => Exit::Config,
        }
    }
}

async fn keeper(settings: &Settings, clock: Clock) -> Result<(Arc<Keeper>, Store), OpenError> {
    let store = Store::open(&settings.outbox.store, clock.clone()).await?;
    let keeper = keep(settings, store.clone(), clock).await?;
    Ok((keeper, store))
}

/// The keeper of all accounts that sign in with OAuth2.
pub async fn keep(settings: &Settings, store: Store, clock: Clock) -> Result<Arc<Keeper>, OpenError> {
    let accounts = settings
        .accounts
        .values()
        .filter_map(|account| match &account.credential {
            Credential::OAuth2(oauth2) => Some((account.name.clone(), (**oauth2).clone())),
            _ => None,
        })
        .collect();
    Ok(Keeper::open(accounts, store, &settings.state, clock).await?)
}

/// How many mails of an account wait.
async fn waiting(store: &Store, account: &str) -> u64 {
    let lanes = store.lanes().await.unwrap_or_default();
    lanes
        .iter()
        .filter(|lane| lane.kind == Kind::Mail && lane.lane.split(' ').next() == Some(account))
        .map(|lane| lane.waiting)
        .sum()
}

/// After a sign-in: whatever waited for the account goes now, also what its mail server had refused,
/// since the new grant may cure that. The next attempt tells.
async fn hasten(settings: &Settings, store: &Store, account: &str, waiting: u64, face: &dyn Face) {
    if let Err(error) = store.hasten(&account_case(account)).await {
        face.tell(&format!("its waiting mails go at their next turn only: {error}"));
        return;
    }
    let runs = Lock::holder(&settings.state).is_some();
    match (waiting, runs) {
        (0, _) => {}
        (count, true) => face.tell(&format!("{} now.", mails(count, "goes", "go"))),
        (count, false) => face.tell(&format!(
            "{}; `tidings run` sends {}.",
            mails(count, "waits", "wait"),
            if count == 1 { "it" } else { "them" }
        )),
    }
}

fn mails(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 mail {one}"),
        count => format!("{count} mails {many}"),
    }
}

/// The account that was named, or the only one that can be meant.
fn choose<'a>(
    settings: &'a Settings,
    name: Option<&str>,
    face: &dyn Face,
) -> Result<(&'a Account, &'a OAuth2), Exit> {
    let of = |account: &'a Account| match &account.credential {
        Credential::OAuth2(oauth2) => Some((account, &**oauth2)),
        _ => None,
    };
    let all: Vec<(&Account, &OAuth2)> = settings.accounts.values().filter_map(of).collect();
    let names = || {
        let names: Vec<&str> = all.iter().map(|(account, _)| account.name.as_str()).collect();
        names.join(", ")
    };
    let Some(name) = name else {
        return match all.as_slice() {
            [one] => Ok(*one),
            [] => {
                face.tell("no account of this setup uses OAuth2: there is nothing to sign in to");
                Err(Exit::Config)
            }
            _ => {
                face.tell(&format!("which account? One of: {}", names()));
                Err(Exit::Usage)
            }
        };
    };
    match settings.accounts.get(name) {
        Some(account) => of(account).ok_or_else(|| {
            face.tell(&format!(
                "account `{name}` does not use OAuth2 ({}): there is nothing to sign in to",
                kind(account)
            ));
            Exit::Usage
        }),
        None => {
            face.tell(&format!(
                "there is no account `{}`; with OAuth2 there are: {}",
                answer::shown(name),
                names()
            ));
            Err(Exit::Usage)
        }
    }
}

/// Signs an account in, from the first address to the stored grant.
pub async fn sign_in(
    account: &str,
    oauth2: &OAuth2,
    keeper: &Keeper,
    options: &Login,
    clock: &Clock,
    face: &dyn Face,
) -> Exit {
    // Before a person goes through it all: is there a place to put the answer?
    if let Err(error) = keeper.storable(account).await {
        return told(&error, face);
    }
    let Some(client) = keeper.client(account) else {
        face.tell(&format!("there is no account `{account}` with OAuth2"));
        return Exit::Usage;
    };
    let claims = keeper.claims(account).await;
    let who = oauth2
        .login_hint
        .as_ref()
        .map(|user| format!(" as {user}"))
        .unwrap_or_default();
    if options.device || matches!(oauth2.grant, Grant::DeviceCode) {
        return match device::sign_in(client, account, &who, claims.as_deref(), face).await {
            Ok(answer) => finish(account, oauth2, keeper, answer, clock, face).await,
            Err(error) => match device::failure(&error) {
                Some(failure) => refused(&LoginError::Server(failure.clone()), oauth2, account, face),
                None => {
                    face.tell(&error.to_string());
                    Exit::Credential
                }
            },
        };
    }
    let begun = match SignIn::begin(client, claims.as_deref(), options.paste).await {
        Ok(begun) => begun,
        Err(error) => return refused(&error, oauth2, account, face),
    };
    face.tell(&format!("To sign in account `{account}`{who}, visit:"));
    face.out(begun.url().as_str());
    if !options.no_browser && !options.paste {
        face.browse(begun.url().as_str());
    }
    let minutes = PATIENCE.as_secs() / 60;
    let pasted = if options.paste {
        face.tell(&format!(
            "After signing in the browser ends at an address it may not be able to show. Paste that address here, within {minutes} minutes:"
        ));
        Some(face.line())
    } else {
        face.tell(&format!("Waiting {minutes} minutes for the browser."));
        None
    };
    let strange = |error: &CallbackError| tracing::warn!(%error, "an answer to another sign-in was turned away; still waiting");
    match begun.answer(pasted, PATIENCE, strange).await {
        Ok(answer) => finish(account, oauth2, keeper, answer, clock, face).await,
        Err(error) => refused(&error, oauth2, account, face),
    }
}

/// An account that nobody signs in to: a token for each mailbox that has one of its own, at once, so
/// that what is wrong shows now.
async fn by_itself(account: &Account, keeper: &Keeper, settings: &Settings, face: &dyn Face) -> Exit {
    let name = &account.name;
    let zone = &settings.defaults.timezone;
    match keeper.refresh(name).await {
        Ok(token) => face.tell(&format!(
            "Account `{name}` needs nobody to sign in: it has a token, until {}.",
            time(token.expires(), zone)
        )),
        Err(error) => return told(&error, face),
    }
    let status = keeper.status(name).await;
    if !status.lacking.is_empty() {
        face.tell(&format!(
            "note: the token does not name the role {}. Unless Exchange itself allows the application (RBAC for applications), grant it: app registration > API permissions > Application permissions, with an administrator's consent.",
            status.lacking.join(" ")
        ));
    }
    let mut exit = Exit::Done;
    for sender in &account.senders {
        let mailbox = sender.to_string();
        if !keeper.is_apart(name, &mailbox) {
            continue;
        }
        match keeper.token_for(name, &mailbox).await {
            Ok(_) => face.tell(&format!("  {mailbox}: has a token of its own")),
            Err(error) => {
                face.tell(&format!("  {mailbox}:"));
                exit = told(&error, face);
            }
        }
    }
    exit
}

/// Looks whether it is the grant that was wanted, and stores it.
async fn finish(
    account: &str,
    oauth2: &OAuth2,
    keeper: &Keeper,
    answer: Answer,
    clock: &Clock,
    face: &dyn Face,
) -> Exit {
    let notes = match login::verify(account, oauth2, &answer) {
        Ok(notes) => notes,
        Err(error) => return refused(&error, oauth2, account, face),
    };
    let kept = login::kept(oauth2, answer, clock.now());
    if let Err(error) = keeper.keep(account, &kept).await {
        return match error {
            KeepError::Token(error) => told(&error, face),
            error => {
                face.tell(&error.to_string());
                Exit::Unavailable
            }
        };
    }
    for note in notes {
        face.tell(&format!("note: {note}"));
    }
    let signed_in = kept
        .identity
        .name()
        .map(|name| format!(" as {name}"))
        .unwrap_or_default();
    face.tell(&format!(
        "Account `{account}` is signed in{signed_in}. Granted: {}. It is renewed by itself while `tidings run` runs.",
        answer::shown(&kept.scopes.join(" "))
    ));
    Exit::Done
}

/// Says why nobody is signed in.
fn refused(error: &LoginError, oauth2: &OAuth2, account: &str, face: &dyn Face) -> Exit {
    match error {
        LoginError::Server(failure) => {
            let doing = format!("to sign in account `{account}`");
            let mut reason = refusal::reason(failure, oauth2.provider, &doing);
            known::of_grant(account, oauth2).fill_in(&mut reason);
            explain(&reason, face);
            exit_of(refusal::judge(failure, oauth2.provider))
        }
        LoginError::Callback(CallbackError::Refused(reason)) => {
            let mut reason = (**reason).clone();
            known::of_grant(account, oauth2).fill_in(&mut reason);
            explain(&reason, face);
            Exit::Credential
        }
        LoginError::Callback(error) => {
            face.tell(&error.to_string());
            match error {
                CallbackError::Bind { .. } => Exit::Unavailable,
                CallbackError::Elsewhere(_) => Exit::Config,
                _ => Exit::Credential,
            }
        }
        LoginError::NotRenewable { .. } => {
            face.tell(&error.to_string());
            Exit::Config
        }
        LoginError::WrongPerson { .. } | LoginError::MissingScopes { .. } => {
            face.tell(&error.to_string());
            Exit::Credential
        }
    }
}

fn exit_of(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Transient => Exit::Unavailable,
        Outcome::NeedsPerson => Exit::Credential,
        Outcome::NeedsConfig => Exit::Config,
    }
}

/// Says why there is no token.
fn told(error: &TokenError, face: &dyn Face) -> Exit {
    match error {
        TokenError::Transient { text, .. } => {
            face.tell(text);
            Exit::Unavailable
        }
        TokenError::NeedsPerson(reason) => {
            explain(reason, face);
            Exit::Credential
        }
        TokenError::NeedsConfig(reason) => {
            explain(reason, face);
            Exit::Config
        }
    }
}

fn explain(reason: &Reason, face: &dyn Face) {
    face.tell(&reason.text);
    if let Some(reply) = &reason.reply {
        face.tell(&format!("  the server said: {reply}"));
    }
    for step in reason.cure() {
        face.tell(&format!("  - {step}"));
    }
}

async fn refresh(account: &str, keeper: &Keeper, settings: &Settings, face: &dyn Face) -> Exit {
    match keeper.refresh(account).await {
        Ok(token) => {
            let until = time(token.expires(), &settings.defaults.timezone);
            face.tell(&format!("Account `{account}` is renewed: access until {until}."));
            Exit::Done
        }
        Err(error) => told(&error, face),
    }
}

async fn sign_out(account: &str, keeper: &Keeper, face: &dyn Face) -> Exit {
    let by_itself = keeper
        .client(account)
        .is_some_and(|client| client.settings().unattended());
    let text = match keeper.forget(account).await {
        Ok(_) if by_itself => format!(
            "The token of account `{account}` was deleted here. It gets a new one by itself when it is needed: remove its rights at the provider if they must end now."
        ),
        Ok(None) => format!("Nobody is signed in for account `{account}`."),
        Ok(Some(Ok(true))) => {
            format!("The grant of account `{account}` was given back to the provider and deleted here.")
        }
        Ok(Some(Ok(false))) => format!(
            "The grant of account `{account}` was deleted here. The provider has no address to give it back: \
             remove it in the account's own settings there if it must end now."
        ),
        Ok(Some(Err(failure))) => format!(
            "The grant of account `{account}` was deleted here, but could not be given back: {}. \
             Remove it in the account's own settings at the provider if it must end now.",
            failure_line(&failure)
        ),
        Err(KeepError::Token(error)) => return told(&error, face),
        Err(error) => {
            face.tell(&error.to_string());
            return Exit::Unavailable;
        }
    };
    face.tell(&text);
    Exit::Done
}

fn failure_line(failure: &Failure) -> String {
    let text = failure.to_string();
    text.split("\n\n").next().unwrap_or(&text).to_owned()
}
