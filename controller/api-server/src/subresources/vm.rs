//! start, stop and restart: the VM or its status is patched, and the VM controller does the rest.

use std::fmt::Debug;

use axum::http::StatusCode;
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::run_strategy::{self, Operation};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::options::Options;
use super::patches::{VmPatch, of_grace_period, of_vm};
use super::{Call, get};
use crate::DEADLINE;
use crate::answer::{Answer, Refusal, empty, internal};
use crate::server::Server;
use crate::verbs::{Kind, Verb};

/// How often a decision is made anew when the object changed under it.
const ATTEMPTS: usize = 5;
/// What the API server says when a patch's test does not hold.
const TEST_FAILED: &str = "the server rejected our request due to an error in our request";

/// Carries a verb out; 202, for it is done later.
pub async fn serve(server: &Server, call: Call<'_>, body: &[u8]) -> Answer {
    let options = Options::of(body)?;
    for _ in 0..ATTEMPTS {
        let (vm, vmi) = tokio::try_join!(
            get::<VirtualMachine>(&server.client, Kind::Vm, call.namespace, call.name),
            get::<VirtualMachineInstance>(&server.client, Kind::Vmi, call.namespace, call.name),
        )?;
        let vm = vm.ok_or_else(|| ErrorStatus::not_found(Kind::Vm.singular(), call.name))?;
        let operation = decide(call.verb, &vm, vmi.as_ref(), &options)?;
        if carry_out(server, call, &vm, vmi.as_ref(), &operation, options.dry_run()).await? == Outcome::Done {
            return Ok(empty(StatusCode::ACCEPTED));
        }
    }
    Err(call.conflict("the object changed again and again"))
}

fn decide(
    verb: Verb,
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    options: &Options,
) -> Result<Operation, ErrorStatus> {
    match verb {
        Verb::Start => run_strategy::start(vm, vmi, options.paused == Some(true)),
        Verb::Stop => run_strategy::stop(vm, vmi, options.grace_period),
        _ => run_strategy::restart(vm, vmi, options.grace_period_seconds),
    }
}

#[derive(PartialEq)]
enum Outcome {
    Done,
    /// The object is no longer as it was when the decision was made.
    Changed,
}

async fn carry_out(
    server: &Server,
    call: Call<'_>,
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    operation: &Operation,
    dry_run: bool,
) -> Result<Outcome, Refusal> {
    // The grace period first: the change of the VM may delete the VMI at once.
    if let (Some(seconds), Some(vmi)) = (operation.grace_period_seconds, vmi) {
        let api = Api::<VirtualMachineInstance>::namespaced(server.client.clone(), call.namespace);
        if apply(&api, call.name, false, of_grace_period(vmi, seconds), dry_run).await? == Outcome::Changed {
            return Ok(Outcome::Changed);
        }
    }
    let api = Api::<VirtualMachine>::namespaced(server.client.clone(), call.namespace);
    match of_vm(vm, &operation.change) {
        None => Ok(Outcome::Done),
        Some(VmPatch::Spec(patch)) => apply(&api, call.name, false, patch, dry_run).await,
        Some(VmPatch::Status(patch)) => apply(&api, call.name, true, patch, dry_run).await,
    }
}

async fn apply<K>(api: &Api<K>, name: &str, status: bool, patch: Value, dry_run: bool) -> Result<Outcome, Refusal>
where
    K: Clone + DeserializeOwned + Debug,
{
    let patch = serde_json::from_value(patch).map_err(|error| internal(&error.to_string()))?;
    let patch = Patch::<()>::Json(patch);
    let params = PatchParams { dry_run, field_manager: Some("virt-api".to_owned()), ..PatchParams::default() };
    let sent = async {
        if status { api.patch_status(name, &params, &patch).await } else { api.patch(name, &params, &patch).await }
    };
    match timeout(DEADLINE, sent).await {
        Ok(Ok(_)) => Ok(Outcome::Done),
        Ok(Err(kube::Error::Api(status)))
            if matches!(status.code, 404 | 409) || (status.code == 422 && status.message.contains(TEST_FAILED)) =>
        {
            Ok(Outcome::Changed)
        }
        Ok(Err(kube::Error::Api(status))) => Err(internal(&status.message)),
        Ok(Err(error)) => Err(internal(&holdfast_kubernetes::chain(&error))),
        Err(_) => Err(internal("the API server did not answer in time")),
    }
}
