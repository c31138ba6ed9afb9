//! An office: a setup with a mailbox at a sandbox that behaves as Microsoft 365 does, a relay with a
//! password beside it, and somebody with a browser.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use crate::common::{self, Site, json_lines, text};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use tidings::clock::Clock;
use tidings::config::secret::Secret;
use tidings::sandbox::oauth::{self, User};
use tidings::sandbox::{Authority, smtp};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use url::Url;

pub const ALICE: &str = "alice@sandbox.example";
pub const BOB: &str = "bob@sandbox.example";
/// A shared mailbox that alice is a member of.
pub const INVOICES: &str = "invoices@sandbox.example";
/// The right to submit mail.
pub const SEND: &str = "https://outlook.office.com/SMTP.Send";
pub const CLIENT_SECRET: &str = "canary-of-the-client-secret";
const PASSWORD: &str = "canary-of-the-password";

const RULES: &str = r#"
rules:
  invoices:
    when: { file_arrives: { in: drop/invoices } }
    mail: { from: "Invoices <invoices@sandbox.example>", to: ap@example.org, template: file-arrived, attach: "{{file.path}}" }
  own:
    when: { file_arrives: { in: drop/own } }
    mail: { to: ops@example.org, template: file-arrived }
  backup:
    when: { file_arrives: { in: drop/backup } }
    mail: { account: backup, from: robot@example.org, to: ops@example.org, template: file-arrived }
"#;

const SETTINGS: &str = "
accounts:
  office:
    provider:
      preset: microsoft365
      authorize_url: URLauthorize
      token_url: URLtoken
      revoke_url: URLrevoke
      scopes: [offline_access, \"SEND\"]
      smtp: { host: 127.0.0.1, port: PORT, tls: starttls, ca_file: ca.pem, login_as: sender }
      pace: { connections: 3, per_minute: 1000 }
    user: alice@sandbox.example
    senders: [invoices@sandbox.example]
    oauth2: { tenant: sandbox, client_id: tidings, client_secret: { file: secrets/client } }
    transcript: session.log
  backup:
    smtp: { host: 127.0.0.1, port: BACKUP, tls: starttls, ca_file: ca.pem }
    user: robot@example.org
    password: { user: relay, secret: { file: secrets/password } }
    transcript: session.log
defaults: { account: office, from: \"Alice <alice@sandbox.example>\", scan_every: 5s }
outbox: { retry: { first: 1s, longest: 2h } }
";

/// What the administrator of the mailboxes has allowed.
#[derive(Debug, Default)]
pub struct Rights {
    send_as: Mutex<BTreeSet<(String, String)>>,
    locked_out: Mutex<bool>,
}

impl Rights {
    /// Lets `login` send as `mailbox`.
    pub fn grant(&self, login: &str, mailbox: &str) {
        self.send_as
            .lock()
            .unwrap()
            .insert((login.to_owned(), mailbox.to_owned()));
    }

    /// Whether every sign-in at the mail server is refused, whatever its token.
    pub fn lock_out(&self, yes: bool) {
        *self.locked_out.lock().unwrap() = yes;
    }
}

/// What a sign-in at the command line came to.
#[derive(Debug)]
pub struct Login {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The last page the browser showed.
    pub page: String,
}

pub struct Office {
    pub site: Site,
    pub sign_in: oauth::Handle,
    /// The relay with a password.
    pub backup: smtp::Server,
    pub rights: Arc<Rights>,
    secrets: Mutex<BTreeSet<String>>,
    said: Mutex<String>,
}

impl Office {
    /// Nobody has signed in yet.
    pub async fn open() -> Office {
        Office::open_with(|_, _| {}).await
    }

    /// Alice has signed in.
    pub async fn signed_in() -> Office {
        Office::with(|_| {}).await
    }

    /// The same at a mail server of one's own.
    pub async fn with(tune: impl FnOnce(&mut smtp::Settings)) -> Office {
        let office = Office::open_with(|mail, _| tune(mail)).await;
        let login = office.login(ALICE, &["--no-browser"]).await;
        assert_eq!(login.code, Some(0), "{}", login.stderr);
        office
    }

    pub async fn open_with(tune: impl FnOnce(&mut smtp::Settings, &Authority)) -> Office {
        common::crypto();
        let mut settings = oauth::Settings::new(Clock::system());
        settings.client_secret = Some(Secret::new(CLIENT_SECRET));
        settings.users = vec![
            User {
                address: ALICE.to_owned(),
                shared: vec![INVOICES.to_owned()],
            },
            User {
                address: BOB.to_owned(),
                shared: Vec::new(),
            },
        ];
        let sign_in = oauth::Server::start(settings).await.unwrap();
        let authority = Authority::new().unwrap();
        let rights = Arc::new(Rights::default());

        let (tokens, locked) = (sign_in.clone(), Arc::clone(&rights));
        let authorize: smtp::Authorize = Arc::new(move |mailbox, token| {
            let account = tokens
                .check(token)
                .filter(|_| !*locked.locked_out.lock().unwrap());
            let account = account.ok_or_else(smtp::AuthRefusal::exchange)?;
            let opens =
                account.user.address == mailbox || account.user.shared.iter().any(|shared| shared == mailbox);
            let may = opens && account.scopes.iter().any(|scope| scope == SEND);
            may.then_some(account.user.address)
                .ok_or_else(smtp::AuthRefusal::exchange)
        });
        let granted = Arc::clone(&rights);
        let may_send: smtp::MaySend = Arc::new(move |login, mailbox, from| {
            let pair = (login.to_owned(), from.to_owned());
            if from == mailbox || granted.send_as.lock().unwrap().contains(&pair) {
                Ok(())
            } else {
                Err(smtp::send_as_denied(login, from))
            }
        });
        let mut mail = smtp::Settings::exchange(authority.server().unwrap(), authorize, may_send);
        mail.record = true;
        tune(&mut mail, &authority);

        let by_password: smtp::Authorize = Arc::new(|user, secret| {
            if (user, secret) == ("relay", PASSWORD) {
                Ok(user.to_owned())
            } else {
                Err(smtp::AuthRefusal::exchange())
            }
        });
        let anybody: smtp::MaySend = Arc::new(|_, _, _| Ok(()));
        let mut backup = smtp::Settings::exchange(authority.server().unwrap(), by_password, anybody);
        backup.offers = vec!["AUTH PLAIN LOGIN".to_owned()];
        let backup = smtp::Server::start(backup).await.unwrap();

        let site = Site::with(mail, RULES).await;
        for folder in ["drop/invoices", "drop/own", "drop/backup"] {
            std::fs::create_dir_all(site.path(folder)).unwrap();
        }
        let settings = SETTINGS
            .replace("URL", sign_in.url().as_str())
            .replace("SEND", SEND)
            .replace("PORT", &site.mail.address().port().to_string())
            .replace("BACKUP", &backup.address().port().to_string());
        for (name, content) in [
            ("tidings.yaml", settings.as_str()),
            ("ca.pem", &authority.pem()),
            ("secrets/client", CLIENT_SECRET),
            ("secrets/password", PASSWORD),
        ] {
            site.write(name, content);
        }
        Office {
            site,
            sign_in,
            backup,
            rights,
            secrets: Mutex::new([CLIENT_SECRET, PASSWORD].map(str::to_owned).into()),
            said: Mutex::default(),
        }
    }

    /// Changes the settings, which must change.
    pub fn settings(&self, change: impl FnOnce(String) -> String) {
        let before = std::fs::read_to_string(self.site.path("tidings.yaml")).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after);
        self.site.write("tidings.yaml", &after);
    }

    /// Remembers what was said, for the search at the end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.site.run(arguments);
        let mut said = self.said.lock().unwrap();
        said.push_str(&text(&output.stdout));
        said.push_str(&text(&output.stderr));
        output
    }

    /// A command that must succeed; its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What lies there from before is known now.
    pub fn first_look(&self) {
        self.ok(&["run", "--once"]);
    }

    pub fn drop(&self, name: &str) {
        self.site.drop_file(&format!("drop/{name}"), b"what a file holds");
    }

    pub async fn mails(&self, count: usize) -> Vec<smtp::Received> {
        self.site.mails(count).await;
        self.site.mail.messages()
    }

    /// The outbox, newest first.
    pub fn entries(&self) -> Vec<serde_json::Value> {
        json_lines(&self.ok(&["outbox", "list", "--json", "--limit", "1000"]))
    }

    pub fn entries_of(&self, rule: &str) -> Vec<serde_json::Value> {
        self.entries()
            .into_iter()
            .filter(|entry| entry["rule"] == rule)
            .collect()
    }

    /// Ends all access tokens at the sign-in server.
    pub fn end_access_tokens(&self) {
        self.note_secrets();
        self.sign_in.end_access_tokens();
    }

    fn note_secrets(&self) {
        self.secrets.lock().unwrap().extend(self.sign_in.secrets());
    }

    /// `auth login`, and somebody who signs in as `user` in a browser; `no` says no there. With
    /// `--paste` the browser cannot reach this machine, and the address it ended at is pasted.
    pub async fn login(&self, user: &str, options: &[&str]) -> Login {
        let mut arguments = vec!["auth", "login", "office"];
        arguments.extend(options);
        let mut command = tokio::process::Command::from(self.site.command(&arguments));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut stdout = String::new();
        lines.read_line(&mut stdout).await.unwrap();
        let address = Url::parse(stdout.trim()).expect("an address alone on its line");
        let pastes = options.contains(&"--paste");
        let (back, page) = browse(&address, user, !pastes).await;
        if pastes {
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(format!("{back}\n").as_bytes()).await.unwrap();
        }
        lines.read_to_string(&mut stdout).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let stderr = text(&output.stderr);
        self.note_secrets();
        self.said.lock().unwrap().push_str(&format!("{stdout}{stderr}"));
        Login {
            code: output.status.code(),
            stdout,
            stderr,
            page,
        }
    }

    /// A mail meets a server that is not to be trusted with a credential: nothing is told to it, the
    /// mail waits, the account is in trouble about `what`. What a person reads.
    pub async fn refused_connection(&self, what: &str) -> String {
        self.first_look();
        self.drop("own/1.txt");
        let once = self.run(&["run", "--once"]);
        assert_eq!(once.status.code(), Some(77), "{}", text(&once.stderr));
        assert_eq!(self.entries()[0]["state"], "deferred");
        assert!(self.site.mail.messages().is_empty());
        let heard: Vec<String> = self.site.mail.heard().concat();
        assert!(
            heard.iter().all(|line| ["EHLO", "STARTTLS", "QUIT"]
                .iter()
                .any(|verb| line.starts_with(verb))),
            "{heard:?}"
        );
        let status = self.ok(&["status"]);
        assert!(
            status.contains("account office") && status.contains(what) && status.contains("1. "),
            "{status}"
        );
        status
    }

    /// All files of the setup but those the secrets were written into.
    pub fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    files.push(path);
                }
            }
        }
        let mut files = Vec::new();
        walk(self.site.dir(), &mut files);
        files.retain(|file| !file.starts_with(self.site.path("secrets")));
        files
    }

    /// Searches every file and all that was said for secrets, plain and as base64.
    pub fn end(&self) {
        self.note_secrets();
        let readable = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut places: Vec<(String, String)> = self
            .files()
            .into_iter()
            .filter_map(|file| Some((file.display().to_string(), readable(std::fs::read(&file).ok()?))))
            .collect();
        assert!(places.iter().any(|(name, _)| name.ends_with("tidings.db")));
        places.push(("what was said".to_owned(), self.said.lock().unwrap().clone()));
        for secret in self.secrets.lock().unwrap().iter() {
            for form in forms(secret) {
                for (place, content) in &places {
                    assert!(!content.contains(&form), "{secret} is in {place}, as {form}");
                }
            }
        }
    }
}

/// A secret as it is, and as its bytes look in base64, wherever they begin.
fn forms(secret: &str) -> Vec<String> {
    let encoded = (0..3).map(|before| {
        let text = format!("{}{secret}", &"xxx"[..before]);
        let encoded = BASE64_STANDARD_NO_PAD.encode(text);
        // The first and the last group may hold a neighbour's bits.
        encoded[4..encoded.len() - 4].to_owned()
    });
    std::iter::once(secret.to_owned()).chain(encoded).collect()
}

/// Opens the address, presses the button of `user`, and follows where that leads: the address to go
/// back to, and the page shown there if the browser can reach it.
async fn browse(address: &Url, user: &str, reaches: bool) -> (String, String) {
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let page = browser
        .get(address.as_str())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let wanted = match user {
        "no" => "decline=yes".to_owned(),
        user => format!("user={}", user.replace('@', "%40")),
    };
    let button = page
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .find(|target| target.contains(&wanted))
        .expect("a button")
        .replace("&amp;", "&");
    let pressed = browser
        .get(address.join(&button).unwrap().as_str())
        .send()
        .await
        .unwrap();
    let back = pressed.headers()["location"].to_str().unwrap().to_owned();
    if !reaches {
        return (back, String::new());
    }
    let page = browser.get(&back).send().await.unwrap().text().await.unwrap();
    (back, page)
}
