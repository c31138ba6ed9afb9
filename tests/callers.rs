//! Debian's own programs send through the name `sendmail`: bsd-mailx, `git send-email` and cron.
//!
//! Each runs in a mount namespace of its own, where tidings lies at `/usr/sbin/sendmail`; outside nothing changes. That
//! needs root. Where it or a program is missing, the tests say so and pass; with `TIDINGS_TEST_SERVICES=1` they fail
//! instead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use assert_cmd::cargo::cargo_bin;
use common::{Site, text};
use std::process::{Child, Command, Stdio};

const HANDED: &str = "recipients: { groups: { root: [it@example.org] }, allow: ['*@example.org'] }\n";

/// A site, unless the test cannot be: then the reason was printed.
async fn site(programs: &[&str]) -> Option<Site> {
    let missing = |program: &&&str| {
        let found = Command::new("sh")
            .arg("-c")
            .arg(format!("command -v {program}"))
            .output();
        !found.is_ok_and(|output| output.status.success())
    };
    let reason = if !rustix::process::geteuid().is_root() {
        Some("not root".to_owned())
    } else if !std::path::Path::new("/usr/sbin/sendmail").exists() {
        Some("there is no /usr/sbin/sendmail to lie over".to_owned())
    } else {
        let of_all = ["unshare", "mount"];
        let all = of_all.iter().chain(programs);
        all.into_iter()
            .find(|program| missing(program))
            .map(|program| format!("{program} is missing"))
    };
    if let Some(reason) = reason {
        let insists = std::env::var_os("TIDINGS_TEST_SERVICES").is_some_and(|value| value != "0");
        assert!(!insists, "cannot be tested: {reason}");
        println!("skipped: {reason}");
        return None;
    }
    let site = Site::new("rules: {}\n").await;
    site.write("tidings.yaml", &site.settings(HANDED));
    Some(site)
}

/// A script in a place where `sendmail` is tidings.
fn within(site: &Site, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec"])
        .arg(format!("mount --bind \"$TIDINGS\" /usr/sbin/sendmail\n{script}"))
        .env("TIDINGS", cargo_bin("tidings"))
        .env("TIDINGS_CONFIG", site.dir())
        .env("HOME", site.dir())
        .env("LC_ALL", "C.UTF-8")
        .current_dir(site.dir());
    command
}

fn ok(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_from_the_shell_leaves() {
    let Some(site) = site(&["bsd-mailx"]).await else {
        return;
    };
    ok(within(
        &site,
        "printf 'Grüße\\n.. von der Kommandozeile\\n' |
         bsd-mailx -s 'Platte fast voll: Ä' -a 'X-Mine: yes' -c a@example.org -b hidden@example.org root",
    ));
    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    let mut to = mail.to.clone();
    to.sort();
    assert_eq!(to, ["a@example.org", "hidden@example.org", "it@example.org"]);
    assert_eq!(mail.from, "robot@example.org");
    assert_eq!(mail.subject, "Platte fast voll: Ä");
    assert_eq!(
        mail.text.replace("\r\n", "\n"),
        "Grüße\n.. von der Kommandozeile\n"
    );
    let whole = text(&mail.bytes);
    assert!(
        whole.contains("X-Mine: yes\r\n") && !whole.contains("hidden"),
        "{whole}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn git_sends_a_patch_that_can_be_applied_again() {
    let Some(site) = site(&["git", "perl"]).await else {
        return;
    };
    ok(within(
        &site,
        "export GIT_CONFIG_NOSYSTEM=1
         git init -q work && cd work
         git config user.name 'Zoë Ö' && git config user.email robot@example.org
         printf 'one\\r\\n.\\nFrom here\\n' > file && git add file && git commit -qm 'first'
         printf 'one\\r\\n.\\nFrom here\\nüber\\n' > file && git commit -qam 'file: say über'
         git send-email --confirm=never --quiet --to=a@example.org --cc=root HEAD~1
         git log -1 --format=%H > ../hash",
    ));
    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    assert_eq!(
        (mail.from.as_str(), mail.subject.as_str()),
        ("robot@example.org", "[PATCH] file: say über")
    );
    assert!(mail.to.contains(&"a@example.org".to_owned()) && mail.to.contains(&"it@example.org".to_owned()));
    let unix = text(&mail.bytes).replace("\r\n", "\n");
    site.write("patch.mbox", &format!("From x Mon Sep 17 00:00:00 2001\n{unix}"));
    // With its own committer and date, the same patch gives the same tree.
    ok(within(
        &site,
        "cd work && git checkout -q HEAD~1 && git am -q --keep-cr ../patch.mbox &&
         git diff --exit-code HEAD $(cat ../hash)",
    ));
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cron_job_prints_comes_to_whom_root_stands_for() {
    let Some(site) = site(&["cron"]).await else { return };
    std::fs::create_dir_all(site.path("none")).unwrap();
    site.write("empty", "");
    // `@reboot` comes at once: with an empty /run, cron takes its start for the machine's.
    site.write(
        "crontabs/root",
        &format!(
            "TIDINGS_CONFIG={}\n@reboot echo fertig; echo über alles; exit 3\n",
            site.dir().display()
        ),
    );
    let script = "chmod 600 crontabs/root
        mount -t tmpfs none /run
        mount --bind none /etc/cron.d
        mount --bind empty /etc/crontab
        mount --bind crontabs /var/spool/cron/crontabs
        exec cron -f";
    let log = std::fs::File::create(site.path("cron.log")).unwrap();
    let child = within(&site, script)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let cron = Running(child);
    site.until("cron has sent", || {
        site.ok(&["outbox", "list", "--json"])
            .contains("sendmail by root")
    })
    .await;
    drop(cron);
    site.ok(&["run", "--once"]);
    let mail = site.mails(1).await.remove(0);
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("robot@example.org", &["it@example.org".to_owned()][..])
    );
    assert!(
        mail.subject.starts_with("Cron <root@") && mail.subject.contains("echo fertig"),
        "{}",
        mail.subject
    );
    assert!(mail.text.starts_with("fertig"), "{}", mail.text);
    let whole = text(&mail.bytes);
    assert!(
        whole.contains("X-Original-From: root (Cron Daemon)\r\n"),
        "{whole}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_write_to_the_store_sends_through_the_listener() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let Some(site) = site(&[]).await else { return };
    let program = site.path("sendmail");
    std::fs::copy(cargo_bin("tidings"), &program).unwrap();
    std::fs::set_permissions(site.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |message: &'static str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "printf \"$1\" | \"$0\" -t -i"])
            .arg(&program)
            .arg(message)
            .env("TIDINGS_CONFIG", site.dir())
            .current_dir("/")
            .uid(65534)
            .gid(65534);
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    const MAIL: &str = "To: root\nSubject: from a web page\n\nx\n";
    site.ok(&["outbox", "list", "--json"]); // makes the store, root's own

    let (code, said) = nobody(MAIL);
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("NOT taken") && said.contains("submission: {}"),
        "{said}"
    );

    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("{HANDED}submission: {{ listen: '127.0.0.1:{port}' }}\n");
    site.write("tidings.yaml", &site.settings(&listen));
    let (code, said) = nobody(MAIL);
    assert_eq!(code, Some(75), "nobody listens yet: {said}");
    let daemon = site.started().await;
    let (code, said) = nobody(MAIL);
    assert_eq!(code, Some(0), "{said}");
    let mail = site.mails(1).await.remove(0);
    assert_eq!(
        (mail.subject.as_str(), mail.to.as_slice()),
        ("from a web page", &["it@example.org".to_owned()][..])
    );
    assert_eq!(daemon.stop(), Some(0));
}
