//! The tour of the demo: what happens, in order, and what must have arrived for it.

use super::{ALICE, DemoError, INVOICES, LIFE, Stage, described};
use crate::app::App;
use crate::cli::auth;
use crate::cli::face::Face;
use crate::cli::{Exit, out};
use crate::clock::Clock;
use crate::config::settings::Credential;
use crate::sandbox::smtp::Received;
use crate::store::Store;
use mail_parser::{Message, MessageParser, MimeHeaders as _};
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for one mail of the tour.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a mail of the tour must be.
struct Expected {
    /// The return path.
    from: &'static str,
    /// Whose sign-in opened which mailbox.
    mailbox: &'static str,
    /// The recipient.
    to: &'static str,
    /// A part of the subject.
    subject: &'static str,
    /// A part of the text.
    text: &'static str,
    /// The one attachment's name and content, if any; an empty content is not compared.
    attachment: Option<(&'static str, Vec<u8>)>,
}

/// Somebody at a browser: visits the address, where the page approves by itself.
struct Visitor {
    browser: reqwest::Client,
    told: Mutex<Vec<String>>,
}

impl Face for Visitor {
    fn out(&self, _text: &str) {}

    fn tell(&self, text: &str) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.to_owned());
    }

    fn browse(&self, url: &str) {
        let visit = self.browser.get(url).send();
        // What goes wrong shows as a sign-in that never came back.
        tokio::spawn(async move { visit.await.map(|_| ()) });
    }

    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(std::future::ready(String::new()))
    }
}

/// Signs in as a person at a browser would.
pub(super) async fn sign_in(app: &App) -> Result<(), DemoError> {
    let browser = reqwest::Client::builder()
        .build()
        .map_err(|error| DemoError::SignIn(error.to_string()))?;
    let visitor = Visitor {
        browser,
        told: Mutex::default(),
    };
    let settings = app.settings();
    let account = settings.accounts.get("office");
    let Some(Credential::OAuth2(oauth2)) = account.map(|account| &account.credential) else {
        return Err(DemoError::SignIn("the demo's account has no OAuth2".to_owned()));
    };
    let options = auth::Login {
        account: None,
        no_browser: false,
        paste: false,
        device: false,
    };
    let exit = auth::sign_in(
        "office",
        oauth2,
        &app.keeper(),
        &options,
        &Clock::system(),
        &visitor,
    )
    .await;
    match exit {
        Exit::Done => Ok(()),
        _ => {
            let told = visitor.told.into_inner().unwrap_or_else(PoisonError::into_inner);
            Err(DemoError::SignIn(told.join("; ")))
        }
    }
}

/// Drops files and waits for the mails. `Ok` only if every mail arrived as it must.
pub(super) async fn tour(stage: &Stage, store: &Store) -> Result<(), DemoError> {
    let mut seen = 0;
    let invoice = pdf("Invoice 2041");
    out("\n2. An invoice is dropped into drop/invoices.");
    drop_file(&stage.dir, "drop/invoices/invoice-2041.pdf", &invoice)?;
    seen = arrived(
        stage,
        seen,
        &[Expected {
            from: INVOICES,
            mailbox: INVOICES,
            to: "ap@sandbox.example",
            subject: "invoice-2041.pdf",
            text: "invoice-2041.pdf",
            attachment: Some(("invoice-2041.pdf", invoice)),
        }],
    )
    .await?;

    out("\n3. An order is dropped into drop/orders; the job that imports it succeeds.");
    drop_file(&stage.dir, "drop/orders/order-17.csv", b"bolt,200\nnut,200\n")?;
    seen = arrived(
        stage,
        seen,
        &[told("Succeeded: import-order", "200 of bolt", None)],
    )
    .await?;

    out("\n4. A damaged order is dropped; the job fails, and its last lines and its log are mailed.");
    drop_file(&stage.dir, "drop/orders/order-18.csv", b"bolt,200\nnut,many\n")?;
    seen = arrived(
        stage,
        seen,
        &[told(
            "Failed: import-order",
            "quantity 'many'",
            Some(("import-order.log", Vec::new())),
        )],
    )
    .await?;

    out("\n5. The next order is fine again: a success, and a recovery.");
    drop_file(&stage.dir, "drop/orders/order-19.csv", b"washer,50\n")?;
    seen = arrived(
        stage,
        seen,
        &[
            told("Succeeded: import-order", "50 of washer", None),
            told("Recovered: import-order", "import-order", None),
        ],
    )
    .await?;

    out(format_args!(
        "\n6. The access token of {} seconds runs out.",
        LIFE.as_secs()
    ));
    let before = stage.sign_in.counters().refreshes;
    stage.sign_in.end_access_tokens();
    let invoice = pdf("Invoice 2042");
    drop_file(&stage.dir, "drop/invoices/invoice-2042.pdf", &invoice)?;
    arrived(
        stage,
        seen,
        &[Expected {
            from: INVOICES,
            mailbox: INVOICES,
            to: "ap@sandbox.example",
            subject: "invoice-2042.pdf",
            text: "invoice-2042.pdf",
            attachment: Some(("invoice-2042.pdf", invoice)),
        }],
    )
    .await?;
    let counters = stage.sign_in.counters();
    if counters.refreshes <= before {
        return Err(DemoError::Tour("no token was refreshed".to_owned()));
    }
    out(format_args!(
        "   the token was refreshed ({} refreshes so far, {} grants lost)",
        counters.refreshes, counters.reused
    ));

    settled(store).await?;
    for (place, name) in [
        ("done", "order-17.csv"),
        ("failed", "order-18.csv"),
        ("done", "order-19.csv"),
    ] {
        if !stage.dir.join("drop").join(place).join(name).is_file() {
            return Err(DemoError::Tour(format!("{name} was not moved to drop/{place}/")));
        }
    }
    let count = stage.mail.messages().len();
    out(format_args!(
        "\nAll {count} mails of the tour arrived, with a shared mailbox as sender and a refreshed token; the orders were moved."
    ));
    Ok(())
}

/// A mail to operations about a job.
fn told(subject: &'static str, text: &'static str, attachment: Option<(&'static str, Vec<u8>)>) -> Expected {
    Expected {
        from: ALICE,
        mailbox: ALICE,
        to: "ops@sandbox.example",
        subject,
        text,
        attachment,
    }
}

/// Waits for as many further mails as are expected, shows them, and checks each.
async fn arrived(stage: &Stage, seen: usize, expected: &[Expected]) -> Result<usize, DemoError> {
    let waiting = stage.mail.received(seen + expected.len());
    let all = tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| {
        DemoError::Tour(format!(
            "a mail did not arrive within {} seconds",
            PATIENCE.as_secs()
        ))
    })?;
    let mut came: Vec<&Received> = all[seen..].iter().collect();
    for expected in expected {
        let Some(place) = came
            .iter()
            .position(|message| expected.differs(message).is_none())
        else {
            let why: Vec<String> = came
                .iter()
                .filter_map(|message| expected.differs(message))
                .collect();
            return Err(DemoError::Tour(format!(
                "a mail is not as it must be: {}",
                why.join("; ")
            )));
        };
        out(described(came.remove(place)));
    }
    match came.first() {
        None => Ok(all.len()),
        Some(message) => Err(DemoError::Tour(format!(
            "an unexpected mail arrived:\n{}",
            described(message)
        ))),
    }
}

impl Expected {
    /// What is not as it must be.
    fn differs(&self, message: &Received) -> Option<String> {
        let Some(parsed) = MessageParser::default().parse(&message.bytes) else {
            return Some("it cannot be read".to_owned());
        };
        let checks = [
            ("return path", message.from.as_str(), message.from == self.from),
            ("From", header_from(&parsed), header_from(&parsed) == self.from),
            (
                "mailbox",
                message.mailbox.as_deref().unwrap_or(""),
                message.mailbox.as_deref() == Some(self.mailbox),
            ),
            (
                "account",
                message.account.as_deref().unwrap_or(""),
                message.account.as_deref() == Some(ALICE),
            ),
            (
                "mechanism",
                message.mechanism.as_deref().unwrap_or(""),
                message.mechanism.as_deref() == Some("XOAUTH2"),
            ),
            ("encryption", "none", message.encrypted),
            (
                "subject",
                parsed.subject().unwrap_or(""),
                parsed.subject().unwrap_or("").contains(self.subject),
            ),
        ];
        if let Some((what, is, _)) = checks.iter().find(|(_, _, fine)| !fine) {
            return Some(format!("its {what} is `{is}`"));
        }
        if message.to != [self.to] {
            return Some(format!("it went to {}", message.to.join(", ")));
        }
        if !parsed.body_text(0).is_some_and(|text| text.contains(self.text)) {
            return Some(format!("its text lacks `{}`", self.text));
        }
        let attached: Vec<_> = parsed.attachments().collect();
        match (&self.attachment, attached.as_slice()) {
            (None, []) => None,
            (Some((name, content)), [part])
                if part.attachment_name() == Some(name)
                    && (part.contents() == content.as_slice()
                        || (content.is_empty() && !part.contents().is_empty())) =>
            {
                None
            }
            (_, other) => Some(format!("it has {} attachments, or another one", other.len())),
        }
    }
}

fn header_from<'a>(message: &'a Message<'_>) -> &'a str {
    message
        .from()
        .and_then(|from| from.first())
        .and_then(|from| from.address())
        .unwrap_or("")
}

/// Writes a file as careful programs do: under another name, then renamed into place.
fn drop_file(dir: &Path, name: &str, content: &[u8]) -> Result<(), DemoError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.tmp"));
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.map_err(|source| DemoError::Write { path, source })
}

/// Waits until nothing is under way any more.
async fn settled(store: &Store) -> Result<(), DemoError> {
    use crate::entry::State;
    let failed = |error: crate::store::StoreError| DemoError::Tour(error.to_string());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut changes = store.changes();
    loop {
        let counts = store.counts().await.map_err(failed)?;
        let busy: u64 = counts
            .iter()
            .filter(|((_, state), _)| !state.is_final())
            .map(|(_, count)| count)
            .sum();
        let failed_mails = counts
            .get(&(crate::entry::Kind::Mail, State::Failed))
            .copied()
            .unwrap_or(0);
        if failed_mails > 0 {
            return Err(DemoError::Tour(format!("{failed_mails} mails failed")));
        }
        if busy == 0 && store.pending_events(1).await.map_err(failed)?.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(DemoError::Tour(format!("{busy} entries are still under way")));
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), changes.changed()).await;
    }
}

/// A small, valid PDF page with a line of text.
fn pdf(line: &str) -> Vec<u8> {
    let stream = format!("BT /F1 24 Tf 72 720 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut out = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        places.push(out.len());
        out.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
    }
    let start = out.len();
    out.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    for place in places {
        out.extend(format!("{place:010} 00000 n \n").bytes());
    }
    out.extend(
        format!(
            "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n",
            objects.len() + 1
        )
        .bytes(),
    );
    out
}
