//! Who is at the other end of a conversation: a terminal, the demo, or a test.

use super::{out, tell};
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::pin::Pin;
use std::process::Stdio;

/// Who is at the other end: a terminal, or a test.
pub trait Face: Send + Sync {
    /// Data.
    fn out(&self, text: &str);
    /// Words for a person.
    fn tell(&self, text: &str);
    /// Show that address in a browser, if there is one.
    fn browse(&self, url: &str);
    /// A line that nobody else shall see, after a question.
    fn secret(&self, question: &str) -> Pin<Box<dyn Future<Output = String> + Send>> {
        self.tell(question);
        self.line()
    }
    /// A picture made of characters, for a person's eyes only.
    fn draw(&self, _picture: &str) {}
    /// One line that a person types.
    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>>;
}

/// The terminal of this process.
#[derive(Clone, Copy, Debug)]
pub struct Terminal;

impl Face for Terminal {
    fn out(&self, text: &str) {
        out(text);
    }

    fn tell(&self, text: &str) {
        tell(text);
    }

    fn browse(&self, url: &str) {
        let program = if cfg!(target_os = "macos") {
            "open"
        } else {
            "xdg-open"
        };
        let has_screen = cfg!(target_os = "macos")
            || ["DISPLAY", "WAYLAND_DISPLAY"]
                .iter()
                .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        // Without a screen xdg-open may start a text browser on this very terminal.
        if has_screen {
            let _ = std::process::Command::new(program)
                .arg(url)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
        }
    }

    fn secret(&self, question: &str) -> Pin<Box<dyn Future<Output = String> + Send>> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        self.tell(question);
        let line = self.line();
        Box::pin(async move {
            let shown = tcgetattr(std::io::stdin()).ok();
            if let Some(shown) = &shown {
                let mut hidden = shown.clone();
                hidden.local_modes.remove(LocalModes::ECHO);
                let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &hidden);
            }
            let line = line.await;
            if let Some(shown) = &shown {
                let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, shown);
            }
            line
        })
    }

    fn draw(&self, picture: &str) {
        if std::io::stderr().is_terminal() {
            tell(picture);
        }
    }

    fn line(&self) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(async {
            let read = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                let _ = std::io::stdin().lock().take(16_384).read_line(&mut line);
                line
            });
            read.await.unwrap_or_default()
        })
    }
}
