//! Scans of real folders, applied to real stores.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::manifests::scan;

struct Case {
    folder: TempDir,
    _state: TempDir,
    store: Store,
    events: Events,
    errors: FileErrors,
    applier: Applier,
    now: Instant,
}

fn vm(name: &str, memory: &str, strategy: &str) -> String {
    format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata:\n  name: {name}\nspec:\n  runStrategy: {strategy}\n  \
         template:\n    spec:\n      domain:\n        devices: {{}}\n        memory:\n          guest: {memory}\n"
    )
}

impl Case {
    fn new() -> Self {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(&state.path().join("objects")).unwrap();
        let events = Events::open(&state.path().join("events"), "host").unwrap();
        let errors = FileErrors::default();
        let applier = Applier::new(store.clone(), events.clone(), ClusterConfig::default(), errors.clone());
        Self { folder, _state: state, store, events, errors, applier, now: Instant::now() }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn apply(&mut self) -> Option<Duration> {
        self.applier.apply(&scan(self.folder.path()).unwrap(), self.now)
    }

    /// Long enough later that what is missing is deleted.
    fn apply_later(&mut self) {
        if self.apply().is_some() {
            self.now += MISSING;
            self.apply();
        }
    }

    fn vm(&self, name: &str) -> Option<VirtualMachine> {
        self.store.read(DEFAULT_NAMESPACE, name)
    }

    fn guest_memory(&self, name: &str) -> String {
        let vm = serde_json::to_value(self.vm(name).unwrap()).unwrap();
        vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_document_makes_changes_and_deletes_its_object() {
    let mut case = Case::new();
    case.write("a.yaml", &vm("a", "96Mi", "Always"));
    case.apply();
    let made = case.vm("a").unwrap();
    assert!(made.spec.template.spec.as_ref().unwrap().domain.firmware.is_some(), "it is defaulted");
    case.store
        .modify(DEFAULT_NAMESPACE, "a", |vm: &mut VirtualMachine| vm.spec.run_strategy = Some("Halted".into()))
        .unwrap();
    case.write("a.yaml", &format!("# a comment\n{}", vm("a", "96Mi", "Always")));
    case.apply();
    assert_eq!(case.vm("a").unwrap().spec.run_strategy.as_deref(), Some("Halted"), "nothing changed in the document");
    case.write("a.yaml", &vm("a", "128Mi", "Always"));
    case.apply();
    let changed = case.vm("a").unwrap();
    assert_eq!((&changed.metadata.uid, changed.spec.run_strategy.as_deref()), (&made.metadata.uid, Some("Always")));
    assert_eq!(case.guest_memory("a"), "128Mi");
    let firmware = |vm: &VirtualMachine| vm.spec.template.spec.as_ref().unwrap().domain.firmware.clone();
    assert_eq!(firmware(&case.vm("a").unwrap()), firmware(&made), "its identity stays");
    fs::remove_file(case.folder.path().join("a.yaml")).unwrap();
    assert!(case.apply().is_some(), "not at once");
    assert!(case.vm("a").is_some());
    case.now += MISSING;
    case.apply();
    assert!(case.vm("a").is_none());
}

#[test]
fn a_wrong_document_keeps_its_object_and_stops_no_other() {
    let mut case = Case::new();
    case.write("a.yaml", &vm("a", "96Mi", "Always"));
    case.apply();
    let wrong = format!("{}      nonsense: 1\n---\n{}", vm("a", "128Mi", "Always"), vm("b", "96Mi", "Halted"));
    case.write("a.yaml", &wrong);
    case.apply_later();
    assert_eq!(case.guest_memory("a"), "96Mi");
    let error = manifest_error(&case.vm("a").unwrap().metadata).unwrap().to_owned();
    assert!(error.contains("nonsense"), "{error}");
    assert!(!is_placeholder(&case.vm("a").unwrap().metadata));
    assert!(case.vm("b").is_some());
    let events = case.events.list(Some(DEFAULT_NAMESPACE));
    assert_eq!(events.iter().filter(|e| e.reason.as_deref() == Some(INVALID)).count(), 1);
    assert_eq!(events[0].count, Some(1), "once for one error, however often it is read");
    case.write("a.yaml", &vm("a", "128Mi", "Always"));
    case.apply_later();
    assert_eq!(case.guest_memory("a"), "128Mi");
    assert!(manifest_error(&case.vm("a").unwrap().metadata).is_none());
    assert!(case.vm("b").is_none() && case.errors.lines().is_empty());
}

#[test]
fn a_document_that_was_never_right_has_a_place_for_its_error() {
    let mut case = Case::new();
    case.write("a.yaml", &vm("a", "96Mi", "Sometimes"));
    case.apply();
    let placeholder = case.vm("a").unwrap();
    assert!(is_placeholder(&placeholder.metadata));
    assert!(manifest_error(&placeholder.metadata).unwrap().contains("Sometimes"));
    assert_eq!(placeholder.spec.run_strategy.as_deref(), Some("Halted"));
    case.write("a.yaml", &vm("a", "96Mi", "Always"));
    case.apply();
    let right = case.vm("a").unwrap();
    assert!(!is_placeholder(&right.metadata) && manifest_error(&right.metadata).is_none());
    assert_eq!(right.metadata.uid, placeholder.metadata.uid);
}

#[test]
fn a_file_in_the_middle_of_being_written_deletes_nothing() {
    let mut case = Case::new();
    let both = format!("{}---\n{}", vm("a", "96Mi", "Always"), vm("b", "96Mi", "Always"));
    case.write("a.yaml", &both);
    case.apply();
    for half in [
        "",
        "\n\n",
        "apiVersion: kubevirt.io/v1\nkind: [",
        &format!("{}---\napiVersion: {{", vm("a", "96Mi", "Always")),
    ] {
        case.write("a.yaml", half);
        case.apply_later();
        assert!(case.vm("a").is_some() && case.vm("b").is_some(), "{half:?}");
        assert_eq!(case.errors.lines().len(), 1, "{half:?}");
    }
}

#[test]
fn an_object_given_twice_names_both_files_and_changes_nothing() {
    let mut case = Case::new();
    case.write("a.yaml", &vm("a", "96Mi", "Always"));
    case.apply();
    case.write("b.yaml", &vm("a", "128Mi", "Always"));
    case.apply_later();
    assert_eq!(case.guest_memory("a"), "96Mi");
    let error = manifest_error(&case.vm("a").unwrap().metadata).unwrap().to_owned();
    assert!(error.contains("a.yaml and b.yaml"), "{error}");
}

#[test]
fn unclear_kinds_and_secrets() {
    let mut case = Case::new();
    case.write("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: x\n");
    case.write("s.yaml", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  userdata: hello\n");
    case.apply();
    assert!(case.errors.lines()[0].starts_with("a.yaml: "), "{:?}", case.errors.lines());
    let secret: k8s_openapi::api::core::v1::Secret = case.store.read(DEFAULT_NAMESPACE, "s").unwrap();
    assert_eq!(secret.data.unwrap()["userdata"].0, b"hello");
}

#[test]
fn a_refused_network_is_told_from_one_that_is_not_there() {
    let mut case = Case::new();
    let nad = |name: &str, config: &str| {
        format!(
            "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: {name}\nspec:\n  \
             config: '{config}'\n"
        )
    };
    let underlay = "apiVersion: holdfast.io/v1alpha1\nkind: UnderlayNetwork\nmetadata:\n  name: under\nspec:\n  \
                    bridge: \"a/b\"\n";
    let path = nad("path", r#"{"type":"../../../../bin/true"}"#);
    case.write("n.yaml", &format!("{}---\n{path}---\n{underlay}", nad("broken", "{")));
    case.apply();
    let of = |case: &Case, kind: Kind, name: &str| case.errors.of(&Key::new(kind, DEFAULT_NAMESPACE, name));
    let (file, text) = of(&case, Kind::NetworkAttachmentDefinition, "broken").unwrap();
    assert_eq!(file, "n.yaml");
    assert!(text.starts_with("spec.config: the CNI configuration is not JSON: EOF"), "{text}");
    let (_, text) = of(&case, Kind::NetworkAttachmentDefinition, "path").unwrap();
    assert!(text.contains("without `/`"), "{text}");
    assert!(of(&case, Kind::UnderlayNetwork, "under").is_some(), "{:?}", case.errors.lines());
    assert_eq!(of(&case, Kind::NetworkAttachmentDefinition, "brok"), None);
    case.write("n.yaml", &nad("broken", r#"{"type":"bridge"}"#));
    case.apply();
    assert_eq!(of(&case, Kind::NetworkAttachmentDefinition, "broken"), None);
}
