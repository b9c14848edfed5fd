//! One pass of an installation: does what can be done now, and says how far it is.
//!
//! The order. Kinds come first, for all else is about them; then rights and certificates; then webhooks, so that from
//! the first moment nothing is admitted unchecked. A new installation starts virt-api, and when that answers
//! virt-controller and virt-handler. An update begins with virt-handler and ends with virt-api: new features are
//! offered only when everybody knows them. Launcher pods are no part of it, and no pass touches one.

use std::time::Duration;

use holdfast_api::kubevirt::{GenerationStatus, KubeVirt};
use jiff::Timestamp;

use crate::build::{Installation, NETWORK_ATTACHMENT_DEFINITION, served_versions};
use crate::certificates::{AUTHORITY, Issued, Leaf, Plan, Rotation, Times, TimesError, leaves, plan};
use crate::cluster::{CallError, Cluster};
use crate::customize::CustomizeError;
use crate::object::{Desired, Id, resource};
use crate::rollout::{is_daemon_set_ready, is_deployment_ready, is_update};
use crate::status::State;
use crate::target::{Target, TargetError};

/// Between two looks at what no watch tells of.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks when all is well: at Secrets, and at the number of nodes.
const LATER: Duration = Duration::from_secs(300);

/// Why an installation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The API server.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The KubeVirt object.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its certificateRotateStrategy.
    #[error(transparent)]
    Times(#[from] TimesError),
    /// Its customizeComponents.
    #[error(transparent)]
    Customize(#[from] CustomizeError),
    /// Keys.
    #[error("failed to issue certificates")]
    Certificates(#[from] rcgen::Error),
}

impl InstallError {
    /// Whether only a change of the KubeVirt object helps.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Target(_) | Self::Times(_) | Self::Customize(_))
    }
}

/// How far a pass came.
#[derive(Debug)]
pub struct Progress {
    /// For the conditions.
    pub state: State,
    /// Whether all objects are there.
    pub created: bool,
    /// What was written.
    pub generations: Vec<GenerationStatus>,
    /// When to look again, if nothing happens before.
    pub again: Duration,
}

/// Does one pass.
///
/// # Errors
/// Where something stands in its way.
pub async fn pass(cluster: &Cluster, kubevirt: &KubeVirt, target: &Target) -> Result<Progress, InstallError> {
    let rotation = certificates(cluster, target).await?;
    let wanted = Installation::build(target, &rotation.bundle)?;
    let steps = Steps { cluster, target, wanted: &wanted };
    let status = kubevirt.status.clone().unwrap_or_default();
    let (created, ready, soon) = steps.run(status.observed_kube_virt_version.as_deref()).await?;
    if created {
        prune(cluster, &wanted).await?;
    }
    let is_first = status.observed_deployment_id.as_deref().is_none_or(|observed| observed == target.id());
    let state = match (ready, is_first) {
        (true, _) => State::Deployed,
        (false, true) => State::Deploying,
        (false, false) => State::Updating,
    };
    let generations = cluster.generations(wanted.all().map(|desired| desired.id.clone()));
    let again = if soon { SOON } else { rotation.again.min(LATER) };
    Ok(Progress { state, created, generations, again })
}

/// Issues what is due, and writes it.
async fn certificates(cluster: &Cluster, target: &Target) -> Result<Plan, InstallError> {
    let times = Times::of(&target.spec)?;
    let leaves = leaves(target);
    let names = leaves.iter().map(|leaf: &Leaf| leaf.secret).chain([AUTHORITY]);
    let there = Rotation { secrets: cluster.certificates(names).await?, bundle: cluster.bundle().await? };
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let plan = plan(&times, &leaves, &there, now)?;
    // The authority comes first: what is signed by one whose key is lost would be signed again at the next pass.
    let (first, rest): (Vec<_>, Vec<_>) = plan.issue.iter().partition(|(name, _)| *name == AUTHORITY);
    for (name, issued) in first.into_iter().chain(rest) {
        let id = secret(target, name);
        cluster.apply(&id, body(&id, issued)).await?;
        tracing::info!(secret = name, "issued a certificate");
    }
    Ok(plan)
}

fn secret(target: &Target, name: &str) -> Id {
    Id {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        namespace: Some(target.namespace.clone()),
        name: name.to_owned(),
    }
}

fn body(id: &Id, issued: &Issued) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {
            "name": id.name, "namespace": id.namespace,
            "labels": {"app.kubernetes.io/component": "kubevirt", "app.kubernetes.io/managed-by": "virt-operator"},
        },
        "stringData": {"tls.crt": issued.certificate, "tls.key": issued.key},
    })
    .to_string()
}

/// Removes what an older version installed and this one does not. Kinds stay: with them their objects would go.
async fn prune(cluster: &Cluster, wanted: &Installation) -> Result<(), InstallError> {
    for (id, live) in cluster.watched.ours() {
        let is_kind = id.kind == "CustomResourceDefinition";
        if !is_kind && !live.deleting && !wanted.all().any(|desired| desired.id == id) {
            cluster.delete(&id).await?;
        }
    }
    Ok(())
}

struct Steps<'a> {
    cluster: &'a Cluster,
    target: &'a Target,
    wanted: &'a Installation,
}

impl Steps<'_> {
    /// Whether all is created, whether all is ready, and whether to look again soon.
    async fn run(&self, current: Option<&str>) -> Result<(bool, bool, bool), InstallError> {
        let Installation { definitions, access, admission, api, controller, handler, front } = self.wanted;
        self.ensure(definitions).await?;
        self.network_attachment_definition().await?;
        self.ensure(access).await?;
        self.ensure(admission).await?;
        if !self.are_kinds_served().await? {
            return Ok((false, false, true));
        }
        let order: [&[Desired]; 3] = match is_update(current, &self.target.version) {
            true => [handler, controller, api],
            false => [api, controller, handler],
        };
        let wait_for_each = is_update(current, &self.target.version);
        for (at, component) in order.into_iter().enumerate() {
            self.ensure(component).await?;
            // A new installation waits for virt-api alone.
            if (wait_for_each || at == 0) && !self.are_ready(component).await? {
                return Ok((false, false, false));
            }
        }
        self.ensure(front).await?;
        let mut ready = true;
        for component in [api, controller, handler] {
            ready &= self.are_ready(component).await?;
        }
        Ok((true, ready, false))
    }

    async fn ensure(&self, objects: &[Desired]) -> Result<(), InstallError> {
        for desired in objects {
            self.cluster.ensure(desired).await?;
        }
        Ok(())
    }

    /// The kind of networks, where nobody else has brought it.
    async fn network_attachment_definition(&self) -> Result<(), InstallError> {
        let id = Id {
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            namespace: None,
            name: "network-attachment-definitions.k8s.cni.cncf.io".to_owned(),
        };
        if !self.cluster.exists(&id).await? {
            self.cluster.apply(&id, NETWORK_ATTACHMENT_DEFINITION.to_owned()).await?;
            tracing::info!(object = %id, "written");
        }
        Ok(())
    }

    /// Components would start, find no kinds, and wait longer than need be.
    async fn are_kinds_served(&self) -> Result<bool, InstallError> {
        let mut groups: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
        for (group_version, plural) in served_versions() {
            groups.entry(group_version).or_default().push(plural);
        }
        for (group_version, plurals) in groups {
            if !self.cluster.serves(group_version, &plurals).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn are_ready(&self, component: &[Desired]) -> Result<bool, InstallError> {
        for desired in component {
            let name = &desired.id.name;
            let ready = match desired.id.kind.as_str() {
                "Deployment" => self.cluster.deployment(name).await?.is_some_and(|found| is_deployment_ready(&found)),
                _ => self.cluster.daemon_set(name).await?.is_some_and(|found| is_daemon_set_ready(&found)),
            };
            if !ready {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The resources whose objects are workloads, in the order in which they are deleted: makers before what they make.
pub fn workloads() -> impl Iterator<Item = kube::api::ApiResource> {
    [
        ("pool.kubevirt.io/v1beta1", "VirtualMachinePool"),
        ("kubevirt.io/v1", "VirtualMachineInstanceReplicaSet"),
        ("kubevirt.io/v1", "VirtualMachine"),
        ("kubevirt.io/v1", "VirtualMachineInstanceMigration"),
        ("kubevirt.io/v1", "VirtualMachineInstance"),
    ]
    .into_iter()
    .map(|(api_version, kind)| resource(api_version, kind))
}
