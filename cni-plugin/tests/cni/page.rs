//! The list of docs/attach-pods.md, driven by the reference runtime as it stands there but for its name and the socket.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cnitool::{address, ping};
use crate::host::Host;
use crate::reference::Runtime;

#[test]
fn the_list_of_the_page_joins_pods() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/attach-pods.md");
    let text = fs::read_to_string(page).unwrap();
    let block = text.split_once("```json\n").unwrap().1.split_once("```").unwrap().0;
    let mut list: Value = serde_json::from_str(block).unwrap();
    assert_eq!(list["plugins"][0]["agentSocket"], "/run/holdfast/cni.sock");
    let host = Host::started();
    list["name"] = json!("lab");
    list["plugins"][0]["agentSocket"] = json!(host.socket());
    let runtime = Runtime::on(&host);
    runtime.write(&list);
    let pods = [host.pod(), host.pod()];
    let results = pods.each_ref().map(|pod| runtime.add(&pod.path));
    ping(&pods[0], &address(&results[1]));
    ping(&pods[1], &address(&results[0]));
    pods.iter().for_each(|pod| runtime.done("del", &pod.path));
    host.assert_clean();
}
