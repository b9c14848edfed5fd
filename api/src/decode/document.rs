//! The documents of a YAML text, each decoded on its own.

use std::ops::Range;

use super::error::DecodeError;
use super::object::{Identity, Object};
use super::{tree, typed};

/// One document of a YAML text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Position among the documents of the text that are not empty, from 0.
    pub index: usize,
    /// Bytes of the text that are this document, from its `---` (or the beginning) to the next.
    /// Cutting them out leaves the other documents as they are.
    pub range: Range<usize>,
    /// What it says that it is, as far as it could be read.
    pub identity: Option<Identity>,
    /// The object, or what is wrong with it. Places are those in the whole text.
    pub object: Result<Object, DecodeError>,
}

/// Decodes each document of a YAML text; one that is wrong never hides the others. Documents with
/// nothing but white space and comments are left out.
pub fn decode_documents(yaml: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for range in split(yaml) {
        // Empty lines in place of what comes before keep the parser's line numbers right.
        let lines = yaml[..range.start].matches('\n').count();
        let text = format!("{}{}", "\n".repeat(lines), &yaml[range.clone()]);
        let read = tree::from_yaml(&text);
        if matches!(&read, Ok((value, _)) if value.is_null()) {
            continue;
        }
        let identity = read.as_ref().ok().map(|(value, _)| Identity::of(value));
        let object = read
            .and_then(|(value, duplicates)| typed::decode(value, duplicates).map_err(|error| error.located_in(&text)));
        documents.push(Document { index: documents.len(), range, identity, object });
    }
    documents
}

/// Ranges between document markers. `---` at the beginning of a line starts a document wherever it
/// stands, as YAML allows it in no scalar; `...` ends one.
fn split(yaml: &str) -> Vec<Range<usize>> {
    let is_marker = |line: &str, marker: &str| {
        line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut ranges = Vec::new();
    let (mut start, mut position) = (0, 0);
    for line in yaml.split_inclusive('\n') {
        let end = position + line.len();
        if is_marker(line, "---") {
            ranges.push(start..position);
            start = position;
        } else if is_marker(line, "...") {
            ranges.push(start..end);
            start = end;
        }
        position = end;
    }
    ranges.push(start..position);
    ranges.retain(|range| !range.is_empty());
    ranges
}
