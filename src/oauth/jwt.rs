//! JSON Web Tokens: signed with an RSA key of ours (RFC 7515, 7518 3.3 and 3.5), or read without
//! being believed.

use crate::config::secret::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256: what Microsoft asks for today.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256: what everybody takes.
    Rs256,
}

/// A private key of ours. Does not print.
pub struct Signer(RsaKeyPair);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// The RSA key of a PEM text, PKCS#8 or PKCS#1. The error says what is wrong with it and
    /// repeats nothing.
    pub fn read(pem: &Secret) -> Result<Signer, String> {
        let text = pem.expose();
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(
                "its key is encrypted; store it decrypted where only tidings may read: openssl pkey -in FILE -out FILE.key"
                    .to_owned(),
            );
        }
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "there is no PRIVATE KEY block in it".to_owned())?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("its key is not RSA, and only that is taken for this".to_owned()),
        };
        pair.map(Signer).map_err(|error| {
            format!("its key cannot be used ({error}); RSA with 2048 to 4096 bits is needed")
        })
    }

    /// The public half, as PKCS#1.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// Signs `claims`; `header` besides `alg` and `typ`.
    pub fn sign(
        &self,
        algorithm: Algorithm,
        header: &Map<String, Value>,
        claims: &Value,
    ) -> Result<Secret, String> {
        let mut header = header.clone();
        let name = match algorithm {
            Algorithm::Ps256 => "PS256",
            Algorithm::Rs256 => "RS256",
        };
        header.insert("alg".to_owned(), json!(name));
        header.insert("typ".to_owned(), json!("JWT"));
        let head = BASE64.encode(Value::Object(header).to_string());
        let text = format!("{head}.{}", BASE64.encode(claims.to_string()));
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = SystemRandom::new();
        let signed = match algorithm {
            Algorithm::Ps256 => self
                .0
                .sign(&RSA_PSS_SHA256, &random, text.as_bytes(), &mut signature),
            Algorithm::Rs256 => self
                .0
                .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature),
        };
        signed.map_err(|_| "the key does not sign".to_owned())?;
        Ok(Secret::new(format!("{text}.{}", BASE64.encode(signature))))
    }
}

/// An identifier nobody guesses, for `jti`.
pub fn unique() -> Result<String, String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(BASE64.encode(bytes))
}

/// What a token says, not verified. Nothing where it is no JWT.
pub fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    let bytes = BASE64.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The roles and scopes an access token names, for diagnosis only: it belongs to its server, and
/// many are no JWT at all.
pub fn rights(token: &str) -> Option<Vec<String>> {
    let claims = claims(token)?;
    let mut rights: Vec<String> = Vec::new();
    if let Some(Value::Array(roles)) = claims.get("roles") {
        rights.extend(roles.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    if let Some(Value::String(scopes)) = claims.get("scp") {
        rights.extend(scopes.split_whitespace().map(str::to_owned));
    }
    Some(rights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    const KEY: &str = include_str!("../../tests/fixtures/keys/one.key");

    fn signer() -> Signer {
        Signer::read(&Secret::new(KEY)).unwrap()
    }

    #[test]
    fn what_is_signed_either_way_is_what_the_public_key_confirms() {
        let signer = signer();
        for algorithm in [Algorithm::Ps256, Algorithm::Rs256] {
            let token = signer
                .sign(algorithm, &Map::new(), &json!({ "iss": "tidings" }))
                .unwrap();
            let (text, signature) = token.expose().rsplit_once('.').unwrap();
            let signature = BASE64.decode(signature).unwrap();
            let verified = match algorithm {
                Algorithm::Ps256 => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, signer.public())
                    .verify(text.as_bytes(), &signature),
                Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, signer.public())
                    .verify(text.as_bytes(), &signature),
            };
            assert!(verified.is_ok());
            assert_eq!(claims(token.expose()).unwrap()["iss"], "tidings");
        }
    }

    #[test]
    fn keys_that_cannot_sign_say_why_and_repeat_nothing() {
        let read = |text: &str| Signer::read(&Secret::new(text)).unwrap_err();
        assert!(read("canary").contains("no PRIVATE KEY"));
        assert!(read("-----BEGIN ENCRYPTED PRIVATE KEY-----\n").contains("encrypted"));
        let ec = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let text = read(&ec);
        assert!(text.contains("RSA"), "{text}");
    }

    #[test]
    fn rights_are_roles_and_scopes_of_a_token_that_is_a_jwt() {
        let token = |claims: &Value| format!("e30.{}.", BASE64.encode(claims.to_string()));
        assert_eq!(
            rights(&token(
                &json!({ "roles": ["SMTP.SendAsApp"], "scp": "Mail.Send" })
            ))
            .unwrap(),
            ["SMTP.SendAsApp", "Mail.Send"]
        );
        assert_eq!(rights(&token(&json!({}))), Some(vec![]));
        assert_eq!(rights("opaque"), None);
    }
}
