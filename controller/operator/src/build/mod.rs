//! The installation as a list of objects: pure, and the same for the same input.

mod access;
mod admission;
mod definitions;
mod guard;
mod node_policy;
mod placement;
mod pods;
mod services;
mod workloads;

use serde_json::{Map, Value, json};

pub use definitions::{NETWORK_ATTACHMENT_DEFINITION, served_versions};

use crate::customize::{self, CustomizeError};
use crate::object::Desired;
use crate::target::Target;

/// All objects of the installation, in the groups in which they are made.
#[derive(Debug, Default)]
pub struct Installation {
    /// The kinds.
    pub definitions: Vec<Desired>,
    /// Who may do what, and where components are reached.
    pub access: Vec<Desired>,
    /// What admits objects of our kinds, by virt-api. Before virt-api runs nothing is admitted, and so nothing
    /// unchecked.
    pub admission: Vec<Desired>,
    /// Deployment of virt-api.
    pub api: Vec<Desired>,
    /// Deployment of virt-controller.
    pub controller: Vec<Desired>,
    /// DaemonSet of virt-handler.
    pub handler: Vec<Desired>,
    /// What would be in the way of everybody if nobody answered: the aggregated API, and the webhooks of the KubeVirt
    /// object.
    pub front: Vec<Desired>,
}

impl Installation {
    /// Of a target, with the authorities that sign the components' certificates (PEM).
    ///
    /// # Errors
    /// Where a patch of `customizeComponents` cannot be applied.
    pub fn build(target: &Target, authorities: &str) -> Result<Self, CustomizeError> {
        let finish = |values: Vec<Value>| -> Result<Vec<Desired>, CustomizeError> {
            let finished = values.into_iter().map(|value| customize::apply(&target.spec, label(target, value)));
            finished.map(|value| value.map(Desired::object)).collect()
        };
        let mut access = access::build(target);
        access.extend(services::build(target));
        access.push(services::authorities(target, authorities));
        access.extend(guard::build(target));
        if target.config.has("NodeRestriction") {
            access.extend(node_policy::build(target));
        }
        Ok(Self {
            definitions: definitions::build(&labels(target, "")),
            access: finish(access)?,
            admission: finish(admission::of_virt_api(target, authorities))?,
            api: finish(vec![workloads::virt_api(target)])?,
            controller: finish(vec![workloads::virt_controller(target)])?,
            handler: finish(vec![workloads::virt_handler(target)])?,
            front: finish(admission::front(target, authorities))?,
        })
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = &Desired> {
        let Self { definitions, access, admission, api, controller, handler, front } = self;
        [definitions, access, admission, api, controller, handler, front].into_iter().flatten()
    }
}

/// The labels of an object; `own` is the value of `kubevirt.io`.
fn labels(target: &Target, own: &str) -> Value {
    let mut labels = product_labels(target);
    labels.insert("kubevirt.io".to_owned(), json!(own));
    Value::Object(labels)
}

/// Labels of each object and each pod of the installation.
fn product_labels(target: &Target) -> Map<String, Value> {
    let component = target.spec.product_component.as_deref().unwrap_or("kubevirt");
    let mut labels = Map::new();
    labels.insert("app.kubernetes.io/component".to_owned(), json!(component));
    labels.insert("app.kubernetes.io/managed-by".to_owned(), json!("virt-operator"));
    if let Some(product) = &target.spec.product_name {
        labels.insert("app.kubernetes.io/part-of".to_owned(), json!(product));
    }
    labels
}

/// An object with the labels that all have, beside those that it has.
fn label(target: &Target, mut value: Value) -> Value {
    let labels = &mut value["metadata"]["labels"];
    let own = labels.as_object_mut().map(std::mem::take).unwrap_or_default();
    let mut all = product_labels(target);
    all.insert("kubevirt.io".to_owned(), json!(""));
    all.extend(own);
    *labels = Value::Object(all);
    value
}

#[cfg(test)]
mod tests;
