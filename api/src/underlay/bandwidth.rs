//! How much a NIC may carry: what a network says, and what a NIC asks for within that.

use super::rules::Found;
use super::{Backend, UnderlayNetworkSpec};
use crate::nad::Bandwidth;

/// Bits per second: less than a modem, more than the kernel's field has.
const RATES: std::ops::RangeInclusive<u64> = 64_000..=34_000_000_000;

/// Each way: the names of the fields of rate and burst, and their values; 0 is as good as none, as CNI's libraries write it.
pub fn ways(bandwidth: &Bandwidth) -> [Way; 2] {
    let given = |value: Option<u64>| value.filter(|value| *value != 0);
    let Bandwidth { ingress_rate, ingress_burst, egress_rate, egress_burst } = bandwidth;
    [
        Way { fields: ("ingressRate", "ingressBurst"), rate: given(*ingress_rate), burst: given(*ingress_burst) },
        Way { fields: ("egressRate", "egressBurst"), rate: given(*egress_rate), burst: given(*egress_burst) },
    ]
}

/// Rate and burst of one way, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    fields: (&'static str, &'static str),
    /// Bits per second.
    pub rate: Option<u64>,
    /// Bits.
    pub burst: Option<u64>,
}

/// What is wrong with a bandwidth, whoever asks for it: the field and what would be valid.
pub fn bandwidth_problem(bandwidth: &Bandwidth) -> Option<(&'static str, String)> {
    ways(bandwidth).into_iter().find_map(|Way { fields: (rate_field, burst_field), rate, burst }| match rate {
        None if burst.is_some() => Some((burst_field, format!("needs a rate: give `{rate_field}` as well"))),
        Some(rate) if !RATES.contains(&rate) => {
            let (least, most) = (RATES.start(), RATES.end());
            Some((rate_field, format!("`{rate}` is no rate in bits per second: valid is {least} to {most}")))
        }
        _ => None,
    })
}

/// What a NIC gets that asks for `asked` where its network says `most`.
///
/// # Errors
/// The field that asks for more, and what is valid.
pub fn within(most: Option<&Bandwidth>, asked: Option<&Bandwidth>) -> Result<Bandwidth, String> {
    let (most, asked) = (most.cloned().unwrap_or_default(), asked.cloned().unwrap_or_default());
    let mut both = [(None, None); 2];
    for ((most, asked), both) in ways(&most).into_iter().zip(ways(&asked)).zip(&mut both) {
        let ((rate_field, burst_field), more) = (asked.fields, |asked: Option<u64>, most: Option<u64>| {
            asked.zip(most).filter(|(asked, most)| asked > most)
        });
        let found = [(rate_field, more(asked.rate, most.rate)), (burst_field, more(asked.burst, most.burst))];
        if let Some((field, (asked, most))) = found.into_iter().find_map(|(field, more)| Some((field, more?))) {
            return Err(format!("`{field}` `{asked}` is more than the network has: valid is up to {most}"));
        }
        *both = (asked.rate.or(most.rate), asked.burst.or(most.burst));
    }
    let [(ingress_rate, ingress_burst), (egress_rate, egress_burst)] = both;
    Ok(Bandwidth { ingress_rate, ingress_burst, egress_rate, egress_burst })
}

/// Why a backend cannot do it; none where it can.
pub fn unshaped(backend: Backend) -> Option<&'static str> {
    (backend == Backend::Macvtap)
        .then_some("is not served on the backend `macvtap`: there is no port on the node where frames could wait")
}

pub(super) fn bandwidth(spec: &UnderlayNetworkSpec, found: &mut Found) {
    if let Some((field, message)) = spec.bandwidth.as_ref().and_then(bandwidth_problem) {
        found.add(format!("bandwidth.{field}"), message);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(value: Value) -> Bandwidth {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_nic_asks_for_what_its_network_has() {
        let most = of(json!({"ingressRate": 1_000_000, "ingressBurst": 80_000}));
        for (asked, expected) in [
            (json!({}), json!({"ingressRate": 1_000_000, "ingressBurst": 80_000})),
            (json!({"ingressRate": 500_000, "egressRate": 0}), json!({"ingressRate": 500_000, "ingressBurst": 80_000})),
            (
                json!({"egressRate": 9_000_000, "egressBurst": 1}),
                json!({"ingressRate": 1_000_000, "ingressBurst": 80_000, "egressRate": 9_000_000, "egressBurst": 1}),
            ),
        ] {
            assert_eq!(within(Some(&most), Some(&of(asked))).unwrap(), of(expected));
        }
        assert_eq!(within(None, None).unwrap(), Bandwidth::default());
        for (asked, words) in [
            (
                json!({"ingressRate": 1_000_001}),
                "`ingressRate` `1000001` is more than the network has: valid is up to 1000000",
            ),
            (json!({"ingressRate": 1_000_000, "ingressBurst": 80_001}), "`ingressBurst` `80001`"),
        ] {
            let message = within(Some(&most), Some(&of(asked))).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_is_no_bandwidth_is_told_by_field() {
        for (value, field) in [
            (json!({"ingressRate": 63_999}), "ingressRate"),
            (json!({"egressRate": 34_000_000_001_u64}), "egressRate"),
            (json!({"egressBurst": 1}), "egressBurst"),
        ] {
            assert_eq!(bandwidth_problem(&of(value)).unwrap().0, field);
        }
        assert_eq!(bandwidth_problem(&of(json!({"ingressRate": 64_000, "egressRate": 0, "egressBurst": 0}))), None);
    }
}
