//! A sign-in, from the address a person visits to what is kept of the grant.
//!
//! The commonest slips show only much later, as a refused mail: the wrong person was still signed
//! in in that browser, a scope was not ticked, no refresh token came. So they are looked for here,
//! and a grant that has one of them is not kept.

use crate::advice::Provider;
use crate::config::scopes;
use crate::config::secret::Secret;
use crate::config::settings::OAuth2;
use crate::oauth::callback::{self, CallbackError, Listener};
use crate::oauth::grants::{Answer, Client, Question, asked};
use crate::oauth::plan::{after, signed};
use crate::oauth::refusal::Failure;
use crate::oauth::vault::{Kept, Standing};
use jiff::Timestamp;
use std::time::Duration;
use url::Url;

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The browser's answer.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The server.
    #[error(transparent)]
    Server(#[from] Failure),
    /// Somebody else than the settings say.
    #[error(
        "{signed_in} signed in, but account `{account}` is that of {expected}; nothing was stored\n\nhint: sign in as {expected} (a private window asks anew); or, if {signed_in} is right, set `user: {signed_in}` for this account"
    )]
    WrongPerson {
        /// The account's name.
        account: String,
        /// Who it was.
        signed_in: String,
        /// Who it should have been.
        expected: String,
    },
    /// Not all that was asked for.
    #[error("the right to {} was not granted to account `{account}`; nothing was stored\n\nhint: {hint}", missing.join(" "))]
    MissingScopes {
        /// The account's name.
        account: String,
        /// What was asked for and not granted.
        missing: Vec<String>,
        /// What to do.
        hint: &'static str,
    },
    /// The access would end within the hour, unattended.
    #[error("no refresh token came for account `{account}`: its access would end in {} minutes; nothing was stored\n\nhint: {hint}", life.as_secs() / 60)]
    NotRenewable {
        /// The account's name.
        account: String,
        /// How long the access token lives.
        life: Duration,
        /// What to do.
        hint: &'static str,
    },
}

/// A sign-in under way: the address is known, the answer is not.
#[derive(Debug)]
pub struct SignIn<'a> {
    client: &'a Client,
    question: Question,
    listener: Option<Listener>,
}

impl<'a> SignIn<'a> {
    /// Opens the listener and makes the address. With `paste` a listener is a convenience, and
    /// none is needed. `claims` is a challenge of an earlier refusal.
    pub async fn begin(
        client: &'a Client,
        claims: Option<&str>,
        paste: bool,
    ) -> Result<SignIn<'a>, LoginError> {
        let listener = match Listener::bind(&client.settings().redirect, client.settings().listen).await {
            Ok(listener) => Some(listener),
            Err(_) if paste => None,
            Err(error) => return Err(error.into()),
        };
        let redirect = match &listener {
            Some(listener) => listener.redirect().clone(),
            None => client.settings().redirect.clone(),
        };
        let question = client.ask(&redirect, claims).await?;
        Ok(SignIn {
            client,
            question,
            listener,
        })
    }

    /// The address a person must visit. It holds no secret, but opens this one sign-in.
    pub fn url(&self) -> &Url {
        &self.question.url
    }

    /// Waits for the browser, or for a line from `pasted` if there is one, whichever comes first,
    /// and redeems the code.
    pub async fn answer(
        self,
        pasted: Option<impl Future<Output = String>>,
        patience: Duration,
        strange: impl Fn(&CallbackError) + Send + Sync + 'static,
    ) -> Result<Answer, LoginError> {
        let provider = self.client.settings().provider;
        let expected = self.question.expected.clone();
        let listening = async {
            match self.listener {
                Some(listener) => listener.wait(&expected, provider, patience, strange).await,
                None => {
                    tokio::time::sleep(patience).await;
                    Err(CallbackError::Late(patience))
                }
            }
        };
        let code: Secret = match pasted {
            None => listening.await?,
            Some(line) => tokio::select! {
                code = listening => code?,
                line = line => callback::pasted(&line, &self.question.expected, provider)?,
            },
        };
        Ok(self.client.redeem(self.question, &code).await?)
    }
}

/// Whether a new grant is what the settings ask for. The texts are worth telling although they
/// stand in nobody's way.
pub fn verify(account: &str, settings: &OAuth2, answer: &Answer) -> Result<Vec<String>, LoginError> {
    let mut notes = Vec::new();
    let identity = answer.identity.clone().unwrap_or_default();
    if let Some(expected) = &settings.login_hint {
        match identity.is(expected) {
            Some(true) => {}
            Some(false) => {
                return Err(LoginError::WrongPerson {
                    account: account.to_owned(),
                    signed_in: identity.name().unwrap_or("somebody").to_owned(),
                    expected: expected.clone(),
                });
            }
            None => notes.push(format!(
                "the provider did not say who signed in, so it could not be compared with {expected}; \
                 with the scopes `openid profile email` most do"
            )),
        }
    }
    let missing = missing(settings, answer);
    if !missing.is_empty() {
        let hint = match settings.provider {
            Provider::Google => "sign in again and tick every box on the consent page",
            Provider::Microsoft => {
                "add the permission to the app registration (API permissions) and consent to it, or have an administrator consent; then sign in again"
            }
            Provider::Generic => "",
        };
        if settings.provider == Provider::Generic {
            // Elsewhere a scope may come back under another name.
            notes.push(format!(
                "asked for but not named among what was granted: {}",
                missing.join(" ")
            ));
        } else {
            return Err(LoginError::MissingScopes {
                account: account.to_owned(),
                missing,
                hint,
            });
        }
    }
    if answer.refresh.is_none() {
        return Err(LoginError::NotRenewable {
            account: account.to_owned(),
            life: answer.life,
            hint: match settings.provider {
                Provider::Google => {
                    "ask with access_type=offline and prompt=consent, since Google gives a refresh token at the first consent only"
                }
                _ => "add `offline_access` to the scopes, and sign in again",
            },
        });
    }
    Ok(notes)
}

/// What was asked for and is not named among what was granted.
fn missing(settings: &OAuth2, answer: &Answer) -> Vec<String> {
    answer
        .scopes
        .as_ref()
        .map(|granted| scopes::lacking(&settings.scopes, granted))
        .unwrap_or_default()
}

/// What is kept of a new grant.
pub fn kept(settings: &OAuth2, answer: Answer, now: Timestamp) -> Kept {
    let mut scopes = answer.scopes.unwrap_or_else(|| asked(settings));
    // Not always named among what was granted, and needed for the next refresh token.
    let offline = "offline_access";
    if settings.scopes.iter().any(|scope| scope == offline) && !scopes.iter().any(|scope| scope == offline) {
        scopes.push(offline.to_owned());
    }
    Kept {
        access: answer.access,
        refresh: answer.refresh,
        previous: None,
        scopes,
        token_type: answer.token_type,
        obtained: now,
        expires: after(now, signed(answer.life)),
        life: answer.life,
        refreshed: now,
        refresh_began: None,
        identity: answer.identity.unwrap_or_default(),
        client_id: settings.client_id.clone(),
        unattended: false,
        standing: Standing::Valid,
        trouble: None,
        claims: None,
        skew: answer.skew.map(|skew| skew.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::grants::Identity;

    fn settings(provider: Provider) -> OAuth2 {
        OAuth2 {
            provider,
            grant: crate::config::settings::Grant::AuthorizationCode,
            device_url: None,
            managed_identity_url: None,
            roles: vec![],
            authorize_url: None,
            token_url: None,
            revoke_url: None,
            issuer: None,
            scopes: vec![
                "https://outlook.office.com/SMTP.Send".into(),
                "offline_access".into(),
                "openid".into(),
            ],
            authorize_extra: vec![],
            client_id: "tidings".into(),
            proofs: vec![],
            secret_expires: None,
            grant_life: None,
            redirect: Url::parse("http://127.0.0.1:0/").unwrap(),
            listen: None,
            login_hint: Some("alice@contoso.com".into()),
            tenant: None,
            ca_file: None,
        }
    }

    fn answer(user: &str, scopes: &[&str]) -> Answer {
        Answer {
            access: Secret::new("a"),
            refresh: Some(Secret::new("r")),
            life: Duration::from_secs(3600),
            scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
            token_type: "Bearer".into(),
            identity: Some(Identity {
                preferred_username: Some(user.into()),
                ..Identity::default()
            }),
            skew: None,
        }
    }

    const SMTP: &str = "https://outlook.office365.com/SMTP.Send";

    #[test]
    fn right_person_with_the_right_scopes_is_welcome() {
        let notes = verify(
            "office",
            &settings(Provider::Microsoft),
            &answer("Alice@Contoso.com", &[SMTP]),
        )
        .unwrap();
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn wrong_person_is_told_apart() {
        let error = verify(
            "office",
            &settings(Provider::Microsoft),
            &answer("bob@contoso.com", &[SMTP]),
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("bob@contoso.com signed in, but account `office` is that of alice@contoso.com"),
            "{text}"
        );
    }

    #[test]
    fn missing_scope_is_an_error_where_scopes_are_exact_and_a_note_elsewhere() {
        let lacking = answer("alice@contoso.com", &["openid"]);
        assert!(matches!(
            verify("o", &settings(Provider::Microsoft), &lacking),
            Err(LoginError::MissingScopes { .. })
        ));
        assert_eq!(
            verify("o", &settings(Provider::Generic), &lacking).unwrap().len(),
            1
        );
    }

    #[test]
    fn grant_that_cannot_be_renewed_says_what_to_change() {
        let short = Answer {
            refresh: None,
            ..answer("alice@contoso.com", &[SMTP])
        };
        let text = verify("o", &settings(Provider::Microsoft), &short)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("60 minutes") && text.contains("offline_access"),
            "{text}"
        );
        let lacking = Answer {
            scopes: None,
            ..short
        };
        let text = verify("o", &settings(Provider::Google), &lacking)
            .unwrap_err()
            .to_string();
        assert!(text.contains("prompt=consent"), "{text}");
    }

    #[test]
    fn unsaid_person_is_a_note() {
        let nobody = Answer {
            identity: None,
            ..answer("", &[SMTP])
        };
        assert_eq!(
            verify("o", &settings(Provider::Microsoft), &nobody)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn offline_access_is_asked_for_again_though_it_was_not_named() {
        let now = Timestamp::UNIX_EPOCH;
        let kept = kept(&settings(Provider::Microsoft), answer("a", &[SMTP]), now);
        assert_eq!(kept.scopes, [SMTP, "offline_access"]);
    }
}
