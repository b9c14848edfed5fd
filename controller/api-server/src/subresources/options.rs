//! The options that come as the body of a request.

use holdfast_api::error_status::ErrorStatus;
use serde::Deserialize;

/// Options of all verbs. Fields that nobody knows are passed over, as clients are used to.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// Of `start`: with the CPUs stopped.
    pub paused: Option<bool>,
    /// Of `stop`: the grace period in seconds.
    pub grace_period: Option<i64>,
    /// Of `restart`: the same, by another name.
    pub grace_period_seconds: Option<i64>,
    dry_run: Option<Vec<String>>,
}

impl Options {
    /// Reads them; an empty body has none.
    pub fn of(body: &[u8]) -> Result<Self, ErrorStatus> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let options: Option<Self> = serde_json::from_slice(body).map_err(|error| {
            let why = complaint(body, &error);
            ErrorStatus::bad_request(&format!("Can not unmarshal Request body to struct, error: {why}"))
        })?;
        Ok(options.unwrap_or_default())
    }

    /// Whether nothing is to change.
    pub fn dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|list| !list.is_empty())
    }
}

/// What is wrong with a body, in the words that clients know for what is not JSON.
fn complaint(body: &[u8], error: &serde_json::Error) -> String {
    let before: usize =
        body.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1)).map(<[_]>::len).sum();
    let offset = before + error.column();
    let text = error.to_string();
    let looked_for = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected value") {
        "looking for beginning of value"
    } else {
        return text;
    };
    match offset.checked_sub(1).and_then(|at| body.get(at)) {
        Some(&byte) => format!("json: offset {offset}: invalid character '{}' {looked_for}", char::from(byte)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn options_are_read_leniently() {
        let of = |text: &str| Options::of(text.as_bytes()).unwrap();
        for none in ["", " \n", "{}", "null", r#"{"foo": 1}"#, r#"{"dryRun": null, "paused": null}"#] {
            assert_eq!(of(none), Options { dry_run: of(none).dry_run, ..Options::default() }, "{none}");
            assert!(!of(none).dry_run(), "{none}");
        }
        let given = of(r#"{"paused": true, "gracePeriod": 0, "gracePeriodSeconds": 5, "dryRun": ["All"]}"#);
        assert_eq!((given.paused, given.grace_period, given.grace_period_seconds), (Some(true), Some(0), Some(5)));
        assert!(given.dry_run());
    }

    #[test]
    fn what_is_no_json_is_told_in_known_words() {
        let message = |text: &str| Options::of(text.as_bytes()).unwrap_err().message;
        let known = "Can not unmarshal Request body to struct, error: json: offset";
        assert_eq!(
            message("{nonsense"),
            format!("{known} 2: invalid character 'n' looking for beginning of object key string")
        );
        assert_eq!(message("nonsense").split(": ").next(), known.split(": ").next());
        assert_eq!(message("{\n\"a\": x}"), format!("{known} 8: invalid character 'x' looking for beginning of value"));
        assert!(message(r#"{"paused": "yes"}"#).contains("invalid type"));
    }
}
