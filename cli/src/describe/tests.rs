//! Sheets of a VM and of its VMI, against the texts in `testdata`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::machine;

fn now() -> Timestamp {
    "2026-11-22T03:20:00Z".parse().unwrap()
}

fn objects() -> Value {
    serde_json::from_str(include_str!("testdata/objects.json")).unwrap()
}

#[test]
fn a_vm_with_its_instance() {
    let objects = objects();
    let sheet = machine::vm(&objects["vm"], &objects["vmi"], &objects["vmEvents"], now());
    assert_eq!(sheet, include_str!("testdata/vm.txt"));
}

#[test]
fn a_vmi() {
    let objects = objects();
    let sheet = machine::vmi(&objects["vmi"], &objects["vmiEvents"], now());
    assert_eq!(sheet, include_str!("testdata/vmi.txt"));
}

#[test]
fn what_is_not_there_is_left_out() {
    let bare = json!({"metadata": {"name": "a", "namespace": "default"}});
    let sheet = machine::vm(&bare, &Value::Null, &Value::Null, now());
    let expected = "\
Name:         a
Namespace:    default
Labels:       <none>
Annotations:  <none>
Status:
  Instance:  <none>
Spec:
  CPU:  1 (sockets 1, cores 1, threads 1)
Interfaces:  <none>
Volumes:  <none>
Conditions:  <none>
Events:  <none>
";
    assert_eq!(sheet, expected);
}

#[test]
fn secrets_in_cloud_init_are_not_shown() {
    let vmi = json!({"spec": {"volumes": [
        {"name": "init", "cloudInitNoCloud": {"userData": "password: hunter2", "secretRef": {"name": "s"}}},
    ]}});
    let sheet = machine::vmi(&vmi, &Value::Null, now());
    assert!(sheet.contains("cloudInitNoCloud") && !sheet.contains("hunter2"), "{sheet}");
}
