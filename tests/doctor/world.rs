//! An account that works, and every way to break it: a sign-in server that answers as told, a submission server as
//! Exchange has it, a grant in the store.

use crate::common::{self, text};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings::cli::Exit;
use tidings::cli::auth;
use tidings::cli::doctor::{self, Args};
use tidings::cli::face::Face;
use tidings::clock::Clock;
use tidings::config::secret::Secret;
use tidings::config::settings::Settings;
use tidings::oauth::grants::Identity;
use tidings::oauth::vault::{Kept, Standing};
use tidings::rule::load;
use tidings::sandbox::Authority;
use tidings::sandbox::smtp::{self, Act, At, Authorize, Faults, MaySend};
use tidings::store::Store;

pub const ALICE: &str = "alice@contoso.example";
pub const INVOICES: &str = "invoices@contoso.example";
pub const SEND: &str = "https://outlook.office.com/SMTP.Send";
pub const CLIENT: &str = "4f0c8a52-0000-0000-0000-000000000000";

/// What a page of the sign-in server answers.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    pub fn json(status: u16, body: Value) -> Answer {
        Answer {
            status,
            kind: "application/json",
            body: body.to_string(),
        }
    }

    pub fn page(status: u16, body: &str) -> Answer {
        Answer {
            status,
            kind: "text/html",
            body: body.to_owned(),
        }
    }
}

/// What the sign-in server goes by.
#[derive(Default)]
struct Script {
    token: Option<Answer>,
    page: Option<Answer>,
    ahead: i64,
}

type Shared = Arc<Mutex<Script>>;

fn answer(script: &Script, answer: Option<&Answer>) -> Response {
    let answer = answer
        .cloned()
        .unwrap_or_else(|| Answer::page(404, "nothing here"));
    let now = Timestamp::now() + SignedDuration::from_secs(script.ahead);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, answer.kind.parse().unwrap());
    headers.insert(
        header::DATE,
        now.strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
            .parse()
            .unwrap(),
    );
    (StatusCode::from_u16(answer.status).unwrap(), headers, answer.body).into_response()
}

/// An access token that tells of itself.
pub fn jwt(claims: Value) -> String {
    format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub struct Patient {
    folder: tempfile::TempDir,
    authority: Authority,
    yaml: String,
    sign_in: String,
    script: Shared,
    server: tokio::sync::OnceCell<(smtp::Server, Settings)>,
    settings: smtp::Settings,
    /// What the token endpoint answers.
    pub token: Answer,
    /// What the sign-in page shows.
    pub page: Answer,
    /// By how much the sign-in server's clock is ahead.
    pub clock_ahead: i64,
    /// The client secret.
    pub secret: String,
    /// The access token that comes.
    pub access: String,
    /// What is kept of the grant.
    pub grant: Option<Kept>,
    pub lose_key: bool,
    pub authorize: Authorize,
    pub may_send: MaySend,
    pub offers: Option<&'static str>,
    pub send_to: Option<&'static str>,
    pub account: Option<&'static str>,
}

impl Patient {
    /// An account that works.
    pub async fn new() -> Patient {
        common::crypto();
        let script = Shared::default();
        let app = Router::new()
            .route(
                "/token",
                any(|State(script): State<Shared>| async move {
                    let script = script.lock().unwrap();
                    answer(&script, script.token.as_ref())
                }),
            )
            .route(
                "/authorize",
                get(|State(script): State<Shared>| async move {
                    let script = script.lock().unwrap();
                    answer(&script, script.page.as_ref())
                }),
            )
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sign_in = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let authority = Authority::new().unwrap();
        let allow: Authorize = Arc::new(|mailbox, _| Ok(mailbox.to_owned()));
        let may_send: MaySend = Arc::new(|_, _, _| Ok(()));
        let settings = smtp::Settings::exchange(
            authority.server().unwrap(),
            Arc::clone(&allow),
            Arc::clone(&may_send),
        );
        let yaml = format!(
            "accounts:
  office:
    provider:
      preset: microsoft365
      authorize_url: {sign_in}authorize
      token_url: {sign_in}token
      scopes: [offline_access, \"{SEND}\"]
      smtp: {{ host: 127.0.0.1, port: MAILPORT, tls: starttls, ca_file: ca.pem, login_as: sender }}
    user: {ALICE}
    senders: [{INVOICES}]
    oauth2: {{ tenant: contoso.example, client_id: {CLIENT}, client_secret: {{ file: secret }} }}
defaults: {{ account: office, from: {ALICE} }}
"
        );
        let now = Timestamp::now();
        let grant = Kept {
            access: Secret::new("at-0"),
            refresh: Some(Secret::new("rt-0")),
            previous: None,
            scopes: vec![SEND.to_owned(), "offline_access".to_owned()],
            token_type: "Bearer".to_owned(),
            obtained: now - SignedDuration::from_hours(72),
            expires: now + SignedDuration::from_mins(30),
            life: Duration::from_secs(3600),
            refreshed: now - SignedDuration::from_mins(30),
            refresh_began: None,
            identity: Identity {
                preferred_username: Some(ALICE.to_owned()),
                tid: Some("contoso.example".to_owned()),
                ..Identity::default()
            },
            client_id: CLIENT.to_owned(),
            unattended: false,
            standing: Standing::Valid,
            trouble: None,
            claims: None,
            skew: None,
        };
        Patient {
            folder: tempfile::tempdir().unwrap(),
            authority,
            yaml,
            sign_in,
            script,
            server: tokio::sync::OnceCell::new(),
            settings,
            token: Answer::json(0, Value::Null),
            page: Answer::page(200, "<html>Sign in</html>"),
            clock_ahead: 0,
            secret: "abc8Q~the-value-of-a-secret".to_owned(),
            access: "at-1".to_owned(),
            grant: Some(grant),
            lose_key: false,
            authorize: allow,
            may_send,
            offers: None,
            send_to: None,
            account: Some("office"),
        }
    }

    pub fn mail(&self) -> &smtp::Server {
        &self.server.get().unwrap().0
    }

    pub fn sign_in_url(&self) -> &str {
        &self.sign_in
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Changes the settings, which must change.
    pub fn settings(&mut self, from: &str, to: &str) {
        assert!(self.yaml.contains(from), "{from}: {}", self.yaml);
        self.yaml = self.yaml.replace(from, to);
    }

    pub fn fault(&mut self, at: At, act: Act) {
        self.settings.faults = vec![Faults::one(at, act)];
    }

    pub fn certificate(&mut self, names: &[&str], years: RangeInclusive<i32>) {
        self.settings.certificate = Some(self.authority.server_for(names, years).unwrap());
    }

    /// The same at Google.
    pub fn google(&mut self) {
        self.settings("preset: microsoft365", "preset: google");
        self.settings(
            &format!("[offline_access, \"{SEND}\"]"),
            "[\"https://mail.google.com/\"]",
        );
        self.settings("tenant: contoso.example, ", "");
        self.grant.as_mut().unwrap().scopes = vec!["https://mail.google.com/".to_owned()];
    }

    /// Puts everything in its place, as it was broken; once.
    async fn ready(&self) -> Settings {
        self.server.get_or_init(|| self.prepare()).await.1.clone()
    }

    async fn prepare(&self) -> (smtp::Server, Settings) {
        let mut mail = self.settings.clone();
        mail.authorize = Arc::clone(&self.authorize);
        mail.may_send = Arc::clone(&self.may_send);
        if let Some(offers) = self.offers {
            mail.offers.retain(|offer| !offer.starts_with("AUTH"));
            mail.offers.push(offers.to_owned());
        }
        let server = smtp::Server::start(mail).await.unwrap();
        let yaml = self
            .yaml
            .replace("MAILPORT", &server.address().port().to_string());
        let good = json!({
            "access_token": self.access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1",
            "scope": format!("{SEND} offline_access"),
        });
        {
            let mut script = self.script.lock().unwrap();
            script.token = Some(match self.token.status {
                0 => Answer::json(200, good),
                _ => self.token.clone(),
            });
            script.page = Some(self.page.clone());
            script.ahead = self.clock_ahead;
        }
        std::fs::create_dir_all(self.path("rules")).unwrap();
        self.write("tidings.yaml", &yaml);
        self.write("ca.pem", &self.authority.pem());
        if !self.path("secret").exists() {
            self.write("secret", &self.secret);
            std::fs::set_permissions(
                self.path("secret"),
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            )
            .unwrap();
        }
        let settings = load::settings(self.folder.path()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let clock = Clock::system();
        let store = Store::open(&settings.outbox.store, clock.clone()).await.unwrap();
        let keeper = auth::keep(&settings, store, clock).await.unwrap();
        if let Some(grant) = &self.grant {
            keeper.keep("office", grant).await.unwrap();
        }
        if self.lose_key {
            std::fs::write(settings.state.join("key"), [7_u8; 32]).unwrap();
        }
        (server, settings)
    }

    fn args(&self, json: bool) -> Args {
        Args {
            account: self.account.map(str::to_owned),
            sender: None,
            send_to: self.send_to.map(str::to_owned),
            json,
        }
    }

    async fn run(&self, settings: &Settings, json: bool) -> (Exit, String) {
        let screen = Screen::default();
        let exit = doctor::perform(settings, &self.args(json), Clock::system(), &screen).await;
        let said = screen.0.lock().unwrap().clone();
        (exit, said)
    }

    /// What the doctor finds.
    pub async fn examined(&self) -> (Exit, Value) {
        let settings = self.ready().await;
        let (exit, said) = self.run(&settings, true).await;
        (
            exit,
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")),
        )
    }

    /// What a person reads, without what changes from run to run.
    pub async fn shown(&self) -> String {
        let settings = self.ready().await;
        let (_, said) = self.run(&settings, false).await;
        self.scrubbed(&said)
    }

    /// The same by the binary itself.
    pub fn examined_by_the_binary(&self) -> (Option<i32>, Value) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.ready());
            let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("tidings"))
                .arg("-C")
                .arg(self.folder.path())
                .args(["doctor", "office", "--json"])
                .output()
                .unwrap();
            let said = text(&output.stdout);
            let value = serde_json::from_str(&said)
                .unwrap_or_else(|error| panic!("{error}: {said}{}", text(&output.stderr)));
            (output.status.code(), value)
        })
    }

    fn scrubbed(&self, said: &str) -> String {
        let mut text = said
            .replace(&self.folder.path().display().to_string(), "SETUP")
            .replace(self.sign_in.trim_end_matches('/'), "http://SIGN-IN");
        if let Some(rest) = self.sign_in.strip_prefix("http://") {
            text = text.replace(rest.trim_end_matches('/'), "SIGN-IN");
        }
        text = text.replace(&self.mail().address().port().to_string(), "PORT");
        let mut out = Vec::new();
        for line in text.lines() {
            let mut line = line.trim_end().to_owned();
            for (before, after) in [("good for ", ""), ("(in ", ")")] {
                if let Some((start, rest)) = line.clone().split_once(before) {
                    let end = if after.is_empty() {
                        rest.len()
                    } else {
                        rest.find(after).unwrap_or(rest.len())
                    };
                    line = format!("{start}{before}TIME{}", &rest[end..]);
                }
            }
            out.push(line);
        }
        out.join("\n")
    }
}

#[derive(Default)]
struct Screen(Mutex<String>);

impl Face for Screen {
    fn out(&self, text: &str) {
        let mut said = self.0.lock().unwrap();
        said.push_str(text);
        said.push('\n');
    }

    fn tell(&self, text: &str) {
        self.out(text);
    }

    fn browse(&self, _: &str) {}

    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(std::future::ready(String::new()))
    }
}
