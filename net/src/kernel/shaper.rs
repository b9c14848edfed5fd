//! Token buckets (tc-tbf(8)) as the root queues of links: what leaves by a link is sent no faster.

use std::collections::BTreeMap;
use std::io;

use super::guard::attribute;
use super::links;
use super::netlink::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, Netlink};
use crate::model::{IfName, Shaper};

/// Types of messages of rtnetlink.
pub(super) const NEW_QUEUE: u16 = 36;
pub(super) const DELETE_QUEUE: u16 = 37;
const GET_QUEUE: u16 = 38;
/// Handle of each of our queues, which tells them from others: "HF" in ASCII.
pub(super) const HANDLE: u32 = 0x4846_0000;
/// Where in a message (struct tcmsg) the handle is, and how long that is.
pub(super) const HANDLE_OFFSET: usize = 8;
const HEADER: usize = 20;
/// The queue of a link itself (TC_H_ROOT).
const ROOT: u32 = u32::MAX;
/// TCA_KIND, TCA_OPTIONS, and TCA_TBF_PARMS within.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const PARAMETERS: u16 = 1;
const TOKEN_BUCKET: &[u8] = b"tbf\0";
/// Sizes are those of Ethernet frames (TC_LINKLAYER_ETHERNET).
const ETHERNET: u8 = 1;
/// Length of struct tc_tbf_qopt, and where in it are rate, limit and bucket.
const LENGTH: usize = 36;
const RATE: usize = 8;
const LIMIT: usize = 24;
const BUCKET: usize = 28;

/// The token buckets of the namespace's links, by index.
pub(super) fn observe(route: &mut Netlink) -> io::Result<BTreeMap<u32, Shaper>> {
    let answers = route.exchange(GET_QUEUE, NLM_F_DUMP, &[0; HEADER])?;
    Ok(answers.into_iter().filter_map(|(_, message)| read(&message)).collect())
}

/// A link's index and token bucket; none where the message is about something else.
fn read(message: &[u8]) -> Option<(u32, Shaper)> {
    let (header, attributes) = message.split_at_checked(HEADER)?;
    let number = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_ours = number(header, HANDLE_OFFSET)? == HANDLE && number(header, 12)? == ROOT;
    if !is_ours || attribute(attributes, KIND).ok()? != TOKEN_BUCKET {
        return None;
    }
    let parameters = attribute(&attribute(attributes, OPTIONS).ok()?, PARAMETERS).ok()?;
    let at = |at| number(&parameters, at);
    Some((number(header, 4)?, Shaper { rate: at(RATE)?, bucket: at(BUCKET)?, limit: at(LIMIT)? }))
}

/// Gives a link its token bucket, in the place of whatever queue it has.
pub(super) fn set(route: &mut Netlink, link: &IfName, shaper: Shaper) -> io::Result<()> {
    let index = links::index(link)?;
    route.exchange(NEW_QUEUE, NLM_F_CREATE | NLM_F_REPLACE, &message(index, shaper)).map(drop)
}

fn message(index: u32, Shaper { rate, bucket, limit }: Shaper) -> Vec<u8> {
    let mut parameters = [0; LENGTH];
    // Of struct tc_ratespec: cell_log, linklayer.
    let mut put = |at: usize, bytes: &[u8]| parameters[at..at + bytes.len()].copy_from_slice(bytes);
    put(1, &[ETHERNET]);
    for (at, value) in [(RATE, rate), (LIMIT, limit), (BUCKET, bucket)] {
        put(at, &value.to_ne_bytes());
    }
    let mut message = vec![0; 4];
    for number in [index, HANDLE, ROOT, 0] {
        message.extend_from_slice(&number.to_ne_bytes());
    }
    message.extend_from_slice(&with_header(KIND, TOKEN_BUCKET));
    message.extend_from_slice(&with_header(OPTIONS, &with_header(PARAMETERS, &parameters)));
    message
}

/// An attribute; what is in it is a multiple of four bytes long.
fn with_header(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rate;

    #[test]
    fn what_is_written_is_read() {
        let shaper = Rate { rate: 20_000_000, burst: None }.shaper(1500);
        let written = message(7, shaper);
        assert_eq!(read(&written), Some((7, shaper)));
        for length in 0..written.len() {
            assert_eq!(read(&written[..length]), None, "{length}");
        }
        let mut foreign = written;
        foreign[HANDLE_OFFSET] ^= 1;
        assert_eq!(read(&foreign), None);
    }
}
