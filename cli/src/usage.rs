//! What is said of a command line that cannot be understood: in upstream's words where it has some, and with its
//! exit code, which is 1.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Shows help where that was asked for, and what is wrong otherwise.
pub fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print!("{}", error.render().ansi_or_plain());
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{}", words(error));
            ExitCode::FAILURE
        }
    }
}

/// Text for the terminal: with the library's colours only where there is one.
trait ForTerminal {
    fn ansi_or_plain(&self) -> String;
}

impl ForTerminal for clap::builder::StyledStr {
    fn ansi_or_plain(&self) -> String {
        use std::io::IsTerminal as _;
        if std::io::stdout().is_terminal() { self.ansi().to_string() } else { self.to_string() }
    }
}

fn words(error: &clap::Error) -> String {
    let texts = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = texts(ContextKind::InvalidSubcommand).concat();
            let meant: String =
                texts(ContextKind::SuggestedSubcommand).iter().map(|text| format!("\t{text}\n")).collect();
            let hint = if meant.is_empty() { String::new() } else { format!("\nDid you mean this?\n{meant}\n") };
            format!("unknown command \"{wrong}\" for \"virtctl\"\n{hint}")
        }
        ErrorKind::UnknownArgument => {
            let wrong = texts(ContextKind::InvalidArg).concat();
            match wrong.strip_prefix('-').and_then(|rest| rest.chars().next()) {
                Some('-') | None => format!("unknown flag: {wrong}\n"),
                Some(short) => format!("unknown shorthand flag: '{short}' in {wrong}\n"),
            }
        }
        _ => error.render().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser as _;

    #[test]
    fn upstream_words() {
        for (arguments, expected) in [
            (
                vec!["virtctl", "softreboot", "v1"],
                "unknown command \"softreboot\" for \"virtctl\"\n\nDid you mean this?\n\tsoft-reboot\n\n",
            ),
            (vec!["virtctl", "xyzzy"], "unknown command \"xyzzy\" for \"virtctl\"\n"),
            (vec!["virtctl", "start", "v1", "--nope"], "unknown flag: --nope\n"),
            (vec!["virtctl", "start", "v1", "-x"], "unknown shorthand flag: 'x' in -x\n"),
        ] {
            assert_eq!(words(&Cli::try_parse_from(arguments).unwrap_err()), expected);
        }
    }
}
