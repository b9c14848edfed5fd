//! A command in the node VM, as if it ran here: same folder, same variables, its output and its exit code. It is what
//! cargo is told to run tests with.
//!
//! The protocol is a line of shell there, and back the output, a zero byte and the exit code. One at a time.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Where the VM takes commands
    socket: PathBuf,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Variables that tests and what they start go by; all others are the VM's own.
const VARIABLES: [&str; 4] = ["CARGO", "HOLDFAST_", "RUST", "LD_LIBRARY_PATH"];

/// The chore.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let variables = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        VARIABLES.iter().any(|begin| name.starts_with(begin))
    });
    let folder = std::env::current_dir().context("failed to find the present folder")?;
    let line = line(&folder, variables.collect(), &arguments.command)?;
    let mut port = UnixStream::connect(&arguments.socket)
        .with_context(|| format!("failed to reach the node VM at {}", arguments.socket.display()))?;
    port.write_all(line.as_bytes()).context("failed to tell the node VM what to do")?;
    let code = pass(port, &mut std::io::stdout().lock())?;
    Ok(ExitCode::from(code))
}

/// The line of shell that does it.
fn line(folder: &Path, variables: Vec<(OsString, OsString)>, command: &[OsString]) -> Result<String> {
    let mut words = vec!["cd".to_owned(), quoted(folder.as_os_str())?, "&&".to_owned(), "exec".to_owned()];
    words.push("env".to_owned());
    for (name, value) in variables {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        words.push(quoted(&pair)?);
    }
    for word in command {
        words.push(quoted(word)?);
    }
    Ok(words.join(" ") + "\n")
}

/// A word as a shell reads it back: in single quotes, which end around each single quote in it.
fn quoted(word: &std::ffi::OsStr) -> Result<String> {
    let Some(text) = word.to_str().filter(|text| !text.contains('\n')) else {
        bail!("failed to pass on {word:?}: the node VM takes one line of UTF-8");
    };
    Ok(format!("'{}'", text.replace('\'', r#"'"'"'"#)))
}

/// Passes on what comes before the zero byte; returns the exit code that follows.
fn pass(mut port: impl Read, out: &mut impl Write) -> Result<u8> {
    let mut buffer = vec![0; 1 << 16];
    let mut code = None::<Vec<u8>>;
    loop {
        let count = port.read(&mut buffer).context("failed to read from the node VM")?;
        if count == 0 {
            bail!("the node VM ended before its command did");
        }
        let mut bytes = &buffer[..count];
        if code.is_none() {
            let end = bytes.iter().position(|byte| *byte == 0);
            out.write_all(&bytes[..end.unwrap_or(count)])?;
            out.flush()?;
            let Some(end) = end else { continue };
            bytes = &bytes[end + 1..];
        }
        let code = code.get_or_insert_default();
        code.extend_from_slice(bytes);
        if let Some(text) = code.strip_suffix(b"\n") {
            let text = String::from_utf8_lossy(text);
            return text.parse().with_context(|| format!("failed to read `{text}` as an exit code"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that come in these pieces.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn output_and_exit_code_are_told_apart_in_any_pieces() {
        for pieces in [vec![&b"one\ntwo\x00101\n"[..]], vec![b"one\n", b"two\0", b"10", b"1\n"]] {
            let mut out = Vec::new();
            assert_eq!(pass(Pieces(pieces), &mut out).unwrap(), 101);
            assert_eq!(out, b"one\ntwo");
        }
        let error = pass(Pieces(vec![b"one\n"]), &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "the node VM ended before its command did");
    }

    #[test]
    fn a_shell_reads_the_words_back() {
        let command = ["printf".into(), "%s|".into(), "a b".into(), "it's".into(), "$HOME;\"".into()];
        let line = line(Path::new("/"), vec![("A".into(), "1 2".into())], &command).unwrap();
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b|it's|$HOME;\"|");
        assert!(quoted("two\nlines".as_ref()).is_err());
    }
}
