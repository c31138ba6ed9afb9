//! Microsoft Graph's mail, as its documentation has it: `sendMail` with MIME, drafts, attachments, upload sessions, and the
//! lists a Message-ID is looked up in. Keeps what was sent.
//!
//! It is as strict as the real one where that has cost mails: base64 must be base64; a body over 4 MB is refused, one over
//! 2.2 MB is answered with 200 and lost; five requests at once on a mailbox are one too many; pieces of an upload are in
//! order, below 4 MB and come without a token; nobody uploads into somebody else's mailbox with a person's token.

use super::oauth;
use super::web::{self, Fault, Faults, Served, error, json};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::MessageParser;
use serde_json::{Value, json as value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A request's longest body.
const REQUEST: usize = 4 * 1024 * 1024;
/// A MIME body beyond this is answered with 200, and lost.
const LOST: usize = 2_200_000;
/// Requests at once on one mailbox.
const AT_ONCE: usize = 4;
/// Pieces of an upload are multiples of this.
const UNIT: u64 = 320 * 1024;

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `sendMail`.
    SendMail,
    /// A new draft.
    Draft,
    /// A small attachment.
    Attach,
    /// A new upload session.
    Session,
    /// A piece of an upload.
    Piece,
    /// `send` of a draft.
    Send,
    /// A look for a message.
    Find,
}

/// A mail it sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Whose token.
    pub account: String,
    /// Out of which mailbox: where the copy lies.
    pub mailbox: String,
    /// The address in From.
    pub from: String,
    /// To, Cc and Bcc.
    pub to: Vec<String>,
    /// Its Message-ID.
    pub message_id: String,
    /// As it was given: all of it, or what the draft was made of.
    pub bytes: Vec<u8>,
    /// What was attached to the draft.
    pub attachments: Vec<(String, Vec<u8>)>,
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
    drafts: BTreeMap<String, Sent>,
    uploads: BTreeMap<String, Upload>,
    send_as: BTreeSet<(String, String)>,
    faults: Faults<Step>,
    asked: Vec<String>,
    busy: BTreeMap<String, usize>,
    most: usize,
    slow: Duration,
    numbers: u64,
}

#[derive(Debug, Default)]
struct Upload {
    draft: String,
    name: String,
    size: u64,
    bytes: Vec<u8>,
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

    /// Lets somebody send as a mailbox.
    pub fn grant(&self, user: &str, mailbox: &str) {
        let pair = (user.to_owned(), mailbox.to_owned());
        self.shared.kept().send_as.insert(pair);
    }

    /// The next such step that no fault waits for yet meets this one.
    pub fn fault(&self, step: Step, fault: Fault) {
        self.shared.kept().faults.add(step, fault);
    }

    /// From now on `sendMail` takes that long.
    pub fn slow(&self, time: Duration) {
        self.shared.kept().slow = time;
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

    /// Drafts that lie there.
    pub fn drafts(&self) -> usize {
        self.shared.kept().drafts.len()
    }

    /// What was asked, `VERB path`, in order.
    pub fn asked(&self) -> Vec<String> {
        self.shared.kept().asked.clone()
    }

    /// The most requests there were at once on one mailbox.
    pub fn most(&self) -> usize {
        self.shared.kept().most
    }
}

/// Whose request it is.
struct Who {
    user: String,
    shared: Vec<String>,
    scopes: Vec<String>,
}

impl Who {
    fn has(&self, rights: &[&str]) -> bool {
        let of = |scope: &String| scope.rsplit('/').next().unwrap_or_default().to_owned();
        self.scopes
            .iter()
            .map(of)
            .any(|scope| rights.contains(&scope.as_str()))
    }
}

async fn handle(State(server): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    server.kept().asked.push(format!("{} {path}", parts.method));
    let Some(body) = read(body).await else {
        return error(413, "RequestEntityTooLarge", "The request is too large.");
    };
    let segments: Vec<String> = path.split('/').skip(1).map(plain).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let ["upload", session] = segments[..] {
        return piece(&server, &parts.method, session, &parts.headers, body);
    }
    let Some(who) = signed_in(&server, &parts.headers) else {
        return error(
            401,
            "InvalidAuthenticationToken",
            "Access token has expired or is not yet valid.",
        );
    };
    let (mailbox, rest) = match segments[..] {
        ["v1.0", "me", ref rest @ ..] => (who.user.clone(), rest),
        ["v1.0", "users", user, ref rest @ ..] => (user.to_lowercase(), rest),
        _ => return error(404, "ResourceNotFound", "Resource could not be discovered."),
    };
    if mailbox != who.user && !who.shared.contains(&mailbox) {
        return denied();
    }
    {
        let mut kept = server.kept();
        let kept = &mut *kept;
        let busy = kept.busy.entry(mailbox.clone()).or_default();
        *busy += 1;
        kept.most = kept.most.max(*busy);
    }
    let busy = Busy(&server, mailbox.clone());
    if server
        .kept()
        .busy
        .get(&mailbox)
        .is_some_and(|busy| *busy > AT_ONCE)
    {
        let text = "Application is over its MailboxConcurrency limit.";
        let mut response = error(429, "ApplicationThrottled", text);
        let wait = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        return response;
    }
    let slow = server.kept().slow;
    tokio::time::sleep(slow).await;
    let step = match (&parts.method, rest) {
        (&Method::POST, ["sendMail"]) => Step::SendMail,
        (&Method::POST, ["messages"]) => Step::Draft,
        (&Method::POST, ["messages", _, "attachments"]) => Step::Attach,
        (&Method::POST, ["messages", _, "attachments", "createUploadSession"]) => Step::Session,
        (&Method::POST, ["messages", _, "send"]) => Step::Send,
        (&Method::GET, ["messages"]) => Step::Find,
        (&Method::DELETE, ["messages", draft]) => {
            server.kept().drafts.remove(*draft);
            return StatusCode::NO_CONTENT.into_response();
        }
        _ => return error(405, "Request_BadRequest", "The HTTP method is not supported."),
    };
    let fault = server.kept().faults.take(&step);
    let usual = match &fault {
        Some(fault) if !fault.does() => StatusCode::OK.into_response(),
        _ => match step {
            Step::SendMail => send_mail(&server, &who, &mailbox, &parts.headers, &body),
            Step::Draft => draft(&server, &who, &mailbox, &parts.headers, &body),
            Step::Attach => attach(&server, rest, &body),
            Step::Session => session(&server, &who, &mailbox, rest, &body),
            Step::Send => send(&server, &who, rest),
            Step::Find => find(&server, &who, &mailbox, parts.uri.query().unwrap_or_default()),
            Step::Piece => StatusCode::OK.into_response(),
        },
    };
    drop(busy);
    match fault {
        Some(fault) => fault.play(usual, &server.cuts),
        None => usual,
    }
}

/// One request on a mailbox.
struct Busy<'a>(&'a Shared, String);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.0.kept().busy.get_mut(&self.1) {
            *busy -= 1;
        }
    }
}

/// A part of a path without its percent signs.
fn plain(part: &str) -> String {
    let mut whole = part.to_owned();
    for (character, coded) in [('+', "%2B"), ('=', "%3D"), ('&', "%26")] {
        whole = whole.replace(character, coded);
    }
    url::form_urlencoded::parse(whole.as_bytes())
        .map(|(text, _)| text.into_owned())
        .collect()
}

async fn read(body: Body) -> Option<Vec<u8>> {
    to_bytes(body, REQUEST).await.ok().map(|bytes| bytes.to_vec())
}

fn signed_in(server: &Shared, headers: &HeaderMap) -> Option<Who> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let account = server.sign_in.check(token.strip_prefix("Bearer ")?)?;
    Some(Who {
        user: account.user.address,
        shared: account.user.shared,
        scopes: account.scopes,
    })
}

fn denied() -> Response {
    error(
        403,
        "ErrorAccessDenied",
        "Access is denied. Check credentials and try again.",
    )
}

/// The message of a body that is base64 of MIME.
fn mime(headers: &HeaderMap, body: &[u8]) -> Result<Sent, Box<Response>> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if kind != Some("text/plain") {
        let text = "Write requests are only supported with JSON or text/plain here.";
        return Err(Box::new(error(400, "BadRequest", text)));
    }
    let bytes = STANDARD.decode(body).map_err(|_| {
        let text = "Invalid base64 string for MIME content.";
        Box::new(error(400, "ErrorMimeContentInvalidBase64String", text))
    })?;
    let Some(parsed) = MessageParser::default().parse(&bytes) else {
        return Err(Box::new(error(
            400,
            "ErrorMimeContentInvalid",
            "Invalid MIME content.",
        )));
    };
    let lists = [parsed.to(), parsed.cc(), parsed.bcc()];
    let to: Vec<String> = lists
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter())
        .filter_map(|one| Some(one.address.as_deref()?.to_lowercase()))
        .collect();
    if to.is_empty() {
        return Err(Box::new(error(
            400,
            "ErrorInvalidRecipients",
            "At least one recipient is needed.",
        )));
    }
    let from = parsed
        .from()
        .and_then(|from| Some(from.first()?.address.as_deref()?.to_lowercase()));
    Ok(Sent {
        from: from.unwrap_or_default(),
        to,
        message_id: parsed.message_id().unwrap_or_default().to_owned(),
        bytes: bytes.clone(),
        ..Sent::default()
    })
}

/// Whether somebody may send this.
fn may(server: &Shared, who: &Who, mail: &Sent) -> Result<(), Box<Response>> {
    let own = mail.from == who.user;
    if !(who.has(&["Mail.Send"]) && (own || who.has(&["Mail.Send.Shared"]))) {
        return Err(Box::new(denied()));
    }
    if !own
        && !server
            .kept()
            .send_as
            .contains(&(who.user.clone(), mail.from.clone()))
    {
        let text = "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account.";
        return Err(Box::new(error(403, "ErrorSendAsDenied", text)));
    }
    Ok(())
}

fn keep(server: &Shared, mail: Sent) {
    let mut kept = server.kept();
    kept.sent.push(mail);
    let count = kept.sent.len();
    drop(kept);
    server.count.send_replace(count);
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, [("request-id", "sandbox-request")]).into_response()
}

fn send_mail(server: &Shared, who: &Who, mailbox: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let mail = match mime(headers, body) {
        Ok(mail) => mail,
        Err(response) => return *response,
    };
    if let Err(response) = may(server, who, &mail) {
        return *response;
    }
    if body.len() > LOST {
        return StatusCode::OK.into_response();
    }
    keep(
        server,
        Sent {
            account: who.user.clone(),
            mailbox: mailbox.to_owned(),
            ..mail
        },
    );
    accepted()
}

fn draft(server: &Shared, who: &Who, mailbox: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let own = mailbox == who.user;
    let rights = if own {
        &["Mail.ReadWrite"][..]
    } else {
        &["Mail.ReadWrite.Shared"]
    };
    if !who.has(rights) {
        return denied();
    }
    let mail = match mime(headers, body) {
        Ok(mail) => mail,
        Err(response) => return *response,
    };
    let mut kept = server.kept();
    kept.numbers += 1;
    let id = format!("draft-{}=", kept.numbers);
    kept.drafts.insert(
        id.clone(),
        Sent {
            account: who.user.clone(),
            mailbox: mailbox.to_owned(),
            ..mail
        },
    );
    json(StatusCode::CREATED, value!({ "id": id, "isDraft": true }))
}

fn attach(server: &Shared, rest: &[&str], body: &[u8]) -> Response {
    let attachment: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| {
        attachment
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let Ok(bytes) = STANDARD.decode(text("contentBytes")) else {
        return error(
            400,
            "RequestBodyRead",
            "Cannot convert the literal to Edm.Binary.",
        );
    };
    if text("@odata.type") != "#microsoft.graph.fileAttachment" || bytes.len() > 3 * 1024 * 1024 {
        return error(400, "ErrorInvalidRequest", "no file attachment of less than 3 MB");
    }
    match server
        .kept()
        .drafts
        .get_mut(rest.get(1).copied().unwrap_or_default())
    {
        Some(draft) => {
            draft.attachments.push((text("name"), bytes));
            json(StatusCode::CREATED, value!({ "id": "attachment" }))
        }
        None => missing(),
    }
}

fn missing() -> Response {
    error(
        404,
        "ErrorItemNotFound",
        "The specified object was not found in the store.",
    )
}

fn session(server: &Shared, who: &Who, mailbox: &str, rest: &[&str], body: &[u8]) -> Response {
    if mailbox != who.user {
        // The known fault: a person's token uploads into that person's mailbox only.
        return denied();
    }
    let item: Value = serde_json::from_slice(body).unwrap_or_default();
    let item = item.get("AttachmentItem").cloned().unwrap_or_default();
    let size = item.get("size").and_then(Value::as_u64).unwrap_or_default();
    let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
    if !(3 * 1024 * 1024..=150 * 1024 * 1024).contains(&size)
        || item.get("attachmentType") != Some(&"file".into())
    {
        return error(
            400,
            "ErrorInvalidRequest",
            "an upload session is for files of 3 to 150 MB",
        );
    }
    let draft = rest.get(1).copied().unwrap_or_default().to_owned();
    let mut kept = server.kept();
    if !kept.drafts.contains_key(&draft) {
        return missing();
    }
    kept.numbers += 1;
    let id = format!("session-{}", kept.numbers);
    let upload = Upload {
        draft,
        name: name.to_owned(),
        size,
        bytes: Vec::new(),
    };
    kept.uploads.insert(id.clone(), upload);
    let url = format!("{}upload/{id}?authtoken=canary-of-the-session", server.url);
    json(
        StatusCode::CREATED,
        value!({ "uploadUrl": url, "expirationDateTime": "2099-01-01T00:00:00Z", "nextExpectedRanges": ["0-"] }),
    )
}

fn piece(server: &Shared, method: &Method, session: &str, headers: &HeaderMap, body: Vec<u8>) -> Response {
    if headers.contains_key(header::AUTHORIZATION) {
        return error(401, "InvalidAuthenticationToken", "no token belongs here");
    }
    let fault = match *method {
        Method::PUT => server.kept().faults.take(&Step::Piece),
        _ => None,
    };
    let usual = match &fault {
        Some(fault) if !fault.does() => StatusCode::OK.into_response(),
        _ => take_piece(server, method, session, headers, &body),
    };
    match fault {
        Some(fault) => fault.play(usual, &server.cuts),
        None => usual,
    }
}

fn take_piece(server: &Shared, method: &Method, session: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let mut kept = server.kept();
    let Some(upload) = kept.uploads.get_mut(session) else {
        return missing();
    };
    let next = upload.bytes.len() as u64;
    let expected = || {
        let body = value!({ "expirationDateTime": "2099-01-01T00:00:00Z", "nextExpectedRanges": [format!("{next}-")] });
        json(StatusCode::OK, body)
    };
    match *method {
        Method::GET => return expected(),
        Method::PUT => {}
        _ => return error(405, "Request_BadRequest", "PUT or GET"),
    }
    let range = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let end = (next + body.len() as u64).saturating_sub(1);
    let length = body.len() as u64;
    let in_order = range == Some(format!("bytes {next}-{end}/{}", upload.size).as_str());
    let well_sized = length < REQUEST as u64 && (length.is_multiple_of(UNIT) || end + 1 == upload.size);
    if !in_order {
        return error(416, "ErrorInvalidRange", "not the range that is expected");
    }
    if !well_sized {
        return error(
            400,
            "ErrorInvalidRange",
            "pieces are multiples of 320 KiB, below 4 MB",
        );
    }
    upload.bytes.extend_from_slice(body);
    if end + 1 < upload.size {
        let next = end + 1;
        let body = value!({ "expirationDateTime": "2099-01-01T00:00:00Z", "nextExpectedRanges": [format!("{next}-")] });
        return json(StatusCode::OK, body);
    }
    let Some(whole) = kept.uploads.remove(session) else {
        return missing();
    };
    if let Some(draft) = kept.drafts.get_mut(&whole.draft) {
        draft.attachments.push((whole.name, whole.bytes));
    }
    (
        StatusCode::CREATED,
        [(header::LOCATION, "http://127.0.0.1/attachments/1")],
    )
        .into_response()
}

fn send(server: &Shared, who: &Who, rest: &[&str]) -> Response {
    let id = rest.get(1).copied().unwrap_or_default();
    let Some(mail) = server.kept().drafts.get(id).cloned() else {
        return missing();
    };
    if let Err(response) = may(server, who, &mail) {
        return *response;
    }
    server.kept().drafts.remove(id);
    keep(server, mail);
    accepted()
}

fn find(server: &Shared, who: &Who, mailbox: &str, query: &str) -> Response {
    if !who.has(&["Mail.Read", "Mail.ReadBasic", "Mail.ReadWrite"]) {
        return denied();
    }
    let filter = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "$filter")
        .map(|(_, filter)| filter.into_owned())
        .unwrap_or_default();
    let id = filter
        .strip_prefix("internetMessageId eq '<")
        .and_then(|rest| rest.strip_suffix(">'"))
        .map(|id| id.replace("''", "'"));
    let Some(id) = id else {
        return error(
            400,
            "ErrorInvalidUrlQueryFilter",
            "The query filter contains one or more invalid nodes.",
        );
    };
    let kept = server.kept();
    let is_it = |mail: &&Sent| mail.message_id == id && mail.mailbox == mailbox;
    let sent = kept
        .sent
        .iter()
        .filter(is_it)
        .map(|_| value!({ "id": "s", "isDraft": false }));
    let drafts = kept
        .drafts
        .values()
        .filter(is_it)
        .map(|_| value!({ "id": "d", "isDraft": true }));
    let list: Vec<Value> = sent.chain(drafts).collect();
    json(StatusCode::OK, value!({ "value": list }))
}
