//! Signing in: what is sent for each mechanism, and what of it may be shown. Pure.
//!
//! | mechanism | first line | then |
//! |---|---|---|
//! | OAUTHBEARER (RFC 7628) | `AUTH OAUTHBEARER` | on 334 the token; a second 334 is a refusal, answered `AQ==` |
//! | XOAUTH2 | `AUTH XOAUTH2` | on 334 the token; a second 334 is a refusal, answered by an empty line |
//! | PLAIN (RFC 4616) | `AUTH PLAIN` with the answer, if the line stays within 512 bytes | on 334 the answer |
//! | LOGIN | `AUTH LOGIN` | on 334 the name, on 334 the password |
//!
//! A bearer token never fits the 512 bytes of a command line, so it is never sent as an initial
//! response (RFC 4954 4): most servers forgive that, some cut the line.

use super::super::Login;
use crate::mail::reply::visible;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// A way to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Oauthbearer,
    Xoauth2,
    Plain,
    Login,
}

impl Mechanism {
    /// The best offered one that fits the credential. A token is never sent as a password, nor a
    /// password as a token.
    pub(super) fn choose(login: &Login, offered: &[String]) -> Option<Mechanism> {
        let fitting: &[Mechanism] = match login {
            Login::Anonymous => &[],
            Login::Bearer { .. } => &[Mechanism::Oauthbearer, Mechanism::Xoauth2],
            Login::Password { .. } => &[Mechanism::Plain, Mechanism::Login],
        };
        let is_offered = |mechanism: &&Mechanism| offered.iter().any(|name| name == mechanism.name());
        fitting.iter().find(is_offered).copied()
    }

    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mechanism::Oauthbearer => "OAUTHBEARER",
            Mechanism::Xoauth2 => "XOAUTH2",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The answers it gives to the server's 334s, in order, as base64.
    pub(super) fn answers(self, login: &Login, host: &str, port: u16) -> Vec<String> {
        let (user, secret) = parts(login);
        match self {
            Mechanism::Oauthbearer => {
                let user = user.replace('=', "=3D").replace(',', "=2C");
                vec![STANDARD.encode(format!(
                    "n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {secret}\x01\x01"
                ))]
            }
            Mechanism::Xoauth2 => {
                vec![STANDARD.encode(format!("user={user}\x01auth=Bearer {secret}\x01\x01"))]
            }
            Mechanism::Plain => vec![STANDARD.encode(format!("\0{user}\0{secret}"))],
            Mechanism::Login => vec![STANDARD.encode(user), STANDARD.encode(secret)],
        }
    }

    /// The line that lets the server go on to its refusal.
    pub(super) fn give_in(self) -> &'static str {
        match self {
            Mechanism::Oauthbearer => "AQ==",
            _ => "",
        }
    }
}

fn parts(login: &Login) -> (&str, &str) {
    match login {
        Login::Anonymous => ("", ""),
        Login::Password { user, secret } => (user, secret.expose()),
        Login::Bearer { user, token } => (user, token.expose()),
    }
}

/// A control character in name or secret would end the line or a field of the answer.
pub(super) fn is_clean(login: &Login) -> bool {
    let (user, secret) = parts(login);
    !user.chars().chain(secret.chars()).any(char::is_control)
}

/// What a challenge says: decoded if it is base64, harmless to show.
pub(super) fn challenge(text: &str) -> String {
    match STANDARD.decode(text.trim()) {
        Ok(bytes) => visible(&bytes),
        Err(_) => text.to_owned(),
    }
}

/// Takes secrets out of texts that are shown: a server may say back what it was told.
#[derive(Clone, Default)]
pub(super) struct Mask {
    needles: Vec<zeroize::Zeroizing<String>>,
}

/// Characters of a secret that are enough to know it again when a server cuts it short.
const TELLING: usize = 12;

impl Mask {
    /// Masks the secret of `login` and the answers it gave.
    pub(super) fn of(login: &Login, answers: &[String]) -> Mask {
        let (_, secret) = parts(login);
        // LOGIN's first answer is only the name.
        let answers = answers
            .iter()
            .skip(answers.len().saturating_sub(1))
            .map(String::as_str);
        let needles = std::iter::once(secret)
            .chain(answers)
            .filter(|text| text.len() >= 3);
        Mask {
            needles: needles.map(|text| text.to_owned().into()).collect(),
        }
    }

    /// `text` with each secret, or a beginning of it, as `***`.
    pub(super) fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for needle in &self.needles {
            let telling: String = needle.chars().take(TELLING).collect();
            let mut from = 0;
            while let Some(start) = masked[from..].find(&telling).map(|at| from + at) {
                let shared: usize = masked[start..]
                    .chars()
                    .zip(needle.chars())
                    .take_while(|(said, secret)| said == secret)
                    .map(|(said, _)| said.len_utf8())
                    .sum();
                let mut text = masked.into_owned();
                text.replace_range(start..start + shared, "***");
                masked = Cow::Owned(text);
                from = start + 3;
            }
        }
        masked
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn bearer(user: &str) -> Login {
        Login::Bearer {
            user: user.into(),
            token: Secret::new("ya29.a0AfH6SMBsecretsecret"),
        }
    }

    fn decoded(answer: &str) -> String {
        String::from_utf8(STANDARD.decode(answer).unwrap()).unwrap()
    }

    #[test]
    fn answers_are_as_their_standards_say() {
        let login = bearer("a=b,c@contoso.com");
        let answer = &Mechanism::Oauthbearer.answers(&login, "smtp.x", 587)[0];
        assert_eq!(
            decoded(answer),
            "n,a=a=3Db=2Cc@contoso.com,\x01host=smtp.x\x01port=587\x01auth=Bearer ya29.a0AfH6SMBsecretsecret\x01\x01"
        );
        let answer = &Mechanism::Xoauth2.answers(&bearer("a@x"), "smtp.x", 587)[0];
        assert_eq!(
            decoded(answer),
            "user=a@x\x01auth=Bearer ya29.a0AfH6SMBsecretsecret\x01\x01"
        );
        let login = Login::Password {
            user: "u".into(),
            secret: Secret::new("p"),
        };
        assert_eq!(decoded(&Mechanism::Plain.answers(&login, "", 0)[0]), "\0u\0p");
        assert_eq!(Mechanism::Login.answers(&login, "", 0), ["dQ==", "cA=="]);
    }

    #[test]
    fn a_token_is_never_given_to_a_password_mechanism() {
        let offered = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let passwords = offered(&["PLAIN", "LOGIN"]);
        assert_eq!(Mechanism::choose(&bearer("a"), &passwords), None);
        let both = offered(&["XOAUTH2", "OAUTHBEARER", "PLAIN"]);
        assert_eq!(
            Mechanism::choose(&bearer("a"), &both),
            Some(Mechanism::Oauthbearer)
        );
        let login = Login::Password {
            user: "u".into(),
            secret: Secret::new("p"),
        };
        assert_eq!(Mechanism::choose(&login, &offered(&["XOAUTH2"])), None);
        assert_eq!(
            Mechanism::choose(&login, &offered(&["LOGIN", "PLAIN"])),
            Some(Mechanism::Plain)
        );
    }

    #[test]
    fn secrets_that_come_back_are_masked_whole_or_cut() {
        let login = bearer("a@x");
        let answers = Mechanism::Xoauth2.answers(&login, "", 0);
        let mask = Mask::of(&login, &answers);
        assert_eq!(
            mask.apply("bad token ya29.a0AfH6SMBsecretsecret!"),
            "bad token ***!"
        );
        assert_eq!(
            mask.apply("bad token ya29.a0AfH6SM..., ya29.a0AfH6SMBs"),
            "bad token ***..., ***"
        );
        assert_eq!(mask.apply(&format!("what is {}?", answers[0])), "what is ***?");
        assert_eq!(mask.apply("nothing here"), "nothing here");
    }
}
