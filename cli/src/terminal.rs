//! Colours and progress, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;

/// Shows a server's warning header: `299 - "text"`.
pub fn warn(header: &str) {
    let text = header.split_once('"').map_or(header, |(_, rest)| rest.strip_suffix('"').unwrap_or(rest));
    let text = text.replace("\\\"", "\"").replace("\\\\", "\\");
    if std::io::stderr().is_terminal() {
        eprintln!("\u{1b}[33mWarning:\u{1b}[0m {text}");
    } else {
        eprintln!("Warning: {text}");
    }
}

/// A spinner on standard error that says what is waited for; nothing where that is no terminal.
pub fn waiting(text: &str) -> ProgressBar {
    // indicatif itself draws on terminals only.
    let bar = ProgressBar::new_spinner().with_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
