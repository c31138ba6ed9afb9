//! One account's grant where it lies: in the store, sealed, behind a lock; and the case that tells
//! people of it.

use crate::clock::Clock;
use crate::entry::Reason;
use crate::oauth::plan;
use crate::oauth::token::TokenError;
use crate::oauth::vault::{Kept, Vault};
use crate::store::{NewCase, Store, StoreError};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// When to try again what the store did not do.
const SOON: Duration = Duration::from_secs(10);
/// How long another process may take for its renewal: two requests and their storing.
const OTHERS: Duration = Duration::from_secs(75);

/// Where one account's grant lies.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) vault: Arc<Vault>,
    pub(super) lock: PathBuf,
    pub(super) clock: Clock,
    /// What tells the tokens of these settings from those of others, where the account gets them by
    /// itself.
    pub(super) own: Option<String>,
    /// Whether its troubles are an account's: those of one mailbox among many are told of its mails.
    pub(super) tells: bool,
}

/// Why a grant was not written.
pub(super) enum Put {
    /// Somebody else wrote it since it was read.
    Stale,
    /// The store or the vault did not do it.
    Not(TokenError),
}

impl Record {
    /// Reads the grant. None at all needs a person, unless the account gets its tokens by itself:
    /// then there is an empty one, of no version yet.
    pub(super) async fn load(&self) -> Result<(Option<i64>, Kept), TokenError> {
        let grant = self
            .store
            .grant(&self.name)
            .await
            .map_err(|error| self.stored(&error))?;
        let Some(grant) = grant else {
            if let Some(own) = &self.own {
                return Ok((None, Kept::unattended(own)));
            }
            return Err(TokenError::NeedsPerson(Reason {
                text: format!("nobody has signed in for account `{}`", self.name),
                steps: vec![format!("Sign in: tidings auth login {}", self.name)],
                ..Reason::default()
            }));
        };
        let kept = self.vault.unseal(&self.name, &grant.sealed).map_err(|error| {
            let text = error.to_string();
            let (text, hint) = text.split_once("\n\nhint: ").unwrap_or((&text, ""));
            TokenError::NeedsConfig(Reason {
                text: text.to_owned(),
                steps: Some(hint.to_owned())
                    .filter(|hint| !hint.is_empty())
                    .into_iter()
                    .collect(),
                ..Reason::default()
            })
        })?;
        match &self.own {
            // Another client, other scopes, or a person's: not what these settings ask for.
            Some(own) if kept.client_id != *own => Ok((Some(grant.version), Kept::unattended(own))),
            _ => Ok((Some(grant.version), kept)),
        }
    }

    /// Writes the grant over the version that was read.
    pub(super) async fn put(&self, expected: Option<i64>, kept: &Kept) -> Result<i64, Put> {
        let sealed = self
            .vault
            .seal(&self.name, kept)
            .map_err(|error| Put::Not(self.transient(&error.to_string(), None)))?;
        match self.store.put_grant(&self.name, expected, sealed).await {
            Ok(version) => Ok(version),
            Err(StoreError::Stale { .. }) => Err(Put::Stale),
            Err(error) => Err(Put::Not(self.stored(&error))),
        }
    }

    /// Waits for the other processes' lock. `None`: it was not to be had in time.
    pub(super) async fn hold(&self, kept: &Kept) -> Result<Option<File>, TokenError> {
        let path = self.lock.clone();
        // Whoever has a token that works does not wait long for a better one.
        let works = plan::usable(plan::left(kept, self.clock.now()), kept.life);
        let patience = if works { Duration::from_secs(5) } else { OTHERS };
        let held = tokio::task::spawn_blocking(move || lock_within(&path, patience)).await;
        match held {
            Ok(Ok(lock)) => Ok(lock),
            Ok(Err(source)) => Err(self.transient(
                &format!("its lock file {} cannot be used: {source}", self.lock.display()),
                None,
            )),
            Err(_) => Err(self.transient("the program is stopping", None)),
        }
    }

    /// The key of the case about this grant. What the mail server says of the account has another:
    /// neither may end the other's.
    pub(super) fn case(&self) -> String {
        format!("account:{}", self.name)
    }

    /// Opens the case, or tells the open one why now.
    pub(super) async fn open_case(&self, reason: &Reason) {
        if !self.tells {
            return;
        }
        let case = NewCase {
            key: self.case(),
            kind: "account".to_owned(),
            subject: self.name.clone(),
            reason: reason.clone(),
        };
        if let Err(error) = self.store.open_case(case).await {
            tracing::error!(account = self.name, %error, "cannot tell about the account's trouble");
        }
    }

    /// Closes the case if it is open. Asked of the store each time: another process may have opened or
    /// closed it.
    pub(super) async fn close_case(&self) {
        if !self.tells {
            return;
        }
        let key = self.case();
        let closed = match self.store.open_cases().await {
            Ok(cases) if cases.iter().all(|case| case.key != key) => return,
            Ok(_) => self.store.close_case(&key).await,
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            tracing::error!(account = self.name, %error, "cannot close the account's trouble");
        }
    }

    /// Why there is no token just now.
    pub(super) fn transient(&self, text: &str, retry_after: Option<Duration>) -> TokenError {
        TokenError::Transient {
            text: format!("no token for account `{}`: {text}", self.name),
            retry_after,
        }
    }

    fn stored(&self, error: &StoreError) -> TokenError {
        self.transient(&error.to_string(), Some(SOON))
    }
}

fn lock_within(path: &std::path::Path, patience: Duration) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let until = std::time::Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
