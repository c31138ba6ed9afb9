//! A refresh token that another tool obtained: tried at once, and kept if it is what the account
//! needs.

use crate::cli::Exit;
use crate::cli::auth::{finish, refused, told};
use crate::cli::face::Face;
use crate::clock::Clock;
use crate::config::secret::Secret;
use crate::config::settings::OAuth2;
use crate::oauth::keeper::Keeper;
use crate::oauth::login::LoginError;

/// Takes the token that `text` is, or that stands in it as `refresh_token` of a JSON object.
pub(super) async fn import(
    account: &str,
    oauth2: &OAuth2,
    keeper: &Keeper,
    text: &str,
    clock: &Clock,
    face: &dyn Face,
) -> Exit {
    if oauth2.unattended() {
        face.tell(&format!(
            "account `{account}` gets its tokens by itself: there is nothing to import"
        ));
        return Exit::Usage;
    }
    let Some(token) = token(text) else {
        face.tell(
            "this is no refresh token\n\nhint: give the token alone, or a JSON object with `refresh_token` in it, on stdin",
        );
        return Exit::BadInput;
    };
    if let Err(error) = keeper.storable(account).await {
        return told(&error, face);
    }
    let Some(client) = keeper.client(account) else {
        face.tell(&format!("there is no account `{account}` with OAuth2"));
        return Exit::Usage;
    };
    face.tell(&format!("Trying the token of account `{account}`."));
    match client.refresh(&token, &oauth2.scopes).await {
        Ok(mut answer) => {
            // Some servers keep the one they were shown.
            answer.refresh = answer.refresh.or(Some(token));
            finish(account, oauth2, keeper, answer, clock, face).await
        }
        Err(failure) => refused(&LoginError::Server(failure), oauth2, account, face),
    }
}

fn token(text: &str) -> Option<Secret> {
    let text = text.trim();
    if text.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        let token = json.get("refresh_token")?.as_str()?;
        return self::token(token);
    }
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_found_alone_or_in_json() {
        let found = |text: &str| token(text).map(|token| token.expose().to_owned());
        assert_eq!(found(" 0.AXoA-x_y\n").as_deref(), Some("0.AXoA-x_y"));
        assert_eq!(
            found(r#"{"refresh_token":"1//abc","x":1}"#).as_deref(),
            Some("1//abc")
        );
        for bad in ["", "two words", "{\"token\":\"x\"}", "{"] {
            assert!(found(bad).is_none(), "{bad}");
        }
    }
}
