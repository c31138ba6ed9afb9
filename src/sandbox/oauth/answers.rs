//! The pages and endpoints of the authorization server.

use super::memory::{Code, Family, Fault, Memory, Renewing, Rotation, Shared};
use super::others;
use super::pages::{Fields, refused, sign_in_page};
use axum::body::Body;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

impl Shared {
    /// New tokens for a family; `renews` is false where the old refresh token stays.
    pub(super) fn tokens(
        &self,
        memory: &mut Memory,
        number: usize,
        renews: bool,
        fault: Option<&Fault>,
    ) -> Response {
        let Some(family) = memory.families.get(number) else {
            return refused("invalid_grant", "no such grant", None, None);
        };
        let life = memory.life.unwrap_or(self.settings.life);
        let access = match &family.roles {
            None => self.fresh("at"),
            // What an application may do stands in its token.
            Some(roles) => format!(
                "e30.{}.{}",
                BASE64.encode(json!({ "roles": roles }).to_string()),
                self.fresh("at")
            ),
        };
        let claims = json!({
            "iss": self.url.as_str(), "aud": self.settings.client_id, "sub": family.user.address,
            "preferred_username": family.user.address, "email": family.user.address,
            "oid": format!("oid-{}", family.user.address), "tid": "sandbox",
        });
        let mut answer = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": life.as_secs(),
            "scope": family.scopes.join(" "),
        });
        if fault == Some(&Fault::TextualExpiry) {
            answer["expires_in"] = json!(life.as_secs().to_string());
        }
        if family.scopes.iter().any(|scope| scope == "openid") {
            answer["id_token"] = json!(format!(
                "{}.{}.",
                BASE64.encode(r#"{"alg":"none"}"#),
                BASE64.encode(claims.to_string())
            ));
        }
        let offline = family.scopes.iter().any(|scope| scope == "offline_access");
        memory.access.insert(access, (number, self.after(life)));
        if offline && renews {
            let refresh = self.fresh("rt");
            answer["refresh_token"] = json!(refresh);
            memory.refresh.insert(
                refresh,
                Renewing {
                    family: number,
                    used: None,
                },
            );
        }
        if fault == Some(&Fault::Drop) {
            // A length that the body does not keep makes the server break the connection.
            let mut response = Response::new(Body::from("{"));
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from_static("4096"));
            return response;
        }
        ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
    }
}

/// The server's own time, where that is another than this machine's.
pub(super) async fn dated(State(server): State<Arc<Shared>>, mut response: Response) -> Response {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&server.now())
        .ok()
        .and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(date) = date.filter(|_| server.settings.tells_time) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

pub(super) async fn discover(State(server): State<Arc<Shared>>) -> Response {
    let at = |path: &str| format!("{}{path}", server.url);
    Json(json!({
        "issuer": server.url.as_str().trim_end_matches('/'),
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"),
        "device_authorization_endpoint": at("device"),
        "revocation_endpoint": at("revoke"),
        "authorization_response_iss_parameter_supported": true,
        "code_challenge_methods_supported": ["S256"],
    }))
    .into_response()
}

pub(super) async fn authorize(State(server): State<Arc<Shared>>, Query(fields): Query<Fields>) -> Response {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let redirect = Url::parse(field("redirect_uri"))
        .ok()
        .filter(|url| url.scheme() == "https" || crate::http::way::is_loopback(url));
    let (Some(redirect), true) = (redirect, field("client_id") == server.settings.client_id) else {
        let text = "AADSTS50011: this client or its redirect address is not registered here";
        return (StatusCode::BAD_REQUEST, Html(text)).into_response();
    };
    let back = |answer: &[(&str, &str)]| {
        let mut redirect = redirect.clone();
        redirect
            .query_pairs_mut()
            .extend_pairs(answer)
            .append_pair("state", field("state"))
            .append_pair("iss", server.url.as_str().trim_end_matches('/'));
        Redirect::to(redirect.as_str()).into_response()
    };
    if field("response_type") != "code"
        || field("code_challenge_method") != "S256"
        || field("code_challenge").is_empty()
    {
        return back(&[
            ("error", "invalid_request"),
            ("error_description", "code with PKCE S256 is needed"),
        ]);
    }
    if field("decline") == "yes" {
        return back(&[
            ("error", "access_denied"),
            ("error_description", "the person said no"),
        ]);
    }
    let chosen = Some(field("user")).filter(|user| !user.is_empty());
    let Some(user) = chosen.or(server.settings.approve.as_deref()) else {
        return Html(sign_in_page("/authorize", &server.settings.users, &fields)).into_response();
    };
    let Some(user) = server.user(user) else {
        return back(&[
            ("error", "access_denied"),
            ("error_description", "AADSTS50034: nobody of that name"),
        ]);
    };
    let code = server.fresh("code");
    let until = server.after(Duration::from_secs(600));
    let mut memory = server.memory();
    let family = memory.families.len();
    memory.families.push(Family {
        user: user.clone(),
        scopes: field("scope").split_whitespace().map(str::to_owned).collect(),
        roles: None,
        alive: true,
    });
    memory.codes.insert(
        code.clone(),
        Code {
            family,
            challenge: field("code_challenge").to_owned(),
            redirect: field("redirect_uri").to_owned(),
            until,
            used: false,
        },
    );
    drop(memory);
    back(&[("code", &code)])
}

pub(super) async fn token(State(server): State<Arc<Shared>>, Form(fields): Form<Fields>) -> Response {
    let fault = {
        let mut memory = server.memory();
        memory.counters.requests += 1;
        let requests = memory.counters.requests;
        let queued = memory.faults.pop_front();
        queued.or_else(|| {
            let (n, fault) = memory.every.as_ref()?;
            requests.is_multiple_of(*n).then(|| fault.clone())
        })
    };
    match &fault {
        Some(Fault::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let error = json!({"error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error has occurred."});
            let mut response = (status, Json(error)).into_response();
            if let Some(seconds) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            return response;
        }
        Some(Fault::Page) => {
            let page =
                "<html><head><title>502 Bad Gateway</title></head><body><h1>proxy.local</h1></body></html>";
            return (StatusCode::BAD_GATEWAY, Html(page)).into_response();
        }
        Some(Fault::Portal) => {
            return Html("<html><body>Please accept our terms</body></html>").into_response();
        }
        Some(Fault::InvalidGrant(number, suberror)) => {
            return refused(
                "invalid_grant",
                "the grant is refused",
                Some(*number),
                Some(suberror),
            );
        }
        Some(Fault::InvalidClient(number)) => {
            return refused("invalid_client", "the client is refused", Some(*number), None);
        }
        Some(Fault::Slow(wait)) => tokio::time::sleep(*wait).await,
        _ => {}
    }
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let vouched = field("grant_type") == others::JWT_BEARER;
    // Google's service accounts are known by their assertion and by nothing else.
    if !(vouched && field("client_id").is_empty())
        && let Some(refusal) = others::stranger(&server, &fields)
    {
        server.memory().counters.unproven += 1;
        return refusal;
    }
    match field("grant_type") {
        others::DEVICE => others::poll(&server, field, fault.as_ref()),
        "client_credentials" => others::application(&server, fault.as_ref()),
        others::JWT_BEARER => others::vouch(&server, field, fault.as_ref()),
        "authorization_code" => redeem(&server, field, fault.as_ref()),
        "refresh_token" => refresh(&server, field, fault.as_ref()),
        _ => refused(
            "unsupported_grant_type",
            "this grant is not known here",
            None,
            None,
        ),
    }
}

fn redeem<'a>(server: &Shared, field: impl Fn(&str) -> &'a str, fault: Option<&Fault>) -> Response {
    let now = server.now();
    let mut memory = server.memory();
    let memory = &mut *memory;
    let Some(code) = memory.codes.get_mut(field("code")) else {
        return refused("invalid_grant", "no such code", Some(70_008), None);
    };
    if code.used {
        if let Some(family) = memory.families.get_mut(code.family) {
            family.alive = false;
        }
        return refused("invalid_grant", "the code was used before", Some(54_005), None);
    }
    code.used = true;
    let challenge = BASE64.encode(ring::digest::digest(
        &ring::digest::SHA256,
        field("code_verifier").as_bytes(),
    ));
    if challenge != code.challenge {
        return refused(
            "invalid_grant",
            "the code_verifier does not match",
            Some(501_481),
            None,
        );
    }
    if field("redirect_uri") != code.redirect || now > code.until {
        return refused(
            "invalid_grant",
            "another redirect, or too late",
            Some(70_008),
            None,
        );
    }
    let family = code.family;
    memory.counters.redeemed += 1;
    server.tokens(memory, family, true, fault)
}

fn refresh<'a>(server: &Shared, field: impl Fn(&str) -> &'a str, fault: Option<&Fault>) -> Response {
    let now = server.now();
    let mut memory = server.memory();
    let memory = &mut *memory;
    let Some(token) = memory.refresh.get_mut(field("refresh_token")) else {
        return refused(
            "invalid_grant",
            "no such refresh token",
            Some(9_002_313),
            Some("bad_token"),
        );
    };
    let Some(family) = memory
        .families
        .get_mut(token.family)
        .filter(|family| family.alive)
    else {
        return refused(
            "invalid_grant",
            "the grant was revoked",
            Some(50_173),
            Some("bad_token"),
        );
    };
    let asked: Vec<&str> = field("scope").split_whitespace().collect();
    if asked
        .iter()
        .any(|asked| !family.scopes.iter().any(|granted| granted == asked))
    {
        return refused(
            "invalid_grant",
            "a scope was asked for that is not granted",
            Some(70_000),
            None,
        );
    }
    if let Some(used) = token.used {
        let again = match server.settings.rotation {
            Rotation::Keep | Rotation::Lenient => true,
            Rotation::Strict => false,
            Rotation::Grace(time) => Duration::try_from(now.duration_since(used)).unwrap_or_default() <= time,
        };
        if !again {
            family.alive = false;
            memory.counters.reused += 1;
            return refused(
                "invalid_grant",
                "the refresh token was used before; its family ends",
                Some(50_173),
                Some("bad_token"),
            );
        }
    } else {
        token.used = Some(now);
    }
    let number = token.family;
    memory.counters.refreshes += 1;
    server.tokens(memory, number, server.settings.rotation != Rotation::Keep, fault)
}

pub(super) async fn revoke(State(server): State<Arc<Shared>>, Form(fields): Form<Fields>) -> Response {
    let mut memory = server.memory();
    let token = fields.get("token").map(String::as_str).unwrap_or_default();
    let number = memory
        .refresh
        .get(token)
        .map(|token| token.family)
        .or_else(|| memory.access.get(token).map(|(family, _)| *family));
    // An unknown token is as good as revoked (RFC 7009 2.2).
    if let Some(family) = number.and_then(|number| memory.families.get_mut(number)) {
        family.alive = false;
        memory.counters.revoked += 1;
    }
    StatusCode::OK.into_response()
}
