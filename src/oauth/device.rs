//! Signing in on another device (RFC 8628): we show a short code, a person types it into a browser
//! anywhere, and we ask the token endpoint until it says yes or no.

use crate::config::secret::Secret;
use crate::http::answer::shown;
use crate::oauth::grants::{Answer, Client, asked, posted};
use crate::oauth::refusal::Failure;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Between two asks, when the server does not say (RFC 8628 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// Longer than this nobody waits, whatever the server says.
const LONGEST: Duration = Duration::from_secs(3600);
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A code on its way to a person.
#[derive(Debug)]
pub struct DeviceCode {
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub address: Url,
    /// Where, with the code in it already; not every server has one.
    pub complete: Option<Url>,
    /// How long it is good, from the server's answer.
    pub life: Duration,
    code: Secret,
    interval: Duration,
}

/// Why nobody signed in by a code.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The server.
    #[error(transparent)]
    Server(#[from] Failure),
    /// The code ended first.
    #[error("nobody signed in while the code was good ({} minutes)\n\nhint: run the command again; the code is new each time", .0.as_secs() / 60)]
    Late(Duration),
}

impl Client {
    /// Asks for a code.
    pub async fn device(&self, claims: Option<&str>) -> Result<DeviceCode, Failure> {
        let endpoints = self.endpoints().await?;
        let url = endpoints.device.clone().ok_or_else(|| {
            Failure::Setting(
                "nothing says where codes for another device are made: set `device_url`, or sign in with a browser"
                    .to_owned(),
            )
        })?;
        let scope = asked(self.settings()).join(" ");
        let mut fields = vec![
            ("client_id", self.settings().client_id.as_str()),
            ("scope", scope.as_str()),
        ];
        fields.extend(claims.map(|claims| ("claims", claims)));
        let answered = self.proven(posted(&url, &fields)?).await?;
        read(&answered.body).map_err(|text| Failure::Unreadable {
            host: crate::http::way::host(&url),
            text,
        })
    }

    /// Asks until a person has decided, or the code has ended.
    pub async fn poll(&self, code: &DeviceCode) -> Result<Answer, DeviceError> {
        let until = Instant::now() + code.life;
        let mut pace = Pace {
            interval: code.interval,
            next: code.interval,
        };
        loop {
            let at = Instant::now() + pace.next;
            if at >= until {
                tokio::time::sleep_until(until).await;
                return Err(DeviceError::Late(code.life));
            }
            tokio::time::sleep_until(at).await;
            let fields = [
                ("grant_type", GRANT),
                ("client_id", &self.settings().client_id),
                ("device_code", code.code.expose()),
            ];
            match self.exchange(&fields).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if expired(&failure) => return Err(DeviceError::Late(code.life)),
                Err(failure) => pace = pace.after(failure)?,
            }
        }
    }
}

/// How often we ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// As the server wants it.
    interval: Duration,
    /// Until the next ask: longer after a connection that failed.
    next: Duration,
}

impl Pace {
    /// What a failure says of the next ask; one that ends it all comes back.
    fn after(self, failure: Failure) -> Result<Pace, Failure> {
        let error = match &failure {
            Failure::Refused { refusal, .. } => refusal.symptom.oauth_error.as_deref(),
            _ => None,
        };
        match (error, &failure) {
            (Some("authorization_pending"), _) => Ok(Pace {
                next: self.interval,
                ..self
            }),
            // Five seconds more, for this ask and all later ones.
            (Some("slow_down"), _) => {
                let interval = (self.interval + INTERVAL).min(LONGEST);
                Ok(Pace {
                    interval,
                    next: interval,
                })
            }
            // A server that is away comes back; asked at growing intervals (RFC 8628 3.5).
            (None, Failure::Unreached { .. } | Failure::Unreadable { .. }) => Ok(self.slower()),
            (_, Failure::Refused { refusal, .. })
                if refusal
                    .symptom
                    .http_status
                    .is_some_and(|status| status >= 500 || status == 429) =>
            {
                Ok(self.slower())
            }
            _ => Err(failure),
        }
    }

    fn slower(self) -> Pace {
        Pace {
            next: (self.next * 2).min(LONGEST),
            ..self
        }
    }
}

fn expired(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { refusal, .. }
        if matches!(refusal.symptom.oauth_error.as_deref(), Some("expired_token" | "code_expired")))
}

/// Reads the answer of RFC 8628 3.2. Google calls the address `verification_url`.
fn read(body: &[u8]) -> Result<DeviceCode, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "it is no JSON object".to_owned())?;
    let text = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let seconds = |key: &str| {
        let value = answer.get(key)?;
        let number = value
            .as_f64()
            .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))?;
        (0.0..1e9)
            .contains(&number)
            .then(|| Duration::from_secs(number as u64))
    };
    let address = |text: &str| {
        Url::parse(text)
            .ok()
            .filter(|url| crate::oauth::http::allowed(url).is_ok())
    };
    let (Some(code), Some(user_code)) = (text("device_code"), text("user_code")) else {
        return Err("there is no code in it".to_owned());
    };
    Ok(DeviceCode {
        user_code: shown(user_code),
        address: text("verification_uri")
            .or_else(|| text("verification_url"))
            .and_then(address)
            .ok_or_else(|| "it names no address to visit".to_owned())?,
        complete: text("verification_uri_complete").and_then(address),
        life: seconds("expires_in")
            .unwrap_or(Duration::from_secs(900))
            .min(LONGEST),
        code: Secret::new(code),
        interval: seconds("interval")
            .unwrap_or(INTERVAL)
            .clamp(Duration::from_secs(1), LONGEST),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::refusal::Refusal;
    use jiff::Timestamp;

    fn refused(status: u16, error: &str) -> Failure {
        let body = format!(r#"{{"error":"{error}"}}"#);
        Failure::Refused {
            host: "id.example".into(),
            refusal: Box::new(Refusal::read(
                status,
                body.as_bytes(),
                None,
                &[],
                Timestamp::UNIX_EPOCH,
            )),
        }
    }

    fn seconds(pace: Pace) -> (u64, u64) {
        (pace.interval.as_secs(), pace.next.as_secs())
    }

    #[test]
    fn slow_down_counts_for_all_later_asks() {
        let pace = Pace {
            interval: INTERVAL,
            next: INTERVAL,
        };
        let pace = pace.after(refused(400, "slow_down")).unwrap();
        assert_eq!(seconds(pace), (10, 10));
        let pace = pace.after(refused(400, "authorization_pending")).unwrap();
        assert_eq!(seconds(pace), (10, 10));
        assert_eq!(seconds(pace.after(refused(400, "slow_down")).unwrap()), (15, 15));
    }

    #[test]
    fn server_that_is_away_is_asked_less_often_and_a_no_ends_it() {
        let pace = Pace {
            interval: INTERVAL,
            next: INTERVAL,
        };
        let away = Failure::Unreached {
            host: "id.example".into(),
            text: "gone".into(),
            sent: false,
        };
        let slower = pace.after(away).unwrap();
        assert_eq!(seconds(slower), (5, 10));
        assert_eq!(seconds(slower.after(refused(503, "x")).unwrap()), (5, 20));
        assert_eq!(
            seconds(slower.after(refused(400, "authorization_pending")).unwrap()),
            (5, 5)
        );
        for no in ["access_denied", "authorization_declined", "bad_verification_code"] {
            assert!(pace.after(refused(400, no)).is_err());
        }
    }

    #[test]
    fn answer_is_read_with_the_servers_own_names_and_a_hostile_code_is_harmless() {
        let google = read(br#"{"device_code":"d","user_code":"A\u001b[31mB","verification_url":"https://www.google.com/device","expires_in":"1800"}"#).unwrap();
        assert_eq!(google.address.as_str(), "https://www.google.com/device");
        assert_eq!(google.life, Duration::from_secs(1800));
        assert_eq!(google.interval, INTERVAL);
        assert!(!google.user_code.contains('\u{1b}'));
        assert!(
            read(br#"{"device_code":"d","user_code":"A","verification_uri":"http://evil.example/"}"#)
                .is_err()
        );
        assert!(read(b"<html>").is_err());
    }
}
