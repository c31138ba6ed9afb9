//! What is kept of a grant, sealed at rest.
//!
//! A grant is stored as ChaCha20-Poly1305 (RFC 8439) over its JSON, with a random nonce, bound to
//! the account's name: `version (1) | nonce (12) | ciphertext and tag`. The 32-byte key is the file
//! `key` in the state folder, 0600, made once. Who takes a backup of the store without that file
//! has no tokens.
//!
//! A key that does not fit is an error that names the way out; what it does not fit stays as it is.

use crate::config::secret::Secret;
use crate::entry::Reason;
use crate::oauth::grants::Identity;
use jiff::Timestamp;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The format this version writes.
const VERSION: u8 = 1;
const KEY_LEN: usize = 32;

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
    /// The key file cannot be read or made.
    #[error("cannot use the key file {}: {source}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The key file is not 32 bytes.
    #[error("the key file {} has {len} bytes, not 32\n\nhint: put the right file back from a backup; or remove it and sign in again", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// What it has.
        len: usize,
    },
    /// The key opens nothing here.
    #[error("the key file {} does not open the grant of account `{account}`; nothing was changed\n\nhint: put the key file that belongs to this state folder back; or give the grant up with `tidings auth logout {account}` and sign in again", path.display())]
    Misfit {
        /// Which file.
        path: PathBuf,
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
    path: PathBuf,
    key: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens the vault of a state folder, which must be there. Makes its key at first; of two
    /// processes that do so at once, one wins and both use the same. Blocks on the disk.
    pub fn open(state: &Path) -> Result<Vault, VaultError> {
        let path = state.join("key");
        let broken = |source| VaultError::Key {
            path: path.clone(),
            source,
        };
        let random = SystemRandom::new();
        let bytes = match read_key(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_key(state, &path, &random).map_err(broken)?;
                read_key(&path)
            }
            other => other,
        }
        .map_err(broken)?;
        if bytes.len() != KEY_LEN {
            return Err(VaultError::Length {
                path,
                len: bytes.len(),
            });
        }
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| VaultError::Length {
            path: path.clone(),
            len: bytes.len(),
        })?;
        Ok(Vault {
            path,
            key: LessSafeKey::new(unbound),
            random,
        })
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
            path: self.path.clone(),
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

fn read_key(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "the key file could be read by others; made it 0600");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
    (&mut file).take(KEY_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Written beside and linked into place: nobody ever sees half a key, and who comes second finds it
/// taken.
fn make_key(state: &Path, path: &Path, random: &SystemRandom) -> std::io::Result<()> {
    let mut key = Zeroizing::new([0_u8; KEY_LEN]);
    let mut name = [0_u8; 8];
    let no_random = |_| std::io::Error::other("the system gives no random bytes");
    random.fill(&mut *key).map_err(no_random)?;
    random.fill(&mut name).map_err(no_random)?;
    let beside = state.join(format!("key.{:016x}", u64::from_be_bytes(name)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let made = file
        .write_all(&*key)
        .and_then(|()| file.sync_all())
        .and_then(|()| match std::fs::hard_link(&beside, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let removed = std::fs::remove_file(&beside);
    made?;
    removed?;
    File::open(state)?.sync_all()
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
        assert_eq!(names, ["key"]);
        let mode = std::fs::metadata(folder.path().join("key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn key_of_the_wrong_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "short").unwrap();
        assert!(matches!(
            Vault::open(folder.path()),
            Err(VaultError::Length { len: 5, .. })
        ));
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", kept()).contains("canary"));
    }
}
