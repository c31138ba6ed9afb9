//! The Gmail API's `messages.send`, as its documentation has it: `raw` in JSON, resumable uploads, and the list a Message-ID
//! is looked up in. Keeps what was sent.

use super::oauth;
use super::web::{self, Fault, Faults, Served, json};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use mail_parser::MessageParser;
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;

/// The longest message.
const LONGEST: usize = 36_700_160;
/// The longest JSON request.
const REQUEST: usize = 10 * 1024 * 1024;
/// Pieces of an upload are multiples of this.
const UNIT: usize = 256 * 1024;
/// May send, and nothing else.
const SEND: &str = "https://www.googleapis.com/auth/gmail.send";
/// May do everything.
const ALL: &str = "https://mail.google.com/";

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `messages.send` with `raw`.
    Send,
    /// A new upload.
    Begin,
    /// A piece of an upload.
    Piece,
    /// How far an upload is.
    Status,
    /// A look for a message.
    Find,
}

/// A mail it sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whose token, and so whose mailbox.
    pub account: String,
    /// To, Cc and Bcc.
    pub to: Vec<String>,
    /// Its Message-ID.
    pub message_id: String,
    /// As it was given.
    pub bytes: Vec<u8>,
}

/// A running service.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    served: Served,
}

type Shared = web::Shared<Kept>;

#[derive(Debug, Default)]
struct Kept {
    sent: Vec<Sent>,
    uploads: BTreeMap<String, Upload>,
    faults: Faults<Step>,
    asked: Vec<String>,
}

#[derive(Debug, Default)]
struct Upload {
    account: String,
    size: usize,
    bytes: Vec<u8>,
    /// The number of the message it became.
    done: Option<String>,
}

impl Server {
    /// Starts one whose people are those of `sign_in`.
    pub async fn start(sign_in: oauth::Handle) -> std::io::Result<Server> {
        let app = |shared| Router::new().fallback(handle).with_state(shared);
        let (shared, served) = web::open(sign_in, app).await?;
        Ok(Server { shared, served })
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.served.url
    }

    /// The next such step that no fault waits for yet meets this one.
    pub fn fault(&self, step: Step, fault: Fault) {
        self.shared.kept().faults.add(step, fault);
    }

    /// What it has sent so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.shared.kept().sent.clone()
    }

    /// Waits until it has sent so many.
    pub async fn received(&self, count: usize) -> Vec<Sent> {
        self.shared.sent(count).await;
        self.sent()
    }

    /// What was asked, `VERB path`, in order.
    pub fn asked(&self) -> Vec<String> {
        self.shared.kept().asked.clone()
    }
}

/// An error as Google writes it.
fn error(status: u16, reason: &str, message: &str) -> Response {
    let body = value!({ "error": {
        "code": status, "message": message,
        "errors": [{ "message": message, "domain": "global", "reason": reason }],
    }});
    json(
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body,
    )
}

async fn handle(State(server): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    server.kept().asked.push(format!("{} {path}", parts.method));
    let Ok(body) = to_bytes(body, REQUEST).await else {
        return error(413, "uploadTooLarge", "Request Entity Too Large");
    };
    let field = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let step = match (&parts.method, &segments[..]) {
        (&Method::POST, ["gmail", "v1", "users", "me", "messages", "send"]) => Step::Send,
        (&Method::GET, ["gmail", "v1", "users", "me", "messages"]) => Step::Find,
        (&Method::POST, ["upload", "gmail", "v1", "users", "me", "messages", "send"]) => Step::Begin,
        (&Method::PUT, ["upload", "gmail", "v1", "users", "me", "messages", "send"]) if body.is_empty() => {
            Step::Status
        }
        (&Method::PUT, ["upload", "gmail", "v1", "users", "me", "messages", "send"]) => Step::Piece,
        _ => return error(404, "notFound", "Not Found"),
    };
    let account = match step {
        Step::Piece | Step::Status => None,
        _ => match signed_in(&server, &parts.headers) {
            None => return error(401, "authError", "Invalid Credentials"),
            Some((_, scopes)) if step == Step::Find && !scopes.iter().any(|scope| scope == ALL) => {
                return error(
                    403,
                    "insufficientPermissions",
                    "Request had insufficient authentication scopes.",
                );
            }
            Some((_, scopes)) if !scopes.iter().any(|scope| scope == ALL || scope == SEND) => {
                return error(
                    403,
                    "insufficientPermissions",
                    "Request had insufficient authentication scopes.",
                );
            }
            Some((account, _)) => Some(account),
        },
    };
    let account = account.unwrap_or_default();
    let fault = server.kept().faults.take(&step);
    let usual = match &fault {
        Some(fault) if !fault.does() => StatusCode::OK.into_response(),
        _ => match step {
            Step::Send => send(&server, &account, &body),
            Step::Begin => begin(&server, account, &parts.headers, &field("uploadType")),
            Step::Piece | Step::Status => piece(&server, &field("upload_id"), &parts.headers, &body),
            Step::Find => find(&server, &account, &field("q")),
        },
    };
    match fault {
        Some(Fault::Status(status, reason, wait)) => {
            let mut response = error(status, reason, "as the test wants it");
            if let Some(wait) = wait.and_then(|wait| wait.parse().ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, wait);
            }
            response
        }
        Some(fault) => fault.play(usual, &server.cuts),
        None => usual,
    }
}

fn signed_in(server: &Shared, headers: &HeaderMap) -> Option<(String, Vec<String>)> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let account = server.sign_in.check(token.strip_prefix("Bearer ")?)?;
    Some((account.user.address, account.scopes))
}

fn take(server: &Shared, account: &str, bytes: &[u8]) -> Result<String, Box<Response>> {
    let invalid = || Box::new(error(400, "invalidArgument", "Recipient address required"));
    let parsed = MessageParser::default().parse(bytes).ok_or_else(invalid)?;
    let lists = [parsed.to(), parsed.cc(), parsed.bcc()];
    let to: Vec<String> = lists
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter())
        .filter_map(|one| Some(one.address.as_deref()?.to_lowercase()))
        .collect();
    if to.is_empty() {
        return Err(invalid());
    }
    let mut kept = server.kept();
    kept.sent.push(Sent {
        account: account.to_owned(),
        to,
        message_id: parsed.message_id().unwrap_or_default().to_owned(),
        bytes: bytes.to_vec(),
    });
    let count = kept.sent.len();
    drop(kept);
    server.count.send_replace(count);
    Ok(format!("{count:016x}"))
}

fn done(id: &str) -> Response {
    json(
        StatusCode::OK,
        value!({ "id": id, "threadId": id, "labelIds": ["SENT"] }),
    )
}

fn send(server: &Shared, account: &str, body: &[u8]) -> Response {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let raw = message.get("raw").and_then(Value::as_str).unwrap_or_default();
    let Ok(bytes) = BASE64_URL_SAFE.decode(raw) else {
        return error(400, "invalidArgument", "Invalid value for ByteString");
    };
    match take(server, account, &bytes) {
        Ok(id) => done(&id),
        Err(response) => *response,
    }
}

fn begin(server: &Shared, account: String, headers: &HeaderMap, kind: &str) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let size: usize = text("x-upload-content-length").parse().unwrap_or(usize::MAX);
    if kind != "resumable" || text("x-upload-content-type") != "message/rfc822" {
        return error(400, "invalid", "Media type is not supported.");
    }
    if size > LONGEST {
        return error(413, "uploadTooLarge", "Request Entity Too Large");
    }
    let mut kept = server.kept();
    let id = format!("upload-{}", kept.uploads.len() + 1);
    let upload = Upload {
        account,
        size,
        ..Upload::default()
    };
    kept.uploads.insert(id.clone(), upload);
    let place = format!(
        "{}upload/gmail/v1/users/me/messages/send?uploadType=resumable&upload_id={id}",
        server.url
    );
    (StatusCode::OK, [(header::LOCATION, place)]).into_response()
}

fn piece(server: &Shared, id: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let mut kept = server.kept();
    let Some(upload) = kept.uploads.get_mut(id) else {
        return error(404, "notFound", "Not Found");
    };
    if let Some(id) = &upload.done {
        return done(id);
    }
    let go_on = |have: usize| {
        let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
        if let Ok(range) = format!("bytes=0-{}", have.saturating_sub(1)).parse()
            && have > 0
        {
            response.headers_mut().insert(header::RANGE, range);
        }
        response
    };
    if body.is_empty() {
        return go_on(upload.bytes.len());
    }
    let range = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let (start, end) = (upload.bytes.len(), upload.bytes.len() + body.len());
    if range != Some(format!("bytes {start}-{}/{}", end - 1, upload.size).as_str()) {
        return error(400, "badRequest", "Failed to parse Content-Range header.");
    }
    if end < upload.size && !body.len().is_multiple_of(UNIT) {
        return error(400, "badRequest", "pieces are multiples of 256 KiB");
    }
    upload.bytes.extend_from_slice(body);
    if end < upload.size {
        return go_on(end);
    }
    let (account, bytes) = (upload.account.clone(), upload.bytes.clone());
    drop(kept);
    match take(server, &account, &bytes) {
        Ok(number) => {
            if let Some(upload) = server.kept().uploads.get_mut(id) {
                upload.done = Some(number.clone());
            }
            done(&number)
        }
        Err(response) => *response,
    }
}

fn find(server: &Shared, account: &str, query: &str) -> Response {
    let id = query.strip_prefix("rfc822msgid:").unwrap_or_default();
    let found: Vec<Value> = server
        .kept()
        .sent
        .iter()
        .filter(|mail| mail.message_id == id && mail.account == account)
        .map(|_| value!({ "id": "1", "threadId": "1" }))
        .collect();
    let mut answer = value!({ "resultSizeEstimate": found.len() });
    if !found.is_empty() {
        answer["messages"] = found.into();
    }
    json(StatusCode::OK, answer)
}
