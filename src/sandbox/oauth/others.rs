//! What the authorization server does without a browser of ours: codes for other devices, grants of
//! applications, keys that vouch for mailboxes, the identity of a machine; and how a client proves
//! who it is.

use super::memory::{Device, Family, Fault, Shared, User};
use super::pages::{Fields, refused, sign_in_page};
use crate::config::certificate::Certificate;
use crate::oauth::jwt;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Json, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// What an application may do here.
const ROLE: &str = "SMTP.SendAsApp";

/// Why the client is not who it says, if so.
pub(super) fn stranger(server: &Shared, fields: &Fields) -> Option<Response> {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let settings = &server.settings;
    let no = |number: u32, text: &str| Some(refused("invalid_client", text, Some(number), None));
    if field("client_id") != settings.client_id {
        return no(700_016, "this application is not known here");
    }
    if let Some(secret) = &settings.client_secret
        && secret.expose() == field("client_secret")
    {
        return None;
    }
    if let Some(token) = &settings.assertion
        && token.expose() == field("client_assertion")
    {
        return None;
    }
    if let Some(certificate) = &settings.certificate {
        let claims = verified(field("client_assertion"), certificate, settings.pss).filter(|claims| {
            claims.get("iss") == claims.get("sub")
                && claims.get("iss").and_then(Value::as_str) == Some(&settings.client_id)
                && claims.get("jti").is_some_and(Value::is_string)
                && audience(server, claims)
        });
        return match claims {
            None => no(700_027, "Client assertion failed signature validation."),
            Some(claims) if !is_now(server, &claims) => {
                no(700_024, "Client assertion is not within its valid time range.")
            }
            Some(_) => None,
        };
    }
    if settings.client_secret.is_none() && settings.assertion.is_none() {
        return None;
    }
    no(7_000_215, "Invalid client secret provided.")
}

fn audience(server: &Shared, claims: &Map<String, Value>) -> bool {
    let named = claims.get("aud").and_then(Value::as_str).unwrap_or_default();
    let issuer = server.url.as_str().trim_end_matches('/');
    named == format!("{issuer}/token") || named == issuer
}

/// An hour at most, begun and not ended; five minutes of difference between clocks are forgiven.
fn is_now(server: &Shared, claims: &Map<String, Value>) -> bool {
    let time = |key: &str| claims.get(key).and_then(Value::as_i64);
    let now = server.now().as_second();
    let (Some(begun), Some(ends)) = (time("iat"), time("exp")) else {
        return false;
    };
    begun <= now + 300 && ends >= now - 300 && ends - begun <= 3600
}

/// The claims of a token that the certificate's key signed.
fn verified(token: &str, certificate: &str, pss: bool) -> Option<Map<String, Value>> {
    let certificate = Certificate::read(certificate).ok()?;
    let (text, signature) = token.rsplit_once('.')?;
    let header = jwt::claims(&format!(".{}", text.split('.').next()?))?;
    if let Some(named) = header.get("x5t#S256")
        && named.as_str() != Some(&certificate.sha256())
    {
        return None;
    }
    let signature = BASE64.decode(signature).ok()?;
    let verified = match header.get("alg").and_then(Value::as_str)? {
        "PS256" if pss => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, certificate.key())
            .verify(text.as_bytes(), &signature),
        "RS256" => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, certificate.key())
            .verify(text.as_bytes(), &signature),
        _ => return None,
    };
    verified.ok()?;
    jwt::claims(token)
}

/// RFC 8628 3.1.
pub(super) async fn device(State(server): State<Arc<Shared>>, Form(fields): Form<Fields>) -> Response {
    if let Some(refusal) = stranger(&server, &fields) {
        return refusal;
    }
    let scope = fields.get("scope").map(String::as_str).unwrap_or_default();
    let (code, life) = (server.fresh("device"), Duration::from_secs(900));
    let letters: String = server
        .fresh("")
        .chars()
        .filter(char::is_ascii_uppercase)
        .chain("ABCDEFGH".chars())
        .take(8)
        .collect();
    let user_code = format!("{}-{}", &letters[..4], &letters[4..]);
    let interval = server.settings.interval;
    server.memory().devices.insert(
        code.clone(),
        Device {
            user_code: user_code.clone(),
            scopes: scope.split_whitespace().map(str::to_owned).collect(),
            until: server.after(life),
            asked: None,
            interval,
            decided: None,
        },
    );
    let page = format!("{}activate", server.url);
    Json(json!({
        "device_code": code, "user_code": user_code, "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": life.as_secs(), "interval": interval.as_secs(),
    }))
    .into_response()
}

/// Where the person decides.
pub(super) async fn activate(State(server): State<Arc<Shared>>, Query(fields): Query<Fields>) -> Response {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let user = server.user(field("user")).cloned();
    let declined = field("decline") == "yes";
    if user.is_none() && !declined {
        return Html(sign_in_page("/activate", &server.settings.users, &fields)).into_response();
    }
    let mut memory = server.memory();
    let memory = &mut *memory;
    let Some(device) = memory
        .devices
        .values_mut()
        .find(|device| device.user_code == field("user_code") && device.decided.is_none())
    else {
        return (StatusCode::BAD_REQUEST, Html("This code is not waited for.")).into_response();
    };
    device.decided = Some(match user.filter(|_| !declined) {
        None => Err(()),
        Some(user) => {
            memory.families.push(Family {
                user,
                scopes: device.scopes.clone(),
                roles: None,
                alive: true,
            });
            Ok(memory.families.len() - 1)
        }
    });
    Html("Done. You can close this window.").into_response()
}

/// RFC 8628 3.4 and 3.5.
pub(super) fn poll<'a>(server: &Shared, field: impl Fn(&str) -> &'a str, fault: Option<&Fault>) -> Response {
    let now = server.now();
    let mut memory = server.memory();
    let memory = &mut *memory;
    let Some(device) = memory.devices.get_mut(field("device_code")) else {
        return refused("bad_verification_code", "no such code", Some(70_018), None);
    };
    if now > device.until {
        return refused("expired_token", "the code has ended", Some(70_019), None);
    }
    // A little is forgiven: an ask may have been quicker on its way than the one before.
    let too_soon = device
        .asked
        .is_some_and(|asked| asked.elapsed() + Duration::from_millis(50) < device.interval);
    device.asked = Some(Instant::now());
    if too_soon {
        device.interval += Duration::from_secs(5);
        memory.counters.too_soon += 1;
        return refused("slow_down", "asked too soon", None, None);
    }
    match device.decided {
        None => refused("authorization_pending", "nobody has decided", Some(70_016), None),
        Some(Err(())) => refused("authorization_declined", "the person said no", None, None),
        Some(Ok(family)) => {
            memory.devices.remove(field("device_code"));
            memory.counters.redeemed += 1;
            server.tokens(memory, family, true, fault)
        }
    }
}

/// RFC 6749 4.4.
pub(super) fn application(server: &Shared, fault: Option<&Fault>) -> Response {
    let settings = &server.settings;
    let public =
        settings.client_secret.is_none() && settings.certificate.is_none() && settings.assertion.is_none();
    match &settings.application {
        Some(application) if !public => speaks(server, application.clone(), fault),
        _ => refused(
            "unauthorized_client",
            "the client has no rights of its own",
            Some(7_000_218),
            None,
        ),
    }
}

fn speaks(server: &Shared, user: User, fault: Option<&Fault>) -> Response {
    let mut memory = server.memory();
    let memory = &mut *memory;
    memory.counters.unattended += 1;
    memory.families.push(Family {
        user,
        scopes: vec![ROLE.to_owned()],
        roles: Some(vec![ROLE.to_owned()]),
        alive: true,
    });
    let family = memory.families.len() - 1;
    server.tokens(memory, family, false, fault)
}

/// RFC 7523 2.1, refused in Google's words.
pub(super) fn vouch<'a>(server: &Shared, field: impl Fn(&str) -> &'a str, fault: Option<&Fault>) -> Response {
    let token = field("assertion");
    let issuer = jwt::claims(token)
        .and_then(|claims| claims.get("iss").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_default();
    let known = server
        .settings
        .vouchers
        .iter()
        .find(|voucher| voucher.issuer == issuer);
    let Some(voucher) = known else {
        return refused("invalid_grant", "Invalid grant: account not found", None, None);
    };
    let Some(claims) = verified(token, &voucher.certificate, false) else {
        return refused("invalid_grant", "Invalid JWT Signature.", None, None);
    };
    if !audience(server, &claims) || !is_now(server, &claims) {
        return refused(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
            None,
            None,
        );
    }
    let text = |key: &str| claims.get(key).and_then(Value::as_str).unwrap_or_default();
    let subject = text("sub");
    if !voucher.mailboxes.iter().any(|mailbox| mailbox == subject) {
        return refused(
            "unauthorized_client",
            "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.",
            None,
            None,
        );
    }
    let scopes = [text("scope"), field("scope")].join(" ");
    let user = User {
        address: subject.to_owned(),
        shared: Vec::new(),
    };
    let mut memory = server.memory();
    let memory = &mut *memory;
    memory.counters.unattended += 1;
    memory.families.push(Family {
        user,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        roles: None,
        alive: true,
    });
    let family = memory.families.len() - 1;
    server.tokens(memory, family, false, fault)
}

/// The platform of a machine, in both forms: `expires_in` is a text in the one, and is left out in
/// the other.
pub(super) async fn machine(
    State(server): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(fields): Query<Fields>,
) -> Response {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let fault = {
        let mut memory = server.memory();
        memory.counters.requests += 1;
        memory.faults.pop_front()
    };
    if let Some(Fault::Status(status, _)) = fault {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return (status, "not now").into_response();
    }
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    let service = match field("api-version") {
        "2018-02-01" if has("metadata", "true") => false,
        "2019-08-01" if has("x-identity-header", "sandbox") => true,
        _ => {
            return refused(
                "invalid_request",
                "Required metadata header not specified",
                None,
                None,
            );
        }
    };
    let (Some(application), true) = (
        &server.settings.application,
        field("resource").starts_with("https://"),
    ) else {
        return refused("invalid_request", "Identity not found", None, None);
    };
    let response = speaks(&server, application.clone(), None);
    let Ok(body) = axum::body::to_bytes(response.into_body(), 65_536).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let life = answer["expires_in"].as_i64().unwrap_or_default();
    answer["expires_on"] = json!((server.now().as_second() + life).to_string());
    answer["expires_in"] = json!(life.to_string());
    if service && let Some(answer) = answer.as_object_mut() {
        answer.remove("expires_in");
    }
    Json(answer).into_response()
}
