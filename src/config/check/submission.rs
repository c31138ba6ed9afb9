//! `submission:`: where mails are handed in over SMTP.

use crate::config::check::Checker;
use crate::config::document::At;
use crate::config::handed::{Submission, is_here};
use crate::config::raw::handed as raw;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Where the listener listens that is not told.
const LISTEN: &str = "127.0.0.1:2525";

impl Checker<'_> {
    /// Where others hand in over SMTP. What others on the network could use or read is refused.
    pub(super) fn submission(&mut self, at: &At<'_>, raw: raw::Submission) -> Submission {
        let mut listen = Vec::new();
        let written = raw.listen.map_or_else(|| vec![LISTEN.to_owned()], |many| many.0);
        for (index, text) in written.iter().enumerate() {
            let spot = at.key("listen").item(index);
            let named = text.replacen("localhost:", "127.0.0.1:", 1);
            match named.parse::<SocketAddr>() {
                Ok(address) if address.port() == 0 => {
                    self.complain(
                        spot.error("port 0 is none that a client could be told")
                            .hint("2525, or 587"),
                    );
                }
                Ok(address) => listen.push((index, address)),
                Err(_) => {
                    self.complain(
                        spot.error(format!("`{text}` is not an address to listen on"))
                            .hint("an IP address and a port: 127.0.0.1:2525, [::1]:2525, 192.168.1.5:587"),
                    );
                }
            }
        }
        let mut users = BTreeMap::new();
        for (name, user) in raw.users.unwrap_or_default() {
            let at = at.key("users");
            if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
                self.complain(at.name(&name).error("this cannot be a login name"));
            }
            let user_at = at.key(&name);
            let source = self.secret(&user_at.key("password"), &user_at.name("password"), user.password);
            users.insert(name, source);
        }
        let tls = raw.tls.map(|tls| {
            let spot = at.key("tls");
            (
                self.file(&spot.key("cert"), &tls.cert),
                self.file(&spot.key("key"), &tls.key),
            )
        });
        for (index, address) in &listen {
            let open = match (users.is_empty(), tls.is_none()) {
                (true, _) => "everybody on the network could send mail through it",
                (false, true) => "passwords and mails could be read on the network",
                (false, false) => continue,
            };
            if !is_here(address.ip()) {
                self.complain(
                    at.key("listen")
                        .item(*index)
                        .error(format!("{address} is reached from other machines: {open}"))
                        .hint(
                            "give it `users:` and `tls: { cert: FILE, key: FILE }`, or listen on 127.0.0.1",
                        ),
                );
            }
        }
        let time = |time: &Option<crate::config::raw::Time>| time.as_ref().map(|time| time.0.clone());
        Submission {
            listen: listen.into_iter().map(|(_, address)| address).collect(),
            tls,
            users,
            per_minute: raw.per_minute.unwrap_or(60).max(1),
            connections: raw.connections.map_or(20, |most| most.max(1) as usize),
            timeout: self.some_time(
                &at.key("timeout"),
                time(&raw.timeout).as_deref(),
                Duration::from_secs(300),
            ),
            take_once: self.time(
                &at.key("take_once"),
                time(&raw.take_once).as_deref(),
                Duration::from_secs(3600),
            ),
        }
    }
}
