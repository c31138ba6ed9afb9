//! The requests of the authorization code grant: ask a person (RFC 6749 4.1.1 with PKCE S256,
//! RFC 7636), redeem the code, refresh, revoke (RFC 7009).
//!
//! Whatever goes to the token endpoint bears the proof of who we are (`proof`). The requests that
//! need no person are in `unattended` and `managed`, those of another device in [`super::device`].

use crate::advice::Provider;
use crate::clock::Clock;
use crate::config::secret::Secret;
use crate::config::settings::{OAuth2, Proof};
use crate::http::answer::shown;
use crate::http::way::{HttpError, host};
use crate::oauth::endpoint::{Endpoints, Finder};
use crate::oauth::http::{Answered, Http, for_crate};
use crate::oauth::jwt::{self, Algorithm};
use crate::oauth::proof::{self, Occasion};
use crate::oauth::refusal::Failure;
use jiff::{SignedDuration, Timestamp};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, CsrfToken, EndpointNotSet, EndpointSet, ExtraTokenFields,
    HttpRequest, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// How long a token lives when the server does not say.
const UNSAID: Duration = Duration::from_secs(3600);
/// No server is believed when it says more.
const LONGEST_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// Whom a token belongs to, as the `id_token` says. Not verified: it came over TLS from the token
/// endpoint itself (OpenID Connect Core 3.1.3.7, 6), and it is only compared with the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name people sign in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// A mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Microsoft's number of the person in the directory, or the `sub` of anybody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// Microsoft's number of the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<String>,
}

impl Identity {
    /// The payload of a JWT; nothing where it is none.
    pub fn of(id_token: &str) -> Option<Identity> {
        let claims = jwt::claims(id_token)?;
        let text = |key: &str| {
            claims
                .get(key)
                .and_then(Value::as_str)
                .map(shown)
                .filter(|text| !text.is_empty())
        };
        Some(Identity {
            preferred_username: text("preferred_username").or_else(|| text("upn")),
            email: text("email"),
            oid: text("oid").or_else(|| text("sub")),
            tid: text("tid"),
        })
    }

    /// The name to show.
    pub fn name(&self) -> Option<&str> {
        self.preferred_username.as_deref().or(self.email.as_deref())
    }

    /// Whether this is the person of that name; `None` when nothing was said about it.
    pub fn is(&self, expected: &str) -> Option<bool> {
        let names = [&self.preferred_username, &self.email];
        let mut said = names.iter().filter_map(|name| name.as_deref()).peekable();
        said.peek()?;
        Some(said.any(|name| name.to_lowercase() == expected.to_lowercase()))
    }
}

/// What a token endpoint gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// To be presented to the mail server.
    pub access: Secret,
    /// To renew it with. Absent in a refresh: keep the one you have.
    pub refresh: Option<Secret>,
    /// How long the access token lives.
    pub life: Duration,
    /// What was granted. Absent: what was asked for.
    pub scopes: Option<Vec<String>>,
    /// Mostly `Bearer`.
    pub token_type: String,
    /// Who signed in.
    pub identity: Option<Identity>,
    /// By how much the server's clock is ahead of ours.
    pub skew: Option<SignedDuration>,
}

/// A question to a person, on its way through a browser.
pub struct Question {
    /// The address to visit.
    pub url: Url,
    /// Where the browser comes back to.
    pub redirect: Url,
    /// How its answer is recognised.
    pub expected: Expected,
    verifier: PkceCodeVerifier,
}

/// How the answer to a question is recognised.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Comes back unchanged, or the answer is to another question.
    pub state: Secret,
    /// The issuer an answer may name, and whether it must (RFC 9207).
    pub issuer: Option<(String, bool)>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("redirect", &self.redirect)
            .finish_non_exhaustive()
    }
}

/// One account's client.
#[derive(Debug)]
pub struct Client {
    pub(super) settings: OAuth2,
    pub(super) http: Http,
    finder: Finder,
    pub(super) clock: Clock,
    /// By how much the server's clock is ahead of ours, as far as assertions must know.
    ahead: Mutex<SignedDuration>,
    /// The server takes signatures of the older kind only.
    plain: AtomicBool,
}

#[derive(Deserialize, Serialize)]
struct Extra {
    #[serde(default, skip_serializing)]
    id_token: Option<String>,
}
impl std::fmt::Debug for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Extra")
    }
}
impl ExtraTokenFields for Extra {}

type Tokens = StandardTokenResponse<Extra, BasicTokenType>;
type Bare<A, T> = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    A,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    T,
>;

impl Client {
    /// Prepares; asks nobody yet.
    pub fn new(settings: OAuth2, clock: Clock) -> Result<Client, HttpError> {
        Ok(Client {
            http: Http::new(settings.ca_file.as_deref())?,
            settings,
            finder: Finder::default(),
            clock,
            ahead: Mutex::default(),
            plain: AtomicBool::new(false),
        })
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &OAuth2 {
        &self.settings
    }

    /// The server's addresses.
    pub async fn endpoints(&self) -> Result<&Endpoints, Failure> {
        self.finder.find(&self.settings, &self.http).await
    }

    /// Makes the address a person must visit. `claims` is a challenge of an earlier refusal.
    pub async fn ask(&self, redirect: &Url, claims: Option<&str>) -> Result<Question, Failure> {
        let endpoints = self.endpoints().await?;
        let authorize = endpoints.authorize.clone().ok_or_else(|| {
            Failure::Setting("nothing says where people sign in: set `authorize_url`".to_owned())
        })?;
        let client: Bare<EndpointSet, EndpointNotSet> =
            self.bare().set_auth_uri(AuthUrl::from_url(authorize));
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256_len(48);
        let redirect_uri = RedirectUrl::from_url(redirect.clone());
        let mut request = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .set_redirect_uri(std::borrow::Cow::Borrowed(&redirect_uri))
            .set_pkce_challenge(challenge)
            .add_scopes(asked(&self.settings).into_iter().map(Scope::new));
        if let Some(hint) = &self.settings.login_hint {
            request = request.add_extra_param("login_hint", hint.as_str());
        }
        if let Some(claims) = claims {
            request = request.add_extra_param("claims", claims);
        }
        for (name, value) in &self.settings.authorize_extra {
            request = request.add_extra_param(name.as_str(), value.as_str());
        }
        let (url, state) = request.url();
        Ok(Question {
            url,
            redirect: redirect.clone(),
            expected: Expected {
                state: Secret::new(state.secret().as_str()),
                issuer: endpoints
                    .issuer
                    .clone()
                    .map(|issuer| (issuer, endpoints.names_itself)),
            },
            verifier,
        })
    }

    /// Turns the code a person brought back into tokens. A code can be redeemed once.
    pub async fn redeem(&self, question: Question, code: &Secret) -> Result<Answer, Failure> {
        let client = self.token_client().await?;
        let redirect_uri = RedirectUrl::from_url(question.redirect.clone());
        let date = Mutex::new(None);
        let http = Through {
            client: self,
            date: &date,
        };
        let result = client
            .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
            .set_redirect_uri(std::borrow::Cow::Borrowed(&redirect_uri))
            .set_pkce_verifier(question.verifier)
            .request_async(&http)
            .await;
        self.answer(result, &date)
    }

    /// Renews. `scopes` are those granted: asking for others is refused by some servers.
    pub async fn refresh(&self, refresh: &Secret, scopes: &[String]) -> Result<Answer, Failure> {
        let client = self.token_client().await?;
        let date = Mutex::new(None);
        let http = Through {
            client: self,
            date: &date,
        };
        let token = RefreshToken::new(refresh.expose().to_owned());
        let result = client
            .exchange_refresh_token(&token)
            .add_scopes(scopes.iter().cloned().map(Scope::new))
            .request_async(&http)
            .await;
        self.answer(result, &date)
    }

    /// Gives a grant back. `Ok(false)`: the server has no address for that.
    pub async fn revoke(&self, token: &Secret) -> Result<bool, Failure> {
        let endpoints = self.endpoints().await?;
        let Some(url) = &endpoints.revoke else {
            return Ok(false);
        };
        // By hand: the crate insists on https even to loopback.
        let fields = [
            ("token", token.expose()),
            ("client_id", self.settings.client_id.as_str()),
        ];
        self.proven(posted(url, &fields)?).await.map(|_| true)
    }

    /// Without a secret: the proof is added where the request leaves.
    fn bare(&self) -> Bare<EndpointNotSet, EndpointNotSet> {
        oauth2::Client::new(ClientId::new(self.settings.client_id.clone()))
            .set_auth_type(AuthType::RequestBody)
    }

    async fn token_client(&self) -> Result<Bare<EndpointNotSet, EndpointSet>, Failure> {
        let endpoints = self.endpoints().await?;
        Ok(self
            .bare()
            .set_token_uri(TokenUrl::from_url(endpoints.token.clone())))
    }

    /// Sends a request with the proof of who we are; with the next proof where the server does not
    /// know us by the first.
    pub(super) async fn proven(&self, request: HttpRequest) -> Result<Answered, Failure> {
        let proofs = &self.settings.proofs;
        if proofs.is_empty() {
            return self.http.call(request).await;
        }
        let endpoints = self.endpoints().await?;
        // An issuer that names itself wants its name; Microsoft, and who has none, the address.
        let audience = match (&endpoints.issuer, self.settings.provider) {
            (Some(issuer), Provider::Generic) => issuer.as_str(),
            _ => endpoints.token.as_str(),
        };
        let mut first = None;
        for (index, proof) in proofs.iter().enumerate() {
            match self.with_proof(&request, proof, audience).await {
                Ok(answered) => {
                    if let Some(failure) = first {
                        tracing::warn!(client = self.settings.client_id, %failure, "the newer proof of this client is not taken; the older one still works");
                    }
                    return Ok(answered);
                }
                Err(failure) if proof::is_about_the_client(&failure) => {
                    let failure = first.get_or_insert(failure);
                    if index + 1 == proofs.len() {
                        return Err(failure.clone());
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Setting("nothing proves who this client is".to_owned()))
    }

    /// A certificate signs the newer way first, then the older one; and once more where the server
    /// finds our clock wrong and has told its own.
    async fn with_proof(
        &self,
        request: &HttpRequest,
        proof: &Proof,
        audience: &str,
    ) -> Result<Answered, Failure> {
        let signs = matches!(proof, Proof::Certificate(_));
        let mut algorithm = if self.plain.load(Ordering::Relaxed) {
            Algorithm::Rs256
        } else {
            Algorithm::Ps256
        };
        let (mut set, mut first) = (false, None);
        loop {
            let occasion = Occasion {
                client_id: &self.settings.client_id,
                audience,
                now: self.their_now(),
                algorithm,
            };
            let fields = proof::fields(proof, occasion).await?;
            let failure = match self.http.call(with_fields(request, &fields)).await {
                Ok(answered) => {
                    self.plain
                        .store(signs && algorithm == Algorithm::Rs256, Ordering::Relaxed);
                    return Ok(answered);
                }
                Err(failure) => failure,
            };
            if signs && !set && proof::is_about_time(&failure) && self.learn(&failure) {
                set = true;
                continue;
            }
            if signs && algorithm == Algorithm::Ps256 && proof::is_about_the_client(&failure) {
                (algorithm, first) = (Algorithm::Rs256, Some(failure));
                continue;
            }
            return Err(match first {
                Some(first) if proof::is_about_the_client(&failure) => first,
                _ => failure,
            });
        }
    }

    /// Now by the server's clock, as far as it is known.
    pub(super) fn their_now(&self) -> Timestamp {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Learns the server's clock from a refusal. False: nothing new, so asking again is no use.
    pub(super) fn learn(&self, failure: &Failure) -> bool {
        let Failure::Refused { refusal, .. } = failure else {
            return false;
        };
        let Some(date) = refusal.date else { return false };
        let theirs = date.duration_since(Timestamp::now());
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (theirs - *ahead).abs() > SignedDuration::from_secs(30);
        if new {
            tracing::warn!(
                seconds = theirs.as_secs(),
                "the server's clock and ours differ; assertions are made by the server's from now on"
            );
            *ahead = theirs;
        }
        new
    }

    /// What the crate sends through: what it gets back is always a well-formed success.
    async fn through(
        &self,
        request: HttpRequest,
        date: &Mutex<Option<SignedDuration>>,
    ) -> Result<oauth2::HttpResponse, Failure> {
        let host = self.token_host();
        let answered = self.proven(request).await?;
        if let (Some(theirs), Ok(mut date)) = (answered.date, date.lock()) {
            *date = Some(theirs.duration_since(Timestamp::now()));
        }
        normal(&answered.body)
            .map(for_crate)
            .map_err(|text| Failure::Unreadable { host, text })
    }

    /// Sends a form to the token endpoint, for the grants the crate does not know.
    pub(super) async fn exchange(&self, fields: &[(&str, &str)]) -> Result<Answer, Failure> {
        let url = self.endpoints().await?.token.clone();
        let answered = self.proven(posted(&url, fields)?).await?;
        self.by_hand(&answered)
    }

    /// Reads a success that no crate has read.
    pub(super) fn by_hand(&self, answered: &Answered) -> Result<Answer, Failure> {
        let host = self.token_host();
        let unreadable = |text: String| Failure::Unreadable {
            host: host.clone(),
            text,
        };
        let body = normal(&answered.body).map_err(unreadable)?;
        let tokens: Tokens = serde_json::from_slice(&body)
            .map_err(|_| unreadable("it is not as RFC 6749 5.1 has it".to_owned()))?;
        let skew = answered
            .date
            .map(|theirs| theirs.duration_since(Timestamp::now()));
        Ok(of(&tokens, skew))
    }

    fn token_host(&self) -> String {
        self.finder
            .found()
            .map(|endpoints| host(&endpoints.token))
            .unwrap_or_else(|| "the token endpoint".to_owned())
    }

    fn answer(
        &self,
        result: Result<Tokens, RequestTokenError<Failure, BasicErrorResponse>>,
        date: &Mutex<Option<SignedDuration>>,
    ) -> Result<Answer, Failure> {
        let tokens = result.map_err(|error| match error {
            RequestTokenError::Request(failure) => failure,
            // The bodies these carry hold tokens: only their kind is told.
            RequestTokenError::Parse(error, _) => Failure::Unreadable {
                host: self.token_host(),
                text: format!("its field {} is not as RFC 6749 5.1 has it", error.path()),
            },
            RequestTokenError::ServerResponse(error) => Failure::Unreadable {
                host: self.token_host(),
                text: error.error().to_string(),
            },
            RequestTokenError::Other(text) => Failure::Unreadable {
                host: self.token_host(),
                text,
            },
        })?;
        Ok(of(&tokens, date.lock().ok().and_then(|date| *date)))
    }
}

fn of(tokens: &Tokens, skew: Option<SignedDuration>) -> Answer {
    Answer {
        access: Secret::new(tokens.access_token().secret().as_str()),
        refresh: tokens
            .refresh_token()
            .map(|token| token.secret().as_str())
            .filter(|token| !token.is_empty())
            .map(Secret::new),
        life: tokens.expires_in().unwrap_or(UNSAID).min(LONGEST_LIFE),
        scopes: tokens
            .scopes()
            .map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect::<Vec<_>>())
            .filter(|scopes| !scopes.is_empty()),
        token_type: tokens.token_type().as_ref().to_owned(),
        identity: tokens.extra_fields().id_token.as_deref().and_then(Identity::of),
        skew,
    }
}

/// What is asked for: the scopes of the settings, and where it is known to be taken, the words that
/// make the answer say who signed in.
pub fn asked(settings: &OAuth2) -> Vec<String> {
    let identity: &[&str] = match settings.provider {
        Provider::Microsoft => &["openid", "profile", "email"],
        Provider::Google => &["openid", "email"],
        Provider::Generic => &[],
    };
    let mut scopes = settings.scopes.clone();
    for word in identity {
        if !scopes.iter().any(|scope| scope == word) {
            scopes.push((*word).to_owned());
        }
    }
    scopes
}

/// The crate's way to us. A type and not a closure, whose future the compiler cannot show to be
/// [`Send`] for every lifetime.
struct Through<'a> {
    client: &'a Client,
    date: &'a Mutex<Option<SignedDuration>>,
}

impl<'c> oauth2::AsyncHttpClient<'c> for Through<'_> {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<oauth2::HttpResponse, Failure>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.client.through(request, self.date))
    }
}

/// A success made into what RFC 6749 5.1 says it looks like: numbers sent as text, scopes sent as a
/// list, a token type left out, nulls. Errors name the fault and never repeat the body.
fn normal(body: &[u8]) -> Result<Vec<u8>, String> {
    let given: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
        if body.trim_ascii_start().starts_with(b"<") {
            "it is a page, not a token; is there a proxy or a sign-in portal on the way?".to_owned()
        } else {
            "it is no JSON object".to_owned()
        }
    })?;
    let mut kept = Map::new();
    for key in ["access_token", "refresh_token", "id_token"] {
        match given.get(key) {
            Some(Value::String(text)) if !text.is_empty() => {
                kept.insert(key.to_owned(), Value::from(text.as_str()));
            }
            None | Some(Value::Null | Value::String(_)) => {}
            Some(_) => return Err(format!("its {key} is no text")),
        }
    }
    if !kept.contains_key("access_token") {
        return Err("there is no access_token in it".to_owned());
    }
    let token_type = given
        .get("token_type")
        .and_then(Value::as_str)
        .unwrap_or("Bearer");
    kept.insert("token_type".to_owned(), Value::from(token_type));
    let seconds = match given.get("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    // Rounded down; what is negative or absurd counts as unsaid.
    if let Some(seconds) = seconds.filter(|seconds| (0.0..1e12).contains(seconds)) {
        kept.insert("expires_in".to_owned(), Value::from(seconds as u64));
    }
    let scope = match given.get("scope") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(list)) => Some(
            list.iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        _ => None,
    };
    if let Some(scope) = scope {
        kept.insert("scope".to_owned(), Value::from(scope));
    }
    serde_json::to_vec(&kept).map_err(|error| error.to_string())
}

/// A form on its way to `url`.
pub(super) fn posted(url: &Url, fields: &[(&str, &str)]) -> Result<HttpRequest, Failure> {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    oauth2::http::Request::builder()
        .method(oauth2::http::Method::POST)
        .uri(url.as_str())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form.into_bytes())
        .map_err(|error| Failure::Setting(format!("cannot form a request: {error}")))
}

/// The same form with further fields.
fn with_fields(request: &HttpRequest, fields: &[(&'static str, Secret)]) -> HttpRequest {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        form.append_pair(name, value.expose());
    }
    let mut request = request.clone();
    let body = request.body_mut();
    if !body.is_empty() {
        body.push(b'&');
    }
    body.extend_from_slice(form.finish().as_bytes());
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.", BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn identity_is_read_from_the_payload() {
        let identity = Identity::of(&jwt(
            r#"{"preferred_username":"Alice@contoso.com","oid":"o","tid":"t"}"#,
        ))
        .unwrap();
        assert_eq!(identity.is("alice@CONTOSO.com"), Some(true));
        assert_eq!(identity.is("bob@contoso.com"), Some(false));
        assert_eq!(
            Identity::of(&jwt(r#"{"sub":"1"}"#))
                .unwrap()
                .is("bob@contoso.com"),
            None
        );
        assert_eq!(Identity::of("not a token"), None);
    }

    #[test]
    fn odd_successes_are_made_regular() {
        let read =
            |body: &str| -> Value { serde_json::from_slice(&normal(body.as_bytes()).unwrap()).unwrap() };
        let tokens =
            read(r#"{"access_token":"a","expires_in":"3599","scope":["x","y"],"refresh_token":null}"#);
        assert_eq!(tokens["expires_in"], 3599);
        assert_eq!(tokens["scope"], "x y");
        assert_eq!(tokens["token_type"], "Bearer");
        assert!(tokens.get("refresh_token").is_none());
        assert!(
            read(r#"{"access_token":"a","expires_in":-1}"#)
                .get("expires_in")
                .is_none()
        );
    }

    #[test]
    fn useless_successes_say_what_is_wrong_and_repeat_nothing() {
        assert!(normal(b"<html>").unwrap_err().contains("page"));
        let error = normal(br#"{"refresh_token":"canary","access_token":7}"#).unwrap_err();
        assert!(!error.contains("canary"));
        assert!(normal(b"{}").is_err());
    }
}
