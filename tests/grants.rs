//! Every way to the right to send besides a browser: codes for other devices, applications, keys,
//! machines, tokens from elsewhere. Setups are files, servers are real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

mod common;

use assert_cmd::cargo::cargo_bin;
use common::text;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidings::cli::Exit;
use tidings::cli::auth::{self, Args, Command, Login};
use tidings::cli::face::Face;
use tidings::clock::Clock;
use tidings::config::secret::Secret;
use tidings::config::settings::{Credential, Settings};
use tidings::oauth::keeper::Keeper;
use tidings::oauth::login::SignIn;
use tidings::oauth::token::TokenError;
use tidings::rule::load;
use tidings::sandbox::oauth::{self as sandbox, Fault, Handle, Server, User, Voucher};
use tidings::sandbox::{Authority, smtp};
use tidings::store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

const ALICE: &str = "alice@sandbox.example";
const INVOICES: &str = "invoices@sandbox.example";
const ORDERS: &str = "orders@sandbox.example";

/// A setup folder beside an authorization server.
struct World {
    folder: tempfile::TempDir,
    server: Handle,
    settings: Settings,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keys")
        .join(name)
}

fn pem(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

/// An application that may open two mailboxes.
fn application() -> Option<User> {
    Some(User {
        address: "application".into(),
        shared: vec![INVOICES.into(), ORDERS.into()],
    })
}

impl World {
    /// `account` are the lines below `accounts: office:` besides `provider:`; `provider` further
    /// words of that.
    async fn new(tune: impl FnOnce(&mut sandbox::Settings), provider: &str, account: &str) -> World {
        common::crypto();
        let mut settings = sandbox::Settings::new(Clock::system());
        tune(&mut settings);
        let server = Server::start(settings).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, from) in [
            ("one.key", "one.key"),
            ("one.crt", "one.crt"),
            ("two.key", "two.key"),
            ("two.crt", "two.crt"),
        ] {
            std::fs::copy(fixture(from), folder.path().join(name)).unwrap();
        }
        let yaml = format!(
            "accounts:\n  office:\n    provider: {{ {provider}, authorize_url: URLauthorize, device_url: URLdevice, token_url: URLtoken, revoke_url: URLrevoke, managed_identity_url: URLmetadata/identity/oauth2/token, smtp: {{ host: 127.0.0.1, port: 1, tls: none }} }}\n{account}"
        );
        let yaml = yaml.replace("URL", server.url().as_str());
        std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
        let settings = loaded(folder.path());
        World {
            folder,
            server,
            settings,
        }
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    async fn auth(&self, command: Command, face: &Person) -> Exit {
        auth::perform(&self.settings, Args { command }, Clock::system(), face).await
    }

    async fn login(&self, face: &Person) -> Exit {
        self.auth(Command::Login(Login::default()), face).await
    }

    async fn keeper(&self) -> Arc<Keeper> {
        let clock = Clock::system();
        let store = Store::open(&self.settings.outbox.store, clock.clone())
            .await
            .unwrap();
        let accounts = self
            .settings
            .accounts
            .values()
            .filter_map(|account| match &account.credential {
                Credential::OAuth2(oauth2) => Some((account.name.clone(), (**oauth2).clone())),
                _ => None,
            })
            .collect();
        Keeper::open(accounts, store, &self.settings.state, clock)
            .await
            .unwrap()
    }
}

fn loaded(folder: &Path) -> Settings {
    let setup = load::setup(folder).unwrap_or_else(|problems| {
        panic!(
            "{}",
            problems
                .iter()
                .map(|problem| problem.render(false))
                .collect::<String>()
        )
    });
    setup.settings
}

async fn get(url: Url) -> String {
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A person with a telephone: types each code that is shown into the page that is named, and
/// decides there. Pastes `line` when asked for one.
#[derive(Default)]
struct Person {
    decides: &'static str,
    line: String,
    shown: Mutex<Vec<String>>,
}

impl Person {
    fn who(decides: &'static str) -> Person {
        Person {
            decides,
            ..Person::default()
        }
    }

    fn all(&self) -> String {
        self.shown.lock().unwrap().join("\n")
    }
}

impl Face for Person {
    fn out(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap();
        if let Some(page) = shown.iter().rev().find(|line| line.starts_with("http"))
            && text.len() == 9
            && !self.decides.is_empty()
        {
            let mut page = Url::parse(page).unwrap();
            let (name, value) = self.decides.split_once('=').unwrap();
            page.query_pairs_mut()
                .append_pair("user_code", text)
                .append_pair(name, value);
            tokio::spawn(get(page));
        }
        shown.push(text.to_owned());
    }
    fn tell(&self, text: &str) {
        self.shown.lock().unwrap().push(text.to_owned());
    }
    fn browse(&self, _url: &str) {}
    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(std::future::ready(self.line.clone()))
    }
}

// ---- codes for another device ----

const DEVICE: &str = "    user: alice@sandbox.example\n    oauth2: { grant: device_code, tenant: sandbox, client_id: tidings }\n";
const MICROSOFT: &str = "preset: microsoft365";

#[tokio::test]
async fn code_typed_on_another_device_signs_in() {
    let world = World::new(|_| {}, MICROSOFT, DEVICE).await;
    let person = Person::who("user=alice@sandbox.example");
    assert_eq!(world.login(&person).await, Exit::Done, "{}", person.all());
    let shown = person.all();
    assert!(shown.contains("type this code"), "{shown}");
    assert!(shown.contains(&format!("signed in as {ALICE}")), "{shown}");
    let token = world.keeper().await.token("office").await.unwrap();
    let account = world.server.check(token.secret().expose()).unwrap();
    assert_eq!(account.user.address, ALICE);
    // What was not waited for as long as it should is counted there.
    assert_eq!(world.server.counters().too_soon, 0);
}

#[tokio::test]
async fn code_can_be_asked_for_where_a_browser_is_usual() {
    let account = DEVICE.replace("grant: device_code, ", "");
    let world = World::new(|_| {}, MICROSOFT, &account).await;
    let person = Person::who("user=alice@sandbox.example");
    let command = Command::Login(Login {
        device: true,
        ..Login::default()
    });
    assert_eq!(world.auth(command, &person).await, Exit::Done, "{}", person.all());
}

#[tokio::test]
async fn no_and_the_wrong_person_are_told_and_nothing_is_stored() {
    for (decides, words) in [
        ("decline=yes", "authorization_declined"),
        ("user=bob@sandbox.example", "bob@sandbox.example signed in, but"),
    ] {
        let world = World::new(
            |server| {
                server.users.push(User {
                    address: "bob@sandbox.example".into(),
                    shared: vec![],
                });
            },
            MICROSOFT,
            DEVICE,
        )
        .await;
        let person = Person::who(decides);
        let exit = world.login(&person).await;
        assert!(matches!(exit, Exit::Credential | Exit::Config), "{exit:?}");
        assert!(person.all().contains(words), "{}", person.all());
        let status = world.keeper().await.status("office").await;
        assert_eq!(status.state, "signed_out");
    }
}

// ---- applications ----

/// An account of an application, with that proof.
fn app(proof: &str) -> String {
    format!(
        "    senders: [{INVOICES}, {ORDERS}]\n    oauth2: {{ grant: client_credentials, tenant: sandbox, client_id: tidings, {proof} }}\n"
    )
}

#[tokio::test]
async fn application_needs_nobody_and_shows_its_role() {
    let world = World::new(
        |server| {
            server.client_secret = Some(Secret::new("new+/~"));
            server.application = application();
        },
        MICROSOFT,
        &app("client_secret: { file: secret }"),
    )
    .await;
    world.write("secret", "new+/~\n");
    let person = Person::default();
    let status = || Command::Status {
        account: None,
        json: false,
    };
    assert_eq!(world.auth(status(), &person).await, Exit::Done);
    assert!(
        person.all().contains("has not asked for one yet"),
        "{}",
        person.all()
    );
    let person = Person::default();
    assert_eq!(world.login(&person).await, Exit::Done, "{}", person.all());
    assert!(
        person.all().contains("needs nobody to sign in"),
        "{}",
        person.all()
    );
    let person = Person::default();
    assert_eq!(world.auth(status(), &person).await, Exit::Done);
    assert!(person.all().contains("office: verified"), "{}", person.all());
    assert!(person.all().contains("SMTP.SendAsApp"), "{}", person.all());
    // Another process takes the same token, and asks nobody.
    let asked = world.server.counters().unattended;
    let token = world.keeper().await.token_for("office", INVOICES).await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
    assert_eq!(world.server.counters().unattended, asked);
}

#[tokio::test]
async fn older_secret_works_until_the_newer_is_known() {
    let world = World::new(
        |server| {
            server.client_secret = Some(Secret::new("old"));
            server.application = application();
        },
        MICROSOFT,
        &app("client_secret: [{ file: new }, { file: old }]"),
    )
    .await;
    world.write("new", "canary-new");
    world.write("old", "old");
    let keeper = world.keeper().await;
    keeper.token("office").await.unwrap();
    assert_eq!(world.server.counters().unproven, 1);
    // Neither: the newer one's refusal is what a person reads.
    world.write("old", "canary-gone");
    let error = keeper.refresh("office").await.unwrap_err();
    let TokenError::NeedsConfig(reason) = error else {
        panic!("{error:?}")
    };
    assert!(reason.reply.as_deref().unwrap().contains("AADSTS7000215"));
    assert!(!format!("{reason:?}").contains("canary"));
}

#[tokio::test]
async fn certificate_signs_the_newer_way_and_the_older_one_where_that_is_refused() {
    for pss in [true, false] {
        let world = World::new(
            |server| {
                server.certificate = Some(pem("one.crt"));
                server.application = application();
                server.pss = pss;
            },
            MICROSOFT,
            &app("certificate: { cert: one.crt, key: one.key }"),
        )
        .await;
        let keeper = world.keeper().await;
        keeper.token("office").await.unwrap();
        assert_eq!(world.server.counters().unproven, u64::from(!pss));
        // What worked is tried first the next time.
        keeper.refresh("office").await.unwrap();
        assert_eq!(world.server.counters().unproven, u64::from(!pss));
        let ends = keeper.status("office").await.secret_expires.unwrap();
        assert!(ends.year() > 2090, "{ends}");
    }
}

#[tokio::test]
async fn certificates_are_changed_without_a_pause_and_a_foreign_key_is_named() {
    let world = World::new(
        |server| {
            server.certificate = Some(pem("one.crt"));
            server.application = application();
        },
        MICROSOFT,
        &app("certificate: [{ cert: two.crt, key: two.key }, { cert: one.crt, key: one.key }]"),
    )
    .await;
    let keeper = world.keeper().await;
    keeper.token("office").await.unwrap();
    // Both ways of signing with the newer, then the older.
    assert_eq!(world.server.counters().unproven, 2);
    for name in ["one.key", "two.key"] {
        std::fs::rename(world.folder.path().join(name), world.folder.path().join("old")).unwrap();
        std::fs::copy(
            fixture(if name == "one.key" { "two.key" } else { "one.key" }),
            world.folder.path().join(name),
        )
        .unwrap();
    }
    let TokenError::NeedsConfig(reason) = keeper.refresh("office").await.unwrap_err() else {
        panic!()
    };
    assert!(
        reason.text.contains("belongs to another certificate"),
        "{reason:?}"
    );
}

#[tokio::test]
async fn clock_that_is_off_by_ten_minutes_costs_one_more_request_and_no_mail() {
    for minutes in [-10, 10] {
        let there = Timestamp::now() + SignedDuration::from_mins(minutes);
        let world = World::new(
            |server| {
                server.clock = Clock::runtime(there);
                server.tells_time = true;
                server.certificate = Some(pem("one.crt"));
                server.application = application();
            },
            MICROSOFT,
            &app("certificate: { cert: one.crt, key: one.key }"),
        )
        .await;
        let keeper = world.keeper().await;
        keeper.token("office").await.unwrap();
        let skew = keeper.status("office").await.skew.unwrap();
        assert!((skew - minutes * 60).abs() < 30, "{skew}");
        assert!(world.server.counters().unproven <= 1);
    }
}

#[tokio::test]
async fn federated_token_is_read_anew_at_each_request() {
    let world = World::new(
        |server| {
            server.assertion = Some(Secret::new("of-today"));
            server.application = application();
        },
        MICROSOFT,
        &app("assertion: { file: token }"),
    )
    .await;
    world.write("token", "of-yesterday");
    let keeper = world.keeper().await;
    assert!(keeper.token("office").await.is_err());
    world.write("token", "of-today\n");
    keeper.refresh("office").await.unwrap();
}

#[tokio::test]
async fn changed_scopes_or_client_are_not_served_with_the_old_token() {
    let mut world = World::new(
        |server| {
            server.client_secret = Some(Secret::new("s"));
            server.application = application();
        },
        MICROSOFT,
        &app("client_secret: { file: secret }"),
    )
    .await;
    world.write("secret", "s");
    let first = world.keeper().await.token("office").await.unwrap();
    let Credential::OAuth2(oauth2) = &mut world.settings.accounts.get_mut("office").unwrap().credential
    else {
        panic!()
    };
    oauth2.scopes = vec!["https://graph.example/.default".into()];
    let second = world.keeper().await.token("office").await.unwrap();
    assert_ne!(first.secret().expose(), second.secret().expose());
}

// ---- keys that vouch for mailboxes ----

fn voucher(issuer: &str, mailboxes: &[&str]) -> Voucher {
    Voucher {
        issuer: issuer.to_owned(),
        certificate: pem("one.crt"),
        mailboxes: mailboxes.iter().map(|&mailbox| mailbox.to_owned()).collect(),
    }
}

const ROBOT: &str = "robot@project.iam.gserviceaccount.com";

fn service_account() -> String {
    serde_json::json!({
        "type": "service_account", "client_email": ROBOT, "private_key_id": "k1",
        "private_key": pem("one.key"), "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

const GOOGLE: &str = "    user: alice@sandbox.example\n    senders: [invoices@sandbox.example, orders@sandbox.example]\n    oauth2: { grant: jwt_bearer, service_account: { file: robot.json } }\n";

#[tokio::test]
async fn service_account_has_a_token_for_each_mailbox_and_one_refusal_stops_no_other() {
    let world = World::new(
        |server| server.vouchers.push(voucher(ROBOT, &[ALICE, INVOICES])),
        "preset: google",
        GOOGLE,
    )
    .await;
    world.write("robot.json", &service_account());
    let keeper = world.keeper().await;
    for mailbox in [ALICE, INVOICES] {
        let token = keeper.token_for("office", mailbox).await.unwrap();
        let speaks = world.server.check(token.secret().expose()).unwrap();
        assert_eq!(speaks.user.address, mailbox);
        assert_eq!(speaks.scopes, ["https://mail.google.com/"]);
    }
    assert!(keeper.is_apart("office", INVOICES) && !keeper.is_apart("office", ALICE));
    let error = keeper.token_for("office", ORDERS).await.unwrap_err();
    let (TokenError::NeedsConfig(reason) | TokenError::NeedsPerson(reason)) = error else {
        panic!("{error:?}")
    };
    assert!(
        reason.reply.as_deref().unwrap().contains("unauthorized_client"),
        "{reason:?}"
    );
    assert_eq!(keeper.status("office").await.state, "valid");
    // The command line says it of each.
    let person = Person::default();
    assert_ne!(world.login(&person).await, Exit::Done);
    assert!(
        person
            .all()
            .contains(&format!("{INVOICES}: has a token of its own")),
        "{}",
        person.all()
    );
    assert!(person.all().contains(ORDERS), "{}", person.all());
}

#[tokio::test]
async fn clients_own_key_vouches_at_any_other_provider() {
    let world = World::new(
        |server| server.vouchers.push(voucher("tidings", &[ALICE])),
        "scopes: [\"https://mail.sandbox.example/SMTP.Send\"]",
        "    user: alice@sandbox.example\n    oauth2: { grant: jwt_bearer, client_id: tidings, signing_key: { file: one.key }, key_id: one }\n",
    )
    .await;
    let token = world.keeper().await.token("office").await.unwrap();
    let speaks = world.server.check(token.secret().expose()).unwrap();
    assert_eq!(speaks.scopes, ["https://mail.sandbox.example/SMTP.Send"]);
}

// ---- machines ----

const MACHINE: &str = "    user: invoices@sandbox.example\n    oauth2: { grant: managed_identity }\n";

#[tokio::test]
async fn machine_asks_its_platform_again_while_that_is_busy() {
    let world = World::new(|server| server.application = application(), MICROSOFT, MACHINE).await;
    world.server.fault(Fault::Status(429, None));
    let keeper = world.keeper().await;
    let token = keeper.token("office").await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
    assert_eq!(world.server.counters().requests, 2);
    assert!(token.expires() > Timestamp::now() + SignedDuration::from_mins(50));
}

#[tokio::test]
async fn machine_without_an_identity_is_told_in_the_platforms_words() {
    let world = World::new(|_| {}, MICROSOFT, MACHINE).await;
    let TokenError::NeedsConfig(reason) = world.keeper().await.token("office").await.unwrap_err() else {
        panic!()
    };
    assert!(
        reason.reply.as_deref().unwrap().contains("Identity not found"),
        "{reason:?}"
    );
}

#[tokio::test]
async fn app_service_says_in_its_environment_where_to_ask() {
    let world = World::new(|server| server.application = application(), MICROSOFT, MACHINE).await;
    let yaml = std::fs::read_to_string(world.folder.path().join("tidings.yaml")).unwrap();
    let url = format!("{}metadata/identity/oauth2/token", world.server.url());
    world.write(
        "tidings.yaml",
        &yaml.replace(&format!("managed_identity_url: {url}, "), ""),
    );
    let ran = tokio::process::Command::new(cargo_bin("tidings"))
        .arg("-C")
        .arg(world.folder.path())
        .args(["auth", "login"])
        .env("IDENTITY_ENDPOINT", &url)
        .env("IDENTITY_HEADER", "sandbox")
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
}

// ---- from elsewhere ----

#[tokio::test]
async fn refresh_token_of_another_tool_is_tried_and_then_kept() {
    let world = World::new(|_| {}, MICROSOFT, DEVICE).await;
    let person = Person::who("user=alice@sandbox.example");
    assert_eq!(world.login(&person).await, Exit::Done);
    let other = world
        .server
        .secrets()
        .into_iter()
        .find(|secret| secret.starts_with("rt-"))
        .unwrap();
    // The same client elsewhere.
    let here = World::new(|_| {}, MICROSOFT, DEVICE).await;
    let yaml = std::fs::read_to_string(world.folder.path().join("tidings.yaml")).unwrap();
    here.write("tidings.yaml", &yaml);
    let here = World {
        settings: loaded(here.folder.path()),
        ..here
    };
    let import = || Command::Import {
        account: Some("office".into()),
        from: None,
        passphrase_file: None,
    };
    let person = Person {
        line: format!("{other}\n"),
        ..Person::default()
    };
    assert_eq!(here.auth(import(), &person).await, Exit::Done, "{}", person.all());
    assert!(!person.all().contains(&other));
    here.keeper().await.refresh("office").await.unwrap();
    let person = Person {
        line: "not-a-token-of-theirs\n".into(),
        ..Person::default()
    };
    assert_eq!(
        here.auth(import(), &person).await,
        Exit::Config,
        "{}",
        person.all()
    );
    assert_eq!(here.keeper().await.status("office").await.state, "valid");
}

#[tokio::test]
async fn grants_move_to_another_host_with_a_passphrase_and_not_without() {
    let world = World::new(|_| {}, MICROSOFT, DEVICE).await;
    let person = Person::who("user=alice@sandbox.example");
    assert_eq!(world.login(&person).await, Exit::Done);
    world.write("phrase", "seven plain bananas\n");
    world.write("other", "seven plain apples\n");
    let phrase = |name: &str| Some(world.folder.path().join(name));
    let person = Person::default();
    let export = Command::Export {
        accounts: vec![],
        passphrase_file: phrase("phrase"),
    };
    assert_eq!(world.auth(export, &person).await, Exit::Done, "{}", person.all());
    let sealed = person.shown.lock().unwrap()[0].clone();
    for secret in world.server.secrets() {
        assert!(!person.all().contains(&secret));
    }
    let here = World::new(|_| {}, MICROSOFT, DEVICE).await;
    here.write(
        "tidings.yaml",
        &std::fs::read_to_string(world.folder.path().join("tidings.yaml")).unwrap(),
    );
    here.write("grants.sealed", &sealed);
    let here = World {
        settings: loaded(here.folder.path()),
        ..here
    };
    let import = |name: &str| Command::Import {
        account: None,
        from: Some(here.folder.path().join("grants.sealed")),
        passphrase_file: phrase(name),
    };
    let person = Person::default();
    assert_eq!(here.auth(import("other"), &person).await, Exit::BadInput);
    assert!(person.all().contains("does not open it"), "{}", person.all());
    assert_eq!(here.keeper().await.status("office").await.state, "signed_out");
    let person = Person::default();
    assert_eq!(
        here.auth(import("phrase"), &person).await,
        Exit::Done,
        "{}",
        person.all()
    );
    here.keeper().await.refresh("office").await.unwrap();
}

#[tokio::test]
async fn key_from_the_environment_is_named_and_a_run_without_it_makes_no_second_one() {
    let world = World::new(|server| server.application = application(), MICROSOFT, MACHINE).await;
    let run = |key: Option<&str>| {
        let mut command = tokio::process::Command::new(cargo_bin("tidings"));
        command.arg("-C").arg(world.folder.path()).args(["auth", "login"]);
        command
            .env_remove("TIDINGS_KEY")
            .env_remove("CREDENTIALS_DIRECTORY");
        if let Some(key) = key {
            command.env("TIDINGS_KEY", key);
        }
        command
    };
    let key = "0123456789abcdef".repeat(4);
    let ran = run(Some(&key)).output().await.unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let ran = run(None).output().await.unwrap();
    assert_eq!(ran.status.code(), Some(78));
    let said = text(&ran.stderr);
    assert!(said.contains("the environment variable TIDINGS_KEY"), "{said}");
    assert!(!said.contains(&key));
    assert!(!world.settings.state.join("key").exists());
}

// ---- behind a proxy ----

#[tokio::test]
async fn proxy_passes_the_browsers_answer_on_and_the_door_closes_after_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let account = format!(
        "    user: alice@sandbox.example\n    oauth2: {{ tenant: sandbox, client_id: tidings, redirect: \"https://mail.example.org/callback\", listen: \"127.0.0.1:{port}\" }}\n"
    );
    let world = World::new(|_| {}, MICROSOFT, &account).await;
    let keeper = world.keeper().await;
    let client = keeper.client("office").unwrap();
    let begun = SignIn::begin(client, None, false).await.unwrap();
    let mut address = begun.url().clone();
    assert!(
        address
            .as_str()
            .contains("https%3A%2F%2Fmail.example.org%2Fcallback")
    );
    let strange = Arc::new(Mutex::new(0));
    let count = Arc::clone(&strange);
    let waiting = begun.answer(
        None::<std::future::Ready<String>>,
        Duration::from_secs(60),
        move |_| *count.lock().unwrap() += 1,
    );
    let browser = async move {
        address.query_pairs_mut().append_pair("user", ALICE);
        let answer = get(address).await;
        let back = answer
            .lines()
            .find_map(|line| line.strip_prefix("location: "))
            .unwrap()
            .replace("https://mail.example.org", &format!("http://127.0.0.1:{port}"));
        let back = Url::parse(&back).unwrap();
        let mut forged = back.clone();
        forged.set_query(Some("code=stolen&state=guess"));
        assert!(get(forged).await.starts_with("HTTP/1.1 400"));
        assert!(get(back).await.starts_with("HTTP/1.1 200"));
    };
    let (answer, ()) = tokio::join!(waiting, browser);
    assert!(world.server.check(answer.unwrap().access.expose()).is_some());
    assert_eq!(*strange.lock().unwrap(), 1);
    assert!(
        TcpStream::connect(("127.0.0.1", port)).await.is_err(),
        "the door is shut"
    );
}

// ---- at a glance ----

#[tokio::test]
async fn list_shows_every_account_and_only_those_that_fit() {
    let account = format!(
        "{}    description: Accounts payable\n  relay:\n    smtp: {{ host: 127.0.0.1, port: 1, tls: none }}\n    user: robot@example.org\ndefaults: {{ account: relay }}\n",
        app("client_secret: { file: secret }")
    );
    let world = World::new(|_| {}, MICROSOFT, &account).await;
    let list = |filter: Option<&str>, json| Command::List {
        filter: filter.map(str::to_owned),
        json,
    };
    let person = Person::default();
    assert_eq!(world.auth(list(None, false), &person).await, Exit::Done);
    let shown = person.all();
    for part in [
        "office",
        "client_credentials",
        "not asked",
        "Accounts payable",
        "relay",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let person = Person::default();
    world.auth(list(Some("PAYABLE"), true), &person).await;
    let found: Value = serde_json::from_str(&person.all()).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["account"], "office");
    assert_eq!(found[0]["tenant"], "sandbox");
}

// ---- to the mail server ----

#[tokio::test]
async fn applications_mail_opens_its_senders_own_mailbox() {
    common::crypto();
    let mut server = sandbox::Settings::new(Clock::system());
    server.client_secret = Some(Secret::new("s"));
    server.application = application();
    let sign_in = Server::start(server).await.unwrap();
    let authority = Authority::new().unwrap();
    let tokens = sign_in.clone();
    let authorize: smtp::Authorize = Arc::new(move |mailbox, token| {
        let account = tokens.check(token).ok_or_else(smtp::AuthRefusal::exchange)?;
        let opens = account.user.shared.iter().any(|shared| shared == mailbox)
            && account.scopes.iter().any(|scope| scope == "SMTP.SendAsApp");
        opens
            .then_some(account.user.address)
            .ok_or_else(smtp::AuthRefusal::exchange)
    });
    let may_send: smtp::MaySend = Arc::new(|login, mailbox, from| {
        if mailbox == from {
            Ok(())
        } else {
            Err(smtp::send_as_denied(login, from))
        }
    });
    let mail = smtp::Settings::exchange(authority.server().unwrap(), authorize, may_send);
    let mail = smtp::Server::start(mail).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "accounts:\n  office:\n    provider: {{ preset: microsoft365, token_url: {}token, smtp: {{ host: 127.0.0.1, port: {}, ca_file: ca.pem }} }}\n{}",
        sign_in.url(),
        mail.address().port(),
        app("client_secret: { file: secret }")
    );
    std::fs::write(folder.path().join("tidings.yaml"), yaml).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("secret"), "s").unwrap();
    for sender in [INVOICES, ORDERS] {
        let ran = tokio::process::Command::new(cargo_bin("tidings"))
            .arg("-C")
            .arg(folder.path())
            .args(["send", "--from", sender, "--to", "ops@example.org"])
            .output()
            .await
            .unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
    }
    let received = mail.received(2).await;
    let mailboxes: Vec<_> = received
        .iter()
        .map(|mail| (mail.from.clone(), mail.mailbox.clone().unwrap()))
        .collect();
    assert_eq!(
        mailboxes,
        [INVOICES, ORDERS].map(|sender| (sender.to_owned(), sender.to_owned()))
    );
    assert_eq!(sign_in.counters().unattended, 1, "one token serves both");
}
