//! Sign-ins at an authorization server that is not ours: the certified `oidc-provider` from the npm
//! registry, on loopback, with discovery, strict rotation, codes for devices and signed clients.
//!
//! `tests/run` installs it. Where node or the package are missing, the tests say so and pass; with
//! `TIDINGS_TEST_SERVICES=1` they fail instead.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests, too

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use tidings::cli::Exit;
use tidings::cli::auth::{self, Args, Command, Login};
use tidings::cli::face::Face;
use tidings::clock::Clock;
use tidings::config::settings::{Credential, Settings};
use tidings::oauth::keeper::Keeper;
use tidings::oauth::token::TokenError;
use tidings::rule::load;
use tidings::store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

const ALICE: &str = "alice@sandbox.example";

/// The provider, running; it ends with its standard input.
struct Provider {
    child: Child,
    script: PathBuf,
    issuer: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.script);
    }
}

impl Provider {
    fn start() -> Option<Provider> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::var_os("TIDINGS_OIDC_PROVIDER")
            .map_or_else(|| root.join("target/oidc-provider"), PathBuf::from);
        let missing = if Process::new("node").arg("--version").output().is_err() {
            Some("there is no node")
        } else if !folder.join("node_modules/oidc-provider").is_dir() {
            Some("oidc-provider is not installed")
        } else {
            None
        };
        if let Some(why) = missing {
            assert!(
                std::env::var_os("TIDINGS_TEST_SERVICES").is_none(),
                "{why}: tests/run installs it"
            );
            println!("skipped: {why}; tests/run installs it");
            return None;
        }
        // Beside its packages, where node looks for them.
        let unique = tempfile::Builder::new()
            .prefix("server-")
            .suffix(".mjs")
            .tempfile_in(&folder)
            .unwrap();
        let (_, script) = unique.keep().unwrap();
        std::fs::copy(root.join("tests/oidc/server.mjs"), &script).unwrap();
        let mut child = Process::new("node")
            .arg(&script)
            .arg(root.join("tests/fixtures/keys/one.crt"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut issuer)
            .unwrap();
        let issuer = issuer.trim().to_owned();
        assert!(issuer.starts_with("http://127.0.0.1:"), "{issuer}");
        Some(Provider {
            child,
            script,
            issuer,
        })
    }

    /// A setup whose account `office` has these lines.
    fn setup(&self, scopes: &str, account: &str) -> (tempfile::TempDir, Settings) {
        common::crypto();
        let folder = tempfile::tempdir().unwrap();
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
        for name in ["one.crt", "one.key"] {
            std::fs::copy(keys.join(name), folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("secret"), "s3cr~t+/&=").unwrap();
        let yaml = format!(
            "accounts:\n  office:\n    provider: {{ issuer: \"{}\", scopes: [{scopes}], authorize_extra: {{ prompt: consent }}, smtp: {{ host: 127.0.0.1, port: 1, tls: none }} }}\n    user: {ALICE}\n    oauth2: {{ {account} }}\n",
            self.issuer
        );
        std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
        let setup = load::setup(folder.path()).unwrap_or_else(|problems| {
            let said: String = problems.iter().map(|problem| problem.render(false)).collect();
            panic!("{said}")
        });
        (folder, setup.settings)
    }
}

async fn keeper(settings: &Settings) -> Arc<Keeper> {
    let store = Store::open(&settings.outbox.store, Clock::system())
        .await
        .unwrap();
    let Credential::OAuth2(oauth2) = &settings.accounts["office"].credential else {
        panic!()
    };
    let accounts = vec![("office".to_owned(), (**oauth2).clone())];
    Keeper::open(accounts, store, &settings.state, Clock::system())
        .await
        .unwrap()
}

async fn get(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// The provider plays the person; this one carries what it says.
struct Person {
    issuer: String,
    shown: Mutex<Vec<String>>,
}

impl Person {
    fn new(provider: &Provider) -> Person {
        Person {
            issuer: provider.issuer.clone(),
            shown: Mutex::default(),
        }
    }

    fn all(&self) -> String {
        self.shown.lock().unwrap().join("\n")
    }

    fn drive(&self, url: &str) -> Url {
        let mut drive = Url::parse(&self.issuer).unwrap();
        drive.set_path("drive");
        drive.query_pairs_mut().append_pair("url", url);
        drive
    }
}

impl Face for Person {
    fn out(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap();
        let page = shown.iter().rev().find(|line| line.starts_with("http")).cloned();
        shown.push(text.to_owned());
        if let Some(page) = page {
            // What follows an address is the code to be typed there.
            let drive = self.drive(&format!("{page}?user_code={text}"));
            tokio::spawn(async move { get(drive.as_str()).await });
        }
    }
    fn tell(&self, text: &str) {
        self.shown.lock().unwrap().push(text.to_owned());
    }
    fn browse(&self, url: &str) {
        let drive = self.drive(url);
        tokio::spawn(async move {
            let back = get(drive.as_str()).await;
            get(back.trim()).await
        });
    }
    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(std::future::ready(String::new()))
    }
}

async fn run(settings: &Settings, command: Command, person: &Person) -> Exit {
    auth::perform(settings, Args { command }, Clock::system(), person).await
}

const PERSON: &str = "openid, email, profile, offline_access, mail";
const SECRET: &str = "client_id: tidings, client_secret: { file: secret }";

#[tokio::test]
async fn browser_sign_in_rotation_and_revocation_work_at_a_certified_provider() {
    let Some(provider) = Provider::start() else { return };
    let (_folder, settings) = provider.setup(PERSON, SECRET);
    let person = Person::new(&provider);
    let exit = run(&settings, Command::Login(Login::default()), &person).await;
    assert_eq!(exit, Exit::Done, "{}", person.all());
    assert!(
        person.all().contains(&format!("signed in as {ALICE}")),
        "{}",
        person.all()
    );
    let keeper = keeper(&settings).await;
    // Each renewal spends the refresh token; a second use of one would end the grant.
    let mut tokens = vec![keeper.token("office").await.unwrap()];
    for _ in 0..3 {
        tokens.push(keeper.refresh("office").await.unwrap());
    }
    let different: std::collections::BTreeSet<_> =
        tokens.iter().map(|token| token.secret().expose()).collect();
    assert_eq!(different.len(), 4);
    let kept = keeper.grant("office").await.unwrap().unwrap();
    assert!(keeper.forget("office").await.unwrap().unwrap().unwrap());
    keeper.keep("office", &kept).await.unwrap();
    let error = keeper.refresh("office").await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsPerson(_)), "{error:?}");
}

#[tokio::test]
async fn code_for_another_device_works_at_a_certified_provider() {
    let Some(provider) = Provider::start() else { return };
    let (_folder, settings) = provider.setup(PERSON, &format!("grant: device_code, {SECRET}"));
    let person = Person::new(&provider);
    let exit = run(&settings, Command::Login(Login::default()), &person).await;
    assert_eq!(exit, Exit::Done, "{}", person.all());
    keeper(&settings).await.refresh("office").await.unwrap();
}

#[tokio::test]
async fn applications_with_a_secret_or_a_certificate_work_at_a_certified_provider() {
    let Some(provider) = Provider::start() else { return };
    for proof in [
        SECRET,
        "client_id: signed, certificate: { cert: one.crt, key: one.key }",
    ] {
        let (_folder, settings) = provider.setup("mail", &format!("grant: client_credentials, {proof}"));
        let keeper = keeper(&settings).await;
        let first = keeper
            .token("office")
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let second = keeper.refresh("office").await.unwrap();
        assert_ne!(first.secret().expose(), second.secret().expose());
    }
    std::fs::remove_file(&provider.script).ok();
    let (folder, settings) = provider.setup("mail", &format!("grant: client_credentials, {SECRET}"));
    std::fs::write(folder.path().join("secret"), "canary-wrong").unwrap();
    let error = keeper(&settings).await.token("office").await.unwrap_err();
    let TokenError::NeedsConfig(reason) = error else {
        panic!("{error:?}")
    };
    assert!(
        reason.reply.as_deref().unwrap().contains("invalid_client"),
        "{reason:?}"
    );
}
