//! What the API server itself does with an object of ours on its way in, as far as recorded answers show it: strict
//! decoding, a name, the schema and the scale subresource; and in which order it calls the webhooks.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use holdfast_api::admit::{Operation, Others, Review, User, Webhook, admit};
use holdfast_api::config::ClusterConfig;
use holdfast_api::error_status::ErrorStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// Schemas by kind.
static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let schema =
        |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            let version = crd.spec.versions.iter().find(|version| version.storage)?;
            let schema = serde_json::to_value(version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()?;
            let scale = version.subresources.as_ref().is_some_and(|subresources| subresources.scale.is_some());
            Some((crd.spec.names.kind.clone(), json!({"schema": schema, "scale": scale, "group": crd.spec.group})))
        };
    holdfast_api::crd::crds().iter().filter_map(schema).collect()
});

/// Whether objects of a kind are served.
pub fn serves(kind: &str) -> bool {
    SCHEMAS.contains_key(kind)
}

/// The object as it would be created, or the refusal.
pub fn create(manifest: &Value, others: &dyn Others, config: &ClusterConfig) -> Result<Value, ErrorStatus> {
    let kind = manifest["kind"].as_str().unwrap();
    let served = &SCHEMAS[kind];
    let mut unknown = Vec::new();
    unknown_fields("", manifest, &served["schema"], &mut unknown);
    if !unknown.is_empty() {
        let version = manifest["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let fields: Vec<_> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        let fields = fields.join(", ");
        return Err(ErrorStatus::bad_request(&format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {fields}"
        )));
    }
    let mut object = manifest.clone();
    for webhook in webhooks(kind).iter().filter(|webhook| webhook.mutates()) {
        if let Some(changed) = call(*webhook, Operation::Create, &object, &Value::Null, others, config)? {
            object = changed;
        }
    }
    check(kind, &object, served)?;
    for webhook in webhooks(kind).iter().filter(|webhook| !webhook.mutates()) {
        call(*webhook, Operation::Create, &object, &Value::Null, others, config)?;
    }
    Ok(object)
}

/// One call of a webhook, its refusal as a client sees it.
pub fn call(
    webhook: Webhook,
    operation: Operation,
    object: &Value,
    old: &Value,
    others: &dyn Others,
    config: &ClusterConfig,
) -> Result<Option<Value>, ErrorStatus> {
    let review = Review {
        webhook,
        operation,
        name: object["metadata"]["name"].as_str().unwrap_or_default(),
        namespace: "default",
        object,
        old,
        user: User { name: "kubernetes-admin", groups: &[] },
        install_namespace: "kubevirt",
    };
    let answer = admit(&review, others, config, &mut |_| Uuid::nil(), Timestamp::UNIX_EPOCH);
    answer.map(|allowed| allowed.object).map_err(|error| error.denied_by(webhook.name()))
}

/// The webhooks that see a new object of a kind.
fn webhooks(kind: &str) -> &'static [Webhook] {
    match kind {
        "VirtualMachine" => &[Webhook::VmMutate, Webhook::VmValidate],
        "VirtualMachineInstance" => &[Webhook::VmiMutate, Webhook::VmiValidateCreate],
        "VirtualMachineInstanceMigration" => &[Webhook::MigrationMutateCreate, Webhook::MigrationValidateCreate],
        "VirtualMachineInstanceReplicaSet" => &[Webhook::ReplicaSetValidate],
        "VirtualMachinePool" => &[Webhook::PoolValidate],
        "VirtualMachineInstancetype" => &[Webhook::InstancetypeValidate],
        "VirtualMachinePreference" => &[Webhook::PreferenceValidate],
        "MigrationPolicy" => &[Webhook::MigrationPolicyValidate],
        "KubeVirt" => &[Webhook::KubeVirtValidateCreate],
        _ => &[],
    }
}

fn unknown_fields(path: &str, value: &Value, schema: &Value, unknown: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true || path == "metadata" {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let inner = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                match inner {
                    Some(inner) => unknown_fields(&at, value, inner, unknown),
                    None => unknown.push(at),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                unknown_fields(&format!("{path}[{index}]"), item, &schema["items"], unknown);
            }
        }
        _ => {}
    }
}

/// A name, required fields, and a number of replicas that can be.
fn check(kind: &str, object: &Value, served: &Value) -> Result<(), ErrorStatus> {
    let mut causes = Vec::new();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(("metadata.name".to_owned(), "Required value: name or generateName is required", true));
        let message = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                       correct the existing errors to complete validation";
        causes.push(("<nil>".to_owned(), message, false));
    }
    let mut missing = Vec::new();
    missing_fields("", object, &served["schema"], &mut missing);
    causes.extend(missing.into_iter().map(|path| (path, "Required value", true)));
    if served["scale"] == true && object["spec"]["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        let message = "Invalid value: -1: should be a non-negative integer";
        causes.push((".spec.replicas".to_owned(), message, false));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let sentences: Vec<_> = causes.iter().map(|(field, message, _)| format!("{field}: {message}")).collect();
    let all = match sentences.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let mut error = ErrorStatus::invalid(
        causes
            .into_iter()
            .map(|(field, message, required)| StatusCause {
                field: Some(field),
                message: Some(message.to_owned()),
                reason: Some(if required { "FieldValueRequired" } else { "FieldValueInvalid" }.to_owned()),
            })
            .collect(),
    );
    error.message = format!("{kind}.{} \"{name}\" is invalid: {all}", served["group"].as_str().unwrap());
    Err(error)
}

fn missing_fields(path: &str, value: &Value, schema: &Value, missing: &mut Vec<String>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    missing.push(at(name));
                }
            }
            for (name, value) in fields {
                if let Some(inner) = schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
                    missing_fields(&at(name), value, inner, missing);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                missing_fields(&format!("{path}[{index}]"), item, &schema["items"], missing);
            }
        }
        _ => {}
    }
}
