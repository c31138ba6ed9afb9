//! Tokens without a person: the application's own right (RFC 6749 4.4), or a key that vouches for a
//! mailbox (RFC 7523 2.1). The machine's identity is in `managed`.
//!
//! None of these has a refresh token, and none needs one: a new token is asked for as the first was.

use crate::config::secret::{Secret, SecretSource};
use crate::config::settings::{Grant, KeyOf};
use crate::oauth::grants::{Answer, Client};
use crate::oauth::jwt::{self, Algorithm, Signer};
use crate::oauth::proof;
use crate::oauth::refusal::Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use url::Url;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long an assertion is good. Google takes an hour at most.
const LIFE: SignedDuration = SignedDuration::from_mins(10);

/// What Google puts into a service account's key file, as far as it is wanted.
struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: Secret,
}

impl Client {
    /// A token that no person has to consent to. `mailbox` is whom it shall speak for, where the
    /// grant has one token a mailbox.
    pub async fn obtain(&self, mailbox: Option<&str>) -> Result<Answer, Failure> {
        let settings = &self.settings;
        let mut answer = match &settings.grant {
            Grant::ClientCredentials => {
                self.exchange(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", &settings.client_id),
                    ("scope", &settings.scopes.join(" ")),
                ])
                .await?
            }
            Grant::JwtBearer(key) => self.vouch(key, mailbox).await?,
            Grant::ManagedIdentity => self.managed().await?,
            Grant::AuthorizationCode | Grant::DeviceCode => {
                return Err(Failure::Setting(
                    "this account gets its token from a person who signs in".to_owned(),
                ));
            }
        };
        // A refresh token here would only be one more thing that can be stolen.
        answer.refresh = None;
        if let Some(rights) = jwt::rights(answer.access.expose()).filter(|rights| !rights.is_empty()) {
            answer.scopes = Some(rights);
        }
        Ok(answer)
    }

    /// What tells the tokens of these settings from those of others.
    pub(super) fn mark(&self, mailbox: Option<&str>) -> String {
        let settings = &self.settings;
        let grant = match settings.grant {
            Grant::ClientCredentials => "client_credentials",
            Grant::JwtBearer(_) => "jwt_bearer",
            Grant::ManagedIdentity => "managed_identity",
            Grant::AuthorizationCode | Grant::DeviceCode => return settings.client_id.clone(),
        };
        let server = settings.token_url.as_ref().or(settings.issuer.as_ref());
        [
            grant,
            &settings.client_id,
            server.map(Url::as_str).unwrap_or_default(),
            &settings.scopes.join(" "),
            mailbox.unwrap_or_default(),
        ]
        .join(" ")
    }

    async fn vouch(&self, key: &KeyOf, mailbox: Option<&str>) -> Result<Answer, Failure> {
        let subject = mailbox.ok_or_else(|| {
            Failure::Setting("nothing says for which mailbox a token is wanted: set `user`".to_owned())
        })?;
        let mut learned = false;
        loop {
            // Read anew each time: keys are changed too.
            let result = match key {
                KeyOf::ServiceAccount(source) => self.as_service_account(source, subject).await,
                KeyOf::Client { key, id } => self.as_client(key, id.as_deref(), subject).await,
            };
            match result {
                Err(failure) if !learned && proof::is_about_time(&failure) && self.learn(&failure) => {
                    learned = true;
                }
                result => return result,
            }
        }
    }

    /// Google: `iss` is the service account, the scope stands in the assertion, and the client is
    /// known by nothing else.
    async fn as_service_account(&self, source: &SecretSource, subject: &str) -> Result<Answer, Failure> {
        let account = ServiceAccount::read(source).await?;
        let signer = Signer::read(&account.key)
            .map_err(|why| Failure::Setting(format!("cannot use {source}: {why}")))?;
        let url = self.endpoints().await?.token.clone();
        let claims = json!({
            "iss": account.email,
            "sub": subject,
            "scope": self.settings.scopes.join(" "),
            "aud": url.as_str(),
            "iat": self.their_now().as_second(),
            "exp": self.until(),
        });
        let token = signed(&signer, account.key_id.as_deref(), &claims)?;
        self.exchange(&[("grant_type", JWT_BEARER), ("assertion", token.expose())])
            .await
    }

    /// RFC 7523 2.1: `iss` is the client, the scope a field of the request.
    async fn as_client(
        &self,
        key: &SecretSource,
        id: Option<&str>,
        subject: &str,
    ) -> Result<Answer, Failure> {
        let pem = proof::read(key, "the signing key").await?;
        let signer =
            Signer::read(&pem).map_err(|why| Failure::Setting(format!("cannot use {key}: {why}")))?;
        let endpoints = self.endpoints().await?;
        let audience = endpoints
            .issuer
            .clone()
            .unwrap_or_else(|| endpoints.token.as_str().to_owned());
        let claims = json!({
            "iss": self.settings.client_id,
            "sub": subject,
            "aud": audience,
            "jti": jwt::unique().map_err(Failure::Setting)?,
            "iat": self.their_now().as_second(),
            "exp": self.until(),
        });
        let token = signed(&signer, id, &claims)?;
        let scope = self.settings.scopes.join(" ");
        let mut fields = vec![
            ("grant_type", JWT_BEARER),
            ("client_id", self.settings.client_id.as_str()),
            ("assertion", token.expose()),
        ];
        if !scope.is_empty() {
            fields.push(("scope", &scope));
        }
        self.exchange(&fields).await
    }

    fn until(&self) -> i64 {
        let until = self.their_now().saturating_add(LIFE);
        until.unwrap_or(Timestamp::MAX).as_second()
    }
}

fn signed(signer: &Signer, id: Option<&str>, claims: &Value) -> Result<Secret, Failure> {
    let mut header = Map::new();
    if let Some(id) = id {
        header.insert("kid".to_owned(), json!(id));
    }
    signer
        .sign(Algorithm::Rs256, &header, claims)
        .map_err(|why| Failure::Setting(format!("cannot sign for the mailbox: {why}")))
}

impl ServiceAccount {
    async fn read(source: &SecretSource) -> Result<ServiceAccount, Failure> {
        let text = proof::read(source, "the service account's key").await?;
        ServiceAccount::of(&text)
            .map_err(|why| Failure::Setting(format!("the service account's key from {source} {why}")))
    }

    /// The error continues a sentence and repeats nothing of the file.
    fn of(text: &Secret) -> Result<ServiceAccount, String> {
        let json: Map<String, Value> = serde_json::from_str(text.expose())
            .map_err(|_| "is no JSON: download the key as JSON, not as P12".to_owned())?;
        let field = |key: &str| json.get(key).and_then(Value::as_str);
        match field("type") {
            Some("service_account") => {}
            Some("authorized_user") => {
                return Err("is that of a person, not of a service account".to_owned());
            }
            _ => {
                return Err(
                    "is of another kind: Google Cloud > IAM > Service accounts > Keys makes the right one"
                        .to_owned(),
                );
            }
        }
        let needed = |key: &str| field(key).ok_or_else(|| format!("has no `{key}`"));
        Ok(ServiceAccount {
            email: needed("client_email")?.to_owned(),
            key_id: field("private_key_id").map(str::to_owned),
            key: Secret::new(needed("private_key")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServiceAccount, String> {
        ServiceAccount::of(&Secret::new(text))
    }

    #[test]
    fn key_file_is_read_and_others_are_told_apart_without_repeating_them() {
        let good = read(r#"{"type":"service_account","client_email":"robot@project.iam.gserviceaccount.com","private_key_id":"k1","private_key":"canary","token_uri":"https://oauth2.googleapis.com/token"}"#).unwrap();
        assert_eq!(good.email, "robot@project.iam.gserviceaccount.com");
        assert_eq!(good.key_id.as_deref(), Some("k1"));
        let wrong = |text: &str| read(text).err().unwrap();
        assert!(wrong(r#"{"type":"authorized_user","refresh_token":"canary"}"#).contains("of a person"));
        assert!(wrong(r#"{"installed":{"client_secret":"canary"}}"#).contains("Service accounts"));
        assert!(wrong(r#"{"type":"service_account","client_email":"a"}"#).contains("`private_key`"));
        assert!(wrong("0\u{1}P12").contains("JSON"));
    }
}
