//! What can be wrong with a document, in the words that clients of the API server know.

use std::fmt;

use super::locate::locate;
use super::object::supported;
use super::path::FieldPath;

/// Why a document is no object that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not YAML, or not JSON.
    #[error("failed to parse document: {message}")]
    Syntax {
        /// What the parser says, with line and column.
        message: String,
        /// Where, if the parser knows.
        location: Option<Location>,
    },
    /// The document is not an object with `apiVersion` and `kind`.
    #[error("failed to decode document: `{field}` must be a string, and it is {found}; supported are {}", supported())]
    NotAnObject {
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// What stands in its place.
        found: &'static str,
    },
    /// The kind is none that we know, or not in this version.
    #[error("failed to decode {kind} of {api_version}: supported are {}", supported())]
    Unsupported {
        /// apiVersion of the document.
        api_version: String,
        /// Kind of the document.
        kind: String,
    },
    /// Fields are unknown, given twice, missing, or of the wrong type.
    #[error("{}", Fields { kind, version, problems })]
    Fields {
        /// Kind of the object.
        kind: String,
        /// Version of its API, such as `v1`.
        version: String,
        /// What is wrong; never empty.
        problems: Vec<Problem>,
    },
}

impl DecodeError {
    /// The first place in the text that is wrong, if it is known.
    pub fn location(&self) -> Option<Location> {
        match self {
            Self::Syntax { location, .. } => *location,
            Self::Fields { problems, .. } => problems.iter().find_map(|p| p.location),
            Self::NotAnObject { .. } | Self::Unsupported { .. } => None,
        }
    }

    /// What is wrong with single fields, if that is what is wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Fields { problems, .. } => problems,
            _ => &[],
        }
    }

    /// The same error, the first of its problems with their places in `text`.
    pub(super) fn located_in(mut self, text: &str) -> Self {
        if let Self::Fields { problems, .. } = &mut self {
            for problem in problems.iter_mut().take(LOCATED) {
                problem.location = locate(text, &problem.path);
            }
        }
        self
    }
}

/// How many problems of an object are told with their places: each is found by reading the text once more, which would
/// take minutes where it has some ten thousand of them.
const LOCATED: usize = 50;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which field.
    pub path: FieldPath,
    /// What is wrong with it.
    pub wrong: Wrong,
    /// Where it stands, if the object was decoded from text and the place could be found; of many problems, the first
    /// are told with it.
    pub location: Option<Location>,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The type has no such field.
    Unknown,
    /// The field is given twice.
    Duplicate,
    /// The field is needed and not there.
    Missing,
    /// The value is of another type; both as JSON schema names them.
    Type {
        /// Type of the field.
        expected: &'static str,
        /// Type of what is there.
        found: &'static str,
    },
    /// The value is of the right type and yet none that the field can have.
    Value(String),
}

impl fmt::Display for Problem {
    /// Lists have no indices in the texts about types, as the API server has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, wrong, .. } = self;
        match wrong {
            Wrong::Unknown => write!(f, "unknown field \"{path}\""),
            Wrong::Duplicate => write!(f, "duplicate field \"{path}\""),
            Wrong::Missing => write!(f, "{} in body is required", path.without_indices()),
            Wrong::Type { expected, found } => {
                write!(f, "{} in body must be of type {expected}: \"{found}\"", path.without_indices())
            }
            Wrong::Value(message) => write!(f, "{path}: {message}"),
        }
    }
}

/// Writes the problems as the API server does: unknown and doubled fields in one sentence, the
/// others as they are.
struct Fields<'a> {
    kind: &'a str,
    version: &'a str,
    problems: &'a [Problem],
}

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |strict: bool| {
            let problems = self
                .problems
                .iter()
                .filter(|problem| matches!(problem.wrong, Wrong::Unknown | Wrong::Duplicate) == strict);
            problems.map(Problem::to_string).collect::<Vec<_>>()
        };
        let (strict, others) = (list(true), list(false));
        if !strict.is_empty() {
            let Self { kind, version, .. } = self;
            write!(
                f,
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                strict.join(", ")
            )?;
            if !others.is_empty() {
                f.write_str("; ")?;
            }
        }
        f.write_str(&others.join("; "))
    }
}
