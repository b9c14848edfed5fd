//! AdmissionReview (admission.k8s.io/v1), as far as it is read and written here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::error_status::ErrorStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Refusal;

/// What is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Review {
    /// The question's UID.
    pub uid: String,
    /// The object's name; empty where the API server is to make it up.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// CREATE, UPDATE, DELETE or CONNECT.
    pub operation: String,
    /// Who writes.
    pub user_info: UserInfo,
    /// The object as it is to be.
    pub object: Value,
    /// The object as it is.
    pub old_object: Value,
    /// Whether nothing is to change.
    pub dry_run: Option<bool>,
}

/// Who writes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// The name.
    pub username: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub struct Allowed {
    /// The object as it is to be, if it is to change.
    pub object: Option<Value>,
    /// What the user is told besides.
    pub warnings: Vec<String>,
}

/// Reads a review.
pub fn read(body: &[u8]) -> Result<Review, Refusal> {
    #[derive(Deserialize)]
    struct Envelope {
        request: Review,
    }
    let wrong = |error: serde_json::Error| ErrorStatus::bad_request(&format!("failed to read the review: {error}"));
    Ok(serde_json::from_slice::<Envelope>(body).map_err(wrong)?.request)
}

/// Writes the answer.
pub fn answer(review: &Review, verdict: Result<Allowed, ErrorStatus>) -> Value {
    let response = match verdict {
        Ok(allowed) => {
            let mut response = json!({"uid": review.uid, "allowed": true});
            if let Some(patch) = allowed.object.and_then(|object| patch(&review.object, &object)) {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(patch).into();
            }
            if !allowed.warnings.is_empty() {
                response["warnings"] = allowed.warnings.into();
            }
            response
        }
        Err(error) => json!({"uid": review.uid, "allowed": false, "status": error.to_status()}),
    };
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// The JSON patch from one state of an object to another; none where they are the same.
fn patch(from: &Value, to: &Value) -> Option<Vec<u8>> {
    let patch = json_patch::diff(from, to);
    if patch.0.is_empty() {
        return None;
    }
    serde_json::to_vec(&patch).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn review(object: Value) -> Review {
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "kind": {"group": "g", "version": "v", "kind": "K"}, "operation": "CREATE",
            "userInfo": {"username": "jane", "groups": ["a"], "extra": {}}, "object": object, "oldObject": null,
            "dryRun": true, "options": null,
        }});
        read(review.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_review_is_read() {
        let review = review(json!({"a": 1}));
        assert_eq!((review.uid.as_str(), review.operation.as_str(), review.dry_run), ("u", "CREATE", Some(true)));
        assert_eq!((review.user_info.username.as_str(), review.name.as_str()), ("jane", ""));
        assert!(read(b"{}").is_err() && read(b"x").is_err());
    }

    #[test]
    fn a_change_is_a_patch() {
        let from = json!({"spec": {"a": [1, {"b": 2}], "gone": true, "same": {"x": "y"}}});
        let to =
            json!({"metadata": {"annotations": {"a/b": "c"}}, "spec": {"a": [1, {"b": 3}, 4], "same": {"x": "y"}}});
        let answer =
            answer(&review(from.clone()), Ok(Allowed { object: Some(to.clone()), warnings: vec!["w".into()] }));
        let response = &answer["response"];
        assert_eq!(
            (&response["uid"], &response["allowed"], &response["warnings"]),
            (&json!("u"), &json!(true), &json!(["w"]))
        );
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let mut patched = from;
        json_patch::patch(&mut patched, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
        assert_eq!(patched, to);
    }

    #[test]
    fn what_stays_as_it_is_has_no_patch() {
        let object = json!({"spec": {}});
        let answer = answer(&review(object.clone()), Ok(Allowed { object: Some(object), warnings: Vec::new() }));
        assert_eq!(answer["response"], json!({"uid": "u", "allowed": true}));
    }

    #[test]
    fn a_refusal_carries_its_status() {
        let answer = answer(&review(Value::Null), Err(ErrorStatus::bad_request("no")));
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], 400);
        assert_eq!(answer["response"]["status"]["message"], "no");
    }
}
