//! The token keeper: looks after every account's grant, also when no mail is due.
//!
//! Waits for: the next grant that is due, somebody who wants a token, a change of the store by
//! another process (looked for at least once a minute). Owns: the state folder's `key` and
//! `locks/grant-*.lock`. Woken by nobody: a caller of [`Keeper::token`] does its own renewal when
//! the keeper has not. When it stops it lets a renewal that is on the wire finish.
//!
//! ```text
//!                   renewed                            sign-in, or a probe once an hour succeeds
//!   signed out --login--> valid --refused for good--> needs a person / needs configuration --+
//!                           ^  \--passing failure--> valid, with trouble: waits, then again  |
//!                           +----------------------------------------------------------------+
//! ```
//!
//! A grant is never dropped because a renewal failed. Whatever fails, an access token that still
//! works is handed out. An account that needs somebody has an open case `account:NAME`.

use crate::clock::Clock;
use crate::config::scopes;
use crate::config::settings::{Grant, OAuth2};
use crate::entry::Reason;
use crate::http::way::HttpError;
use crate::oauth::grants::{Client, Identity};
use crate::oauth::holder::Holder;
use crate::oauth::jwt;
use crate::oauth::key::KeySource;
use crate::oauth::plan::{self, Want, after, signed};
use crate::oauth::proof;
use crate::oauth::record::{Put, Record};
use crate::oauth::refusal::Failure;
use crate::oauth::token::{AccessToken, TokenError};
use crate::oauth::vault::{Kept, Standing, Trouble, Vault, VaultError};
use crate::store::{Store, StoreError};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time between two looks at the store.
const LOOK: Duration = Duration::from_secs(60);

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The folder of the locks.
    #[error("cannot make the folder {}: {source}", path.display())]
    Locks {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// An account's way to its servers.
    #[error("account `{account}`: {source}")]
    Account {
        /// Which.
        account: String,
        /// What is wrong.
        source: HttpError,
    },
}

/// Why a grant could not be stored or given back.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The settings have no such account, or it does not use OAuth2.
    #[error("there is no account `{0}` with OAuth2")]
    Unknown(String),
    /// The grant cannot be read, locked or written.
    #[error(transparent)]
    Token(Box<TokenError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TokenError> for KeepError {
    fn from(error: TokenError) -> KeepError {
        KeepError::Token(Box::new(error))
    }
}

/// How a grant stands, for people. Holds no secret.
#[derive(Clone, Debug, Serialize)]
pub struct GrantStatus {
    /// The account's name.
    pub account: String,
    /// `valid`, `signed_out`, `needs_person`, `needs_config`, or `unreadable` (key or store).
    pub state: &'static str,
    /// The grant works as far as anybody knows: `valid`, and its last renewal succeeded or its
    /// access token still lives.
    pub verified: bool,
    /// Since when it stands so.
    pub since: Option<Timestamp>,
    /// Why it does not work.
    pub reason: Option<Reason>,
    /// When the access token ends, or ended.
    pub access_expires: Option<Timestamp>,
    /// When a person consented: the age of the grant.
    pub obtained: Option<Timestamp>,
    /// When it was last renewed.
    pub refreshed: Option<Timestamp>,
    /// Whether it can renew itself at all.
    pub renewable: bool,
    /// Who signed in.
    pub signed_in: Option<Identity>,
    /// The account gets its tokens by itself: nobody signs in.
    pub unattended: bool,
    /// What was granted.
    pub scopes: Vec<String>,
    /// What the account needs and its token does not name. It may be allowed elsewhere, as with the
    /// application roles of Exchange.
    pub lacking: Vec<String>,
    /// Passing failures since the last renewal.
    pub trouble: Option<Trouble>,
    /// By how many seconds the server's clock is ahead of ours.
    pub skew: Option<i64>,
    /// When the newest client secret ends, as the settings say; or the newest certificate, as it says
    /// itself.
    pub secret_expires: Option<Date>,
}

/// Looks after grants. One a process.
#[derive(Debug)]
pub struct Keeper {
    holders: BTreeMap<String, Arc<Holder>>,
    /// Those of further mailboxes, by account and mailbox, where a grant has one token for each.
    mailboxes: Mutex<BTreeMap<(String, String), Arc<Holder>>>,
    vault: Arc<Vault>,
    clock: Clock,
}

impl Keeper {
    /// Opens the vault of the state folder and prepares each account; asks no server yet.
    pub async fn open(
        accounts: Vec<(String, OAuth2)>,
        store: Store,
        state: &Path,
        clock: Clock,
    ) -> Result<Arc<Keeper>, KeeperError> {
        let locks = state.join("locks");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&locks)
            .map_err(|source| KeeperError::Locks {
                path: locks.clone(),
                source,
            })?;
        let vault = Arc::new(Vault::open(state)?);
        let mut holders = BTreeMap::new();
        for (name, settings) in accounts {
            let mailbox = speaks_for(&settings);
            let client = Client::new(settings, clock.clone()).map_err(|source| KeeperError::Account {
                account: name.clone(),
                source,
            })?;
            let record = Record {
                name: name.clone(),
                store: store.clone(),
                vault: vault.clone(),
                lock: locks.join(format!("grant-{}.lock", file_name(&name))),
                clock: clock.clone(),
                own: own(&client, mailbox.as_deref()),
                tells: true,
            };
            let holder = Holder::new(record, Arc::new(client), mailbox);
            holders.insert(name, Arc::new(holder));
        }
        Ok(Arc::new(Keeper {
            holders,
            mailboxes: Mutex::default(),
            vault,
            clock,
        }))
    }

    /// As [`Keeper::token`], for a mail out of that mailbox: some grants have one token for each.
    pub async fn token_for(&self, account: &str, mailbox: &str) -> Result<AccessToken, TokenError> {
        let holder = self.holder_for(account, mailbox)?;
        holder.hand.mark_used();
        match holder.hand.ready() {
            Some(token) => Ok(token),
            None => obtain(&holder, Want::Life).await,
        }
    }

    /// As [`Keeper::renew`], for a mail out of that mailbox.
    pub async fn renew_for(
        &self,
        account: &str,
        mailbox: &str,
        refused: &AccessToken,
    ) -> Result<AccessToken, TokenError> {
        let holder = self.holder_for(account, mailbox)?;
        holder.hand.mark_used();
        obtain(&holder, Want::Instead(refused.secret().clone())).await
    }

    /// Whether the token of that mailbox is one of its own, and not the account's.
    pub fn is_apart(&self, account: &str, mailbox: &str) -> bool {
        self.holders.get(account).is_some_and(|holder| {
            matches!(holder.client.settings().grant, Grant::JwtBearer(_))
                && speaks_for(holder.client.settings()).is_none_or(|own| !own.eq_ignore_ascii_case(mailbox))
        })
    }

    fn holder_for(&self, account: &str, mailbox: &str) -> Result<Arc<Holder>, TokenError> {
        let main = self.holder(account)?;
        if !self.is_apart(account, mailbox) {
            return Ok(main.clone());
        }
        let mailbox = mailbox.to_lowercase();
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = mailboxes
            .entry((account.to_owned(), mailbox.clone()))
            .or_insert_with(|| {
                // An account's name has no space in it, so no two share a record.
                let name = format!("{account} {mailbox}");
                let record = Record {
                    lock: main
                        .record
                        .lock
                        .with_file_name(format!("grant-{}.lock", file_name(&name))),
                    name,
                    store: main.record.store.clone(),
                    vault: main.record.vault.clone(),
                    clock: self.clock.clone(),
                    own: own(&main.client, Some(&mailbox)),
                    tells: false,
                };
                Arc::new(Holder::new(record, main.client.clone(), Some(mailbox)))
            });
        Ok(holder.clone())
    }

    /// A token with enough life left for a session: more than the margin, or, where renewing fails,
    /// one that still works. Callers that come at once share one renewal.
    pub async fn token(&self, account: &str) -> Result<AccessToken, TokenError> {
        let holder = self.holder(account)?;
        holder.hand.mark_used();
        match holder.hand.ready() {
            Some(token) => Ok(token),
            None => obtain(holder, Want::Life).await,
        }
    }

    /// A token other than one a server refused: what somebody renewed meanwhile, or renewed now.
    /// More often than once a minute the same one comes back: the fault is not in the token then.
    pub async fn renew(&self, account: &str, refused: &AccessToken) -> Result<AccessToken, TokenError> {
        let holder = self.holder(account)?;
        holder.hand.mark_used();
        obtain(holder, Want::Instead(refused.secret().clone())).await
    }

    /// Renews now, whatever the time and however it stands: a person asks.
    pub async fn refresh(&self, account: &str) -> Result<AccessToken, TokenError> {
        obtain(self.holder(account)?, Want::Now).await
    }

    /// Looks at every grant once and renews what is due. For a worker that does not stay, and the
    /// body of [`Keeper::run`]. Returns when to look again.
    pub async fn look(&self) -> Timestamp {
        let mut looks: JoinSet<Timestamp> = self.all().into_iter().map(Holder::tend).collect();
        let mut next = after(self.clock.now(), signed(LOOK));
        while let Some(due) = looks.join_next().await {
            next = due.map_or(next, |due| next.min(due));
        }
        next.max(after(self.clock.now(), signed(Duration::from_secs(1))))
    }

    /// Keeps all grants alive until told to stop, then lets what is on the wire finish.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => break,
                next = self.look() => next,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep_until(next) => {}
            }
        }
        self.quiet().await;
    }

    /// Waits for renewals under way, for whoever ends without [`Keeper::run`].
    pub async fn quiet(&self) {
        for holder in self.all() {
            holder.quiet().await;
        }
    }

    fn all(&self) -> Vec<Arc<Holder>> {
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        self.holders.values().chain(mailboxes.values()).cloned().collect()
    }

    /// How an account's grant stands, as the store knows it.
    pub async fn status(&self, account: &str) -> GrantStatus {
        let mut status = GrantStatus {
            account: account.to_owned(),
            state: "signed_out",
            verified: false,
            since: None,
            reason: None,
            access_expires: None,
            obtained: None,
            refreshed: None,
            renewable: false,
            signed_in: None,
            unattended: false,
            scopes: Vec::new(),
            lacking: Vec::new(),
            trouble: None,
            skew: None,
            secret_expires: None,
        };
        let loaded = match self.holder(account) {
            Ok(holder) => {
                let settings = holder.client.settings();
                status.secret_expires = match settings.secret_expires {
                    Some(date) => Some(date),
                    None => proof::ends(&settings.proofs)
                        .await
                        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date()),
                };
                holder.record.load().await.map(|(_, kept)| (holder, kept))
            }
            Err(error) => Err(error),
        };
        let (holder, kept) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                (status.state, status.reason) = match error {
                    TokenError::NeedsPerson(reason) => ("signed_out", Some(reason)),
                    TokenError::NeedsConfig(reason) => ("unreadable", Some(reason)),
                    TokenError::Transient { text, .. } => ("unreadable", Some(Reason::new(text))),
                };
                return status;
            }
        };
        let now = self.clock.now();
        status.unattended = kept.unattended;
        if kept.is_new() && kept.trouble.is_none() && kept.standing == Standing::Valid {
            status.state = "not_asked";
            status.renewable = true;
            return status;
        }
        let (state, since, reason) = match &kept.standing {
            Standing::Valid if kept.is_new() => ("valid", now, None),
            Standing::Valid => ("valid", kept.obtained, None),
            Standing::NeedsPerson { reason, since, .. } => ("needs_person", *since, Some(reason.clone())),
            Standing::NeedsConfig { reason, since, .. } => ("needs_config", *since, Some(reason.clone())),
        };
        status.state = state;
        status.since = Some(since);
        status.reason = reason;
        // What only shows when a token is wanted: another client, no refresh token.
        if kept.standing == Standing::Valid {
            let wanted = Want::Life;
            let decided = plan::decide(&kept, &wanted, holder.own(), account, now);
            if let plan::Decision::Person(reason) = decided {
                status.state = "needs_person";
                status.since = Some(kept.expires);
                status.reason = Some(reason);
            }
        }
        let lives = !plan::left(&kept, now).is_zero();
        status.verified = status.state == "valid" && (kept.trouble.is_none() || lives);
        if !kept.is_new() {
            status.access_expires = Some(kept.expires);
            status.obtained = Some(kept.obtained).filter(|_| !kept.unattended);
            status.refreshed = Some(kept.refreshed);
        }
        status.renewable = kept.refresh.is_some() || kept.unattended;
        status.lacking = lacking(holder.client.settings(), &kept);
        status.signed_in = Some(kept.identity).filter(|identity| *identity != Identity::default());
        status.scopes = kept.scopes;
        status.trouble = kept.trouble;
        status.skew = kept.skew;
        status
    }

    /// The client of an account, for a sign-in.
    pub fn client(&self, account: &str) -> Option<&Client> {
        self.holders.get(account).map(|holder| &*holder.client)
    }

    /// Where the key comes from that grants are sealed with.
    pub fn sealed_with(&self) -> &KeySource {
        self.vault.source()
    }

    /// A grant as it is kept, for another host. Accounts that get their tokens by themselves have none.
    pub async fn grant(&self, account: &str) -> Result<Option<Kept>, KeepError> {
        let holder = self.known(account)?;
        if holder.client.settings().unattended() {
            return Ok(None);
        }
        match holder.record.load().await {
            Ok((_, kept)) => Ok(Some(kept)),
            Err(TokenError::NeedsPerson(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A challenge that the next sign-in of an account must carry.
    pub async fn claims(&self, account: &str) -> Option<String> {
        let (_, kept) = self.holder(account).ok()?.record.load().await.ok()?;
        kept.claims
    }

    /// Whether a new grant could be stored: the old one, if there is one, can be read.
    pub async fn storable(&self, account: &str) -> Result<(), TokenError> {
        match self.holder(account)?.record.load().await {
            Ok(_) | Err(TokenError::NeedsPerson(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores what a sign-in brought, over whatever was there; closes the account's case.
    pub async fn keep(&self, account: &str, kept: &Kept) -> Result<(), KeepError> {
        let holder = self.known(account)?;
        let lock = holder.record.hold(kept).await?;
        loop {
            let expected = match holder.record.load().await {
                Ok((version, _)) => version,
                Err(TokenError::NeedsPerson(_)) => None,
                Err(error) => return Err(error.into()),
            };
            match holder.record.put(expected, kept).await {
                Ok(_) => break,
                Err(Put::Stale) => {}
                Err(Put::Not(error)) => return Err(error.into()),
            }
        }
        drop(lock);
        holder.hand.forget();
        // Also where no case is open: its mails may wait for one that could not be opened.
        holder.record.store.close_case(&holder.record.case()).await?;
        Ok(())
    }

    /// Gives a grant back where the provider has an address for that, then deletes it, whatever
    /// the provider said. `Ok(None)`: there was none. Otherwise what became of the revocation.
    pub async fn forget(&self, account: &str) -> Result<Option<Result<bool, Failure>>, KeepError> {
        let holder = self.known(account)?;
        let Some(grant) = holder.record.store.grant(account).await? else {
            return Ok(None);
        };
        let revoked = match holder.record.vault.unseal(account, &grant.sealed) {
            Ok(kept) => {
                // The refresh token carries the grant; without one the access token is all there is.
                holder
                    .client
                    .revoke(kept.refresh.as_ref().unwrap_or(&kept.access))
                    .await
            }
            Err(error) => Err(Failure::Setting(error.to_string())),
        };
        let mut version = grant.version;
        loop {
            match holder.record.store.delete_grant(account, Some(version)).await {
                Ok(_) => break,
                Err(StoreError::Stale { .. }) => match holder.record.store.grant(account).await? {
                    Some(grant) => version = grant.version,
                    None => break,
                },
                Err(error) => return Err(error.into()),
            }
        }
        holder.hand.forget();
        Ok(Some(revoked))
    }

    fn known(&self, account: &str) -> Result<&Arc<Holder>, KeepError> {
        self.holders
            .get(account)
            .ok_or_else(|| KeepError::Unknown(account.to_owned()))
    }

    fn holder(&self, account: &str) -> Result<&Arc<Holder>, TokenError> {
        self.holders.get(account).ok_or_else(|| {
            TokenError::NeedsConfig(Reason::new(format!(
                "there is no account `{account}` with OAuth2"
            )))
        })
    }
}

/// Whom the account's own token speaks for, where its grant has one a mailbox.
fn speaks_for(settings: &OAuth2) -> Option<String> {
    match settings.grant {
        Grant::JwtBearer(_) => settings.login_hint.clone(),
        _ => None,
    }
}

fn own(client: &Client, mailbox: Option<&str>) -> Option<String> {
    client.settings().unattended().then(|| client.mark(mailbox))
}

/// What the account needs and its token, where it says anything about that, does not name.
fn lacking(settings: &OAuth2, kept: &Kept) -> Vec<String> {
    if kept.unattended {
        let named = jwt::rights(kept.access.expose());
        return named
            .map(|named| scopes::lacking(&settings.roles, &named))
            .unwrap_or_default();
    }
    scopes::lacking(&settings.scopes, &kept.scopes)
}

/// In a task of its own: a caller that goes away in the middle must not take the answer with it.
async fn obtain(holder: &Arc<Holder>, want: Want) -> Result<AccessToken, TokenError> {
    let own = holder.clone();
    match tokio::spawn(async move { own.obtain(want).await }).await {
        Ok(result) => result,
        Err(_) => Err(holder.record.transient("the program is stopping", None)),
    }
}

/// An account's name as part of a file's: what is not plain becomes `%XX`.
fn file_name(account: &str) -> String {
    account
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_of_any_account_stays_in_its_folder() {
        assert_eq!(file_name("office-2"), "office-2");
        assert_eq!(file_name("../a/b"), "%2E%2E%2Fa%2Fb");
    }
}
