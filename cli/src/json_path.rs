//! The JSONPath of printer columns: `.a.b`, `[0]` and `[?(@.key=='value')]`, which is what our CRDs use.

use serde_json::Value;

/// A path to one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A field of an object.
    Field(String),
    /// An element of a list.
    Index(usize),
    /// The first element of a list whose field has this text.
    Where(String, String),
}

impl JsonPath {
    /// Reads a path; none where it has other parts than those above.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix("[?(@.") {
                let (key, tail) = tail.split_once("=='")?;
                let (value, tail) = tail.split_once("')]")?;
                steps.push(Step::Where(key.to_owned(), value.to_owned()));
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix('[') {
                let (index, tail) = tail.split_once(']')?;
                steps.push(Step::Index(index.parse().ok()?));
                rest = tail;
            } else {
                let tail = rest.strip_prefix('.')?;
                let (name, tail) = tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()));
                steps.push(Step::Field(Some(name).filter(|name| !name.is_empty())?.to_owned()));
                rest = tail;
            }
        }
        Some(Self(steps))
    }

    /// What the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => value.get(index),
            Step::Where(key, text) => value.as_array()?.iter().find(|item| item[key] == **text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({"a": {"b": [{"type": "x", "status": "1"}, {"type": "y", "status": "2"}]}});
        let find = |path: &str| JsonPath::parse(path).unwrap().find(&value).cloned();
        assert_eq!(find(".a.b[1].status"), Some(json!("2")));
        assert_eq!(find(".a.b[?(@.type=='y')].status"), Some(json!("2")));
        for nothing in [".a.c", ".a.b[2]", ".a.b[?(@.type=='z')].status", ".a[0]", ".a.b.c"] {
            assert_eq!(find(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for wrong in ["a", "..a", ".a[*]", ".a[", ".a[?(@.b>1)]", ".a."] {
            assert_eq!(JsonPath::parse(wrong), None, "{wrong}");
        }
    }
}
