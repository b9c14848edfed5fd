//! What the status of a KubeVirt object says: pure. Words are those of KubeVirt 1.9, by which tools go.

use holdfast_api::kubevirt::{GenerationStatus, KubeVirtCondition, KubeVirtStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::target::Target;

/// Where an installation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Objects are made, or components are not ready.
    Deploying,
    /// The same, from one version to another.
    Updating,
    /// All is there and ready.
    Deployed,
    /// It cannot go on.
    Failed(String),
}

/// The status of an installation that is in `state`.
pub fn installing(
    before: &KubeVirtStatus,
    target: &Target,
    state: &State,
    created: bool,
    generations: Vec<GenerationStatus>,
    now: Timestamp,
) -> KubeVirtStatus {
    let mut status = before.clone();
    let config = target.deployment_config().to_string();
    status.operator_version = Some(format!("v{}", env!("CARGO_PKG_VERSION")));
    status.default_architecture = Some(target.config.architecture.clone());
    status.target_kube_virt_registry = Some(target.registry.clone());
    status.target_kube_virt_version = Some(target.version.clone());
    status.target_deployment_id = Some(target.id());
    status.target_deployment_config = Some(config.clone());
    if !generations.is_empty() {
        status.generations = generations;
    }
    let mut conditions = Conditions { list: &mut status.conditions, now };
    match state {
        State::Deploying => {
            let message = format!("Deploying version {} with registry {}", target.version, target.registry);
            conditions.set_all([false, true, false], "DeploymentInProgress", &message);
            conditions.remove("Synchronized");
        }
        State::Updating => {
            let message = format!(
                "Transitioning from previous version {} with registry {} to target version {} with registry {}",
                before.observed_kube_virt_version.as_deref().unwrap_or_default(),
                before.observed_kube_virt_registry.as_deref().unwrap_or_default(),
                target.version,
                target.registry
            );
            conditions.set_all([true, true, true], "UpdateInProgress", &message);
            conditions.remove("Synchronized");
        }
        State::Deployed => {
            conditions.set_all([true, false, false], "AllComponentsReady", "All components are ready.");
            conditions.remove("Synchronized");
        }
        State::Failed(error) => conditions.fail(error),
    }
    if created {
        conditions.set("Created", true, "AllResourcesCreated", "All resources were created.");
    }
    match state {
        State::Deployed => {
            status.phase = Some("Deployed".to_owned());
            status.observed_kube_virt_registry.clone_from(&status.target_kube_virt_registry);
            status.observed_kube_virt_version.clone_from(&status.target_kube_virt_version);
            status.observed_deployment_id.clone_from(&status.target_deployment_id);
            status.observed_deployment_config = Some(config);
        }
        _ if status.observed_deployment_id != status.target_deployment_id => {
            status.phase = Some("Deploying".to_owned());
        }
        _ => {}
    }
    status
}

/// The status of an object of which nobody can tell what is to be installed.
pub fn unclear(before: &KubeVirtStatus, error: &str, now: Timestamp) -> KubeVirtStatus {
    let mut status = before.clone();
    Conditions { list: &mut status.conditions, now }.fail(error);
    status
}

/// The status of an installation that is going.
pub fn deleting(before: &KubeVirtStatus, error: Option<&str>, now: Timestamp) -> KubeVirtStatus {
    let mut status = before.clone();
    status.phase = Some("Deleting".to_owned());
    let mut conditions = Conditions { list: &mut status.conditions, now };
    conditions.remove("Created");
    conditions.set_all([false, false, true], "DeletionInProgress", "Deletion was triggered");
    match error {
        Some(error) => {
            let message = format!("An error occurred during deletion: {error}");
            conditions.set("Synchronized", false, "DeletionFailed", &message);
        }
        None => conditions.remove("Synchronized"),
    }
    status
}

/// The status of an installation that is gone.
pub fn deleted(before: &KubeVirtStatus) -> KubeVirtStatus {
    let mut status = before.clone();
    status.phase = Some("Deleted".to_owned());
    status
}

/// The status of an object that nothing comes of.
pub fn refused(before: &KubeVirtStatus, message: &str, now: Timestamp) -> KubeVirtStatus {
    let mut status = before.clone();
    let mut conditions = Conditions { list: &mut status.conditions, now };
    conditions.set("Synchronized", false, "ExistingDeployment", message);
    status
}

/// Conditions, which change only where they say something else.
struct Conditions<'a> {
    list: &'a mut Vec<KubeVirtCondition>,
    now: Timestamp,
}

impl Conditions<'_> {
    /// Available, Progressing and Degraded.
    fn set_all(&mut self, states: [bool; 3], reason: &str, message: &str) {
        for (name, state) in ["Available", "Progressing", "Degraded"].into_iter().zip(states) {
            self.set(name, state, reason, message);
        }
    }

    fn fail(&mut self, error: &str) {
        let message = format!("An error occurred during deployment: {error}");
        self.set("Synchronized", false, "DeploymentFailed", &message);
        self.set("Degraded", true, "DeploymentFailed", &message);
    }

    fn set(&mut self, name: &str, state: bool, reason: &str, message: &str) {
        let now: Value = json!(self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let status = if state { "True" } else { "False" }.to_owned();
        let fresh = |transition: Value| KubeVirtCondition {
            r#type: name.to_owned(),
            status: status.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(transition),
            last_probe_time: Some(now.clone()),
        };
        match self.list.iter_mut().find(|condition| condition.r#type == name) {
            // As KubeVirt has it: null until a condition changes for the first time.
            None => self.list.push(fresh(Value::Null)),
            Some(known) if known.status != status => *known = fresh(now.clone()),
            Some(known) if known.reason.as_deref() != Some(reason) || known.message.as_deref() != Some(message) => {
                *known = fresh(known.last_transition_time.take().unwrap_or(Value::Null));
            }
            Some(_) => {}
        }
    }

    fn remove(&mut self, name: &str) {
        self.list.retain(|condition| condition.r#type != name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::target::tests::target;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn step(before: &KubeVirtStatus, version: &str, state: State, time: &str) -> KubeVirtStatus {
        let target = target(json!({"imageRegistry": "localhost", "imageTag": version}));
        let created = state == State::Deployed;
        installing(before, &target, &state, created, Vec::new(), at(time))
    }

    fn conditions(status: &KubeVirtStatus) -> Vec<(&str, &str, &str)> {
        let of = |c: &'_ KubeVirtCondition| (c.r#type.clone(), c.status.clone(), c.reason.clone().unwrap());
        let list: Vec<_> = status.conditions.iter().map(of).collect();
        list.into_iter().map(|(a, b, c)| (&*a.leak(), &*b.leak(), &*c.leak())).collect()
    }

    #[test]
    fn deploying_is_as_observed() {
        let status = step(&KubeVirtStatus::default(), "1", State::Deploying, "2026-11-22T02:44:09.5Z");
        let condition = |name: &str, status: &str| {
            json!({"lastProbeTime": "2026-11-22T02:44:09Z", "lastTransitionTime": null,
                "message": "Deploying version 1 with registry localhost", "reason": "DeploymentInProgress",
                "status": status, "type": name})
        };
        let written = serde_json::to_value(&status).unwrap();
        assert_eq!(
            written["conditions"],
            json!([condition("Available", "False"), condition("Progressing", "True"), condition("Degraded", "False")])
        );
        assert_eq!(written["phase"], "Deploying");
        assert_eq!(written["targetKubeVirtVersion"], "1");
        assert_eq!(written["targetKubeVirtRegistry"], "localhost");
        assert_eq!(written["defaultArchitecture"], "amd64");
        assert!(written.get("observedKubeVirtVersion").is_none());
    }

    #[test]
    fn what_changes_nothing_is_the_same() {
        let first = step(&KubeVirtStatus::default(), "1", State::Deploying, "2026-01-01T00:00:00Z");
        assert_eq!(step(&first, "1", State::Deploying, "2026-01-01T01:00:00Z"), first);
        let done = step(&first, "1", State::Deployed, "2026-01-01T02:00:00Z");
        assert_eq!(step(&done, "1", State::Deployed, "2026-01-01T03:00:00Z"), done);
    }

    #[test]
    fn an_update_says_from_where_to_where() {
        let done = step(&KubeVirtStatus::default(), "1", State::Deployed, "2026-01-01T00:00:00Z");
        assert_eq!(done.phase.as_deref(), Some("Deployed"));
        assert_eq!(done.observed_deployment_id, done.target_deployment_id);
        let updating = step(&done, "2", State::Updating, "2026-01-01T01:00:00Z");
        assert_eq!(updating.phase.as_deref(), Some("Deploying"));
        assert_eq!(updating.observed_kube_virt_version.as_deref(), Some("1"));
        assert_eq!(
            conditions(&updating),
            [
                ("Available", "True", "UpdateInProgress"),
                ("Progressing", "True", "UpdateInProgress"),
                ("Degraded", "True", "UpdateInProgress"),
                ("Created", "True", "AllResourcesCreated"),
            ]
        );
        assert_eq!(
            updating.conditions[0].message.as_deref().unwrap(),
            "Transitioning from previous version 1 with registry localhost to target version 2 with registry localhost"
        );
        let updated = step(&updating, "2", State::Deployed, "2026-01-01T02:00:00Z");
        assert_eq!(updated.observed_kube_virt_version.as_deref(), Some("2"));
        assert_eq!(updated.phase.as_deref(), Some("Deployed"));
    }

    #[test]
    fn a_component_that_is_gone_for_a_while_does_not_undo_the_installation() {
        let done = step(&KubeVirtStatus::default(), "1", State::Deployed, "2026-01-01T00:00:00Z");
        let restarting = step(&done, "1", State::Deploying, "2026-01-01T01:00:00Z");
        assert_eq!(restarting.phase.as_deref(), Some("Deployed"));
        assert_eq!(conditions(&restarting)[0], ("Available", "False", "DeploymentInProgress"));
    }

    #[test]
    fn a_failure_is_told_and_ends() {
        let failed = step(&KubeVirtStatus::default(), "1", State::Failed("no".to_owned()), "2026-01-01T00:00:00Z");
        assert_eq!(conditions(&failed)[0], ("Synchronized", "False", "DeploymentFailed"));
        let done = step(&failed, "1", State::Deployed, "2026-01-01T01:00:00Z");
        assert!(conditions(&done).iter().all(|(name, ..)| *name != "Synchronized"));
    }

    #[test]
    fn a_deletion_ends_what_was_created() {
        let done = step(&KubeVirtStatus::default(), "1", State::Deployed, "2026-01-01T00:00:00Z");
        let going = deleting(&done, None, at("2026-01-01T01:00:00Z"));
        assert_eq!(going.phase.as_deref(), Some("Deleting"));
        assert_eq!(
            conditions(&going),
            [
                ("Available", "False", "DeletionInProgress"),
                ("Progressing", "False", "DeletionInProgress"),
                ("Degraded", "True", "DeletionInProgress"),
            ]
        );
        assert_eq!(deleted(&going).phase.as_deref(), Some("Deleted"));
    }
}
