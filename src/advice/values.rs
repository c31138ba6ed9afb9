//! What is known of one account, filled into the words of an advice. Pure.

use crate::entry::Reason;

/// Names that steps may use in angle brackets.
///
/// | name | is |
/// |---|---|
/// | `account` | the account's name in the settings |
/// | `login`, `login domain` | who signs in, and what stands behind the @ |
/// | `mailbox` | whose name is given to the mail server |
/// | `from` | who the mail is from |
/// | `tenant`, `client id`, `redirect`, `scope` | of its OAuth2 settings |
/// | `secret` | where its secret is read from, never the secret |
/// | `sign-in host` | the sign-in server, with `https://` |
/// | `portal` | where administrators of that cloud work, with `https://` |
/// | `host`, `port` | of its mail server |
pub const NAMES: [&str; 14] = [
    "account",
    "login",
    "login domain",
    "mailbox",
    "from",
    "tenant",
    "client id",
    "redirect",
    "scope",
    "secret",
    "sign-in host",
    "portal",
    "host",
    "port",
];

/// Values by name. What is not known stays a placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(Vec<(&'static str, String)>);

impl Values {
    /// Adds a value, over one of the same name; an empty one is none.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        debug_assert!(NAMES.contains(&name), "{name}");
        let value = value.into();
        self.0.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }

    /// `text` with each `<name>` that is known replaced. What was filled in is not looked at again.
    pub fn fill(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let known = rest.find('>').and_then(|end| {
                let name = &rest[1..end];
                let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
                Some((end, value))
            });
            match known {
                Some((end, value)) => {
                    out.push_str(value);
                    rest = &rest[end + 1..];
                }
                None => {
                    out.push('<');
                    rest = &rest[1..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// A reason with its own words filled in. The server's words are not ours to change.
    pub fn fill_in(&self, reason: &mut Reason) {
        reason.text = self.fill(&reason.text);
        for step in &mut reason.steps {
            *step = self.fill(step);
        }
        reason.who = reason.who.as_ref().map(|who| self.fill(who).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_once_and_the_rest_stays() {
        let mut values = Values::default();
        values.set("mailbox", "<from>");
        values.set("from", "a@b.example");
        values.set("tenant", "");
        assert_eq!(
            values.fill("Set -Identity <mailbox> -User <object id> <from> < <tenant"),
            "Set -Identity <from> -User <object id> a@b.example < <tenant"
        );
        values.set("mailbox", "m@b.example");
        let mut reason = Reason {
            reply: Some("<mailbox>".to_owned()),
            steps: vec!["<mailbox>".to_owned()],
            ..Reason::new("to <tenant>")
        };
        values.fill_in(&mut reason);
        assert_eq!(
            reason.reply.as_deref(),
            Some("<mailbox>"),
            "the server's own words"
        );
        assert_eq!(
            (reason.text.as_str(), &reason.steps[..]),
            ("to <tenant>", &["m@b.example".to_owned()][..])
        );
    }
}
