//! Who we are to a token endpoint: a secret, a signed assertion (RFC 7523 2.2), or one that somebody
//! else signed for us.
//!
//! All of it is read anew for every request, so that what was changed takes effect, and goes
//! form-encoded into the body (providers take it there, and a secret with `~ + /` survives). Where
//! two are given, as during a change of secrets, the first is the newer and is tried first; the
//! other only when the server does not know the client by the first.

use crate::config::certificate::Certificate;
use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::{CertificateFiles, Proof};
use crate::oauth::jwt::{Algorithm, Signer, unique};
use crate::oauth::refusal::Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, json};

/// The assertion is somebody's word about the client.
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion of ours is good.
const LIFE: SignedDuration = SignedDuration::from_mins(10);

/// What an assertion says besides who we are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion<'a> {
    /// Who we are to the provider.
    pub(super) client_id: &'a str,
    /// Whom it is for.
    pub(super) audience: &'a str,
    /// Now, by the server's clock as far as it is known.
    pub(super) now: Timestamp,
    /// How to sign.
    pub(super) algorithm: Algorithm,
}

/// The fields that prove it.
pub(super) async fn fields(
    proof: &Proof,
    occasion: Occasion<'_>,
) -> Result<Vec<(&'static str, Secret)>, Failure> {
    match proof {
        Proof::Secret(source) => {
            let secret = read(source, "the client secret").await?;
            Ok(vec![("client_secret", secret)])
        }
        Proof::Assertion(source) => {
            let token = read(source, "the client assertion").await?;
            Ok(assertion(Secret::new(token.expose().trim())))
        }
        Proof::Certificate(files) => {
            let (certificate, signer) = open(files).await?;
            let token = signed(&certificate, &signer, occasion).map_err(Failure::Setting)?;
            Ok(assertion(token))
        }
    }
}

fn assertion(token: Secret) -> Vec<(&'static str, Secret)> {
    vec![
        ("client_assertion_type", Secret::new(JWT_ASSERTION)),
        ("client_assertion", token),
    ]
}

fn signed(certificate: &Certificate, signer: &Signer, occasion: Occasion<'_>) -> Result<Secret, String> {
    let mut header = Map::new();
    header.insert("x5t#S256".to_owned(), json!(certificate.sha256()));
    if occasion.algorithm == Algorithm::Rs256 {
        // Servers that know no PSS mostly know no other fingerprint either.
        header.insert("x5t".to_owned(), json!(certificate.sha1()));
    }
    let until = occasion
        .now
        .saturating_add(LIFE)
        .unwrap_or(Timestamp::MAX)
        .as_second();
    let claims = json!({
        "iss": occasion.client_id,
        "sub": occasion.client_id,
        "aud": occasion.audience,
        "jti": unique()?,
        "iat": occasion.now.as_second(),
        "nbf": occasion.now.as_second(),
        "exp": until,
    });
    signer.sign(occasion.algorithm, &header, &claims)
}

/// Reads a certificate and its key. What stands in the way is a problem of the setup.
pub async fn open(files: &CertificateFiles) -> Result<(Certificate, Signer), Failure> {
    let wrong = |path: &std::path::Path, why: String| {
        Failure::Setting(format!(
            "cannot sign in with the certificate {}: {why}",
            path.display()
        ))
    };
    let pem = read(&SecretSource::File(files.cert.clone()), "the certificate").await?;
    let certificate = Certificate::read(pem.expose()).map_err(|why| wrong(&files.cert, why))?;
    let key = read(&SecretSource::File(files.key.clone()), "the certificate's key").await?;
    let signer = Signer::read(&key).map_err(|why| wrong(&files.key, why))?;
    if signer.public() != certificate.key() {
        return Err(wrong(
            &files.cert,
            format!(
                "the key in {} belongs to another certificate",
                files.key.display()
            ),
        ));
    }
    Ok((certificate, signer))
}

/// When the newest proof of a client ends, where that can be seen: a certificate knows it.
pub async fn ends(proofs: &[Proof]) -> Option<Timestamp> {
    let Some(Proof::Certificate(files)) = proofs.first() else {
        return None;
    };
    let pem = SecretSource::File(files.cert.clone()).read().await.ok()?;
    Certificate::read(pem.expose())
        .ok()
        .map(|certificate| certificate.until())
}

/// Reads a secret. What stands in the way is a problem of the setup.
pub(super) async fn read(source: &SecretSource, what: &str) -> Result<Secret, Failure> {
    source
        .read()
        .await
        .map_err(|error| Failure::Setting(format!("cannot read {what}: {error}")))
}

/// Whether a failure says that the server does not know us by this proof: another may be better.
pub(super) fn is_about_the_client(failure: &Failure) -> bool {
    match failure {
        Failure::Setting(_) => true,
        Failure::Refused { refusal, .. } => {
            let error = refusal.symptom.oauth_error.as_deref();
            let known = matches!(
                refusal.symptom.aadsts,
                Some(7_000_215 | 7_000_222 | 7_000_218 | 700_027 | 700_024 | 50_013)
            );
            known || error == Some("invalid_client")
        }
        _ => false,
    }
}

/// Whether it says that a time in our assertion is not now.
pub(super) fn is_about_time(failure: &Failure) -> bool {
    match failure {
        Failure::Refused { refusal, .. } => {
            let text = refusal.symptom.text.to_lowercase();
            refusal.symptom.aadsts == Some(700_024)
                || text.contains("short-lived token")
                || text.contains("in the future")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jwt;
    use std::path::{Path, PathBuf};

    fn key(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/keys")
            .join(name)
    }

    fn occasion(audience: &str, algorithm: Algorithm) -> Occasion<'_> {
        Occasion {
            client_id: "tidings",
            audience,
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            algorithm,
        }
    }

    #[tokio::test]
    async fn assertion_names_client_server_and_certificate() {
        let proof = Proof::Certificate(CertificateFiles {
            cert: key("one.crt"),
            key: key("one.key"),
        });
        let audience = "https://id.example/token";
        let fields = fields(&proof, occasion(audience, Algorithm::Ps256))
            .await
            .unwrap();
        assert_eq!(fields[0].1.expose(), JWT_ASSERTION);
        let token = fields[1].1.expose();
        let claims = jwt::claims(token).unwrap();
        assert_eq!(claims["iss"], "tidings");
        assert_eq!(claims["sub"], "tidings");
        assert_eq!(claims["aud"], "https://id.example/token");
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap(),
            600
        );
        let head = format!("x.{}", token.split('.').next().unwrap());
        let head = jwt::claims(&head).unwrap();
        assert_eq!(head["alg"], "PS256");
        assert!(head.contains_key("x5t#S256") && !head.contains_key("x5t"));
    }

    #[tokio::test]
    async fn key_of_another_certificate_is_found_before_the_server_finds_it() {
        let files = CertificateFiles {
            cert: key("one.crt"),
            key: key("two.key"),
        };
        let error = open(&files).await.unwrap_err().to_string();
        assert!(error.contains("belongs to another certificate"), "{error}");
    }

    #[tokio::test]
    async fn foreign_assertion_is_read_anew_at_each_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let proof = Proof::Assertion(SecretSource::File(path.clone()));
        let audience = "https://id.example/token";
        for text in ["first\n", "second\n"] {
            std::fs::write(&path, text).unwrap();
            let fields = fields(&proof, occasion(audience, Algorithm::Ps256))
                .await
                .unwrap();
            assert_eq!(fields[1].1.expose(), text.trim());
        }
    }
}
