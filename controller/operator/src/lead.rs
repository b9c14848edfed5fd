//! What the leader does: looks at the KubeVirt objects, does a pass, writes the status, and waits for a change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use holdfast_api::kubevirt::{KubeVirt, KubeVirtStatus};
use holdfast_kubernetes::chain;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{CallError, Cluster};
use crate::live::{SETTLE, Watched};
use crate::status::{self, State};
use crate::target::Target;
use crate::{install, uninstall};

const FINALIZER: &str = "kubevirt.io/foregroundDeleteKubeVirt";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(300);

/// The KubeVirt objects of the whole cluster, by namespace and name.
pub type Objects = Arc<Mutex<BTreeMap<(String, String), KubeVirt>>>;

/// Follows the KubeVirt objects. One that cannot be read stays as it was.
pub async fn follow(client: Client, objects: Objects, watched: Arc<Watched>) {
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<KubeVirt>(&()));
    let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let key = |object: &DynamicObject| (object.namespace().unwrap_or_default(), object.name_any());
        let mut known = objects.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.push(key(&object));
                learn(&mut known, key(&object), object);
            }
            Ok(Event::InitDone) => known.retain(|key, _| listed.contains(key)),
            Ok(Event::Apply(object)) => learn(&mut known, key(&object), object),
            Ok(Event::Delete(object)) => drop(known.remove(&key(&object))),
            Err(error) => tracing::warn!(error = chain(&error), "lost sight of the KubeVirt object"),
        }
        watched.changed.notify_one();
    }
}

fn learn(known: &mut BTreeMap<(String, String), KubeVirt>, key: (String, String), object: DynamicObject) {
    match object.try_parse() {
        Ok(kubevirt) => drop(known.insert(key, kubevirt)),
        Err(error) => tracing::error!(name = key.1, error = chain(&error), "cannot read the KubeVirt object"),
    }
}

/// The leader.
pub struct Leader {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What is wanted.
    pub objects: Objects,
    /// Namespace of the operator, and so of the installation.
    pub namespace: String,
    /// Image of the operator.
    pub image: String,
}

impl Leader {
    /// Works until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut remembered = false;
        loop {
            let again = if self.cluster.watched.is_complete() {
                match self.pass(&mut remembered).await {
                    Ok(again) => {
                        pause = FIRST_PAUSE;
                        again
                    }
                    Err(error) if error.is_conflict() => FIRST_PAUSE,
                    Err(error) => {
                        tracing::error!(error = chain(&error), "cannot go on");
                        let now = pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        now
                    }
                }
            } else {
                IDLE
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(again) => {}
                // What happens next often happens at once.
                () = self.cluster.watched.changed.notified() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// One look at all objects; when to look again.
    async fn pass(&self, remembered: &mut bool) -> Result<Duration, CallError> {
        let objects: Vec<_> = self.objects.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let ours = objects.iter().filter(|kubevirt| kubevirt.namespace().as_deref() == Some(&self.namespace));
        let active = ours.min_by_key(|kubevirt| (kubevirt.creation_timestamp(), kubevirt.name_any()));
        for other in &objects {
            if active.is_none_or(|active| active.metadata.uid != other.metadata.uid) {
                self.refuse(other).await?;
            }
        }
        let Some(kubevirt) = active else { return Ok(IDLE) };
        if !*remembered {
            let status = kubevirt.status.clone().unwrap_or_default();
            self.cluster.remember(&status.generations);
            *remembered = true;
        }
        if kubevirt.metadata.deletion_timestamp.is_some() {
            self.uninstall(kubevirt).await
        } else {
            self.install(kubevirt).await
        }
    }

    async fn install(&self, kubevirt: &KubeVirt) -> Result<Duration, CallError> {
        let kubevirt = &self.claim(kubevirt).await?;
        let before = kubevirt.status.clone().unwrap_or_default();
        let target = match Target::of(kubevirt, &self.image, self.cluster.nodes().await?) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot install");
                self.write(kubevirt, status::unclear(&before, &chain(&error), Timestamp::now())).await?;
                return Ok(IDLE);
            }
        };
        if before.phase.is_none() {
            // Whoever waits sees at once that somebody is at it.
            let status = status::installing(&before, &target, &State::Deploying, false, Vec::new(), Timestamp::now());
            self.write(kubevirt, status).await?;
            return Ok(Duration::ZERO);
        }
        match install::pass(&self.cluster, kubevirt, &target).await {
            Ok(progress) => {
                let now = Timestamp::now();
                let created = progress.created;
                let status = status::installing(&before, &target, &progress.state, created, progress.generations, now);
                self.write(kubevirt, status).await?;
                Ok(progress.again)
            }
            Err(error) => {
                let state = State::Failed(chain(&error));
                let status = status::installing(&before, &target, &state, false, Vec::new(), Timestamp::now());
                match error {
                    install::InstallError::Call(error) if error.refusal().is_none() || error.is_conflict() => {
                        Err(error)
                    }
                    install::InstallError::Call(error) => {
                        self.write(kubevirt, status).await?;
                        Err(error)
                    }
                    error => {
                        tracing::error!(error = chain(&error), "cannot install");
                        self.write(kubevirt, status).await?;
                        Ok(if error.is_final() { IDLE } else { FIRST_PAUSE })
                    }
                }
            }
        }
    }

    async fn uninstall(&self, kubevirt: &KubeVirt) -> Result<Duration, CallError> {
        if !kubevirt.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(IDLE);
        }
        let before = kubevirt.status.clone().unwrap_or_default();
        let going = self.write(kubevirt, status::deleting(&before, None, Timestamp::now())).await?;
        // Which image it was does not matter to what is taken away.
        let image = format!("none/virt-operator:{}", env!("CARGO_PKG_VERSION"));
        let Ok(target) = Target::of(kubevirt, &image, 0) else { return Ok(IDLE) };
        match uninstall::pass(&self.cluster, kubevirt, &target).await {
            Ok(Some(again)) => Ok(again),
            Ok(None) => {
                let before = going.status.clone().unwrap_or_default();
                let gone = self.write(&going, status::deleted(&before)).await?;
                let rest: Vec<_> = gone.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
                self.cluster.write_metadata(&gone, json!({"finalizers": rest})).await?;
                tracing::info!("uninstalled");
                Ok(IDLE)
            }
            Err(error) => {
                if error.refusal().is_some() && !error.is_conflict() {
                    let failed = status::deleting(&before, Some(&chain(&error)), Timestamp::now());
                    self.write(&going, failed).await?;
                }
                Err(error)
            }
        }
    }

    /// Keeps the object for as long as what it stands for is there.
    async fn claim(&self, kubevirt: &KubeVirt) -> Result<KubeVirt, CallError> {
        let finalizers = kubevirt.finalizers();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(kubevirt.clone());
        }
        let finalizers: Vec<_> = finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
        // By these, tools know which versions of the API the object has seen.
        let annotations = json!({
            "kubevirt.io/latest-observed-api-version": "v1",
            "kubevirt.io/storage-observed-api-version": "v1",
        });
        let metadata = json!({"finalizers": finalizers, "annotations": annotations});
        self.cluster.write_metadata(kubevirt, metadata).await
    }

    /// An object beside the one that counts: nothing comes of it, and nothing holds it.
    async fn refuse(&self, kubevirt: &KubeVirt) -> Result<(), CallError> {
        if kubevirt.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let message = match kubevirt.namespace() {
            Some(namespace) if namespace != self.namespace => {
                format!("The operator is in namespace {}, and installs there only", self.namespace)
            }
            _ => "There is an active KubeVirt deployment".to_owned(),
        };
        let before = kubevirt.status.clone().unwrap_or_default();
        self.write(kubevirt, status::refused(&before, &message, Timestamp::now())).await.map(drop)
    }

    /// Writes a status, if it says something new.
    async fn write(&self, kubevirt: &KubeVirt, mut status: KubeVirtStatus) -> Result<KubeVirt, CallError> {
        status.observed_generation = kubevirt.metadata.generation;
        if kubevirt.status.as_ref() == Some(&status) {
            return Ok(kubevirt.clone());
        }
        let mut next = kubevirt.clone();
        next.status = Some(status);
        let written = self.cluster.write_status(&next).await?;
        let key = (written.namespace().unwrap_or_default(), written.name_any());
        // The next pass need not wait until the watch brings it.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(key, written.clone());
        Ok(written)
    }
}
