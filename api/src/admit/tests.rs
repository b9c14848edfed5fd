//! Answers that no recording has: changes, who may do what, and what depends on other objects.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::addresses::ADDRESSES_ANNOTATION;

const ADMIN: &str = "kubernetes-admin";
const HANDLER: &str = "system:serviceaccount:kubevirt:kubevirt-handler";

#[derive(Default)]
struct Cluster {
    instance: Option<Value>,
    instancetype: Option<Value>,
    preference: Option<Value>,
    migrations: Vec<Value>,
    presets: Vec<Value>,
    workloads: Option<&'static str>,
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

impl Others for Cluster {
    fn instance(&self, namespace: &str, _name: &str) -> Option<VirtualMachineInstance> {
        self.instance.as_ref().filter(|_| namespace == "lab").map(read)
    }
    fn instancetype(&self, _namespace: &str, kind: &str, _name: &str) -> Option<VirtualMachineInstancetypeSpec> {
        assert!(crate::instancetype::is_cluster_wide(kind));
        self.instancetype.as_ref().map(read)
    }
    fn preference(&self, _namespace: &str, _kind: &str, _name: &str) -> Option<VirtualMachinePreferenceSpec> {
        self.preference.as_ref().map(read)
    }
    fn migrations(&self, _namespace: &str, _vmi: &str) -> Vec<VirtualMachineInstanceMigration> {
        self.migrations.iter().map(read).collect()
    }
    fn presets(&self, _namespace: &str) -> Vec<VirtualMachineInstancePreset> {
        self.presets.iter().map(read).collect()
    }
    fn workloads(&self) -> Option<&'static str> {
        self.workloads
    }
}

fn ask(webhook: Webhook, user: &str, object: &Value, old: &Value, others: &Cluster) -> Result<Allowed, ErrorStatus> {
    let operation = match (object, old) {
        (Value::Null, _) => Operation::Delete,
        (_, Value::Null) => Operation::Create,
        _ => Operation::Update,
    };
    let user = User { name: user, groups: &[] };
    let review =
        Review { webhook, operation, name: "a", namespace: "lab", object, old, user, install_namespace: "kubevirt" };
    admit(&review, others, &ClusterConfig::default(), &mut |_| Uuid::from_u128(7), Timestamp::UNIX_EPOCH)
}

fn update(webhook: Webhook, user: &str, old: &Value, change: impl FnOnce(&mut Value)) -> Result<Allowed, ErrorStatus> {
    let mut object = old.clone();
    change(&mut object);
    ask(webhook, user, &object, old, &Cluster::default())
}

fn create(webhook: Webhook, object: &Value, others: &Cluster) -> Result<Allowed, ErrorStatus> {
    ask(webhook, ADMIN, object, &Value::Null, others)
}

fn message(result: Result<Allowed, ErrorStatus>) -> String {
    result.unwrap_err().message
}

fn vmi() -> Value {
    json!({"kind": "VirtualMachineInstance", "metadata": {"name": "a", "labels": {"kubevirt.io/nodeName": "n1"}},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}}, "status": {"phase": "Running"}})
}

fn vm() -> Value {
    json!({"kind": "VirtualMachine", "metadata": {"name": "a", "namespace": "lab"}, "spec": {"runStrategy": "Always",
        "template": {"spec": {"domain": {"devices": {}}}}}})
}

#[test]
fn each_webhook_has_a_path_and_a_name_of_its_own() {
    for webhook in Webhook::ALL {
        assert_eq!(Webhook::of_path(webhook.path()), Some(webhook));
        assert_eq!(Webhook::ALL.iter().filter(|other| other.name() == webhook.name()).count(), 1);
    }
    assert_eq!(Webhook::of_path("/nope"), None);
}

#[test]
fn only_we_write_the_status_of_instances() {
    let fail = |object: &mut Value| object["status"]["phase"] = json!("Failed");
    let kept = update(Webhook::VmiMutate, ADMIN, &vmi(), fail).unwrap();
    assert_eq!(kept.object.unwrap()["status"], json!({"phase": "Running"}));
    assert_eq!(update(Webhook::VmiMutate, HANDLER, &vmi(), fail).unwrap(), Allowed::default());
    let stranger = "system:serviceaccount:elsewhere:kubevirt-handler";
    assert!(update(Webhook::VmiMutate, stranger, &vmi(), fail).unwrap().object.is_some());
    // Without a status before, there is none after.
    let mut young = vmi();
    young.as_object_mut().unwrap().remove("status");
    let kept = update(Webhook::VmiMutate, ADMIN, &young, fail).unwrap();
    assert_eq!(kept.object.unwrap(), young);
}

#[test]
fn instances_keep_their_spec_and_our_labels() {
    let validate = |user: &str, change: fn(&mut Value)| update(Webhook::VmiValidateUpdate, user, &vmi(), change);
    let grow: fn(&mut Value) = |object| object["spec"]["domain"]["memory"]["guest"] = json!("128Mi");
    assert_eq!(message(validate(ADMIN, grow)), "update of VMI object is restricted");
    assert!(validate(HANDLER, grow).is_ok());
    let move_away: fn(&mut Value) = |object| object["metadata"]["labels"]["kubevirt.io/nodeName"] = json!("n2");
    assert!(message(validate(ADMIN, move_away)).starts_with("modification of the following reserved"));
    let forget: fn(&mut Value) = |object| object["metadata"]["labels"] = json!({});
    assert!(validate(ADMIN, forget).is_err());
    assert!(validate(ADMIN, |object| object["metadata"]["labels"]["mine"] = json!("x")).is_ok());
}

#[test]
fn finalizers_always_go() {
    let broken = json!({"metadata": {"name": "a", "finalizers": ["f"]}, "spec": {"template": {}}});
    let going = |object: &mut Value| {
        object["metadata"] = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        object["spec"]["running"] = json!(true);
    };
    for webhook in [Webhook::VmMutate, Webhook::VmValidate, Webhook::ReplicaSetValidate, Webhook::PoolValidate] {
        assert_eq!(update(webhook, ADMIN, &broken, going), Ok(Allowed::default()), "{webhook:?}");
    }
    // What is broken already may get a label.
    let label = |object: &mut Value| object["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(update(Webhook::VmValidate, ADMIN, &broken, label), Ok(Allowed::default()));
    assert!(update(Webhook::VmValidate, ADMIN, &broken, |object| object["spec"]["running"] = json!(true)).is_err());
}

#[test]
fn addresses_that_a_machine_asks_for_are_read_at_once() {
    let ask = |text: &'static str| {
        update(Webhook::VmValidate, ADMIN, &vm(), |object| {
            object["metadata"]["annotations"] = json!({ADDRESSES_ANNOTATION: text});
        })
    };
    assert!(message(ask("192.0.2.10")).contains("valid is JSON by network name"));
    assert!(message(ask(r#"{"lan": "192.0.2.300"}"#)).contains("`192.0.2.300` for network `lan`"));
    assert!(message(ask(r#"{"lan": "192.0.2.10"}"#)).contains("names network `lan`"));
    assert_eq!(ask("{}"), Ok(Allowed::default()));
    let of_the_template = update(Webhook::VmValidate, ADMIN, &vm(), |object| {
        object["spec"]["template"]["metadata"] = json!({"annotations": {ADDRESSES_ANNOTATION: "lan"}});
    });
    let error = of_the_template.unwrap_err();
    assert_eq!(error.causes()[0].field.as_deref(), Some("spec.template.metadata.annotations"));
}

#[test]
fn a_replaced_machine_keeps_its_identity() {
    let made = create(Webhook::VmMutate, &vm(), &Cluster::default()).unwrap().object.unwrap();
    let firmware = |object: &Value| object["spec"]["template"]["spec"]["domain"]["firmware"].clone();
    let mut old = made.clone();
    old["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"] = json!(Uuid::from_u128(1).to_string());
    let again = ask(Webhook::VmMutate, ADMIN, &vm(), &old, &Cluster::default()).unwrap().object.unwrap();
    assert_eq!(firmware(&again)["uuid"], firmware(&old)["uuid"]);
    assert_eq!(firmware(&again)["serial"], firmware(&made)["serial"]);
}

#[test]
fn machines_name_cluster_wide_sizes_without_a_kind() {
    let mut sized = vm();
    sized["spec"]["instancetype"] = json!({"name": "small"});
    sized["spec"]["preference"] = json!({"name": "linux"});
    let preference = json!({"preferredArchitecture": "arm64", "machine": {"preferredMachineType": "virt-9.0"}});
    let others = Cluster { preference: Some(preference), ..Cluster::default() };
    let made = create(Webhook::VmMutate, &sized, &others).unwrap().object.unwrap();
    assert_eq!(made["spec"]["instancetype"]["kind"], "virtualmachineclusterinstancetype");
    assert_eq!(made["spec"]["preference"]["kind"], "virtualmachineclusterpreference");
    let spec = &made["spec"]["template"]["spec"];
    assert_eq!((&spec["architecture"], &spec["domain"]["machine"]["type"]), (&json!("arm64"), &json!("virt-9.0")));
}

#[test]
fn a_machine_is_judged_with_its_size() {
    let mut sized = vm();
    sized["spec"]["instancetype"] = json!({"name": "small"});
    let size = |cpu: i64| json!({"cpu": {"guest": cpu}, "memory": {"guest": "64Mi"}, "nodeSelector": {"a": "b"}});
    let mut others = Cluster { instancetype: Some(size(2)), ..Cluster::default() };
    assert!(create(Webhook::VmValidate, &sized, &others).is_ok());
    sized["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "c"});
    assert_eq!(
        message(create(Webhook::VmValidate, &sized, &others)),
        "VM field(s) spec.template.spec.nodeSelector.a conflicts with selected instance type"
    );
    sized["spec"]["template"]["spec"]["nodeSelector"] = json!({});
    sized["spec"]["preference"] = json!({"name": "big"});
    others.preference = Some(json!({"requirements": {"cpu": {"guest": 4}}}));
    assert!(message(create(Webhook::VmValidate, &sized, &others)).starts_with("insufficient CPU resources of 2 vCPU"));
    others.instancetype = Some(size(4));
    assert!(create(Webhook::VmValidate, &sized, &others).is_ok());
}

#[test]
fn pools_keep_their_selector() {
    let machine = json!({"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}}}});
    let pool = json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "virtualMachineTemplate": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": machine}}});
    assert!(create(Webhook::PoolValidate, &pool, &Cluster::default()).is_ok());
    let reselect = |object: &mut Value| object["spec"]["selector"]["matchLabels"] = json!({"c": "d"});
    assert_eq!(message(update(Webhook::PoolValidate, ADMIN, &pool, reselect)), "selector is immutable after creation.");
    let mut broken = pool;
    broken["spec"]["virtualMachineTemplate"]["spec"]["template"]["spec"]["networks"] =
        json!([{"name": "x", "pod": {}}]);
    let error = create(Webhook::PoolValidate, &broken, &Cluster::default()).unwrap_err();
    let field = error.causes()[0].field.clone().unwrap();
    assert_eq!(field, "spec.virtualMachineTemplate.spec.template.spec.networks[0].name");
}

#[test]
fn a_migration_moves_what_can_be_moved_once() {
    let migration = json!({"metadata": {"name": "m"}, "spec": {"vmiName": "a"}});
    let made = create(Webhook::MigrationMutateCreate, &migration, &Cluster::default()).unwrap().object.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"kubevirt.io/vmi-name": "a"}));
    assert_eq!(made["metadata"]["finalizers"], json!(["kubevirt.io/migrationJobFinalize"]));
    let mut others = Cluster { instance: Some(vmi()), ..Cluster::default() };
    let validate = |others: &Cluster| create(Webhook::MigrationValidateCreate, &made, others);
    assert!(validate(&others).is_ok());
    others.migrations = vec![json!({"metadata": {"uid": "u"}, "spec": {}, "status": {"phase": "Running"}})];
    assert!(message(validate(&others)).starts_with("in-flight migration detected. Active migration job (u)"));
    others.migrations[0]["status"]["phase"] = json!("Failed");
    assert!(validate(&others).is_ok());
    others.instance.as_mut().unwrap()["status"] = json!({"conditions": [{"type": "LiveMigratable", "status": "False",
        "reason": "R", "message": "M"}]});
    assert_eq!(message(validate(&others)), "Cannot migrate VMI, Reason: R, Message: M");
    let retarget = |object: &mut Value| object["spec"]["vmiName"] = json!("b");
    let refused = update(Webhook::MigrationValidateUpdate, ADMIN, &made, retarget);
    assert_eq!(message(refused), "update of Migration object's spec is restricted");
}

#[test]
fn presets_fill_in_and_never_override() {
    let preset = |name: &str, domain: Value| json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"os": "x"}}, "domain": domain}});
    let mut new = json!({"metadata": {"name": "a", "labels": {"os": "x"}},
        "spec": {"domain": {"devices": {}, "cpu": {"cores": 2}, "memory": {"guest": "64Mi"}}}});
    let cores = preset("cores", json!({"devices": {}, "cpu": {"cores": 4}}));
    let model = preset("model", json!({"devices": {}, "cpu": {"model": "Nehalem"}}));
    let others = Cluster { presets: vec![cores.clone(), model], ..Cluster::default() };
    let made = create(Webhook::VmiMutate, &new, &others).unwrap().object.unwrap();
    assert_eq!(made["spec"]["domain"]["cpu"]["cores"], 2);
    assert_eq!(made["spec"]["domain"]["cpu"]["model"], "Nehalem");
    let annotations = made["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations.contains_key("virtualmachinepreset.kubevirt.io/model"));
    assert!(!annotations.contains_key("virtualmachinepreset.kubevirt.io/cores"));
    let others =
        Cluster { presets: vec![cores, preset("more", json!({"cpu": {"cores": 8}, "devices": {}}))], ..others };
    assert!(message(create(Webhook::VmiMutate, &new, &others)).contains("spec.domain.cpu.cores"));
    new["metadata"]["labels"]["os"] = json!("y");
    assert!(create(Webhook::VmiMutate, &new, &others).is_ok());
}

#[test]
fn an_installation_in_use_can_be_kept() {
    let kubevirt = |strategy: &str| json!({"metadata": {"name": "a"}, "spec": {"uninstallStrategy": strategy}});
    let ask = |strategy: &str, workloads| {
        let others = Cluster { workloads, ..Cluster::default() };
        ask(Webhook::KubeVirtValidateDelete, ADMIN, &Value::Null, &kubevirt(strategy), &others)
    };
    let blocked = ask("BlockUninstallIfWorkloadsExist", Some("Virtual Machines"));
    assert!(message(blocked).contains("there are still Virtual Machines present"));
    assert!(ask("BlockUninstallIfWorkloadsExist", None).is_ok());
    assert!(ask("RemoveWorkloads", Some("Virtual Machines")).is_ok());
}

#[test]
fn a_misspelt_uninstall_strategy_is_refused() {
    let with = |strategy: &str| {
        let object = json!({"metadata": {"name": "a"}, "spec": {"uninstallStrategy": strategy}});
        create(Webhook::KubeVirtValidateCreate, &object, &Cluster::default())
    };
    for known in ["", "RemoveWorkloads", "BlockUninstallIfWorkloadsExist"] {
        assert!(with(known).is_ok(), "{known}");
    }
    let refusal = message(with("BlockUninstallIfWorkloadExist"));
    assert!(refusal.contains("BlockUninstallIfWorkloadExist: it must be RemoveWorkloads or Block"), "{refusal}");
}

#[test]
fn a_configuration_must_make_sense() {
    let with = |configuration: Value| {
        let object = json!({"metadata": {"name": "a"}, "spec": {"configuration": configuration}});
        create(Webhook::KubeVirtValidateCreate, &object, &Cluster::default())
    };
    assert!(with(json!({"developerConfiguration": {"featureGates": ["HostDisk"]}})).is_ok());
    let both = json!({"developerConfiguration": {"featureGates": ["A"], "disabledFeatureGates": ["A"]}});
    assert_eq!(message(with(both)), "feature gate A is both enabled and disabled");
    assert!(with(json!({"evictionStrategy": "Sometimes"})).is_err());
    assert!(with(json!({"additionalGuestMemoryOverheadRatio": "much"})).is_err());
    let patches = json!({"metadata": {"name": "a"}, "spec": {"customizeComponents": {"patches": [
        {"resourceName": "*", "resourceType": "Deployment", "type": "json", "patch": "{"}]}}});
    assert!(message(create(Webhook::KubeVirtValidateCreate, &patches, &Cluster::default())).contains("not JSON"));
}
