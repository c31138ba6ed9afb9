//! What an access token says of itself, where it is a JWT. Pure.
//!
//! To whoever presents it a token is opaque (RFC 9068 6), so nothing is ever decided by this: it is only what a
//! person is shown who looks for a fault.

use crate::http::answer::shown;
use crate::oauth::token::AccessToken;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Which service it is for.
    pub audience: Vec<String>,
    /// Rights a person gave (`scp`, `scope`).
    pub scopes: Vec<String>,
    /// Rights the application has by itself (`roles`).
    pub roles: Vec<String>,
    /// The directory.
    pub tenant: Option<String>,
    /// Who signed in.
    pub user: Option<String>,
    /// The application.
    pub application: Option<String>,
}

/// Reads a token's payload; `None` where it has none that can be read.
pub fn of(token: &AccessToken) -> Option<Claims> {
    read(token.secret().expose())
}

fn read(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| claims.get(*name)?.as_str());
        found.map(shown).filter(|text| !text.is_empty())
    };
    let list = |names: &[&str]| -> Vec<String> {
        match names.iter().find_map(|name| claims.get(*name)) {
            Some(Value::String(words)) => words.split_whitespace().map(shown).collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).map(shown).collect(),
            _ => Vec::new(),
        }
    };
    Some(Claims {
        audience: list(&["aud"]),
        scopes: list(&["scp", "scope"]),
        roles: list(&["roles"]),
        tenant: text(&["tid"]),
        user: text(&["upn", "preferred_username", "unique_name", "email"]),
        application: text(&["appid", "azp", "client_id"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_tells_whom_it_is_for_and_anything_else_tells_nothing() {
        let payload = r#"{"aud":"https://graph.microsoft.com","scp":"Mail.Send User.Read","tid":"t-1","upn":"a@b.example\u001b[2J","roles":["SMTP.SendAsApp"]}"#;
        let token = format!("x.{}.y", BASE64_URL_SAFE_NO_PAD.encode(payload));
        let claims = read(&token).unwrap();
        assert_eq!(claims.audience, ["https://graph.microsoft.com"]);
        assert_eq!(claims.scopes, ["Mail.Send", "User.Read"]);
        assert_eq!(claims.roles, ["SMTP.SendAsApp"]);
        assert_eq!(claims.user.as_deref(), Some("a@b.example\\u{1b}[2J"));
        for opaque in ["", "at-1234", "a.b.c", "ya29.a0Af"] {
            assert_eq!(read(opaque), None);
        }
    }
}
