//! A rendered page on its way into a mail: styles moved into attributes, and the page as text.

use std::sync::LazyLock;

/// Where a part begins that is for the page only; it is left out of the text made from it.
pub const PAGE_ONLY: &str = "<!--page-only-->";
/// Where it ends.
pub const PAGE_ONLY_END: &str = "<!--/page-only-->";

/// Width of a text part made from a page, columns.
const WIDTH: usize = 76;

/// Moves the rules of `<style>` into `style` attributes, since many mail programs drop the former. What only works
/// as a rule (`@media`) stays. Nothing is fetched.
pub fn inline(page: &str) -> Result<String, String> {
    static INLINER: LazyLock<css_inline::CSSInliner<'static>> = LazyLock::new(|| {
        css_inline::CSSInliner::options()
            .load_remote_stylesheets(false)
            .keep_style_tags(false)
            .keep_link_tags(false)
            .keep_at_rules(true)
            .build()
    });
    if !page.contains("<style") {
        return Ok(page.to_owned());
    }
    INLINER.inline(page).map_err(|error| error.to_string())
}

/// The page as text, for readers who show none.
pub fn text(page: &str) -> Result<String, String> {
    let mut shown = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(PAGE_ONLY) {
        shown.push_str(before);
        rest = after.split_once(PAGE_ONLY_END).map_or("", |(_, after)| after);
    }
    shown.push_str(rest);
    let text = html2text::config::plain()
        .no_table_borders()
        .raw_mode(true)
        .allow_width_overflow()
        .link_footnotes(true)
        .string_from_read(shown.as_bytes(), WIDTH)
        .map_err(|error| error.to_string())?;
    Ok(tidy(&text))
}

/// No spaces at line ends, no three line ends in a row, one line end at the end.
pub fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if empty > 0 && !out.is_empty() {
            out.push('\n');
        }
        empty = 0;
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_move_into_attributes_and_media_rules_stay() {
        let page = "<html><head><style>p{color:red}@media (max-width:9px){p{color:blue}}</style></head>\
                    <body><p>x</p></body></html>";
        let inlined = inline(page).unwrap();
        assert!(inlined.contains(r#"<p style="color: red"#), "{inlined}");
        assert!(inlined.contains("@media"), "{inlined}");
    }

    #[test]
    fn remote_styles_are_not_fetched() {
        let page = "<html><head><style>p{color:red}</style><link rel=stylesheet href=\"http://127.0.0.1:1/x.css\">\
                    <link rel=stylesheet href=\"file:///etc/passwd\"></head><body><p>x</p></body></html>";
        assert!(inline(page).unwrap().contains("color: red"));
    }

    #[test]
    fn a_page_reads_as_text() {
        let page = "<html><body><!--page-only-->hidden<!--/page-only--><h1>Hello</h1><table><tr><td>Name</td><td>x.pdf</td></tr></table>\
                    <p>See <a href=\"https://x.example\">this</a></p></body></html>";
        let text = text(page).unwrap();
        assert!(!text.contains("hidden"), "{text}");
        assert!(
            text.contains("x.pdf") && text.contains("https://x.example"),
            "{text}"
        );
    }
}
