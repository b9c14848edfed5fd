//! Cases as folders: `current.json` is brought about first, `desired.json` is planned on top of it, `plan.txt` is what
//! must come out. `UPDATE_CASES=1` writes the plans anew, for a look at the difference.

use std::fs;
use std::path::Path;

use holdfast_net::desired::DesiredState;
use holdfast_net::model::{Attachment, AttachmentId, Binding};
use holdfast_net::plan::plan;
use holdfast_net::{attachment, binding};
use serde::Deserialize;

use crate::fake::Fake;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    attachments: Vec<Attachment>,
    bindings: Vec<Binding>,
    without: Vec<AttachmentId>,
    without_unused: bool,
}

impl Wanted {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn desired(&self) -> DesiredState {
        let attachments = self.attachments.iter().map(attachment::desired);
        let bindings = self.bindings.iter().map(|bound| binding::desired(bound).unwrap());
        let unused = self.without_unused.then(DesiredState::without_unused);
        attachments
            .chain(bindings)
            .chain([DesiredState::without(&self.without)])
            .chain(unused)
            .reduce(|all, one| all.merge(one).unwrap())
            .unwrap()
    }
}

#[test]
fn plans_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planner/cases");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut different = Vec::new();
    for case in cases {
        let mut fake = Fake::new(2, true);
        let current = Wanted::read(&case.join("current.json")).desired();
        fake.apply(&plan(&current, &fake.observe()).unwrap());
        let desired = Wanted::read(&case.join("desired.json")).desired();
        let steps = match plan(&desired, &fake.observe()) {
            Ok(steps) => steps.to_string(),
            Err(error) => format!("{error}\n"),
        };
        let expected = case.join("plan.txt");
        if std::env::var_os("UPDATE_CASES").is_some() {
            fs::write(&expected, &steps).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != steps {
            different.push(format!("{}:\n{steps}", case.display()));
        }
    }
    assert!(different.is_empty(), "other plans than written:\n{}", different.join("\n"));
}
