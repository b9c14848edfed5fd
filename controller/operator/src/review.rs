//! Whether a KubeVirt object may be made, changed or deleted. Words and codes are those of KubeVirt 1.9 where it says
//! something.

use holdfast_api::admit::installation_problems;
use holdfast_api::kubevirt::KubeVirt;
use serde_json::{Value, json};

use crate::build::Installation;
use crate::certificates::Times;
use crate::customize;
use crate::target::Target;

/// Why not, as a `Status` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    code: u16,
    message: String,
    causes: Vec<Value>,
}

impl Refusal {
    /// A request that makes no sense as things are.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, message: message.into(), causes: Vec::new() }
    }

    /// An object that is wrong.
    fn invalid(causes: Vec<(String, String)>) -> Self {
        let message = causes.first().map(|(_, message)| message.clone()).unwrap_or_default();
        let cause = |(field, message)| json!({"reason": "FieldValueInvalid", "field": field, "message": message});
        Self { code: 422, message, causes: causes.into_iter().map(cause).collect() }
    }

    fn status(&self) -> Value {
        let mut status = json!({"code": self.code, "message": self.message});
        if !self.causes.is_empty() {
            status["reason"] = json!("Invalid");
            status["details"] = json!({"causes": self.causes});
        }
        status
    }
}

/// The answer to an AdmissionReview with the request `uid`.
pub fn answer(uid: &Value, verdict: Result<(), Refusal>) -> Value {
    let mut response = json!({"uid": uid, "allowed": verdict.is_ok()});
    if let Err(refusal) = verdict {
        response["status"] = refusal.status();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// A new object, where there are `others` already.
///
/// # Errors
/// Where it is refused.
pub fn create(object: &Value, others: usize, operator_image: &str) -> Result<(), Refusal> {
    if others > 0 {
        return Err(Refusal::bad_request("Kubevirt is already created"));
    }
    update(object, operator_image)
}

/// A changed object. One that is going is let go, whatever it says.
///
/// # Errors
/// Where it is refused.
pub fn update(object: &Value, operator_image: &str) -> Result<(), Refusal> {
    let kubevirt: KubeVirt =
        serde_json::from_value(object.clone()).map_err(|error| Refusal::bad_request(error.to_string()))?;
    if kubevirt.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut causes = Vec::new();
    let mut wrong = |field: &str, message: String| causes.push((field.to_owned(), message));
    let spec = &kubevirt.spec;
    if spec.infra.as_ref().and_then(|infra| infra.replicas) == Some(0) {
        wrong("spec.infra.replicas", "infra replica count can't be 0".to_owned());
    }
    if let Err(error) = Times::of(spec) {
        wrong("spec.certificateRotateStrategy", error.to_string());
    }
    for cause in installation_problems(spec) {
        wrong(&cause.field.unwrap_or_default(), cause.message.unwrap_or_default());
    }
    let patches = spec.customize_components.iter().flat_map(|custom| &custom.patches).enumerate();
    for (at, patch) in patches {
        if let Err(error) = customize::check(patch) {
            wrong(&format!("spec.customizeComponents.patches[{at}]"), holdfast_kubernetes::chain(&error));
        }
    }
    if causes.is_empty() {
        let built = Target::of(&kubevirt, operator_image, 2).map(|target| Installation::build(&target, ""));
        match built {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                causes.push(("spec.customizeComponents".to_owned(), holdfast_kubernetes::chain(&error)));
            }
            Err(error) => causes.push(("spec.imageTag".to_owned(), error.to_string())),
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(causes)) }
}

/// A deletion, while there are workloads of the kind that `left` names.
///
/// # Errors
/// Where it is refused.
pub fn delete(object: &Value, left: Option<&str>) -> Result<(), Refusal> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let blocks = text("/spec/uninstallStrategy") == Some("BlockUninstallIfWorkloadsExist");
    match left {
        Some(workloads) if blocks && text("/status/phase") == Some("Deployed") => Err(Refusal::bad_request(format!(
            "Rejecting the uninstall request, since there are still {workloads} present. Either delete all \
                 KubeVirt related workloads or change the uninstall strategy before uninstalling KubeVirt."
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const IMAGE: &str = "localhost/holdfast/virt-operator:v1";

    fn object(spec: Value) -> Value {
        json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": spec, "status": {"phase": "Deployed"},
            "metadata": {"name": "kubevirt", "namespace": "kubevirt"}})
    }

    #[test]
    fn a_second_object_is_refused() {
        assert_eq!(create(&object(json!({})), 0, IMAGE), Ok(()));
        let refused = create(&object(json!({})), 1, IMAGE).unwrap_err();
        assert_eq!(refused.status(), json!({"code": 400, "message": "Kubevirt is already created"}));
    }

    #[test]
    fn what_cannot_be_installed_is_refused() {
        for (spec, field) in [
            (json!({"infra": {"replicas": 0}}), "spec.infra.replicas"),
            (json!({"infra": {"replicas": -1}}), "spec.infra.replicas"),
            (json!({"uninstallStrategy": "RemoveAll"}), "spec.uninstallStrategy"),
            (json!({"imagePullPolicy": "Sometimes"}), "spec.imagePullPolicy"),
            (json!({"configuration": {"evictionStrategy": "X"}}), "spec.configuration.evictionStrategy"),
            (
                json!({"certificateRotateStrategy": {"selfSigned": {"ca": {"duration": "1"}}}}),
                "spec.certificateRotateStrategy",
            ),
            (
                json!({"customizeComponents": {"patches": [
                    {"resourceType": "Deployment", "resourceName": "virt-api", "type": "json", "patch": "["}]}}),
                "spec.customizeComponents.patches[0]",
            ),
            (
                json!({"customizeComponents": {"patches": [
                    {"resourceType": "Deployment", "resourceName": "virt-api", "type": "json",
                     "patch": "[{\"op\": \"remove\", \"path\": \"/nothing\"}]"}]}}),
                "spec.customizeComponents",
            ),
        ] {
            let status = update(&object(spec), IMAGE).unwrap_err().status();
            assert_eq!(status["code"], 422);
            assert_eq!(status["details"]["causes"][0]["field"], field);
        }
        assert_eq!(update(&object(json!({"imageTag": "v2"})), IMAGE), Ok(()));
    }

    #[test]
    fn an_object_that_is_going_is_let_go() {
        let mut going = object(json!({"infra": {"replicas": 0}}));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(update(&going, IMAGE), Ok(()));
    }

    #[test]
    fn workloads_block_a_deletion_where_the_user_wants_that() {
        let blocking = object(json!({"uninstallStrategy": "BlockUninstallIfWorkloadsExist"}));
        let refused = delete(&blocking, Some("Virtual Machines")).unwrap_err();
        assert_eq!(
            refused.message,
            "Rejecting the uninstall request, since there are still Virtual Machines present. Either delete all \
             KubeVirt related workloads or change the uninstall strategy before uninstalling KubeVirt."
        );
        assert_eq!(delete(&blocking, None), Ok(()));
        assert_eq!(delete(&object(json!({})), Some("Virtual Machines")), Ok(()));
        let mut failing = blocking;
        failing["status"]["phase"] = json!("Deploying");
        assert_eq!(delete(&failing, Some("Virtual Machines")), Ok(()));
    }

    #[test]
    fn the_answer_names_its_request() {
        let answer = answer(&json!("u1"), Err(Refusal::bad_request("no")));
        assert_eq!(
            answer["response"],
            json!({"uid": "u1", "allowed": false, "status": {"code": 400, "message": "no"}})
        );
    }
}
