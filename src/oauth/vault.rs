//! What is kept of a grant, sealed at rest.
//!
//! A grant is stored as ChaCha20-Poly1305 (RFC 8439) over its JSON, with a random nonce, bound to
//! the account's name: `version (1) | nonce (12) | ciphertext and tag`. Where the 32-byte key comes
//! from is for [`super::key`]. Who takes a backup of the store without it has no tokens.
//!
//! A key that does not fit is an error that names the way out; what it does not fit stays as it is.

use crate::config::secret::Secret;
use crate::entry::Reason;
use crate::oauth::grants::Identity;
use crate::oauth::key::{self, KeyError, KeySource, Surroundings};
use jiff::Timestamp;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// The format this version writes.
const VERSION: u8 = 1;

/// A grant: the right obtained, and how it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Presented to the mail server.
    #[serde(with = "text")]
    pub access: Secret,
    /// Renews it. `None`: when the access token ends, a person must sign in.
    #[serde(with = "maybe_text")]
    pub refresh: Option<Secret>,
    /// The refresh token before that, one generation, for an issuer that answers with a new one it
    /// then does not know. Tried only after the current one was refused twice.
    #[serde(with = "maybe_text")]
    pub previous: Option<Secret>,
    /// What was granted, as it must be asked for again.
    pub scopes: Vec<String>,
    /// Mostly `Bearer`.
    pub token_type: String,
    /// When a person consented.
    pub obtained: Timestamp,
    /// When the access token ends.
    pub expires: Timestamp,
    /// How long the access token lives from its birth.
    pub life: Duration,
    /// When it was last renewed; `obtained` at first.
    pub refreshed: Timestamp,
    /// A refresh was sent at that time, and its answer has not been stored. If it is still here when
    /// nobody refreshes, a crash fell between the two, and the server may have rotated the token.
    pub refresh_began: Option<Timestamp>,
    /// Who signed in.
    pub identity: Identity,
    /// The client it was granted to; no other can renew it.
    pub client_id: String,
    /// The application gets its tokens by itself: there is nothing to renew them with, and no need.
    #[serde(default)]
    pub unattended: bool,
    /// How it stands.
    pub standing: Standing,
    /// Passing failures since the last success.
    pub trouble: Option<Trouble>,
    /// A challenge of the last refusal, to be passed on at the next sign-in (Microsoft).
    pub claims: Option<String>,
    /// By how many seconds the server's clock was ahead of ours at the last refresh.
    pub skew: Option<i64>,
}

impl Kept {
    /// What there is of a grant that no person gives, before its first token. `mark` tells the tokens
    /// of these settings from those of others.
    pub fn unattended(mark: &str) -> Kept {
        Kept {
            access: Secret::new(""),
            refresh: None,
            previous: None,
            scopes: Vec::new(),
            token_type: String::new(),
            obtained: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
            life: Duration::ZERO,
            refreshed: Timestamp::UNIX_EPOCH,
            refresh_began: None,
            identity: Identity::default(),
            client_id: mark.to_owned(),
            unattended: true,
            standing: Standing::Valid,
            trouble: None,
            claims: None,
            skew: None,
        }
    }

    /// Whether there ever was a token.
    pub fn is_new(&self) -> bool {
        self.access.expose().is_empty()
    }
}

/// How a grant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// It renews itself. Left when a refresh is refused for good.
    Valid,
    /// A person must sign in or be allowed to. The tokens are kept and tried once an hour, since an
    /// administrator may mend it without us. Left by such a try, or a new sign-in.
    NeedsPerson {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Timestamp,
        /// When it was last tried.
        probed: Timestamp,
    },
    /// The settings, or the registration of the application, are wrong. Otherwise the same.
    NeedsConfig {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Timestamp,
        /// When it was last tried.
        probed: Timestamp,
    },
}

/// Failures that pass by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many in a row.
    pub failures: u32,
    /// Since when.
    pub since: Timestamp,
    /// Not tried again before this.
    pub not_before: Timestamp,
    /// The last one.
    pub reason: Reason,
}

/// What is wrong with the key or with what it should open.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key opens nothing here.
    #[error(
        "{from} does not open the grant of account `{account}`; nothing was changed\n\nhint: put the key that belongs to this state folder back; or give the grant up with `tidings auth logout {account}` and sign in again"
    )]
    Misfit {
        /// Where the key came from.
        from: KeySource,
        /// Whose grant.
        account: String,
    },
    /// A newer version wrote it.
    #[error(
        "the grant of account `{account}` is in format {version}, which this version does not know; nothing was changed\n\nhint: use the newer version of tidings again"
    )]
    Newer {
        /// Whose grant.
        account: String,
        /// Which format.
        version: u8,
    },
    /// No randomness, or a grant that cannot be written as JSON.
    #[error("cannot seal the grant of account `{account}`: {why}")]
    Seal {
        /// Whose grant.
        account: String,
        /// Why.
        why: String,
    },
}

/// Seals and opens grants.
pub struct Vault {
    source: KeySource,
    key: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens the vault of a state folder, which must be there. Makes its key at first; of two
    /// processes that do so at once, one wins and both use the same. Blocks on the disk.
    pub fn open(state: &Path) -> Result<Vault, VaultError> {
        Vault::with(state, &Surroundings::of_process())
    }

    /// As [`Vault::open`], with what else there is to find a key in.
    pub fn with(state: &Path, around: &Surroundings) -> Result<Vault, VaultError> {
        let (bytes, source) = key::find(state, around)?;
        let length = |_| KeyError::Length {
            from: source.clone(),
            len: bytes.len(),
        };
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(length)?;
        let random = SystemRandom::new();
        Ok(Vault {
            source,
            key: LessSafeKey::new(unbound),
            random,
        })
    }

    /// Where the key came from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// Seals a grant for an account. Twice the same gives different bytes.
    pub fn seal(&self, account: &str, kept: &Kept) -> Result<Vec<u8>, VaultError> {
        let fail = |why: &str| VaultError::Seal {
            account: account.to_owned(),
            why: why.to_owned(),
        };
        let mut nonce = [0_u8; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| fail("the system gives no random bytes"))?;
        let clear = Zeroizing::new(serde_json::to_vec(kept).map_err(|error| fail(&error.to_string()))?);
        // Room for the tag at once: growing would leave a clear copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(clear.len() + CHACHA20_POLY1305.tag_len()));
        bytes.extend_from_slice(&clear);
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(account)),
                &mut *bytes,
            )
            .map_err(|_| fail("it is too long"))?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&bytes);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for the same account under the same key.
    pub fn unseal(&self, account: &str, sealed: &[u8]) -> Result<Kept, VaultError> {
        let misfit = || VaultError::Misfit {
            from: self.source.clone(),
            account: account.to_owned(),
        };
        let (version, rest) = sealed.split_first().ok_or_else(misfit)?;
        if *version != VERSION {
            return Err(VaultError::Newer {
                account: account.to_owned(),
                version: *version,
            });
        }
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(misfit)?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let clear = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(bound(account)),
                &mut bytes,
            )
            .map_err(|_| misfit())?;
        serde_json::from_slice(clear).map_err(|_| misfit())
    }
}

/// What a sealed grant is bound to: moved to another account it does not open.
fn bound(account: &str) -> Vec<u8> {
    let mut bound = vec![VERSION];
    bound.extend_from_slice(b"tidings grant\0");
    bound.extend_from_slice(account.as_bytes());
    bound
}

mod text {
    use crate::config::secret::Secret;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

mod maybe_text {
    use crate::config::secret::Secret;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => serializer.serialize_some(secret.expose()),
            None => serializer.serialize_none(),
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn kept() -> Kept {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        Kept {
            access: Secret::new("canary-access"),
            refresh: Some(Secret::new("canary-refresh")),
            previous: None,
            scopes: vec!["mail".into()],
            token_type: "Bearer".into(),
            obtained: now,
            expires: now,
            life: Duration::from_secs(3600),
            refreshed: now,
            refresh_began: None,
            identity: Identity::default(),
            client_id: "tidings".into(),
            unattended: false,
            standing: Standing::NeedsPerson {
                reason: Reason::new("gone"),
                since: now,
                probed: now,
            },
            trouble: None,
            claims: None,
            skew: None,
        }
    }

    #[test]
    fn what_is_sealed_opens_again_and_hides_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::open(folder.path()).unwrap();
        let sealed = vault.seal("office", &kept()).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_ne!(sealed, vault.seal("office", &kept()).unwrap());
        let again = Vault::open(folder.path())
            .unwrap()
            .unseal("office", &sealed)
            .unwrap();
        assert_eq!(again.access.expose(), "canary-access");
        assert_eq!(again.refresh.unwrap().expose(), "canary-refresh");
        assert_eq!(again.standing, kept().standing);
    }

    #[test]
    fn another_account_another_key_or_a_changed_byte_does_not_open_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let vault = Vault::open(one.path()).unwrap();
        let sealed = vault.seal("office", &kept()).unwrap();
        assert!(matches!(
            vault.unseal("partner", &sealed),
            Err(VaultError::Misfit { .. })
        ));
        let other = Vault::open(two.path()).unwrap();
        let error = other.unseal("office", &sealed).unwrap_err().to_string();
        assert!(
            error.contains("nothing was changed") && error.contains("auth logout office"),
            "{error}"
        );
        for place in 1..sealed.len() {
            let mut broken = sealed.clone();
            broken[place] ^= 1;
            assert!(vault.unseal("office", &broken).is_err());
        }
        assert!(matches!(
            vault.unseal("office", &[2, 0]),
            Err(VaultError::Newer { .. })
        ));
        assert!(vault.unseal("office", &[]).is_err());
    }

    #[test]
    fn key_is_made_once_0600_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let vaults: Vec<Vault> = std::thread::scope(|scope| {
            let racing: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Vault::open(folder.path()).unwrap()))
                .collect();
            racing.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let sealed = vaults[0].seal("a", &kept()).unwrap();
        assert!(vaults.iter().all(|vault| vault.unseal("a", &sealed).is_ok()));
        let names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        let mut names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        names.sort();
        assert_eq!(names, ["key", "key.from"]);
        let mode = std::fs::metadata(folder.path().join("key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", kept()).contains("canary"));
    }
}
