//! Making a VMI's pod: what must be there first, then the pod, whose creation is the commitment.

use holdfast_api::honoured;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::VmiError;
use super::decide::Told;
use super::former;
use super::nics::{self, Trouble};
use crate::api;
use crate::context::Context;
use crate::engine::Key;
use crate::pod::{Input, PodFacts, launcher_pod};

/// What came of it.
pub(super) enum Made {
    /// The pod is there.
    Pod,
    /// There is none, for this reason.
    Refused(Told),
}

fn refused(reason: &'static str, message: String) -> Made {
    Made::Refused(Told { reason: reason.to_owned(), message })
}

/// Takes the addresses, and makes the pod.
pub(super) async fn make_pod(context: &Context, vmi: &VirtualMachineInstance, name: &Key) -> Result<Made, VmiError> {
    if let Some(why) = honoured::check(&vmi.spec, "spec").refusal() {
        return Ok(refused("NotSupported", why));
    }
    let (former, nics) = tokio::join!(former::in_the_way(context, vmi), nics::take(context, vmi));
    if let Some(why) = former? {
        return Ok(Made::Refused(why));
    }
    let nics = match nics {
        Ok(nics) => nics,
        Err(Trouble::Refused(error)) => return Ok(refused(error.reason, error.message)),
        Err(Trouble::Unknown(why)) => return Ok(refused("FailedAttachNetwork", why)),
    };
    let settings = context.settings();
    let configuration = settings.kubevirt.spec.configuration.as_ref();
    let developer = configuration.and_then(|configuration| configuration.developer_configuration.as_ref());
    let pod = launcher_pod(&Input {
        vmi,
        nics: &nics,
        launcher: &context.launcher,
        pull_secrets: &settings.kubevirt.spec.image_pull_secrets,
        emulation: settings.emulation,
        cpu_ratio: developer.and_then(|developer| developer.cpu_allocation_ratio),
    });
    let facts = match api::create(&context.client, &pod).await {
        Ok(pod) => {
            let message = format!("Created virtual machine pod {}", name.name);
            context.event(vmi, EventType::Normal, "SuccessfulCreate", &message).await;
            keep(context, pod)
        }
        Err(error) if error.code() == Some(409) => match api::get::<Pod>(&context.client, name).await? {
            // Made before, by one who could not say so any more.
            Some(present) => keep(context, present),
            None => return Err(error.into()),
        },
        Err(error) if error.is_refusal() => {
            let why = error.answer().map(|status| status.message.clone()).unwrap_or_default();
            return Ok(refused("FailedCreate", format!("Error creating pod: {why}")));
        }
        Err(error) => return Err(error.into()),
    };
    if Some(&facts.owner) != vmi.metadata.uid.as_ref() {
        let why = format!("Error creating pod: pod {name} exists and is not of this virtual machine instance");
        return Ok(refused("FailedCreate", why));
    }
    Ok(Made::Pod)
}

/// Puts a pod into the cache.
pub(super) fn keep(context: &Context, pod: Pod) -> PodFacts {
    let meta = pod.metadata.clone();
    let facts = PodFacts::of(pod);
    context.pods.wrote(&meta, facts.clone());
    facts
}
