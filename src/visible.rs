//! Characters that play with whoever reads a text of strangers. Each use shows them in its own way.
//!
//! Control characters are [`char::is_control`]'s; these look harmless to it. The kinds contain each other:
//!
//! | kind | for |
//! |---|---|
//! | [`is_override`] | texts of people, where marks have their place |
//! | [`turns`] | what programs print |
//! | [`is_disguise`] | names: the joiners of scripts and emoji stay |
//! | [`is_hidden`] | words of servers and places in files, where each character counts |

/// Turns the direction of the text behind it.
pub fn is_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Turns the direction of text, or is a mark that does so to its neighbours.
pub fn turns(c: char) -> bool {
    is_override(c) || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
}

/// Shows text in another order or in other lines than it has, or hides: directions, separators, zero-width space and
/// joiner, the byte order mark. The joiners of scripts and emoji are none.
pub fn is_disguise(c: char) -> bool {
    turns(c)
        || matches!(
            c,
            '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}' | '\u{feff}'
        )
}

/// The same, and whatever else takes no room.
pub fn is_hidden(c: char) -> bool {
    is_disguise(c)
        || matches!(c,
            '\u{ad}' | '\u{180e}' | '\u{200c}' | '\u{200d}' | '\u{206a}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_any_script_has_no_disguise() {
        for name in ["Zoë", "می\u{200c}خواهم", "👩\u{200d}👧", "שלום"] {
            assert!(!name.chars().any(is_disguise), "{name}");
        }
        assert!("fdp.\u{202e}exe".chars().any(is_override));
        assert!("a\u{2028}b".chars().any(is_disguise));
        assert!("soft\u{ad}ly".chars().any(is_hidden));
    }
}
