//! Writing what becomes of a VMI into its status, and telling it as events.

use holdfast_agent::vmi::VmiReport;
use holdfast_agent::vmi::status::{OccurrenceKind, derive, events};
use holdfast_api::defaults::VMI_FINALIZER;
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceCondition, VirtualMachineInstanceStatus};
use holdfast_api::status::{self, Condition};
use k8s_openapi::jiff::Timestamp;

use super::SetupError;
use crate::host::{Host, chain};
use crate::sandbox::Record;
use crate::store::{EventKind, Involved};

/// Who says what a node's agent says.
pub const HANDLER: &str = "virt-handler";
/// Who says what a cluster's controllers say.
pub const CONTROLLER: &str = "virtualmachine-controller";

/// One VMI's place in the store.
#[derive(Clone)]
pub struct Teller<'a> {
    host: &'a Host,
    namespace: String,
    name: String,
    uid: String,
}

impl<'a> Teller<'a> {
    /// Tells of the VMI with this uid, and of no other of its name.
    pub fn new(host: &'a Host, namespace: &str, name: &str, uid: &str) -> Self {
        Self { host, namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() }
    }

    /// The VMI as it is; none where it is gone.
    pub fn vmi(&self) -> Option<VirtualMachineInstance> {
        let vmi: Option<VirtualMachineInstance> = self.host.store.read(&self.namespace, &self.name);
        vmi.filter(|vmi| vmi.metadata.uid.as_deref() == Some(&self.uid))
    }

    /// Changes the VMI.
    pub fn modify(&self, change: impl FnOnce(&mut VirtualMachineInstance)) {
        let guarded = |vmi: &mut VirtualMachineInstance| {
            if vmi.metadata.uid.as_deref() == Some(&self.uid) {
                change(vmi);
            }
        };
        // A status that cannot be written now is derived and written again with the next change.
        if let Err(error) = self.host.store.modify(&self.namespace, &self.name, guarded) {
            tracing::warn!(error = chain(&error), "failed to write a VMI");
        }
    }

    fn status(&self, change: impl FnOnce(&mut VirtualMachineInstanceStatus, Timestamp)) {
        self.modify(|vmi| change(vmi.status.get_or_insert_default(), Timestamp::now()));
    }

    /// Says that something happened.
    pub fn event(&self, kind: EventKind, component: &str, reason: &str, message: &str) {
        if let Some(vmi) = self.vmi() {
            let about = Involved::object::<VirtualMachineInstance>(&vmi.metadata);
            self.host.events.record(&about, kind, component, reason, message);
        }
    }

    /// Setting it up failed: a condition and an event say why.
    pub fn failed(&self, error: &SetupError) {
        tracing::warn!(reason = error.reason, "{error}");
        self.status(|status, now| {
            let condition = VirtualMachineInstanceCondition::new("Synchronized", "False", error.reason, &error.message);
            status::set(&mut status.conditions, condition, now);
        });
        self.event(EventKind::Warning, CONTROLLER, error.reason, &error.message);
    }

    /// A NIC that could not be plugged or unplugged before is now.
    pub fn plugged(&self) {
        self.status(|status, _| {
            status::remove(&mut status.conditions, "Synchronized");
        });
    }

    /// Everything outside is there: its sandbox is being made.
    pub fn scheduling(&self, record: &Record) {
        self.status(|status, now| {
            status::set_phase(status, "Scheduling", now);
            status::remove(&mut status.conditions, "Synchronized");
            let (reason, message) = ("GuestNotRunning", "Guest VM is not reported as running");
            let ready = VirtualMachineInstanceCondition::new("Ready", "False", reason, message);
            status::set(&mut status.conditions, ready, now);
        });
        let message = format!("Created virtual machine pod {}", record.pod_name);
        self.event(EventKind::Normal, CONTROLLER, "SuccessfulCreate", &message);
    }

    /// Its launcher is there.
    pub fn scheduled(&self, record: &Record) {
        self.modify(|vmi| {
            let labels = vmi.metadata.labels.get_or_insert_default();
            labels.insert("kubevirt.io/nodeName".to_owned(), self.host.node.clone());
            let status = vmi.status.get_or_insert_default();
            status.node_name = Some(self.host.node.clone());
            status.active_pods = [(record.pod_uid.clone(), self.host.node.clone())].into();
            status.launcher_container_image_version = Some(concat!("holdfast-", env!("CARGO_PKG_VERSION")).to_owned());
            status.migration_transport = Some("Unix".to_owned());
            status.selinux_context = Some("none".to_owned());
            status.qos_class = Some("Burstable".to_owned());
            status::set_phase(status, "Scheduled", Timestamp::now());
        });
    }

    /// The VMI's task says something new.
    pub fn reported(&self, before: &VmiReport, after: &VmiReport) {
        let Some(vmi) = self.vmi() else { return };
        for occurrence in events(&vmi, before, after) {
            let kind = match occurrence.kind {
                OccurrenceKind::Normal => EventKind::Normal,
                OccurrenceKind::Warning => EventKind::Warning,
            };
            self.event(kind, HANDLER, &occurrence.reason, &occurrence.message);
        }
        self.modify(|vmi| {
            let status = derive(vmi, after, Timestamp::now());
            vmi.status = Some(status);
        });
    }

    /// It ended without its task saying so.
    pub fn ended(&self, phase: &str, reason: &str) {
        self.status(|status, now| {
            if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
                status::set_phase(status, phase, now);
                status.reason = (phase == "Failed").then(|| reason.to_owned());
            }
        });
    }

    /// Nothing of it is left on this host: the node's hold on the object goes.
    pub fn release(&self) {
        self.modify(|vmi| {
            if let Some(finalizers) = &mut vmi.metadata.finalizers {
                finalizers.retain(|finalizer| finalizer != VMI_FINALIZER);
            }
        });
    }
}
