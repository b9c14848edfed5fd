//! `cargo xtask cluster install`: the product in a test cluster, by the commands and the manifests of its users.
//!
//! Invariant: afterwards the nodes have the images as they are built now, and no pod of the product runs another. What
//! is there already is left alone, so that a second call takes as long as looking. The shell has virtctl.

mod explain;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::{self, Cluster, Node, kubectl};
use crate::process;
use crate::{images, workspace};

/// Namespace of the product.
pub const NAMESPACE: &str = "kubevirt";
/// The operator, as users apply it.
const OPERATOR: &str = "deploy/kubevirt-operator.yaml";
/// The KubeVirt object: that of deploy/, with emulation where there is no KVM.
const KUBEVIRT: &str = "deploy/test/kubevirt-cr-emulation.yaml";

/// Longest wait for the whole product: images are there, so this is starting some pods one after another.
const DEADLINE: Duration = Duration::from_secs(240);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// An image that nodes shall have.
struct Image {
    name: String,
    file: PathBuf,
    digest: String,
}

/// Installs the product, or what has changed of it, and waits until all of it serves. `tell` gets a line for what is
/// done.
pub fn ensure(cluster: Cluster<'_>, tell: &mut dyn FnMut(&str)) -> Result<()> {
    let nodes = cluster::nodes(cluster)?;
    cluster::offer(&workspace::build_virtctl()?)?;
    let images = images()?;
    let loaded = load(&nodes, &images)?;
    if loaded > 0 {
        tell(&format!("{loaded} images loaded"));
    }
    let installed = install(cluster, &nodes, tell);
    if installed.is_err() && process::check_signals().is_ok() {
        explain::print(cluster);
    }
    installed
}

fn install(cluster: Cluster<'_>, nodes: &[Node<'_>], tell: &mut dyn FnMut(&str)) -> Result<()> {
    apply(cluster, OPERATOR)?;
    // First of all, for what has been mended may be why nothing comes up.
    let replaced = replace_old_pods(cluster, nodes)?;
    if replaced > 0 {
        tell(&format!("{replaced} pods of other images replaced"));
    }
    let crd = "crd/kubevirts.kubevirt.io";
    wait(cluster, &["wait", crd, "--for=condition=Established"])?;
    wait(cluster, &["-n", NAMESPACE, "rollout", "status", "deployment/virt-operator"])?;
    // Its webhook may take a moment longer than its pods.
    let mut refusal = None;
    let applied = process::wait_for("the KubeVirt object to be taken", Duration::from_secs(60), || {
        refusal = apply(cluster, KUBEVIRT).err();
        pause(refusal.is_none())
    });
    applied.map_err(|error| refusal.map_or(error, |refusal| refusal.context("failed to make the KubeVirt object")))?;
    wait(cluster, &["-n", NAMESPACE, "wait", "kv/kubevirt", "--for=condition=Available"])?;
    for part in ["deployment/virt-operator", "deployment/virt-api", "deployment/virt-controller", "ds/virt-handler"] {
        wait(cluster, &["-n", NAMESPACE, "rollout", "status", part])?;
    }
    wait(cluster, &["-n", NAMESPACE, "wait", "kv/kubevirt", "--for=condition=Available"])?;
    tell("the product is installed and Available");
    Ok(())
}

/// Images of the product, of the test guest, and of helpers in tests and demo.
fn images() -> Result<Vec<Image>> {
    let built = images::ensure_all()?.into_iter().map(|image| {
        let digest = image.digest().to_owned();
        Image { name: image.name, file: image.file, digest }
    });
    let file = cluster::busybox()?;
    let digest = cluster::digest(&file)?;
    Ok(built.chain([Image { name: cluster::BUSYBOX.to_owned(), file, digest }]).collect())
}

/// Imports what a node has not, into all nodes at once. Returns how many images that were.
fn load(nodes: &[Node<'_>], images: &[Image]) -> Result<usize> {
    let load = |node: &Node<'_>| {
        let there = cluster::images_on(node)?;
        let missing: Vec<_> = images.iter().filter(|image| there.get(&image.name) != Some(&image.digest)).collect();
        missing.iter().try_for_each(|image| cluster::import(node, &image.file))?;
        Ok(missing.len())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || load(node))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended"))).sum()
    })
}

fn apply(cluster: Cluster<'_>, manifest: &str) -> Result<()> {
    let file = workspace::root().join(manifest);
    let program = kubectl(cluster).args(["apply", "-f"]).arg(&file);
    program.deadline(Duration::from_secs(60)).output().map(drop)
}

/// A call of kubectl that waits by itself.
fn wait(cluster: Cluster<'_>, arguments: &[&str]) -> Result<()> {
    let timeout = format!("--timeout={}s", DEADLINE.as_secs());
    let program = kubectl(cluster).args(arguments).arg(timeout);
    program.deadline(DEADLINE + Duration::from_secs(10)).output().map(drop)
}

fn pause(done: bool) -> Result<Option<()>> {
    if done {
        return Ok(Some(()));
    }
    std::thread::sleep(LOOK);
    Ok(None)
}

/// Deletes the pods of the product whose image is not the one that its name stands for on their node any more. Returns
/// how many those were.
fn replace_old_pods(cluster: Cluster<'_>, nodes: &[Node<'_>]) -> Result<usize> {
    let listed = kubectl(cluster).args(["-n", NAMESPACE, "get", "pods", "-o", "json"]).output()?;
    let listed: Value = serde_json::from_str(&listed).context("failed to parse the list of pods")?;
    let mut old = Vec::new();
    for node in nodes {
        let there = cluster::images_on(node)?;
        old.extend(old_pods(&listed, &node.machine.name, |name| there.get(name).map(String::as_str)));
    }
    if !old.is_empty() {
        let delete = kubectl(cluster).args(["-n", NAMESPACE, "delete", "pod", "--ignore-not-found"]).args(&old);
        delete.deadline(Duration::from_secs(120)).output()?;
    }
    Ok(old.len())
}

/// The pods on a node with an image of another digest than that of its name. `digest` looks names up, those of
/// configurations (`sha256:...`, what a pod's status has) among them.
fn old_pods<'a>(listed: &Value, node: &str, digest: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_old = |container: &Value| {
        let (name, id) = (text(&container["image"]), text(&container["imageID"]));
        // One that has not started yet has none.
        !id.is_empty() && digest(&name).is_some() && digest(&id) != digest(&name)
    };
    let pods = listed["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["nodeName"] == node);
    pods.filter(|pod| {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|list| pod["status"][list].as_array());
        statuses.into_iter().flatten().flatten().any(is_old)
    })
    .map(|pod| text(&pod["metadata"]["name"]))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_old_when_its_name_stands_for_another_image() {
        let pod = |name: &str, node: &str, id: &str| {
            json!({ "metadata": { "name": name }, "spec": { "nodeName": node }, "status": {
                "containerStatuses": [{ "image": "a:1", "imageID": id }] } })
        };
        let listed = json!({ "items": [
            pod("new", "node1", "sha256:c2"), pod("old", "node1", "sha256:c1"), pod("gone", "node1", "sha256:c0"),
            pod("starting", "node1", ""), pod("elsewhere", "node2", "sha256:c1"),
        ] });
        let digest = |name: &str| match name {
            "a:1" | "sha256:c2" => Some("m2"),
            "sha256:c1" => Some("m1"),
            _ => None,
        };
        assert_eq!(old_pods(&listed, "node1", digest), ["old", "gone"]);
        assert!(old_pods(&listed, "node1", |_| None).is_empty(), "an image that was not loaded here is no concern");
    }
}
