//! Where events come in, and whom to call while all is well.

use crate::config::check::{Checker, plain};
use crate::config::document::At;
use crate::config::raw::{Secret as RawSecret, emit as raw};
use crate::config::secret::SecretSource;
use crate::config::settings::Alive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two calls.
const EVERY: Duration = Duration::from_secs(300);

impl Checker<'_> {
    /// `emitted:`: the folder others drop events into.
    pub(super) fn emitted(&mut self, at: &At<'_>, raw: raw::Emitted, state: &Path) -> Option<PathBuf> {
        let text = raw.folder?;
        let spot = at.key("folder");
        let folder = self.path(&text);
        if folder == self.dir || folder == state {
            self.complain(
                spot.error("events need a folder of their own: files are taken out of it")
                    .hint("as events/"),
            );
            return None;
        }
        // A warning: it may be on a share that is away, and the rest must run all the same.
        match std::fs::metadata(&folder) {
            Ok(about) if about.is_dir() => {}
            Ok(_) => self.complain(spot.error(format!("{} is not a folder", folder.display()))),
            Err(error) => self.complain(
                spot.warning(format!("cannot see {}: {}", folder.display(), plain(&error)))
                    .hint(format!("mkdir -p {}", folder.display())),
            ),
        }
        Some(folder)
    }

    /// `alive:`: the address that is called.
    pub(super) fn alive(&mut self, at: &At<'_>, raw: raw::Alive) -> Alive {
        let every = raw.every.map(|time| time.0);
        let every = self.some_time(&at.key("every"), every.as_deref(), EVERY);
        let url = match raw.url {
            RawSecret::Literal(text) => {
                if let Err(why) = crate::config::secret::address(&text) {
                    // The address is as good as a password: the place, not the text.
                    self.complain(at.name("url").error(why).hint(
                        "as https://hc-ping.com/your-uuid, or { env: NAME } to keep it out of this file",
                    ));
                }
                SecretSource::Literal(crate::config::secret::Secret::new(text))
            }
            from => self.secret(&at.key("url"), &at.name("url"), from),
        };
        Alive { url, every }
    }
}
