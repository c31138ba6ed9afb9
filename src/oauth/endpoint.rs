//! Where an account signs in and where its tokens are made: as the settings say, or as the issuer's
//! own document says (OpenID Connect Discovery 4, RFC 8414).

use crate::config::settings::OAuth2;
use crate::http::answer::shown;
use crate::http::way::host;
use crate::oauth::http::{Http, allowed};
use crate::oauth::refusal::Failure;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

/// The addresses of one authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where people sign in.
    pub authorize: Option<Url>,
    /// Where codes for another device are made (RFC 8628).
    pub device: Option<Url>,
    /// Where tokens are made.
    pub token: Url,
    /// Where a grant is given back.
    pub revoke: Option<Url>,
    /// Who the server says it is; an answer that names another is refused (RFC 9207).
    pub issuer: Option<String>,
    /// The server promised to name itself in its answers.
    pub names_itself: bool,
}

/// Finds the addresses once; a failed discovery is tried again at the next ask.
#[derive(Debug, Default)]
pub struct Finder(OnceCell<Endpoints>);

impl Finder {
    /// The addresses, if they were found already.
    pub fn found(&self) -> Option<&Endpoints> {
        self.0.get()
    }

    /// The addresses of `settings`. Asks the issuer only where the settings leave something open.
    pub async fn find(&self, settings: &OAuth2, http: &Http) -> Result<&Endpoints, Failure> {
        self.0
            .get_or_try_init(|| async {
                let Some(issuer) = &settings.issuer else {
                    return from_settings(settings);
                };
                let document = http.json(&document_of(issuer)).await?;
                from_document(settings, issuer, &document)
            })
            .await
    }
}

fn from_settings(settings: &OAuth2) -> Result<Endpoints, Failure> {
    let token = settings.token_url.clone().ok_or_else(|| {
        Failure::Setting(
            "nothing says where tokens are made: set `token_url`, or `issuer` for discovery".to_owned(),
        )
    })?;
    checked(Endpoints {
        authorize: settings.authorize_url.clone(),
        device: settings.device_url.clone(),
        token,
        revoke: settings.revoke_url.clone(),
        issuer: None,
        names_itself: false,
    })
}

/// `{issuer}/.well-known/openid-configuration`.
fn document_of(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = format!(
        "{}/.well-known/openid-configuration",
        issuer.path().trim_end_matches('/')
    );
    url.set_path(&path);
    url
}

/// What the settings say goes first; the document fills in the rest.
fn from_document(settings: &OAuth2, issuer: &Url, document: &Value) -> Result<Endpoints, Failure> {
    let bad = |text: String| Failure::Unreadable {
        host: host(issuer),
        text,
    };
    let named = document
        .get("issuer")
        .and_then(Value::as_str)
        .ok_or_else(|| bad("its discovery document names no issuer".to_owned()))?;
    // Compared but for a last slash: Url adds one to a bare host, issuers mostly have none.
    if named.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
        return Err(bad(format!(
            "its discovery document is of another issuer, {}; set `issuer` to exactly the name the provider documents",
            shown(named)
        )));
    }
    let address = |key: &str| -> Result<Option<Url>, Failure> {
        document
            .get(key)
            .and_then(Value::as_str)
            .map(|text| Url::parse(text).map_err(|_| bad(format!("its `{key}` is no address"))))
            .transpose()
    };
    let token = match &settings.token_url {
        Some(url) => url.clone(),
        None => address("token_endpoint")?
            .ok_or_else(|| bad("its discovery document has no token_endpoint".to_owned()))?,
    };
    checked(Endpoints {
        authorize: match &settings.authorize_url {
            Some(url) => Some(url.clone()),
            None => address("authorization_endpoint")?,
        },
        device: match &settings.device_url {
            Some(url) => Some(url.clone()),
            None => address("device_authorization_endpoint")?,
        },
        token,
        revoke: match &settings.revoke_url {
            Some(url) => Some(url.clone()),
            None => address("revocation_endpoint")?,
        },
        issuer: Some(named.to_owned()),
        names_itself: document
            .get("authorization_response_iss_parameter_supported")
            .and_then(Value::as_bool)
            .unwrap_or(false),
    })
}

fn checked(endpoints: Endpoints) -> Result<Endpoints, Failure> {
    for url in [
        Some(&endpoints.token),
        endpoints.authorize.as_ref(),
        endpoints.device.as_ref(),
        endpoints.revoke.as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        allowed(url).map_err(Failure::Setting)?;
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::Provider;
    use serde_json::json;

    fn settings() -> OAuth2 {
        OAuth2 {
            provider: Provider::Generic,
            grant: crate::config::settings::Grant::AuthorizationCode,
            device_url: None,
            managed_identity_url: None,
            roles: vec![],
            authorize_url: None,
            token_url: None,
            revoke_url: None,
            issuer: None,
            scopes: vec![],
            authorize_extra: vec![],
            client_id: "tidings".into(),
            proofs: vec![],
            secret_expires: None,
            grant_life: None,
            redirect: Url::parse("http://127.0.0.1:0/").unwrap(),
            listen: None,
            login_hint: None,
            tenant: None,
            ca_file: None,
        }
    }

    fn document(issuer: &str) -> Value {
        json!({
            "issuer": issuer,
            "authorization_endpoint": "https://id.example/authorize",
            "token_endpoint": "https://id.example/token",
            "authorization_response_iss_parameter_supported": true,
        })
    }

    #[test]
    fn document_address_keeps_the_issuers_path() {
        let of = |issuer: &str| document_of(&Url::parse(issuer).unwrap()).to_string();
        assert_eq!(
            of("https://id.example"),
            "https://id.example/.well-known/openid-configuration"
        );
        assert_eq!(
            of("https://login.example/tenant/v2.0"),
            "https://login.example/tenant/v2.0/.well-known/openid-configuration"
        );
    }

    #[test]
    fn document_of_another_issuer_is_refused() {
        let issuer = Url::parse("https://id.example").unwrap();
        assert!(from_document(&settings(), &issuer, &document("https://id.example")).is_ok());
        assert!(from_document(&settings(), &issuer, &document("https://evil.example")).is_err());
        assert!(from_document(&settings(), &issuer, &json!({})).is_err());
    }

    #[test]
    fn settings_overrule_the_document() {
        let issuer = Url::parse("https://id.example").unwrap();
        let own = OAuth2 {
            token_url: Some(Url::parse("https://own.example/t").unwrap()),
            ..settings()
        };
        let found = from_document(&own, &issuer, &document("https://id.example")).unwrap();
        assert_eq!(found.token.as_str(), "https://own.example/t");
        assert!(found.names_itself);
    }

    #[test]
    fn plain_http_in_a_document_is_refused() {
        let issuer = Url::parse("https://id.example").unwrap();
        let mut document = document("https://id.example");
        document["token_endpoint"] = json!("http://id.example/token");
        assert!(matches!(
            from_document(&settings(), &issuer, &document),
            Err(Failure::Setting(_))
        ));
    }

    #[test]
    fn nothing_said_is_a_problem_of_the_settings() {
        assert!(matches!(from_settings(&settings()), Err(Failure::Setting(_))));
    }
}
