//! Senders: an account, its credential, its transport and its pace, put together.
//!
//! The only place that knows both OAuth2 and mail. It turns a credential into a [`Login`], hands the
//! parcel to the transport, and reads the report with the advice catalog into an [`Outcome`]. A
//! token that the server refused is renewed once, and the parcel tried once more; that is before the
//! gate, so nothing can go out twice.

pub mod pace;

use crate::advice::values::Values;
use crate::advice::{self, Advice, Class, Provider, Stage, Symptom};
use crate::clock::Clock;
use crate::config::capability;
use crate::config::known;
use crate::config::secret::SecretError;
use crate::config::settings::{Account, Credential, Grant, GraphMailbox, LoginAs, Settings, Transport};
use crate::entry::Reason;
use crate::mail::Envelope;
use crate::mail::address::Address;
use crate::oauth::keeper::Keeper;
use crate::oauth::token::{AccessToken, TokenError};
use crate::sender::pace::Pacer;
use crate::transport::gmail::Gmail;
use crate::transport::graph::Graph;
use crate::transport::smtp::Smtp;
use crate::transport::stand_in::StandIn;
use crate::transport::transcript::Transcript;
use crate::transport::{Found, Gate, Limits, Login, Parcel, RecipientVerdict, Report, Verdict, file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What became of a mail in one attempt, and what that asks for.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The server spoke about the recipients: responsibility taken for some (with its last words),
    /// some refused for good, some to be tried again.
    Answered {
        /// The reply to the final dot, where at least one recipient was accepted.
        accepted: Option<String>,
        /// Never again: the address and why.
        refused: Vec<(Address, Reason)>,
        /// Again later: the address and why.
        later: Vec<(Address, Reason)>,
        /// How long the server asked us to wait.
        after: Option<Duration>,
    },
    /// Not now. Nothing went out.
    Later {
        /// Why.
        reason: Reason,
        /// How long the server asked us to wait.
        after: Option<Duration>,
        /// It concerns all mails of this mailbox, not this one.
        everyone: bool,
    },
    /// The account's grant needs a person; the mail itself is fine and waits.
    Grant(Reason),
    /// The mail server, or the way to it, refuses the account, whatever the mail; which waits.
    Account(Reason),
    /// This mail needs a person.
    Mail {
        /// Why, and the cure.
        reason: Reason,
        /// The server answered as if it were passing (4xx): a permission may still be spreading.
        spreading: bool,
    },
    /// Refused for good.
    Never(Reason),
    /// It may have gone out.
    Unknown(Reason),
    /// The gate stayed shut.
    NotSent(String),
}

/// Why no sender can be built from an account.
#[derive(Debug, thiserror::Error)]
#[error("account `{account}`: {why}")]
pub struct SenderError {
    /// Which.
    pub account: String,
    /// What is wrong.
    pub why: String,
}

/// All accounts, ready to send.
#[derive(Debug, Default)]
pub struct Senders {
    by_account: BTreeMap<String, Arc<Sender>>,
}

/// One account, ready to send.
pub struct Sender {
    account: Account,
    submit: Submit,
    keeper: Arc<Keeper>,
    transcript: Option<Transcript>,
    pace: Mutex<BTreeMap<String, Pacer>>,
    /// Since when it is out of reach.
    down: Mutex<Option<jiff::Timestamp>>,
}

enum Submit {
    Smtp(Smtp),
    Graph(Graph),
    Gmail(Gmail),
    File(PathBuf),
    StandIn(Arc<StandIn>),
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("account", &self.account.name)
            .finish_non_exhaustive()
    }
}

impl Senders {
    /// A sender for each account. `transcript`, where given, records all of them.
    pub fn build(
        settings: &Settings,
        keeper: &Arc<Keeper>,
        transcript: Option<&Path>,
    ) -> Result<Senders, SenderError> {
        let mut by_account = BTreeMap::new();
        for account in settings.accounts.values() {
            let sender = Sender::new(account.clone(), Arc::clone(keeper), transcript)?;
            by_account.insert(account.name.clone(), Arc::new(sender));
        }
        Ok(Senders { by_account })
    }

    /// The accounts of a test of rules: everything is as ever, but the stand-in takes the mails, and nobody signs in.
    pub fn stand_in(settings: &Settings, keeper: &Arc<Keeper>, stand_in: &Arc<StandIn>) -> Senders {
        let sender = |account: &Account| Sender {
            account: account.clone(),
            submit: Submit::StandIn(Arc::clone(stand_in)),
            keeper: Arc::clone(keeper),
            transcript: None,
            pace: Mutex::default(),
            down: Mutex::default(),
        };
        let by_account = settings
            .accounts
            .values()
            .map(|account| (account.name.clone(), Arc::new(sender(account))));
        Senders {
            by_account: by_account.collect(),
        }
    }

    /// The sender of an account; none if the settings no longer have it.
    pub fn get(&self, account: &str) -> Option<&Arc<Sender>> {
        self.by_account.get(account)
    }

    /// Says goodbye on every kept connection.
    pub async fn close(&self) {
        for sender in self.by_account.values() {
            if let Submit::Smtp(smtp) = &sender.submit {
                smtp.close().await;
            }
        }
    }
}

/// Which lane a mail waits in: what is paced together is one account's mails from one mailbox.
pub fn lane(account: &Account, sender: &Address) -> String {
    format!("{} {}", account.name, mailbox(account, sender))
}

/// Which mailbox the provider counts a mail against: the one that signs in.
fn mailbox(account: &Account, sender: &Address) -> String {
    match &account.transport {
        Transport::Smtp(smtp) if smtp.login_as == LoginAs::Sender => sender.to_string().to_lowercase(),
        Transport::Graph(graph) if graph.mailbox == GraphMailbox::Sender => sender.to_string().to_lowercase(),
        // The key vouches for each mailbox by itself, and Gmail knows no other than the token's.
        Transport::Gmail(_) if vouches(account) => sender.to_string().to_lowercase(),
        _ => account.user.clone().unwrap_or_else(|| "-".to_owned()),
    }
}

/// Whether a key of ours gets a token for each mailbox.
fn vouches(account: &Account) -> bool {
    matches!(&account.credential, Credential::OAuth2(oauth2) if matches!(oauth2.grant, Grant::JwtBearer(_)))
}

impl Sender {
    /// Makes the transport of an account; opens no connection yet.
    pub fn new(
        account: Account,
        keeper: Arc<Keeper>,
        transcript: Option<&Path>,
    ) -> Result<Sender, SenderError> {
        let failed = |why: String| SenderError {
            account: account.name.clone(),
            why,
        };
        let submit = match &account.transport {
            Transport::Smtp(smtp) => Submit::Smtp(
                Smtp::new(smtp, Limits::default(), account.pace.connections as usize)
                    .map_err(|error| failed(error.to_string()))?,
            ),
            Transport::Graph(graph) => {
                Submit::Graph(Graph::new(graph).map_err(|error| failed(error.to_string()))?)
            }
            Transport::Gmail(gmail) => {
                Submit::Gmail(Gmail::new(gmail).map_err(|error| failed(error.to_string()))?)
            }
            Transport::File { folder } => Submit::File(folder.clone()),
        };
        let transcript = match transcript.or(account.transcript.as_deref()) {
            Some(path) => {
                Some(Transcript::open(path, Clock::system()).map_err(|error| failed(error.to_string()))?)
            }
            None => None,
        };
        Ok(Sender {
            account,
            submit,
            keeper,
            transcript,
            pace: Mutex::default(),
            down: Mutex::default(),
        })
    }

    /// The account it sends for.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The mailbox a mail from `from` is sent out of: whose name is given at sign-in.
    pub fn mailbox(&self, from: &Address) -> String {
        mailbox(&self.account, from)
    }

    /// Connections it may use at once.
    pub fn connections(&self) -> usize {
        (self.account.pace.connections as usize).max(1)
    }

    /// Works on the pacer of one mailbox; it is made on first use, knowing the sends in `recent`.
    pub fn paced<T>(
        &self,
        mailbox: &str,
        recent: impl FnOnce() -> Vec<jiff::Timestamp>,
        work: impl FnOnce(&mut Pacer) -> T,
    ) -> T {
        let mut pacers = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pacer = pacers
            .entry(mailbox.to_owned())
            .or_insert_with(|| Pacer::new(self.account.pace, recent()));
        work(pacer)
    }

    /// Notes whether it was out of reach just now, and tells since when it is.
    pub fn note_reach(&self, is_down: bool, now: jiff::Timestamp) -> jiff::Timestamp {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if is_down {
            *down.get_or_insert(now)
        } else {
            *down = None;
            now
        }
    }

    /// Whether the mailbox's pacer was made already.
    pub fn is_paced(&self, mailbox: &str) -> bool {
        self.pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(mailbox)
    }

    /// Submits one parcel from `from`. At most one message goes out, whatever happens; once the gate
    /// was passed, the outcome is `Answered`, `Never`, `Mail` or `Unknown`.
    pub async fn send(&self, parcel: &Parcel, from: &Address, gate: &dyn Gate) -> Outcome {
        let mut login = match self.login(from, None).await {
            Ok(login) => login,
            Err(outcome) => return outcome,
        };
        let mut report = self.submit(&login.0, parcel, gate).await;
        if let (Verdict::Refused(symptom), Some(token)) = (&report.verdict, &login.1)
            && advice::renewing_may_help(symptom)
        {
            tracing::info!(account = %self.account.name, reply = %symptom.text, "token refused; renewing it once");
            login = match self.login(from, Some(token)).await {
                Ok(login) => login,
                Err(outcome) => return outcome,
            };
            report = self.submit(&login.0, parcel, gate).await;
        }
        read(report, &parcel.envelope, &self.known(from))
    }

    /// Whether a mail from `from` that may have gone out did. Sends nothing.
    pub async fn find(&self, message_id: &str, from: &Address) -> Found {
        let can = capability::of(&self.account.transport);
        if !can.searchable {
            return Found::CannotTell(format!("nobody can be asked what was sent over {}", can.name));
        }
        let mut refused = None;
        loop {
            let (login, token) = match self.login(from, refused.as_ref()).await {
                Ok(login) => login,
                Err(Outcome::Later { reason, .. } | Outcome::Grant(reason) | Outcome::Account(reason)) => {
                    return Found::Later(reason.text);
                }
                Err(_) => return Found::CannotTell("nobody could sign in".to_owned()),
            };
            let transcript = self.transcript.as_ref();
            let found = match &self.submit {
                Submit::Graph(graph) => graph.find(&login, message_id, transcript).await,
                Submit::Gmail(gmail) => gmail.find(&login, message_id, transcript).await,
                Submit::Smtp(_) | Submit::File(_) | Submit::StandIn(_) => {
                    return Found::CannotTell("nobody can be asked here".to_owned());
                }
            };
            match (found, token) {
                (Found::Unauthorized, Some(token)) if refused.is_none() => refused = Some(token),
                (Found::Unauthorized, _) => {
                    return Found::CannotTell("the token is refused, also after it was renewed".to_owned());
                }
                (found, _) => return found,
            }
        }
    }

    /// What the steps of an advice leave open.
    fn known(&self, from: &Address) -> Known {
        let mailbox = mailbox(&self.account, from);
        Known {
            provider: self.account.provider,
            values: known::of_account(&self.account, &mailbox, &from.to_string()),
        }
    }

    async fn submit(&self, login: &Login, parcel: &Parcel, gate: &dyn Gate) -> Report {
        match &self.submit {
            Submit::Smtp(smtp) => smtp.submit(login, parcel, gate, self.transcript.as_ref()).await,
            Submit::Graph(graph) => graph.submit(login, parcel, gate, self.transcript.as_ref()).await,
            Submit::Gmail(gmail) => gmail.submit(login, parcel, gate, self.transcript.as_ref()).await,
            Submit::File(folder) => file::submit(folder, parcel, gate).await,
            Submit::StandIn(stand_in) => stand_in.submit(&self.account.name, parcel, gate).await,
        }
    }

    /// The login for a mail from `from`; with `refused`, a token other than that.
    async fn login(
        &self,
        from: &Address,
        refused: Option<&AccessToken>,
    ) -> Result<(Login, Option<AccessToken>), Outcome> {
        if matches!(self.submit, Submit::StandIn(_)) {
            return Ok((Login::Anonymous, None));
        }
        match &self.account.credential {
            Credential::None => Ok((Login::Anonymous, None)),
            Credential::Password { user, secret } => match secret.read().await {
                Ok(secret) => Ok((
                    Login::Password {
                        user: user.clone(),
                        secret,
                    },
                    None,
                )),
                Err(error) => Err(Outcome::Account(unreadable(&error))),
            },
            Credential::OAuth2(_) => {
                let name = &self.account.name;
                let user = mailbox(&self.account, from);
                let token = match refused {
                    None => self.keeper.token_for(name, &user).await,
                    Some(refused) => self.keeper.renew_for(name, &user, refused).await,
                };
                let token = token.map_err(|error| match error {
                    // The account is fine: it is this mailbox that it may not speak for.
                    TokenError::NeedsPerson(reason) | TokenError::NeedsConfig(reason)
                        if self.keeper.is_apart(name, &user) =>
                    {
                        Outcome::Mail {
                            reason,
                            spreading: false,
                        }
                    }
                    TokenError::Transient { text, retry_after } => Outcome::Later {
                        reason: Reason::new(text),
                        after: retry_after,
                        everyone: true,
                    },
                    TokenError::NeedsPerson(reason) | TokenError::NeedsConfig(reason) => {
                        Outcome::Grant(reason)
                    }
                })?;
                Ok((
                    Login::Bearer {
                        user,
                        token: token.secret().clone(),
                    },
                    Some(token),
                ))
            }
        }
    }
}

fn unreadable(error: &SecretError) -> Reason {
    Reason {
        text: format!("the password cannot be read: {error}"),
        steps: vec![
            "Make the secret readable, then nothing else: waiting mails go by themselves.".to_owned(),
        ],
        ..Reason::default()
    }
}

fn is_passing(advice: &Advice) -> bool {
    matches!(advice.class, Class::Retry | Class::Throttle)
}

/// Whose servers they are, and what stands for the placeholders of the catalog's steps.
struct Known {
    provider: Provider,
    values: Values,
}

impl Known {
    fn advise(&self, symptom: &Symptom) -> Advice {
        advice::advise_with(symptom, self.provider, &self.values)
    }
}

/// Reads a report into what it asks for. Pure.
fn read(report: Report, envelope: &Envelope, known: &Known) -> Outcome {
    let symptom = report.verdict.symptom();
    let why = |symptom: &Symptom| known.advise(symptom).reason(symptom);
    match (report.verdict, symptom) {
        (Verdict::Accepted { reply }, _) => answered(Some(reply), report.recipients, known),
        (Verdict::GateClosed(closed), _) => Outcome::NotSent(closed.to_string()),
        (Verdict::Unreached { text, transient, .. }, symptom) => {
            let symptom = symptom.unwrap_or_default();
            let mut reason = why(&symptom);
            // What was tried and what happened says more than the catalog's general sentence.
            reason.text = text;
            reason.reply = None;
            if transient {
                Outcome::Later {
                    reason,
                    after: symptom.retry_after,
                    everyone: true,
                }
            } else {
                Outcome::Account(reason)
            }
        }
        (Verdict::Unknown { text }, symptom) => {
            let mut reason = symptom.map(|symptom| why(&symptom)).unwrap_or_default();
            reason.text = text;
            reason.reply = None;
            Outcome::Unknown(reason)
        }
        (Verdict::Refused(symptom), _) => {
            let mut recipients = report.recipients;
            // Whoever the server did not name shares the verdict of the whole.
            let passing = is_passing(&known.advise(&symptom));
            let unnamed: Vec<Address> = envelope
                .recipients()
                .iter()
                .filter(|address| !recipients.iter().any(|(named, _)| named == *address))
                .cloned()
                .collect();
            if recipients.is_empty() || !(unnamed.is_empty() || passing) {
                return refused(&symptom, known);
            }
            recipients.extend(
                unnamed
                    .into_iter()
                    .map(|address| (address, RecipientVerdict::Refused(symptom.clone()))),
            );
            answered(None, recipients, known)
        }
    }
}

fn answered(
    accepted: Option<String>,
    recipients: Vec<(Address, RecipientVerdict)>,
    known: &Known,
) -> Outcome {
    let (mut refused, mut later, mut after) = (Vec::new(), Vec::new(), None);
    for (address, verdict) in recipients {
        let RecipientVerdict::Refused(symptom) = verdict else {
            continue;
        };
        let advice = known.advise(&symptom);
        let why = advice.reason(&symptom);
        if is_passing(&advice) {
            after = after.max(symptom.retry_after);
            later.push((address, why));
        } else {
            refused.push((address, why));
        }
    }
    Outcome::Answered {
        accepted,
        refused,
        later,
        after,
    }
}

fn refused(symptom: &Symptom, known: &Known) -> Outcome {
    let advice = known.advise(symptom);
    let why = advice.reason(symptom);
    let before_the_mail = matches!(
        symptom.stage,
        Some(Stage::Authorize | Stage::Token | Stage::Connect | Stage::Tls | Stage::SmtpAuth)
    );
    let token_refused =
        matches!(symptom.stage, Some(Stage::Graph | Stage::Gmail)) && symptom.http_status == Some(401);
    match advice.class {
        // A token that is still refused after it was renewed is no matter of time, nor of this mail.
        _ if token_refused => Outcome::Account(why),
        Class::Retry => Outcome::Later {
            reason: why,
            after: symptom.retry_after,
            everyone: before_the_mail,
        },
        Class::Throttle => Outcome::Later {
            reason: why,
            after: symptom.retry_after,
            everyone: true,
        },
        _ if before_the_mail => Outcome::Account(why),
        Class::Reauthorize => Outcome::Account(why),
        Class::FixConfig | Class::FixPermission => Outcome::Mail {
            reason: why,
            spreading: symptom.code.is_some_and(|code| (400..500).contains(&code)),
        },
        Class::RejectRecipient | Class::RejectMessage => Outcome::Never(why),
    }
}
