//! Credentials, whole: sign-ins through real sockets with a tiny browser, grants in real SQLite
//! files, renewals by one and by several processes, and what must survive a crash.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as the test does"
)]

use jiff::Timestamp;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tidings::advice::Provider;
use tidings::cli::Exit;
use tidings::cli::auth::{self, Args, Command, Login};
use tidings::cli::face::Face;
use tidings::clock::Clock;
use tidings::config::secret::{Secret, SecretSource};
use tidings::config::settings::{
    Account, Credential, Defaults, Grant, LoginAs, OAuth2, Outbox, Pace, Proof, Recipients, Settings,
    SmtpSettings, Tls, Transport,
};
use tidings::entry::OnUnknown;
use tidings::mail::Envelope;
use tidings::mail::address::Address;
use tidings::oauth::keeper::Keeper;
use tidings::oauth::login::{self, SignIn};
use tidings::oauth::token::TokenError;
use tidings::oauth::vault::{Standing, Vault};
use tidings::sandbox::oauth::{self as sandbox, Fault, Handle, Rotation, Server};
use tidings::sandbox::smtp;
use tidings::sender::{Outcome, Sender};
use tidings::store::Store;
use tidings::transport::{Content, Open, Parcel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

const ALICE: &str = "alice@sandbox.example";
const SEND: &str = "https://mail.sandbox.example/SMTP.Send";

/// A sandbox, a state folder, and a setup with the account `office` in it.
struct World {
    folder: tempfile::TempDir,
    server: Handle,
    settings: Settings,
    clock: Clock,
}

impl World {
    async fn new(tune: impl FnOnce(&mut sandbox::Settings)) -> World {
        log();
        let clock = Clock::runtime(Timestamp::now());
        let mut settings = sandbox::Settings::new(clock.clone());
        settings.users.push(sandbox::User {
            address: "bob@sandbox.example".into(),
            shared: vec![],
        });
        tune(&mut settings);
        let server = Server::start(settings).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = setup(folder.path(), server.url());
        World {
            folder,
            server,
            settings,
            clock,
        }
    }

    fn oauth2(&self) -> OAuth2 {
        match &self.settings.accounts["office"].credential {
            Credential::OAuth2(oauth2) => (**oauth2).clone(),
            _ => unreachable!(),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut OAuth2)) {
        match &mut self.settings.accounts.get_mut("office").unwrap().credential {
            Credential::OAuth2(oauth2) => change(oauth2),
            _ => unreachable!(),
        }
    }

    async fn store(&self) -> Store {
        Store::open(&self.settings.outbox.store, self.clock.clone())
            .await
            .unwrap()
    }

    async fn keeper(&self) -> Arc<Keeper> {
        let accounts = vec![("office".to_owned(), self.oauth2())];
        Keeper::open(
            accounts,
            self.store().await,
            &self.settings.state,
            self.clock.clone(),
        )
        .await
        .unwrap()
    }

    /// Signs alice in, past the command line.
    async fn signed_in(&self) -> Arc<Keeper> {
        let keeper = self.keeper().await;
        let client = keeper.client("office").unwrap();
        let begun = SignIn::begin(client, None, false).await.unwrap();
        let browser = tokio::spawn(visit(begun.url().to_string(), Some(ALICE)));
        let answer = begun
            .answer(
                None::<std::future::Ready<String>>,
                Duration::from_secs(60),
                |_| {},
            )
            .await
            .unwrap();
        browser.await.unwrap();
        let oauth2 = self.oauth2();
        login::verify("office", &oauth2, &answer).unwrap();
        keeper
            .keep("office", &login::kept(&oauth2, answer, self.clock.now()))
            .await
            .unwrap();
        keeper
    }

    async fn auth(&self, command: Command, face: &Person) -> Exit {
        auth::perform(&self.settings, Args { command }, self.clock.clone(), face).await
    }

    /// What is stored of `office`.
    async fn kept(&self) -> tidings::oauth::vault::Kept {
        let grant = self.store().await.grant("office").await.unwrap().unwrap();
        Vault::open(&self.settings.state)
            .unwrap()
            .unseal("office", &grant.sealed)
            .unwrap()
    }
}

fn setup(folder: &Path, server: &Url) -> Settings {
    let at = |path: &str| Some(server.join(path).unwrap());
    let oauth2 = OAuth2 {
        provider: Provider::Microsoft,
        grant: Grant::AuthorizationCode,
        device_url: at("device"),
        managed_identity_url: None,
        roles: vec![],
        authorize_url: at("authorize"),
        token_url: at("token"),
        revoke_url: at("revoke"),
        issuer: None,
        scopes: ["offline_access", SEND].map(str::to_owned).to_vec(),
        authorize_extra: vec![("prompt".into(), "select_account".into())],
        client_id: "tidings".into(),
        proofs: vec![],
        secret_expires: Some(jiff::civil::date(2027, 5, 1)),
        grant_life: None,
        redirect: Url::parse("http://127.0.0.1:0/").unwrap(),
        listen: None,
        login_hint: Some(ALICE.into()),
        tenant: None,
        ca_file: None,
    };
    let account = |name: &str, credential| Account {
        name: name.to_owned(),
        description: None,
        provider: Provider::Microsoft,
        user: Some(ALICE.into()),
        transport: Transport::File {
            folder: folder.join("out"),
        },
        credential,
        senders: vec![],
        any_sender: false,
        reply_to: None,
        signature: None,
        pace: Pace {
            connections: 1,
            per_minute: None,
            per_day: None,
        },
        transcript: None,
    };
    let relay = Credential::Password {
        user: "relay".into(),
        secret: SecretSource::Literal(Secret::new("canary-pw")),
    };
    let state = folder.join("state");
    Settings {
        submission: None,
        emitted: None,
        alive: None,
        advice: None,
        handed_in: tidings::config::handed::HandedIn::default(),
        dir: folder.to_owned(),
        ground: tidings::ground::Ground::default(),
        accounts: [
            account("office", Credential::OAuth2(Box::new(oauth2))),
            account("relay", relay),
        ]
        .into_iter()
        .map(|account| (account.name.clone(), account))
        .collect(),
        defaults: Defaults {
            account: None,
            from: None,
            timezone: jiff::tz::TimeZone::UTC,
            template: "plain".into(),
        },
        recipients: Recipients::default(),
        limits: None,
        calendars: std::collections::BTreeMap::new(),
        outbox: Outbox {
            fail_over: std::time::Duration::from_secs(900),
            store: state.join("tidings.db"),
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
            give_up: Duration::from_secs(172_800),
            on_unknown: OnUnknown::Resend,
            keep: Duration::from_secs(86_400),
        },
        state,
    }
}

/// GET, as a browser does it; status, Location, body.
async fn get(url: &str) -> (u16, Option<String>, String) {
    let url = Url::parse(url).unwrap();
    let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let location = head
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .map(str::to_owned);
    (status, location, body.to_owned())
}

/// Signs `user` in at the authorize page; where the browser is sent back to.
async fn consent(url: &str, user: Option<&str>) -> String {
    let mut url = Url::parse(url).unwrap();
    if let Some(user) = user {
        url.query_pairs_mut().append_pair("user", user);
    }
    get(url.as_str()).await.1.unwrap()
}

/// Signs in and goes back; the page that is shown in the end.
async fn visit(url: String, user: Option<&str>) -> (u16, String) {
    let (status, _, page) = get(&consent(&url, user).await).await;
    (status, page)
}

/// A person at the command line: remembers what was shown; a browser that signs somebody in.
#[derive(Default)]
struct Person {
    user: Option<&'static str>,
    pastes: Option<&'static str>,
    shown: Mutex<Vec<String>>,
    addresses: Arc<Mutex<Vec<String>>>,
}

impl Person {
    fn who(user: &'static str) -> Person {
        Person {
            user: Some(user),
            ..Person::default()
        }
    }

    fn all(&self) -> String {
        self.shown.lock().unwrap().join("\n")
    }
}

impl Face for Person {
    fn out(&self, text: &str) {
        self.shown.lock().unwrap().push(text.to_owned());
        if text.starts_with("http") {
            self.addresses.lock().unwrap().push(text.to_owned());
        }
    }
    fn tell(&self, text: &str) {
        self.shown.lock().unwrap().push(text.to_owned());
    }
    fn browse(&self, url: &str) {
        tokio::spawn(visit(url.to_owned(), self.user));
    }
    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        let address = self.addresses.lock().unwrap().last().cloned().unwrap_or_default();
        let (user, what) = (self.user, self.pastes);
        Box::pin(async move {
            let back = consent(&address, user).await;
            match what {
                None => back,
                Some("code") => {
                    let back = Url::parse(&back).unwrap();
                    back.query_pairs()
                        .find(|(name, _)| name == "code")
                        .unwrap()
                        .1
                        .into_owned()
                }
                Some(text) => text.to_owned(),
            }
        })
    }
}

fn login_command() -> Command {
    Command::Login(Login::default())
}

// ---- signing in ----

#[tokio::test]
async fn login_takes_the_browser_there_and_back_and_the_token_works() {
    let world = World::new(|_| {}).await;
    let person = Person::who(ALICE);
    assert_eq!(
        world.auth(login_command(), &person).await,
        Exit::Done,
        "{}",
        person.all()
    );
    // The address is alone on its line.
    let shown = person.all();
    let address = shown.lines().find(|line| line.starts_with("http")).unwrap();
    assert!(address.contains("code_challenge_method=S256") && address.contains("prompt=select_account"));
    assert!(shown.contains(&format!("signed in as {ALICE}")), "{shown}");
    let token = world.keeper().await.token("office").await.unwrap();
    let account = world.server.check(token.secret().expose()).unwrap();
    assert_eq!(account.user.shared, ["invoices@sandbox.example"]);
}

#[tokio::test]
async fn login_through_discovery_with_a_client_secret_and_localhost() {
    let mut world = World::new(|server| server.client_secret = Some(Secret::new("s3cr~t+/&="))).await;
    let issuer = Url::parse(world.server.url().as_str().trim_end_matches('/')).unwrap();
    world.change(|oauth2| {
        oauth2.issuer = Some(issuer);
        (oauth2.authorize_url, oauth2.token_url, oauth2.revoke_url) = (None, None, None);
        oauth2.proofs = vec![Proof::Secret(SecretSource::Literal(Secret::new("s3cr~t+/&=")))];
        oauth2.redirect = Url::parse("http://localhost/").unwrap();
    });
    let person = Person::who(ALICE);
    assert_eq!(
        world.auth(login_command(), &person).await,
        Exit::Done,
        "{}",
        person.all()
    );
}

#[tokio::test]
async fn wrong_client_secret_is_a_problem_of_the_configuration() {
    let mut world = World::new(|server| server.client_secret = Some(Secret::new("right"))).await;
    world.change(|oauth2| {
        oauth2.proofs = vec![Proof::Secret(SecretSource::Literal(Secret::new("canary-wrong")))]
    });
    let person = Person::who(ALICE);
    assert_eq!(world.auth(login_command(), &person).await, Exit::Config);
    assert!(person.all().contains("AADSTS7000215"), "{}", person.all());
    assert!(!person.all().contains("canary"));
}

#[tokio::test]
async fn answer_with_a_wrong_state_is_turned_away_and_the_right_one_still_counts() {
    let world = World::new(|_| {}).await;
    let keeper = world.keeper().await;
    let begun = SignIn::begin(keeper.client("office").unwrap(), None, false)
        .await
        .unwrap();
    let address = begun.url().to_string();
    let turned_away = Arc::new(Mutex::new(0));
    let count = turned_away.clone();
    let waiting = begun.answer(
        None::<std::future::Ready<String>>,
        Duration::from_secs(60),
        move |_| {
            *count.lock().unwrap() += 1;
        },
    );
    let browser = async {
        let back = consent(&address, Some(ALICE)).await;
        let mut forged = Url::parse(&back).unwrap();
        forged.set_query(Some("code=stolen&state=guess"));
        let (status, _, page) = get(forged.as_str()).await;
        assert_eq!(status, 400);
        assert!(page.contains("does not fit"), "{page}");
        forged.set_path("/favicon.ico");
        assert_eq!(get(forged.as_str()).await.0, 404);
        let (status, _, page) = get(&back).await;
        assert_eq!(status, 200);
        assert!(page.contains("safe to close"), "{page}");
    };
    let (answer, ()) = tokio::join!(waiting, browser);
    assert!(world.server.check(answer.unwrap().access.expose()).is_some());
    assert_eq!(*turned_away.lock().unwrap(), 1);
}

#[tokio::test]
async fn pasting_the_address_or_the_code_signs_in_and_a_foreign_one_does_not() {
    for (pastes, exit) in [
        (None, Exit::Done),
        (Some("code"), Exit::Done),
        (Some("http://127.0.0.1/?code=x&state=y"), Exit::Credential),
        (Some(""), Exit::Credential),
    ] {
        let world = World::new(|_| {}).await;
        let person = Person {
            pastes,
            ..Person::who(ALICE)
        };
        let command = Command::Login(Login {
            paste: true,
            ..Login::default()
        });
        assert_eq!(
            world.auth(command, &person).await,
            exit,
            "{pastes:?}: {}",
            person.all()
        );
    }
}

#[tokio::test]
async fn wrong_person_is_refused_by_name_and_nothing_is_stored() {
    let world = World::new(|_| {}).await;
    let person = Person::who("bob@sandbox.example");
    assert_eq!(world.auth(login_command(), &person).await, Exit::Credential);
    assert!(
        person
            .all()
            .contains("bob@sandbox.example signed in, but account `office` is that of alice@"),
        "{}",
        person.all()
    );
    assert!(world.store().await.grant("office").await.unwrap().is_none());
}

#[tokio::test]
async fn missing_offline_access_is_told_and_nothing_is_stored() {
    let mut world = World::new(|_| {}).await;
    world.change(|oauth2| oauth2.scopes.retain(|scope| scope != "offline_access"));
    let person = Person::who(ALICE);
    assert_eq!(world.auth(login_command(), &person).await, Exit::Config);
    assert!(
        person.all().contains("add `offline_access` to the scopes"),
        "{}",
        person.all()
    );
    assert!(world.store().await.grant("office").await.unwrap().is_none());
}

#[tokio::test]
async fn refused_sign_in_shows_the_servers_words_and_exits_77() {
    let world = World::new(|_| {}).await;
    let person = Person::who("nobody@sandbox.example");
    assert_eq!(world.auth(login_command(), &person).await, Exit::Credential);
    assert!(person.all().contains("AADSTS50034"), "{}", person.all());
}

// ---- status, refresh, logout ----

#[tokio::test]
async fn status_tells_how_every_account_stands() {
    let world = World::new(|_| {}).await;
    let person = Person::default();
    let status = || Command::Status {
        account: None,
        json: false,
    };
    assert_eq!(world.auth(status(), &person).await, Exit::Credential);
    assert!(
        person.all().contains("office: nobody has signed in"),
        "{}",
        person.all()
    );
    assert!(person.all().contains("relay: signs in with a password"));
    world.signed_in().await;
    let person = Person::default();
    assert_eq!(world.auth(status(), &person).await, Exit::Done);
    let shown = person.all();
    for part in ["office: verified", ALICE, "until", SEND, "2027-05-01"] {
        assert!(shown.contains(part), "{part} is not in: {shown}");
    }
    let person = Person::default();
    world
        .auth(
            Command::Status {
                account: Some("office".into()),
                json: true,
            },
            &person,
        )
        .await;
    let list: Value = serde_json::from_str(&person.all()).unwrap();
    assert_eq!(list[0]["verified"], true);
    assert_eq!(list[0]["signed_in"]["preferred_username"], ALICE);
}

#[tokio::test]
async fn refresh_by_hand_renews_and_logout_gives_the_grant_back() {
    let world = World::new(|_| {}).await;
    world.signed_in().await;
    let before = world.kept().await;
    let person = Person::default();
    assert_eq!(
        world.auth(Command::Refresh { account: None }, &person).await,
        Exit::Done,
        "{}",
        person.all()
    );
    let after = world.kept().await;
    assert_ne!(before.access.expose(), after.access.expose());
    assert_eq!(after.previous.unwrap().expose(), before.refresh.unwrap().expose());
    assert_eq!(
        world
            .auth(
                Command::Logout {
                    account: "office".into()
                },
                &person
            )
            .await,
        Exit::Done
    );
    assert_eq!(world.server.counters().revoked, 1);
    assert!(world.server.check(after.access.expose()).is_none());
    assert!(world.store().await.grant("office").await.unwrap().is_none());
    assert_eq!(
        world.auth(Command::Refresh { account: None }, &person).await,
        Exit::Credential
    );
    assert_eq!(
        world
            .auth(
                Command::Logout {
                    account: "relay".into()
                },
                &person
            )
            .await,
        Exit::Usage
    );
}

#[tokio::test]
async fn key_that_does_not_fit_is_told_and_overwrites_nothing() {
    let world = World::new(|_| {}).await;
    world.signed_in().await;
    let sealed = world.store().await.grant("office").await.unwrap().unwrap().sealed;
    std::fs::write(world.settings.state.join("key"), [7_u8; 32]).unwrap();
    let person = Person::who(ALICE);
    assert_eq!(world.auth(login_command(), &person).await, Exit::Config);
    assert!(person.all().contains("nothing was changed"), "{}", person.all());
    assert!(matches!(
        world.keeper().await.token("office").await,
        Err(TokenError::NeedsConfig(_))
    ));
    assert_eq!(
        world.store().await.grant("office").await.unwrap().unwrap().sealed,
        sealed
    );
}

// ---- keeping ----

/// Virtual time that only moves when told to, with real sockets: a blocking task keeps the paused
/// clock from running ahead while an answer is on its way.
struct Still(#[allow(dead_code, reason = "dropping it ends the task")] std::sync::mpsc::Sender<()>);

fn still() -> Still {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || receiver.recv());
    tokio::time::pause();
    Still(sender)
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn fifty_who_ask_at_once_share_one_refresh() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600 - 60).await;
    let asking: tokio::task::JoinSet<_> = (0..50)
        .map(|_| {
            let keeper = keeper.clone();
            async move { keeper.token("office").await.unwrap().secret().expose().to_owned() }
        })
        .collect();
    let tokens = asking.join_all().await;
    assert!(tokens.iter().all(|token| world.server.check(token).is_some()));
    assert_eq!(world.server.counters().refreshes, 1);
}

#[tokio::test]
async fn refused_token_is_renewed_once_and_not_in_a_storm() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    let refused = keeper.token("office").await.unwrap();
    world.server.end_access_tokens();
    let next = keeper.renew("office", &refused).await.unwrap();
    assert!(world.server.check(next.secret().expose()).is_some());
    // Who comes with the old one gets what was renewed meanwhile.
    let same = keeper.renew("office", &refused).await.unwrap();
    assert_eq!(same.secret().expose(), next.secret().expose());
    // A server that refuses every token does not make us renew for every mail.
    for _ in 0..20 {
        keeper.renew("office", &next).await.unwrap();
    }
    assert_eq!(world.server.counters().refreshes, 1);
    pass(61).await;
    keeper.renew("office", &next).await.unwrap();
    assert_eq!(world.server.counters().refreshes, 2);
}

#[tokio::test]
async fn passing_failures_leave_a_valid_token_in_use_and_are_not_repeated_at_once() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600 - 300).await;
    for fault in [
        Fault::Page,
        Fault::Status(503, Some(120)),
        Fault::Portal,
        Fault::Status(429, None),
    ] {
        world.server.fault(fault);
    }
    let before = world.server.counters().requests;
    for _ in 0..10 {
        let token = keeper.token("office").await.unwrap();
        assert!(world.server.check(token.secret().expose()).is_some());
    }
    // A page of a proxy, and not another request before its time.
    assert_eq!(world.server.counters().requests, before + 1);
    let status = keeper.status("office").await;
    let trouble = status.trouble.unwrap();
    assert!(trouble.reason.reply.unwrap().contains("502 Bad Gateway"));
    assert!(status.verified);
    pass(13).await;
    keeper.token("office").await.unwrap();
    assert_eq!(world.server.counters().requests, before + 2);
    // Retry-After counts.
    pass(115).await;
    keeper.token("office").await.unwrap();
    assert_eq!(world.server.counters().requests, before + 2);
    pass(10).await;
    keeper.token("office").await.unwrap();
    assert_eq!(world.server.counters().requests, before + 3);
    // With the token ended, the failure is what is left to say; the grant is still there.
    pass(300).await;
    assert!(matches!(
        keeper.token("office").await,
        Err(TokenError::Transient { .. })
    ));
    pass(400).await;
    let token = keeper.token("office").await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
    assert!(keeper.status("office").await.trouble.is_none());
}

#[tokio::test]
async fn dead_grant_is_kept_opens_a_case_is_probed_hourly_and_mends_by_itself() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let store = world.store().await;
    let _still = still();
    pass(3600).await;
    let before = world.server.counters().requests;
    world.server.fault(Fault::InvalidGrant(50076, "basic_action"));
    for _ in 0..5 {
        let Err(TokenError::NeedsPerson(reason)) = keeper.token("office").await else {
            panic!()
        };
        assert!(reason.reply.unwrap().contains("AADSTS50076"));
    }
    assert_eq!(world.server.counters().requests, before + 1);
    let cases = store.open_cases().await.unwrap();
    assert_eq!(cases[0].key, "account:office");
    assert!(matches!(
        world.kept().await.standing,
        Standing::NeedsPerson { .. }
    ));
    assert_eq!(keeper.status("office").await.state, "needs_person");
    keeper.look().await;
    assert_eq!(world.server.counters().requests, before + 1);
    // The administrator relaxed the rule; nobody signed in.
    pass(3601).await;
    keeper.look().await;
    assert_eq!(world.server.counters().requests, before + 2);
    keeper.token("office").await.unwrap();
    assert!(store.open_cases().await.unwrap().is_empty());
}

#[tokio::test]
async fn refused_client_needs_configuration_and_the_grant_is_kept() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600).await;
    world.server.fault(Fault::InvalidClient(7_000_222));
    assert!(matches!(
        keeper.token("office").await,
        Err(TokenError::NeedsConfig(_))
    ));
    assert!(world.kept().await.refresh.is_some());
}

#[tokio::test]
async fn account_nobody_signed_in_for_is_a_case() {
    let world = World::new(|_| {}).await;
    let keeper = world.keeper().await;
    assert!(matches!(
        keeper.token("office").await,
        Err(TokenError::NeedsPerson(_))
    ));
    keeper.look().await;
    assert_eq!(world.store().await.open_cases().await.unwrap().len(), 1);
    // Somebody signs in by another process.
    world.signed_in().await;
    keeper.look().await;
    assert!(world.store().await.open_cases().await.unwrap().is_empty());
}

#[tokio::test]
async fn text_for_a_number_in_the_answer_is_understood() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600).await;
    world.server.fault(Fault::TextualExpiry);
    let token = keeper.token("office").await.unwrap();
    assert_eq!(world.clock.until(token.expires()).as_secs(), 3600);
}

/// As a crash leaves it: the refresh was noted and sent, its answer never stored.
async fn crash_between_rotation_and_storing(world: &World) {
    let store = world.store().await;
    let vault = Vault::open(&world.settings.state).unwrap();
    let grant = store.grant("office").await.unwrap().unwrap();
    let mut kept = vault.unseal("office", &grant.sealed).unwrap();
    kept.refresh_began = Some(world.clock.now());
    let sealed = vault.seal("office", &kept).unwrap();
    store
        .put_grant("office", Some(grant.version), sealed)
        .await
        .unwrap();
    let body = format!(
        "grant_type=refresh_token&client_id=tidings&refresh_token={}",
        kept.refresh.unwrap().expose()
    );
    let address = world.server.url().socket_addrs(|| None).unwrap()[0];
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn crash_between_rotation_and_storing_is_mended_where_the_issuer_has_grace() {
    let world = World::new(|server| server.rotation = Rotation::Grace(Duration::from_secs(60))).await;
    drop(world.signed_in().await);
    let _still = still();
    crash_between_rotation_and_storing(&world).await;
    // The next process sees the note and does not wait until the token ends: grace is short.
    let keeper = world.keeper().await;
    keeper.look().await;
    assert_eq!(world.server.counters().refreshes, 2);
    assert!(world.kept().await.refresh_began.is_none());
    pass(3600).await;
    let token = keeper.token("office").await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
}

#[tokio::test]
async fn crash_between_rotation_and_storing_needs_a_person_where_the_issuer_is_strict() {
    let world = World::new(|_| {}).await;
    drop(world.signed_in().await);
    let _still = still();
    crash_between_rotation_and_storing(&world).await;
    let keeper = world.keeper().await;
    keeper.look().await;
    assert_eq!(world.server.counters().reused, 1);
    let status = keeper.status("office").await;
    assert_eq!(status.state, "needs_person");
    assert!(
        status
            .reason
            .unwrap()
            .text
            .contains("was cut off before its answer was stored")
    );
    assert!(world.kept().await.refresh.is_some());
    // And not tried over and over.
    let requests = world.server.counters().requests;
    keeper.look().await;
    let _ = keeper.token("office").await;
    assert_eq!(world.server.counters().requests, requests);
}

#[tokio::test]
async fn answer_lost_on_the_way_is_asked_for_again() {
    let world = World::new(|server| server.rotation = Rotation::Grace(Duration::from_secs(60))).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600).await;
    world.server.fault(Fault::Drop);
    let token = keeper.token("office").await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
    assert_eq!(world.server.counters().refreshes, 2);
}

#[tokio::test]
async fn caller_that_goes_away_does_not_take_the_answer_with_it() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    pass(3600).await;
    let first = world.kept().await.refresh.unwrap();
    let asking = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.token("office").await }
    });
    while world.server.counters().refreshes == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    let token = keeper.token("office").await.unwrap();
    assert!(world.server.check(token.secret().expose()).is_some());
    assert_ne!(world.kept().await.refresh.unwrap().expose(), first.expose());
    assert_eq!(world.server.counters().reused, 0);
}

#[tokio::test]
async fn answer_that_cannot_be_stored_is_not_handed_out_nor_lost() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let (store, vault) = (world.store().await, Vault::open(&world.settings.state).unwrap());
    let stored = async || {
        let grant = store.grant("office").await.unwrap().unwrap();
        vault.unseal("office", &grant.sealed).unwrap().access
    };
    let old = stored().await;
    let _still = still();
    pass(3600 - 100).await;
    let (before, wait) = (world.server.counters(), Duration::from_secs(1));
    world.server.fault(Fault::Slow(wait));
    let asking = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.token("office").await }
    });
    while world.server.counters().requests == before.requests {
        tokio::task::yield_now().await;
    }
    // While the answer is on its way, somebody else takes the store for himself.
    let other = rusqlite::Connection::open(&world.settings.outbox.store).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    pass(2).await;
    let token = asking.await.unwrap().unwrap();
    assert_eq!(token.secret().expose(), old.expose());
    assert_eq!(stored().await.expose(), old.expose());
    other.execute_batch("ROLLBACK").unwrap();
    let token = keeper.token("office").await.unwrap();
    assert_ne!(token.secret().expose(), old.expose());
    assert_eq!(stored().await.expose(), token.secret().expose());
    assert_eq!(world.server.counters().refreshes, 1);
}

#[tokio::test]
async fn idle_grant_is_renewed_once_a_day() {
    let world = World::new(|_| {}).await;
    drop(world.signed_in().await);
    let keeper = world.keeper().await;
    let _still = still();
    for _ in 0..72 {
        pass(3600).await;
        keeper.look().await;
    }
    assert_eq!(world.server.counters().refreshes, 3);
}

#[tokio::test]
async fn keeper_renews_ahead_by_itself_and_stops_when_told() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    keeper.token("office").await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(keeper.clone().run(stop.clone()));
    for hour in 1..=3 {
        // To a minute after the margin began; then time crawls until the renewal is stored.
        pass(51 * 60).await;
        while world.server.counters().refreshes < hour || world.kept().await.refresh_began.is_some() {
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(world.server.counters().refreshes, 3);
    assert_eq!(keeper.status("office").await.state, "valid");
}

#[tokio::test]
async fn day_with_failing_token_server_never_lacks_a_valid_token() {
    let world = World::new(|_| {}).await;
    let keeper = world.signed_in().await;
    let _still = still();
    // One request in twenty fails, in turn with each kind of failure.
    let kinds = [
        Fault::Status(503, None),
        Fault::Page,
        Fault::Portal,
        Fault::Status(429, Some(30)),
    ];
    for minute in 0..24 * 60_usize {
        world.server.fault_every(20, kinds[minute % kinds.len()].clone());
        if minute % 97 == 0 {
            world.server.fault(kinds[minute % kinds.len()].clone());
        }
        for _ in 0..6 {
            pass(10).await;
            keeper.look().await;
        }
        let token = keeper.token("office").await.unwrap();
        assert!(
            world.server.check(token.secret().expose()).is_some(),
            "minute {minute}"
        );
    }
    let counters = world.server.counters();
    assert!((24..40).contains(&counters.refreshes), "{counters:?}");
    assert_eq!(counters.reused, 0);
    assert!(
        counters.requests > counters.refreshes + 1,
        "no failure was played: {counters:?}"
    );
}

/// A day of mails, one every ten minutes, with the sign-in server's clock off by so much and one request in twenty
/// failing. Every mail must go at its first attempt.
async fn day_of_mails(skew: i64) {
    let ahead = jiff::SignedDuration::from_secs(skew);
    let world = World::new(|server| server.clock = Clock::runtime(Timestamp::now() + ahead)).await;
    let keeper = world.signed_in().await;
    let tokens = world.server.clone();
    let mut mail = smtp::Settings::open();
    mail.anonymous = false;
    mail.offers.push("AUTH XOAUTH2".to_owned());
    mail.authorize = Arc::new(move |_, token| {
        let account = tokens.check(token).ok_or_else(smtp::AuthRefusal::exchange)?;
        Ok(account.user.address)
    });
    let mail = smtp::Server::start(mail).await.unwrap();
    let account = Account {
        transport: Transport::Smtp(SmtpSettings {
            host: "127.0.0.1".to_owned(),
            port: mail.address().port(),
            tls: Tls::None,
            ca_file: None,
            login_as: LoginAs::User,
        }),
        senders: vec![ALICE.parse().unwrap()],
        ..world.settings.accounts["office"].clone()
    };
    let sender = Sender::new(account, keeper.clone(), None).unwrap();
    let from: Address = ALICE.parse().unwrap();
    let _still = still();
    let kinds = [
        Fault::Status(503, None),
        Fault::Page,
        Fault::Portal,
        Fault::Status(429, Some(30)),
    ];
    let mut failed = Vec::new();
    for minute in 0..24 * 60_usize {
        world.server.fault_every(20, kinds[minute % kinds.len()].clone());
        if minute % 97 == 0 {
            world.server.fault(kinds[minute % kinds.len()].clone());
        }
        pass(60).await;
        keeper.look().await;
        if minute % 10 == 0 {
            let parcel = Parcel {
                envelope: Envelope::new(from.clone(), vec!["ops@sandbox.example".parse().unwrap()]).unwrap(),
                content: Content::Bytes(Arc::from(&b"From: alice@sandbox.example\r\n\r\nhello\r\n"[..])),
                message_id: format!("<{minute}@sandbox.example>"),
            };
            match sender.send(&parcel, &from, &Open).await {
                Outcome::Answered {
                    accepted: Some(_), ..
                } => {}
                other => failed.push((minute, other)),
            }
        }
    }
    assert!(failed.is_empty(), "skew {skew}: {failed:?}");
    assert_eq!(mail.messages().len(), 144);
    let counters = world.server.counters();
    assert!(
        counters.requests > counters.refreshes + 1,
        "no failure was played: {counters:?}"
    );
    assert_eq!(counters.reused, 0);
}

#[tokio::test]
async fn no_mail_of_a_day_fails_though_the_token_server_does_and_its_clock_is_right() {
    day_of_mails(0).await;
}

#[tokio::test]
async fn no_mail_of_a_day_fails_though_our_clock_is_ten_minutes_behind() {
    day_of_mails(600).await;
}

#[tokio::test]
async fn no_mail_of_a_day_fails_though_our_clock_is_ten_minutes_ahead() {
    day_of_mails(-600).await;
}

// ---- several processes ----

/// Not a test of its own: the body of a process that `three_processes_..` starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_of_many_askers() {
    let Ok(url) = std::env::var("TIDINGS_TEST_ISSUER") else {
        return;
    };
    let folder = std::env::var("TIDINGS_TEST_FOLDER").unwrap();
    let settings = setup(Path::new(&folder), &Url::parse(&url).unwrap());
    let Credential::OAuth2(oauth2) = &settings.accounts["office"].credential else {
        unreachable!()
    };
    let clock = Clock::system();
    let store = Store::open(&settings.outbox.store, clock.clone()).await.unwrap();
    let accounts = vec![("office".to_owned(), (**oauth2).clone())];
    let keeper = Keeper::open(accounts, store, &settings.state, clock)
        .await
        .unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(8);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let keeper = keeper.clone();
        asking.spawn(async move {
            while std::time::Instant::now() < until {
                let token = keeper.token("office").await.unwrap();
                assert!(token.expires() > Timestamp::now());
                // As often as a busy sender would ask.
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        });
    }
    asking.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_with_fifty_askers_each_never_use_a_refresh_token_twice() {
    let life = Duration::from_secs(2);
    let world = World::new(|server| server.life = life).await;
    drop(world.signed_in().await);
    let children: Vec<_> = (0..3)
        .map(|_| {
            tokio::process::Command::new(std::env::current_exe().unwrap())
                .args(["process_of_many_askers", "--exact", "--nocapture"])
                .env("TIDINGS_TEST_ISSUER", world.server.url().as_str())
                .env("TIDINGS_TEST_FOLDER", world.folder.path())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().await.unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
    let counters = world.server.counters();
    assert_eq!(counters.reused, 0, "{counters:?}");
    // One refresh an expiry: a token of 2 s is renewed when 0.4 s are left.
    assert!((4..=8).contains(&counters.refreshes), "{counters:?}");
    assert_eq!(counters.requests, counters.refreshes + counters.redeemed);
}

// ---- what must not be seen ----

/// Everything every test of this file logs, at the finest level. One for all: the library remembers
/// for the whole process whether anybody listens to a place in the code.
fn log() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let begin = || {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .init();
        log
    };
    LOG.get_or_init(begin).clone()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);
impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_appear_in_no_output_log_debug_or_file() {
    let mut world =
        World::new(|server| server.client_secret = Some(Secret::new("canary-client-secret"))).await;
    world.change(|oauth2| {
        oauth2.proofs = vec![Proof::Secret(SecretSource::Literal(Secret::new(
            "canary-client-secret",
        )))]
    });
    let person = Person::who(ALICE);
    assert_eq!(world.auth(login_command(), &person).await, Exit::Done);
    world.auth(Command::Refresh { account: None }, &person).await;
    world
        .auth(
            Command::Status {
                account: None,
                json: true,
            },
            &person,
        )
        .await;
    world
        .auth(
            Command::Status {
                account: None,
                json: false,
            },
            &person,
        )
        .await;
    let keeper = world.keeper().await;
    let token = keeper.token("office").await.unwrap();
    world.server.fault(Fault::InvalidGrant(50173, "bad_token"));
    let error = keeper.refresh("office").await.unwrap_err();
    world
        .auth(
            Command::Status {
                account: None,
                json: false,
            },
            &person,
        )
        .await;
    let kept = world.kept().await;
    let mut seen = person.all();
    seen += &format!(
        "{token:?} {error:?} {error} {keeper:?} {kept:?} {:?} {:?}",
        world.settings, world.server
    );
    let secrets = {
        let mut secrets = world.server.secrets();
        secrets.retain(|secret| !secret.is_empty());
        secrets.push("canary-client-secret".into());
        secrets.push("canary-pw".into());
        secrets
    };
    assert!(secrets.len() >= 6, "{}", secrets.len());
    let logged = String::from_utf8_lossy(&log().0.lock().unwrap()).into_owned();
    assert!(logged.contains("renewed"), "the log was not caught");
    for secret in &secrets {
        assert!(!seen.contains(secret.as_str()), "a secret was shown: {seen}");
        assert!(!logged.contains(secret.as_str()), "a secret was logged: {logged}");
    }
    // Everything on disk is ours alone, and holds no token in clear.
    let mut files = vec![world.settings.state.clone()];
    let mut count = 0;
    while let Some(path) = files.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            meta.permissions().mode() & 0o077,
            0,
            "{} is open to others",
            path.display()
        );
        if meta.is_dir() {
            files.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        count += 1;
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "a secret lies in {}", path.display());
        }
    }
    assert!(count >= 3, "{count} files");
}
