//! Writing to standard output.

use std::io::{self, Write as _};

/// Writes text. An error is told, and not a panic, for the reader of a pipe may leave at any time.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
