//! The identity of the machine we run on (Azure): asked of the platform itself, at an address that
//! no router passes on, past any proxy.
//!
//! Two forms are known. App Service, Functions and Container Apps say in `IDENTITY_ENDPOINT` and
//! `IDENTITY_HEADER` where to ask and what to show; a virtual machine has the instance metadata
//! service. Both give the end of a token as text.

use crate::config::secret::Secret;
use crate::oauth::grants::{Answer, Client};
use crate::oauth::refusal::Failure;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use url::Url;

const METADATA: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// Where to ask, and what to show there.
struct Door {
    url: Url,
    header: (&'static str, Secret),
}

impl Client {
    /// A token of the machine's identity.
    pub(super) async fn managed(&self) -> Result<Answer, Failure> {
        let door = self.door()?;
        let mut tries = 0;
        loop {
            let failure = match self
                .http
                .platform(&door.url, (door.header.0, &door.header.1))
                .await
            {
                Ok(mut answered) => {
                    answered.body = with_life(&answered.body, self.clock.now());
                    return self.by_hand(&answered);
                }
                Err(failure) => failure,
            };
            let status = match &failure {
                Failure::Refused { refusal, .. } => refusal.symptom.http_status.unwrap_or_default(),
                Failure::Unreached { host, text, sent } => {
                    return Err(Failure::Unreached {
                        host: host.clone(),
                        text: format!("{text} (is this a machine of Azure, with an identity switched on?)"),
                        sent: *sent,
                    });
                }
                _ => return Err(failure),
            };
            match wait(status, tries) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(failure),
            }
            tries += 1;
        }
    }

    fn door(&self) -> Result<Door, Failure> {
        // Azure's name for a scope without its last part.
        let scope = self
            .settings
            .scopes
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let own = self.settings.managed_identity_url.clone();
        let (mut url, version, header) = match (own, set("IDENTITY_ENDPOINT"), set("IDENTITY_HEADER")) {
            (None, Some(endpoint), Some(header)) => {
                let url = Url::parse(&endpoint).map_err(|_| {
                    Failure::Setting("the environment variable IDENTITY_ENDPOINT is no address".to_owned())
                })?;
                (url, "2019-08-01", ("x-identity-header", Secret::new(header)))
            }
            (own, _, _) => {
                let url = match own {
                    Some(url) => url,
                    None => Url::parse(METADATA).map_err(|error| Failure::Setting(error.to_string()))?,
                };
                (url, "2018-02-01", ("metadata", Secret::new("true")))
            }
        };
        url.query_pairs_mut()
            .append_pair("api-version", version)
            .append_pair("resource", resource);
        if !self.settings.client_id.is_empty() {
            url.query_pairs_mut()
                .append_pair("client_id", &self.settings.client_id);
        }
        Ok(Door { url, header })
    }
}

/// How long to wait after that status, having tried so often again before. 404, 429 and 5xx pass
/// within seconds; 410 is an update of the service and takes 70 seconds at most; all else is final.
fn wait(status: u16, tries: u32) -> Option<Duration> {
    match status {
        410 if tries < 7 => Some(Duration::from_secs(10)),
        404 | 408 | 429 | 500..=599 if tries < 5 => Some(Duration::from_secs(1 << tries)),
        _ => None,
    }
}

/// App Service gives no `expires_in`, but a time: `expires_on`, in seconds since 1970.
fn with_life(body: &[u8], now: Timestamp) -> Vec<u8> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice(body) else {
        return body.to_vec();
    };
    let number = |value: &Value| {
        value
            .as_i64()
            .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
    };
    if !answer.contains_key("expires_in")
        && let Some(at) = answer.get("expires_on").and_then(number)
    {
        answer.insert(
            "expires_in".to_owned(),
            Value::from((at - now.as_second()).max(0)),
        );
    }
    serde_json::to_vec(&answer).unwrap_or_else(|_| body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(status: u16) -> Vec<u64> {
        (0..)
            .map_while(|tries| wait(status, tries))
            .map(|wait| wait.as_secs())
            .collect()
    }

    #[test]
    fn platform_is_asked_again_as_documented() {
        assert_eq!(waits(429), [1, 2, 4, 8, 16]);
        assert_eq!(waits(404), waits(503));
        assert_eq!(waits(410).iter().sum::<u64>(), 70);
        assert!(waits(400).is_empty());
        assert!(waits(403).is_empty());
    }

    #[test]
    fn end_of_a_token_may_be_a_time() {
        let now = Timestamp::from_second(1_000).unwrap();
        let read =
            |body: &str| -> Value { serde_json::from_slice(&with_life(body.as_bytes(), now)).unwrap() };
        assert_eq!(read(r#"{"expires_on":"4600"}"#)["expires_in"], 3600);
        assert_eq!(
            read(r#"{"expires_on":"4600","expires_in":"10"}"#)["expires_in"],
            "10"
        );
        assert_eq!(with_life(b"<html>", now), b"<html>");
    }
}
