//! A sign-in on another device: a code for a person, and a picture of the address for a telephone.

use crate::cli::face::Face;
use crate::oauth::device::DeviceError;
use crate::oauth::grants::{Answer, Client};
use crate::oauth::refusal::Failure;
use qrcodegen::{QrCode, QrCodeEcc};

/// Shows the code and waits until somebody has decided.
pub(super) async fn sign_in(
    client: &Client,
    account: &str,
    who: &str,
    claims: Option<&str>,
    face: &dyn Face,
) -> Result<Answer, DeviceError> {
    let code = client.device(claims).await.map_err(DeviceError::Server)?;
    face.tell(&format!(
        "To sign in account `{account}`{who}, visit this address on any device:"
    ));
    face.out(code.address.as_str());
    face.tell("and type this code:");
    face.out(&code.user_code);
    let address = code.complete.as_ref().unwrap_or(&code.address);
    if let Some(picture) = picture(address.as_str()) {
        face.draw(&picture);
    }
    face.tell(&format!(
        "Waiting {} minutes. Type the code only if you asked for it yourself just now.",
        (code.life.as_secs() / 60).max(1)
    ));
    client.poll(&code).await
}

/// What a server said no to, where it did.
pub(super) fn failure(error: &DeviceError) -> Option<&Failure> {
    match error {
        DeviceError::Server(failure) => Some(failure),
        DeviceError::Late(_) => None,
    }
}

/// A QR code in half blocks, black on white whatever the terminal's colours are, with the quiet
/// border that readers need.
fn picture(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let border = 2;
    let dark = |x: i32, y: i32| code.get_module(x, y);
    let mut picture = String::new();
    for y in (-border..code.size() + border).step_by(2) {
        picture.push_str("\u{1b}[30;107m");
        for x in -border..code.size() + border {
            picture.push(match (dark(x, y), dark(x, y + 1)) {
                (false, false) => ' ',
                (true, false) => '▀',
                (false, true) => '▄',
                (true, true) => '█',
            });
        }
        picture.push_str("\u{1b}[0m\n");
    }
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_is_square_and_has_its_border() {
        let picture = picture("https://microsoft.com/devicelogin").unwrap();
        let lines: Vec<&str> = picture.lines().collect();
        let plain = |line: &str| -> Vec<char> {
            let line = line.strip_prefix("\u{1b}[30;107m").unwrap();
            line.strip_suffix("\u{1b}[0m").unwrap().chars().collect()
        };
        assert!(plain(lines[0]).iter().all(|c| *c == ' '));
        let width = plain(lines[0]).len();
        assert!(lines.iter().all(|line| plain(line).len() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
    }
}
