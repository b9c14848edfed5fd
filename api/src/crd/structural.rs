//! A type's JSON schema in the form that Kubernetes calls structural.
//!
//! All references are put in place, null is no type (a field that may be null says `nullable`
//! itself), and what Kubernetes knows and JSON schema does not is added. Descriptions inside
//! Kubernetes' own types are left out: they are half of the size, and known from elsewhere.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// What the API server demands of a quantity in text.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Types of Kubernetes that change as a whole, as their Go types say.
const ATOMIC: [&str; 9] = [
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
];

/// Formats that the API server knows; others would only earn a warning.
const FORMATS: [&str; 8] = ["int32", "int64", "float", "double", "byte", "date", "date-time", "password"];

/// The structural schema of `T`.
pub(super) fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        // The ready-made transforms would mark each optional field as nullable.
        settings.transforms = Vec::new();
    });
    let mut generator = settings.into_generator();
    let root = generator.root_schema_for::<T>().to_value();
    let definitions = generator.definitions().clone();
    rewrite(root, &definitions, false)
}

/// One schema with all that is below it. `foreign` is what belongs to Kubernetes itself.
fn rewrite(schema: Value, definitions: &Map<String, Value>, foreign: bool) -> Value {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        // `true` stands for any value.
        _ => return json!({"x-kubernetes-preserve-unknown-fields": true}),
    };
    for key in ["$schema", "components", "title", "examples"] {
        schema.remove(key);
    }
    if foreign {
        schema.remove("description");
    }
    unwrap_lines(&mut schema);
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(target) = take_target(&mut schema) {
        let mut inner = match target {
            Target::Reference(name) => referenced(&name, definitions, foreign),
            Target::Inline(inner) => rewrite(inner, definitions, foreign),
        };
        if let Some(inner) = inner.as_object_mut() {
            // What stands at the field counts more than what stands at its type.
            inner.extend(schema);
        }
        return inner;
    }
    fold_enum(&mut schema);
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = types.as_slice() {
            schema["type"] = name.clone();
        }
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
        schema.remove("format");
    }
    if schema.contains_key("x-kubernetes-int-or-string") {
        schema.remove("type");
        schema.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = rewrite(property.take(), definitions, foreign);
        }
    }
    for key in ["items", "additionalProperties"] {
        match schema.get_mut(key) {
            Some(Value::Bool(_)) => {
                schema.remove(key);
            }
            Some(inner) => *inner = rewrite(inner.take(), definitions, foreign),
            None => {}
        }
    }
    Value::Object(schema)
}

enum Target {
    Reference(String),
    Inline(Value),
}

/// Takes a `$ref`, or the one alternative that is not null, out of the schema.
fn take_target(schema: &mut Map<String, Value>) -> Option<Target> {
    if let Some(Value::String(reference)) = schema.remove("$ref") {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return Some(Target::Reference(name.to_owned()));
    }
    let alternatives = schema.get("anyOf")?.as_array()?;
    let is_null = |schema: &Value| schema.get("type") == Some(&json!("null"));
    let mut others = alternatives.iter().filter(|schema| !is_null(schema));
    match (others.next(), others.next()) {
        (Some(only), None) => {
            let only = only.clone();
            schema.remove("anyOf");
            Some(Target::Inline(only))
        }
        _ => None,
    }
}

fn referenced(name: &str, definitions: &Map<String, Value>, foreign: bool) -> Value {
    if name == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" {
        // Embedded metadata is anything, as the API server checks it in objects of its own only.
        return json!({
            "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
        });
    }
    let definition = definitions.get(name).cloned().unwrap_or(Value::Bool(true));
    let mut schema = rewrite(definition, definitions, foreign || name.starts_with("io.k8s."));
    if let Some(schema) = schema.as_object_mut() {
        if ATOMIC.contains(&name) {
            schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if name == "io.k8s.api.core.v1.LocalObjectReference" {
            // An empty name is what an absent one means.
            schema.remove("required");
            schema["properties"]["name"]["default"] = json!("");
        }
        if name.ends_with(".Quantity") {
            schema.insert("pattern".to_owned(), json!(QUANTITY));
        }
    }
    schema
}

/// Makes an `enum` of the alternatives that an enum with documented variants has. What is said of
/// each stands at the fields that use it.
fn fold_enum(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(variants)) = schema.remove("oneOf") {
        let names = variants.iter().filter_map(|variant| variant.get("const").cloned()).collect();
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), Value::Array(names));
    }
}

/// Makes one line of each paragraph; the source wraps them.
fn unwrap_lines(schema: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

/// Takes all descriptions out of a schema.
pub(super) fn drop_descriptions(schema: &mut JSONSchemaProps) {
    schema.description = None;
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        drop_descriptions(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        drop_descriptions(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        drop_descriptions(values);
    }
}
