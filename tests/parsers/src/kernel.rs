//! What the kernel answers over netlink about nftables.

use holdfast_net::kernel::reply::{Answer, read_elements, read_rule};
use holdfast_net::security::rules::Set;

/// The request that is answered.
const SEQUENCE: u32 = 1;
/// Length of the shortest attribute.
const ATTRIBUTE: usize = 4;

/// A datagram, and a message of one.
pub fn netfilter(bytes: &[u8]) {
    message(bytes);
    let mut answer = Answer::default();
    if answer.take(bytes, SEQUENCE).is_ok() {
        answer.messages().into_iter().flatten().for_each(|(_, payload)| message(&payload));
    }
}

fn message(bytes: &[u8]) {
    if let Ok((chain, comment)) = read_rule(bytes) {
        // A byte that is no text takes three to say so.
        assert!(chain.len() + comment.len() <= 3 * bytes.len());
    }
    for set in Set::ALL {
        let Ok(elements) = read_elements(set, bytes) else { continue };
        assert!(elements.len() * ATTRIBUTE <= bytes.len());
        let length = set.address_length() * if set.is_of_intervals() { 2 } else { 1 };
        assert!(elements.iter().all(|element| element.set == set && element.address.len() == length));
    }
}
