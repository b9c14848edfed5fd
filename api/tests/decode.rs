//! Decoding: what is accepted, and the words for what is not.
#![allow(clippy::unwrap_used)]

use holdfast_api::decode::{
    DecodeError, FieldPath, Location, Object, Wrong, decode_documents, decode_json, decode_yaml, locate,
};

const VM: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: one
  namespace: lab
spec:
  runStrategy: Always
  template:
    spec:
      domain:
        devices:
          interfaces:
          - name: default
            masquerade: {}
        resources:
          limits:
            cpu: 2
            memory: 64Mi
      networks:
      - name: default
        pod: {}
";

fn vm(more: &str, after: &str) -> String {
    VM.replacen(after, &format!("{after}{more}"), 1)
}

fn message(text: &str) -> String {
    decode_yaml(text).unwrap_err().to_string()
}

fn at(error: &DecodeError) -> (usize, usize) {
    let Location { line, column } = error.location().unwrap();
    (line, column)
}

#[test]
fn a_vm_is_decoded() {
    let object = decode_yaml(VM).unwrap();
    assert_eq!((object.kind(), object.namespace(), object.name()), ("VirtualMachine", Some("lab"), "one"));
    let Object::VirtualMachine(vm) = object else { panic!("not a VM") };
    let spec = vm.spec.template.spec.unwrap();
    assert_eq!(spec.domain.resources.unwrap().limits["cpu"].0, "2");
}

#[test]
fn v1alpha3_is_v1() {
    let old = VM.replace("kubevirt.io/v1", "kubevirt.io/v1alpha3");
    assert_eq!(decode_yaml(&old).unwrap(), decode_yaml(VM).unwrap());
}

#[test]
fn all_unknown_fields_are_reported_at_once() {
    let text = vm("            foo: 1\n", "masquerade: {}\n");
    let text = text.replace("  runStrategy", "  bar: {a: 1}\n  runStrategy");
    let error = decode_yaml(&text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "VirtualMachine in version \"v1\" cannot be handled as a VirtualMachine: \
         strict decoding error: unknown field \"spec.bar\", \
         unknown field \"spec.template.spec.domain.devices.interfaces[0].foo\""
    );
    assert_eq!(at(&error), (7, 3));
    assert_eq!(error.problems()[1].location, Some(Location { line: 16, column: 13 }));
}

#[test]
fn types_that_are_not_ours_are_strict_too() {
    for (more, after, path) in [
        ("  lables: {}\n", "  namespace: lab\n", "metadata.lables"),
        ("      affinity: {nodeAfinity: {}}\n", "    spec:\n", "spec.template.spec.affinity.nodeAfinity"),
        (
            "      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpression: []}]}}}\n",
            "    spec:\n",
            "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpression",
        ),
        ("status: {foo: 1}\n", "pod: {}\n", "status.foo"),
        ("foo: 1\n", "pod: {}\n", "foo"),
        ("            masqurade:\n", "name: default\n", "spec.template.spec.domain.devices.interfaces[0].masqurade"),
    ] {
        let error = message(&vm(more, after));
        assert!(error.ends_with(&format!("strict decoding error: unknown field \"{path}\"")), "{error}");
    }
}

#[test]
fn doubled_keys_are_errors() {
    let error = decode_yaml(&vm("  name: two\n", "  name: one\n")).unwrap_err();
    assert!(error.to_string().ends_with("strict decoding error: duplicate field \"metadata.name\""));
    let error = decode_json(r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","a":"2"}}"#).unwrap_err();
    assert_eq!(error.problems()[0].wrong, Wrong::Duplicate);
    assert_eq!(error.problems()[0].path.to_string(), "data.a");
}

#[test]
fn wrong_types_have_the_servers_words() {
    for (more, after, expected) in [
        (
            "        cpu: {cores: two}\n",
            "domain:\n",
            "spec.template.spec.domain.cpu.cores in body must be of type integer: \"string\"",
        ),
        (
            "            state: 1\n",
            "name: default\n",
            "spec.template.spec.domain.devices.interfaces.state in body must be of type string: \"integer\"",
        ),
        (
            "      tolerations: {}\n",
            "    spec:\n",
            "spec.template.spec.tolerations in body must be of type array: \"object\"",
        ),
        (
            "      affinity: []\n",
            "    spec:\n",
            "spec.template.spec.affinity in body must be of type object: \"array\"",
        ),
        (
            "          filesystems: [{name: a}]\n",
            "devices:\n",
            "spec.template.spec.domain.devices.filesystems.virtiofs in body is required",
        ),
    ] {
        assert_eq!(message(&vm(more, after)), expected);
    }
    let error = decode_yaml(&vm("        cpu:\n          cores: two\n", "domain:\n")).unwrap_err();
    assert_eq!(at(&error), (12, 11));
}

#[test]
fn null_is_not_given() {
    let text = vm("      volumes:\n      accessCredentials: null\n", "    spec:\n");
    assert_eq!(decode_yaml(&text).unwrap(), decode_yaml(VM).unwrap());
    assert_eq!(
        message(&VM.replace("  runStrategy: Always\n  template:", "  template:\n  x:")),
        "VirtualMachine in version \"v1\" cannot be handled as a VirtualMachine: strict decoding error: unknown field \"spec.x\"; spec.template in body is required"
    );
}

#[test]
fn what_is_no_object_of_ours_is_told_what_is() {
    for (text, words) in [
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "failed to decode Deployment of apps/v1: supported are VirtualMachine (kubevirt.io/v1), ",
        ),
        ("apiVersion: kubevirt.io/v2\nkind: VirtualMachine", "failed to decode VirtualMachine of kubevirt.io/v2: "),
        ("kind: VirtualMachine", "`apiVersion` must be a string, and it is not there"),
        ("apiVersion: 1", "`apiVersion` must be a string, and it is integer"),
        ("[]", "`apiVersion` must be a string, and it is not there"),
    ] {
        let error = message(text);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_secret_stays_secret() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: hunter2!}\n";
    let error = decode_yaml(text).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    assert!(error.to_string().contains("data.a"), "{error}");
}

#[test]
fn values_that_cannot_be_are_shown() {
    let network = |field: &str| {
        message(&format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: UnderlayNetwork\nmetadata: {{name: n}}\nspec: {{backend: ovs, {field}}}\n"
        ))
    };
    let error = network("datapath: dpdk");
    assert!(error.starts_with("spec.datapath: ") && error.contains("`dpdk`") && error.contains("`netdev`"), "{error}");
    let error = network("subnets: [{cidr: 10.0.0.0/99}]");
    assert!(error.starts_with("spec.subnets[0].cidr: "), "{error}");
}

#[test]
fn one_bad_document_hides_no_other() {
    let text = format!(
        "# all of it\n---\n{VM}---\n# nothing\n---\nfoo: [\n---\nkind: X\n--- # inline\n{}...\n",
        VM.replace("one", "two")
    );
    let documents = decode_documents(&text);
    let names: Vec<_> = documents.iter().map(|d| d.object.as_ref().map(|o| o.name().to_owned()).ok()).collect();
    assert_eq!(names, [Some("one".to_owned()), None, None, Some("two".to_owned())]);
    assert_eq!(documents.iter().map(|d| d.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let (line, _) = at(documents[1].object.as_ref().unwrap_err());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[line - 2..line], ["foo: [", "---"]);
    assert_eq!(documents[2].identity.as_ref().unwrap().kind, "X");
    // Cutting one out leaves the others.
    let mut cut = text.clone();
    cut.replace_range(documents[0].range.clone(), "");
    let left = decode_documents(&cut);
    assert_eq!(left.len(), 3);
    assert_eq!(left[2].object, documents[3].object);
    assert!(cut.starts_with("# all of it\n---\n# nothing\n"));
}

#[test]
fn places_are_those_of_the_whole_text() {
    let text = format!("{VM}---\n{}", vm("  foo: 1\n", "spec:\n"));
    let documents = decode_documents(&text);
    let (line, column) = at(documents[1].object.as_ref().unwrap_err());
    assert_eq!((text.lines().nth(line - 1), column), (Some("  foo: 1"), 3));
    assert_eq!(documents[1].identity.as_ref().unwrap().name, "one");
}

#[test]
fn anchors_merges_and_odd_keys() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: &l {a: b}, annotations: {<<: *l, c: d}}\ndata: {1: x, true: y}\n";
    let Object::ConfigMap(map) = decode_yaml(text).unwrap() else { panic!("not a ConfigMap") };
    assert_eq!(map.data.unwrap().keys().collect::<Vec<_>>(), ["1", "true"]);
    assert_eq!(map.metadata.annotations.unwrap().keys().collect::<Vec<_>>(), ["a", "c"]);
    for bad in ["a: !x 1", "a: .nan", "a: {<<: 1}", "? [a]\n: 1", "a: *nope", "a: 1\nb"] {
        let error = decode_yaml(bad).unwrap_err();
        assert!(matches!(&error, DecodeError::Syntax { .. }), "{bad}: {error:?}");
    }
}

#[test]
fn a_field_that_is_missing_is_at_its_parent() {
    let path = FieldPath::default().field("spec").field("template").field("metadata");
    assert_eq!(locate(VM, &path), Some(Location { line: 8, column: 3 }));
    assert_eq!(locate(VM, &FieldPath::default()), None);
}

/// Each place takes reading the text again: a text that is wrong throughout is not read as often as it has lines.
#[test]
fn of_many_problems_all_are_told_and_the_first_with_their_places() {
    let unknown: String = (0..1000).map(|number| format!("unknown{number}: x\n")).collect();
    let error = decode_yaml(&format!("apiVersion: v1\nkind: ConfigMap\n{unknown}")).unwrap_err();
    let DecodeError::Fields { problems, .. } = error else { panic!("{error}") };
    assert_eq!(problems.len(), 1000);
    assert_eq!(problems[0].location, Some(Location { line: 3, column: 1 }));
    assert_eq!(problems.iter().filter(|problem| problem.location.is_some()).count(), 50);
}
