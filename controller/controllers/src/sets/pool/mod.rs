//! VirtualMachinePools to VMs: `<pool>-<index>`, each with what it had when it comes back.
//!
//! The template of a pool is known by its hash, the label [`REVISION_LABEL`] of each VM and VMI made from it: so what
//! is out of date can be seen without keeping old templates.

mod member;
mod plan;

use std::sync::Arc;

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachinePool};
use holdfast_kubernetes::chain;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use serde_json::json;

use super::status::Seen;
use super::{SetError, is_controlled};
use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Key, Outcome};
use crate::patch::difference;
use member::{member, revision, updated};
use plan::{Member, plan};

/// Label of a VM and its VMI: which state of the pool's template they were made from.
pub const REVISION_LABEL: &str = "kubevirt.io/vm-pool-revision-name";

type Failure = Option<(&'static str, String)>;

/// Looks at a pool.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, SetError> {
    let Some(pool) = context.pools.get(&key) else { return Ok(Outcome::Done) };
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Done);
    }
    let owned = context
        .vms
        .select(|at, vm| at.namespace == key.namespace && is_controlled(&vm.metadata, pool.metadata.uid.as_ref()));
    let revision = revision(&pool)?;
    let members: Vec<Member> = owned
        .iter()
        .map(|vm| {
            let vmi = context.vmis.get(&Key::of(&vm.metadata)).filter(|vmi| crate::vm::controls(vm, vmi));
            Member::of(vm, vmi.as_deref(), rand::rng().random())
        })
        .collect();
    let plan = plan(&pool, &members, &revision, Timestamp::now());
    let mut failure: Failure = None;
    for name in &plan.delete {
        note(&mut failure, "FailedDelete", delete_vm(&context, &pool, &key, &owned, name).await);
    }
    for name in &plan.update {
        note(&mut failure, "FailedUpdate", update_vm(&context, &pool, &key, &owned, name, &revision).await?);
    }
    for (name, uid) in &plan.restart {
        note(&mut failure, "FailedUpdate", restart(&context, &pool, &key, name, uid).await);
    }
    for index in &plan.create {
        note(&mut failure, "FailedCreate", create_vm(&context, &pool, *index, &revision).await?);
        if failure.is_some() {
            break;
        }
    }
    if let Some((reason, message)) = &failure {
        context.event(&*pool, EventType::Warning, reason, message).await;
    }
    let failed = failure.is_some();
    let seen = Seen {
        replicas: plan.replicas,
        ready: plan.ready,
        selector: &pool.spec.selector,
        paused: pool.spec.paused == Some(true),
        failure,
        now: Timestamp::now(),
    };
    let before = pool.status.as_ref().map_or_else(|| Ok(json!({})), serde_json::to_value)?;
    if let Some(change) = difference(&before, &seen.status(&before)) {
        let change = json!({"metadata": {"resourceVersion": pool.metadata.resource_version}, "status": change});
        match api::patch_status::<VirtualMachinePool>(&context.client, &key, &change).await {
            Ok(written) => context.pools.wrote(&written.metadata.clone(), written),
            Err(error) if error.is_stale() => return Ok(Outcome::Retry),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(match plan.again {
        _ if failed || plan.acts() => Outcome::Retry,
        Some(wait) => Outcome::After(wait),
        None => Outcome::Done,
    })
}

fn note(failure: &mut Failure, reason: &'static str, result: Result<(), ApiError>) {
    if let Err(error) = result {
        *failure = Some((reason, chain(&error)));
    }
}

async fn create_vm(
    context: &Context,
    pool: &VirtualMachinePool,
    index: u32,
    revision: &str,
) -> Result<Result<(), ApiError>, SetError> {
    let vm = member(pool, index, revision)?;
    let name = vm.metadata.name.clone().unwrap_or_default();
    Ok(match api::create(&context.client, &vm).await {
        Ok(created) => {
            let key = Key::of(&created.metadata);
            context.vms.wrote(&created.metadata.clone(), created);
            context.queues.vms.add(key);
            context.event(pool, EventType::Normal, "SuccessfulCreate", &format!("Created VM {name}")).await;
            Ok(())
        }
        Err(error) => Err(error),
    })
}

async fn delete_vm(
    context: &Context,
    pool: &VirtualMachinePool,
    key: &Key,
    owned: &[Arc<VirtualMachine>],
    name: &str,
) -> Result<(), ApiError> {
    let vm = owned.iter().find(|vm| vm.metadata.name.as_deref() == Some(name));
    let Some(uid) = vm.and_then(|vm| vm.metadata.uid.clone()) else { return Ok(()) };
    let left = api::delete::<VirtualMachine>(&context.client, &key.beside(name), &uid, None).await?;
    if let Some(left) = left {
        context.vms.wrote(&left.metadata.clone(), left);
    }
    context.event(pool, EventType::Normal, "SuccessfulDelete", &format!("Deleted VM {name}")).await;
    Ok(())
}

/// Gives a VM the pool's present template; what runs goes on as it is.
async fn update_vm(
    context: &Context,
    pool: &VirtualMachinePool,
    key: &Key,
    owned: &[Arc<VirtualMachine>],
    name: &str,
    revision: &str,
) -> Result<Result<(), ApiError>, SetError> {
    let Some(vm) = owned.iter().find(|vm| vm.metadata.name.as_deref() == Some(name)) else { return Ok(Ok(())) };
    let Some(change) = crate::patch::guarded(&**vm, &updated(pool, vm, revision)?)? else { return Ok(Ok(())) };
    Ok(match api::patch::<VirtualMachine>(&context.client, &key.beside(name), &change).await {
        Ok(written) => {
            context.vms.wrote(&written.metadata.clone(), written);
            context.event(pool, EventType::Normal, "SuccessfulUpdate", &format!("Updated VM {name}")).await;
            Ok(())
        }
        // Looked at again with what it is now.
        Err(error) if error.is_stale() => Ok(()),
        Err(error) => Err(error),
    })
}

/// Deletes a VMI that runs by an older template; its VM makes a new one.
async fn restart(
    context: &Context,
    pool: &VirtualMachinePool,
    key: &Key,
    name: &str,
    uid: &str,
) -> Result<(), ApiError> {
    let left = api::delete::<VirtualMachineInstance>(&context.client, &key.beside(name), uid, None).await?;
    if let Some(left) = left {
        context.vmis.wrote(&left.metadata.clone(), left);
    }
    let message = format!("Deleted VMI {name} to update its VM");
    context.event(pool, EventType::Normal, "SuccessfulDelete", &message).await;
    Ok(())
}
