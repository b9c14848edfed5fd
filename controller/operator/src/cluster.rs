//! Reading and writing objects. Each call has a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Request, header};
use holdfast_api::kubevirt::{GenerationStatus, KubeVirt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, ObjectList, ObjectMeta, PartialObjectMeta, Patch,
    PatchParams, PostParams, PropagationPolicy,
};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::certificates::{BUNDLE, Issued};
use crate::live::{Verdict, Watched, verdict};
use crate::object::{Content, Desired, Id};

/// Who we are in `managedFields`.
const MANAGER: &str = "virt-operator";
const CALL: Duration = Duration::from_secs(30);
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Set by `kubectl rollout restart`, and left to whoever calls that.
const RESTARTED: &str = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt";

/// A call of the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was refused, or not understood.
    #[error("failed to {0} {1}")]
    Failed(&'static str, String, #[source] Box<kube::Error>),
    /// It was not answered.
    #[error("failed to {0} {1}: the API server does not answer")]
    NoAnswer(&'static str, String),
}

impl CallError {
    /// The API server's refusal.
    pub fn refusal(&self) -> Option<&Status> {
        match self {
            Self::Failed(_, _, error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::NoAnswer(..) => None,
        }
    }

    fn is(&self, code: u16) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code == code)
    }

    /// Whether somebody else was faster, so that one has to look again.
    pub fn is_conflict(&self) -> bool {
        self.is(409)
    }

    /// Whether it is not there.
    pub fn is_missing(&self) -> bool {
        self.is(404)
    }
}

type Result<T, E = CallError> = std::result::Result<T, E>;

async fn call<T>(verb: &'static str, what: &str, future: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::Failed(verb, what.to_owned(), Box::new(error))),
        Err(_) => Err(CallError::NoAnswer(verb, what.to_owned())),
    }
}

/// Whether something is there, from a call that fails where it is not.
fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The cluster.
pub struct Cluster {
    client: Client,
    namespace: String,
    /// What is there.
    pub watched: Arc<Watched>,
    /// In which version each object was when we wrote it last.
    written: Mutex<BTreeMap<Id, i64>>,
}

impl Cluster {
    /// The cluster of `client`, with the installation in `namespace`.
    pub fn new(client: Client, namespace: &str, watched: Arc<Watched>) -> Self {
        Self { client, namespace: namespace.to_owned(), watched, written: Mutex::default() }
    }

    /// Takes over what an earlier leader wrote.
    pub fn remember(&self, generations: &[GenerationStatus]) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, live) in self.watched.ours() {
            let plural = id.resource().plural;
            let known = generations
                .iter()
                .find(|known| known.resource == plural && known.name == id.name && known.group == id.api_version);
            if let Some(known) = known.filter(|known| known.last_generation == live.version) {
                written.entry(id).or_insert(known.last_generation);
            }
        }
    }

    /// The generations of what was written, for the status.
    pub fn generations(&self, objects: impl Iterator<Item = Id>) -> Vec<GenerationStatus> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        objects
            .filter_map(|id| {
                let last_generation = *written.get(&id)?;
                let hash = self.watched.get(&id).filter(|live| live.has_generation)?.hash;
                let (group, resource) = (id.api_version.clone(), id.resource().plural);
                Some(GenerationStatus {
                    group,
                    resource,
                    namespace: id.namespace,
                    name: id.name,
                    last_generation,
                    hash,
                })
            })
            .collect()
    }

    /// Sees to it that an object is as it is to be; whether it had to be written.
    pub async fn ensure(&self, desired: &Desired) -> Result<bool> {
        let live = self.watched.get(&desired.id);
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).get(&desired.id).copied();
        let verdict = verdict(&desired.hash, live.as_ref(), written);
        if verdict == Verdict::Same {
            return Ok(false);
        }
        let metadata = match &desired.content {
            // A field that somebody else has added stays where an object is applied. In a pod template it must not.
            Content::Object(object) if desired.id.api_version == "apps/v1" => self.replace(desired, object).await?,
            _ => self.apply(&desired.id, desired.body()).await?,
        };
        let now = self.watched.learn(&desired.id, &metadata);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(desired.id.clone(), now.version);
        let changed = live.is_none_or(|live| live.version != now.version || live.hash != now.hash);
        if changed {
            tracing::info!(object = %desired.id, ?verdict, "written");
        }
        Ok(changed)
    }

    /// Applies a whole object, given as YAML. Of the answer only the metadata is wanted.
    pub async fn apply(&self, id: &Id, body: String) -> Result<ObjectMeta> {
        let what = id.to_string();
        let url = format!("{}/{}?fieldManager={MANAGER}&force=true", id.api(&self.client).resource_url(), id.name);
        let request = Request::patch(url)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .header(header::ACCEPT, METADATA)
            .body(body.into_bytes())
            .map_err(|error| CallError::Failed("apply", what.clone(), Box::new(kube::Error::HttpError(error))))?;
        let object: PartialObjectMeta<DynamicObject> = call("apply", &what, self.client.request(request)).await?;
        Ok(object.metadata)
    }

    /// Makes the content of a workload ours alone. Labels and annotations of others stay, for its controller keeps
    /// its own there.
    async fn replace(&self, desired: &Desired, object: &Value) -> Result<ObjectMeta> {
        let (api, what) = (desired.id.api(&self.client), desired.id.to_string());
        let mut ours: DynamicObject = serde_json::from_value(object.clone())
            .map_err(|error| CallError::Failed("encode", what.clone(), Box::new(kube::Error::SerdeError(error))))?;
        ours.annotations_mut().insert(crate::object::APPLIED.to_owned(), desired.hash.clone());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = match call("get", &what, api.get_opt(&desired.id.name)).await? {
            None => call("create", &what, api.create(&params, &ours)).await?,
            Some(live) => {
                if let Some(at) = live.data.pointer(RESTARTED)
                    && let Some(annotations) = ours.data.pointer_mut("/spec/template/metadata/annotations")
                {
                    annotations["kubectl.kubernetes.io/restartedAt"] = at.clone();
                }
                let ObjectMeta { labels, annotations, .. } = live.metadata.clone();
                let (own_labels, own_annotations) = (ours.labels().clone(), ours.annotations().clone());
                ours.metadata = live.metadata;
                ours.metadata.managed_fields = None;
                ours.metadata.labels = Some(labels.into_iter().flatten().chain(own_labels).collect());
                ours.metadata.annotations = Some(annotations.into_iter().flatten().chain(own_annotations).collect());
                call("replace", &what, api.replace(&desired.id.name, &params, &ours)).await?
            }
        };
        Ok(written.metadata)
    }

    /// Deletes an object; what is gone already is no error.
    pub async fn delete(&self, id: &Id) -> Result<()> {
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        optional(call("delete", &id.to_string(), id.api(&self.client).delete(&id.name, &params)).await)?;
        tracing::info!(object = %id, "deleted");
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    /// Whether an object is there at all, ours or not.
    pub async fn exists(&self, id: &Id) -> Result<bool> {
        Ok(call("get", &id.to_string(), id.api(&self.client).get_metadata_opt(&id.name)).await?.is_some())
    }

    /// Names of objects of a kind that are left, in the whole cluster; none where the kind is not there.
    pub async fn left(&self, kind: &ApiResource, limit: u32) -> Result<Vec<ObjectMeta>> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), kind);
        let listed = call("list", &kind.plural, api.list_metadata(&ListParams::default().limit(limit))).await;
        Ok(optional(listed)?
            .map(|list| list.items.into_iter().map(|object| object.metadata).collect())
            .unwrap_or_default())
    }

    /// Takes the finalizers away that our own components have set.
    pub async fn release(&self, id: &Id, finalizers: Vec<String>) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        let (api, params) = (id.api(&self.client), PatchParams::default());
        let patched = api.patch_metadata(&id.name, &params, &patch);
        optional(call("release", &id.to_string(), patched).await).map(drop)
    }

    /// Certificates and keys, of those Secrets that are there.
    pub async fn certificates(&self, names: impl Iterator<Item = &str>) -> Result<BTreeMap<String, Issued>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut found = BTreeMap::new();
        for name in names {
            let secret = call("get", &format!("Secret `{name}`"), api.get_opt(name)).await?;
            let Some(data) = secret.and_then(|secret| secret.data) else { continue };
            let text = |key| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            if let (Some(certificate), Some(key)) = (text("tls.crt"), text("tls.key")) {
                found.insert(name.to_owned(), Issued { certificate, key });
            }
        }
        Ok(found)
    }

    /// The authorities that are trusted so far.
    pub async fn bundle(&self) -> Result<String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = call("get", &format!("ConfigMap `{BUNDLE}`"), api.get_opt(BUNDLE)).await?;
        Ok(map.and_then(|map| map.data?.remove("ca-bundle")).unwrap_or_default())
    }

    /// How many nodes there are, without having them all told.
    pub async fn nodes(&self) -> Result<u64> {
        let api: Api<Node> = Api::all(self.client.clone());
        let first: ObjectList<PartialObjectMeta<Node>> =
            call("list", "nodes", api.list_metadata(&ListParams::default().limit(1))).await?;
        let more = first.metadata.remaining_item_count.and_then(|more| u64::try_from(more).ok());
        Ok(first.items.len() as u64 + more.unwrap_or_default())
    }

    /// Whether the API server serves all of the plurals of a group.
    pub async fn serves(&self, group_version: &str, plurals: &[&str]) -> Result<bool> {
        let listed = call("discover", group_version, self.client.list_api_group_resources(group_version)).await;
        let list = optional(listed)?.map(|list| list.resources).unwrap_or_default();
        Ok(plurals.iter().all(|plural| list.iter().any(|resource| resource.name == *plural)))
    }

    /// A Deployment.
    pub async fn deployment(&self, name: &str) -> Result<Option<Deployment>> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        call("get", &format!("Deployment `{name}`"), api.get_opt(name)).await
    }

    /// A DaemonSet.
    pub async fn daemon_set(&self, name: &str) -> Result<Option<DaemonSet>> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
        call("get", &format!("DaemonSet `{name}`"), api.get_opt(name)).await
    }

    /// Pods of a component.
    pub async fn pods(&self, component: &str) -> Result<Vec<ObjectMeta>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("kubevirt.io={component}"));
        let list = call("list", &format!("pods of `{component}`"), api.list_metadata(&params)).await?;
        Ok(list.items.into_iter().map(|pod| pod.metadata).collect())
    }

    /// Writes the status of a KubeVirt object.
    pub async fn write_status(&self, kubevirt: &KubeVirt) -> Result<KubeVirt> {
        let (name, params) = (kubevirt.name_any(), PostParams::default());
        call("write the status of", &what(kubevirt), self.kubevirt(kubevirt).replace_status(&name, &params, kubevirt))
            .await
    }

    /// Changes the metadata of a KubeVirt object, unless somebody else has just changed it.
    pub async fn write_metadata(&self, kubevirt: &KubeVirt, mut metadata: Value) -> Result<KubeVirt> {
        metadata["resourceVersion"] = json!(kubevirt.resource_version());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let (name, params) = (kubevirt.name_any(), PatchParams::default());
        call("change", &what(kubevirt), self.kubevirt(kubevirt).patch(&name, &params, &patch)).await
    }

    fn kubevirt(&self, kubevirt: &KubeVirt) -> Api<KubeVirt> {
        Api::namespaced(self.client.clone(), &kubevirt.namespace().unwrap_or_default())
    }
}

fn what(kubevirt: &KubeVirt) -> String {
    format!("KubeVirt `{}/{}`", kubevirt.namespace().unwrap_or_default(), kubevirt.name_any())
}
