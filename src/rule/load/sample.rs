//! A name for a pattern, to try what a rule would do.

/// A name that the last part of a pattern matches: `a.csv` for `**/*.csv`.
pub fn sample_name(pattern: &str) -> String {
    let last = pattern.rsplit('/').next().unwrap_or(pattern);
    let mut name = String::new();
    let mut characters = last.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => {
                if !name.ends_with('a') {
                    name.push('a');
                }
            }
            '?' => name.push('a'),
            '[' => {
                let inside: String = characters.by_ref().take_while(|&c| c != ']').collect();
                let negated = inside.starts_with(['!', '^']);
                name.push(inside.chars().next().filter(|_| !negated).unwrap_or('a'));
            }
            '{' => {
                let inside: String = characters.by_ref().take_while(|&c| c != '}').collect();
                name.push_str(&sample_name(inside.split(',').next().unwrap_or_default()));
            }
            '\\' => name.extend(characters.next()),
            other => name.push(other),
        }
    }
    if name.is_empty() { "a".to_owned() } else { name }
}
