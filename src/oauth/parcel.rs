//! Grants on their way to another host, sealed with a passphrase.
//!
//! The passphrase becomes a key with Argon2id (RFC 9106), the grants are sealed as in the vault
//! (ChaCha20-Poly1305) and bound to all that stands in the clear beside them. What is asked of
//! Argon2 stands in the parcel, within limits: nobody's parcel makes us use up the machine.

use crate::config::secret::Secret;
use crate::oauth::vault::Kept;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const FORMAT: &str = "tidings grants 1";
/// RFC 9106 4, the second choice: 64 MiB, three passes.
const MEMORY: u32 = 65_536;
const PASSES: u32 = 3;
/// Most that is taken from a parcel.
const MOST_MEMORY: u32 = 1_048_576;
const MOST_PASSES: u32 = 20;
const SALT: usize = 16;
/// Shorter passphrases are guessed.
const SHORTEST: usize = 12;

/// Why a parcel was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    /// It would be guessed.
    #[error(
        "the passphrase has less than {SHORTEST} characters\n\nhint: several words that have nothing to do with each other"
    )]
    Short,
    /// It is none of ours.
    #[error("this is no export of grants, or of a newer version ({0})")]
    Foreign(&'static str),
    /// Another passphrase, or not what was sealed.
    #[error("the passphrase does not open it, or it was changed on its way")]
    Shut,
    /// The machine.
    #[error("cannot seal or open it: {0}")]
    Machine(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parcel {
    format: String,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    nonce: String,
    accounts: Vec<String>,
    sealed: String,
}

impl Parcel {
    /// All that stands in the clear, which nobody may change.
    fn clear(&self) -> Vec<u8> {
        let accounts = self.accounts.join("\n");
        format!(
            "{}\n{}\n{}\n{}\n{}\n{accounts}",
            self.format, self.kdf, self.memory_kib, self.passes, self.salt
        )
        .into_bytes()
    }

    fn key(&self, passphrase: &Secret, salt: &[u8]) -> Result<LessSafeKey, ParcelError> {
        let machine = |error: argon2::Error| ParcelError::Machine(error.to_string());
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).map_err(machine)?;
        let mut key = Zeroizing::new([0_u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), salt, &mut *key)
            .map_err(machine)?;
        UnboundKey::new(&CHACHA20_POLY1305, &*key)
            .map(LessSafeKey::new)
            .map_err(|_| ParcelError::Machine("the key cannot be used".to_owned()))
    }
}

/// Seals grants by account. Takes a part of a second and 64 MiB; not for a thread that others wait for.
pub fn seal(passphrase: &Secret, grants: &BTreeMap<String, Kept>) -> Result<String, ParcelError> {
    if passphrase.expose().chars().count() < SHORTEST {
        return Err(ParcelError::Short);
    }
    let machine = |text: &str| ParcelError::Machine(text.to_owned());
    let random = SystemRandom::new();
    let (mut salt, mut nonce) = ([0_u8; SALT], [0_u8; NONCE_LEN]);
    random
        .fill(&mut salt)
        .and_then(|()| random.fill(&mut nonce))
        .map_err(|_| machine("the system gives no random bytes"))?;
    let mut parcel = Parcel {
        format: FORMAT.to_owned(),
        kdf: "argon2id".to_owned(),
        memory_kib: MEMORY,
        passes: PASSES,
        salt: BASE64.encode(salt),
        nonce: BASE64.encode(nonce),
        accounts: grants.keys().cloned().collect(),
        sealed: String::new(),
    };
    let clear = Zeroizing::new(serde_json::to_vec(grants).map_err(|error| machine(&error.to_string()))?);
    let mut bytes = Zeroizing::new(Vec::with_capacity(clear.len() + CHACHA20_POLY1305.tag_len()));
    bytes.extend_from_slice(&clear);
    parcel
        .key(passphrase, &salt)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(parcel.clear()),
            &mut *bytes,
        )
        .map_err(|_| machine("it is too long"))?;
    parcel.sealed = BASE64.encode(&*bytes);
    serde_json::to_string_pretty(&parcel).map_err(|error| machine(&error.to_string()))
}

/// Opens what [`seal`] made.
pub fn open(passphrase: &Secret, text: &str) -> Result<BTreeMap<String, Kept>, ParcelError> {
    let parcel: Parcel = serde_json::from_str(text).map_err(|_| ParcelError::Foreign("it cannot be read"))?;
    if parcel.format != FORMAT || parcel.kdf != "argon2id" {
        return Err(ParcelError::Foreign("its format is not known"));
    }
    if parcel.memory_kib > MOST_MEMORY || parcel.passes > MOST_PASSES {
        return Err(ParcelError::Foreign("it asks for too much memory or time"));
    }
    let plain = |text: &str| BASE64.decode(text).map_err(|_| ParcelError::Shut);
    let (salt, nonce) = (plain(&parcel.salt)?, plain(&parcel.nonce)?);
    let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| ParcelError::Shut)?;
    let mut bytes = Zeroizing::new(plain(&parcel.sealed)?);
    let key = parcel.key(passphrase, &salt)?;
    let clear = key
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(parcel.clear()),
            &mut bytes,
        )
        .map_err(|_| ParcelError::Shut)?;
    serde_json::from_slice(clear).map_err(|_| ParcelError::Foreign("its grants cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> BTreeMap<String, Kept> {
        let kept = Kept {
            access: Secret::new("canary-access"),
            refresh: Some(Secret::new("canary-refresh")),
            ..Kept::unattended("tidings")
        };
        [("office".to_owned(), kept)].into_iter().collect()
    }

    fn phrase(text: &str) -> Secret {
        Secret::new(text)
    }

    #[test]
    fn sealed_grants_open_with_their_passphrase_only_and_show_no_token() {
        let text = seal(&phrase("seven plain bananas"), &grants()).unwrap();
        assert!(!text.contains("canary") && text.contains("office"));
        let again = open(&phrase("seven plain bananas"), &text).unwrap();
        assert_eq!(
            again["office"].refresh.as_ref().unwrap().expose(),
            "canary-refresh"
        );
        assert!(matches!(
            open(&phrase("seven plain banana"), &text),
            Err(ParcelError::Shut)
        ));
        let renamed = text.replace("\"office\"", "\"other\"");
        assert!(matches!(
            open(&phrase("seven plain bananas"), &renamed),
            Err(ParcelError::Shut)
        ));
    }

    #[test]
    fn short_passphrases_and_greedy_parcels_are_refused() {
        assert!(matches!(
            seal(&phrase("hunter2"), &grants()),
            Err(ParcelError::Short)
        ));
        let text = seal(&phrase("seven plain bananas"), &grants()).unwrap();
        let greedy = text.replace("65536", "4000000000");
        assert!(matches!(
            open(&phrase("x"), &greedy),
            Err(ParcelError::Foreign(_))
        ));
        assert!(matches!(open(&phrase("x"), "{}"), Err(ParcelError::Foreign(_))));
    }
}
