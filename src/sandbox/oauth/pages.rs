//! What all addresses share: fields of a form, the page to sign in at, a refusal.

use super::memory::User;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use serde_json::json;
use std::collections::HashMap;

pub(super) type Fields = HashMap<String, String>;

pub(super) fn sign_in_page(path: &str, users: &[User], fields: &Fields) -> String {
    let link = |name: &str, value: &str| {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .append_pair(name, value)
            .finish();
        format!("{path}?{}", query.replace('&', "&amp;"))
    };
    let buttons: String = users
        .iter()
        .map(|user| {
            let name = user.address.split('@').next().unwrap_or_default();
            format!(
                "<p><a class=\"b\" href=\"{}\">Sign in as {name}</a><br><small>{}</small></p>",
                link("user", &user.address),
                user.address
            )
        })
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Sandbox sign-in</title><style>body{{font:16px/1.5 system-ui,sans-serif;background:#f4f5f7;color:#1c2330}}\
         main{{max-width:26rem;margin:12vh auto;padding:2rem;background:#fff;border-radius:10px}}\
         .b{{display:inline-block;padding:.55rem 1.1rem;border-radius:6px;background:#1f5fd6;color:#fff;text-decoration:none}}</style>\
         <main><h1>Sandbox</h1><p>tidings wants to send mail. Nothing here leaves this machine.</p>{buttons}\
         <p><a href=\"{}\">Say no</a></p></main></html>",
        link("decline", "yes")
    )
}

pub(super) fn refused(error: &str, text: &str, aadsts: Option<u32>, suberror: Option<&str>) -> Response {
    let mut answer = json!({
        "error": error, "error_description": text,
        "trace_id": "00000000-sandbox", "correlation_id": "00000000-sandbox",
    });
    if let Some(number) = aadsts {
        answer["error_description"] = json!(format!("AADSTS{number}: {text}"));
        answer["error_codes"] = json!([number]);
    }
    if let Some(suberror) = suberror {
        answer["suberror"] = json!(suberror);
    }
    let status = match error {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, Json(answer)).into_response()
}
