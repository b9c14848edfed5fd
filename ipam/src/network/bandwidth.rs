//! How much a NIC of a network may carry.

use holdfast_api::nad::Bandwidth;
use holdfast_api::underlay::{Backend, unshaped, ways, within};
use holdfast_net::model;

use super::Addressing;

/// A NIC asks for a bandwidth that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network `{network}`: `bandwidth` {why}")]
pub struct BandwidthError {
    network: String,
    why: String,
}

impl Addressing {
    /// What a NIC gets that asks for this.
    ///
    /// # Errors
    /// [`BandwidthError`] names what it cannot have, and what it can.
    pub fn bandwidth(&self, asked: Option<&Bandwidth>) -> Result<model::Bandwidth, BandwidthError> {
        let refused = |why: String| BandwidthError { network: self.name.clone(), why };
        let found = within(self.bandwidth.as_ref(), asked).map_err(refused)?;
        let rate = |way: holdfast_api::underlay::Way| way.rate.map(|rate| model::Rate { rate, burst: way.burst });
        let [ingress, egress] = ways(&found).map(rate);
        match unshaped(Backend::Macvtap).filter(|_| self.macvtap && (ingress, egress) != (None, None)) {
            Some(why) => Err(refused(why.to_owned())),
            None => Ok(model::Bandwidth { ingress, egress }),
        }
    }
}
