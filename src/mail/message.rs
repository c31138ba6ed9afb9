//! (to be written)

/// Checks the name of a header field of one's own.
pub fn own_header(name: &str) -> Result<(), String> {
    let _ = name;
    Ok(())
}
