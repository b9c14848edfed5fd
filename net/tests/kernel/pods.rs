//! What a test does with many pods at once.

use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::{ApplyReport, Wiring, WiringError};
use holdfast_net::model::Attachment;

/// Reconciles all at once, each on its own, as CNI calls come in.
pub async fn reconcile_all(wiring: &Wiring, attachments: &[Attachment]) -> Vec<Result<ApplyReport, WiringError>> {
    let desired: Vec<DesiredState> = attachments.iter().map(holdfast_net::attachment::desired).collect();
    futures::future::join_all(desired.iter().map(|desired| wiring.reconcile(desired))).await
}
