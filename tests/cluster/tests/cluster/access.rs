//! Who may do what: users by their rights, nobody by a header.

use serde_json::json;

use crate::world::{World, plain_vm, run, virtctl, xtask};

#[tokio::test]
async fn a_user_without_the_right_is_refused() {
    let world = World::new("access").await;
    let mut vm = plain_vm("guarded");
    vm["spec"]["runStrategy"] = json!("Halted");
    world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
    let kubeconfig = xtask(&["kubeconfig", "--user", "mallory"]).await.unwrap();
    let virtctl = virtctl().display().to_string();
    let call = async |arguments: &[&str]| {
        let all = [arguments, &["-n", &world.namespace, "--kubeconfig", kubeconfig.trim()]].concat();
        run(&virtctl, &all).await
    };
    for arguments in [&["start", "guarded"][..], &["console", "guarded"], &["pause", "vmi", "guarded"]] {
        let refusal = call(arguments).await.unwrap_err();
        assert!(refusal.contains("mallory") && refusal.contains("cannot"), "{arguments:?}: {refusal}");
    }
    // With the role that the product brings for it, the same user may.
    let namespace = world.namespace.as_str();
    run(
        "kubectl",
        &["-n", namespace, "create", "rolebinding", "m", "--clusterrole=kubevirt.io:edit", "--user=mallory"],
    )
    .await
    .unwrap();
    let started = async || Ok(call(&["start", "guarded"]).await.ok());
    world.api.until("the right is in force", crate::world::LONG, started).await.unwrap();
    world.remove().await;
}

#[tokio::test]
async fn a_header_is_no_proof() {
    let world = World::new("forged").await;
    let service = world.api.get("/api/v1/namespaces/kubevirt/endpoints/virt-api").await.unwrap().unwrap();
    let address = service["subsets"][0]["addresses"][0]["ip"].as_str().unwrap();
    let url = format!(
        "https://{address}:8443/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachines/x/start",
        world.namespace
    );
    let code = run(
        "curl",
        &[
            "-sk",
            "-m10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "PUT",
            "-d",
            "{}",
            "-H",
            "X-Remote-User: admin",
            "-H",
            "X-Remote-Group: system:masters",
            &url,
        ],
    )
    .await
    .unwrap();
    assert!(code == "401" || code == "403", "{code}");
    world.remove().await;
}
