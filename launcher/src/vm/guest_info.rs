//! Asks the guest agent for news, away from the thread that decides.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use holdfast_agent_api::launcher::GuestInfo;

use super::{Message, chain};
use crate::libvirt::{self, Guest};

/// Between questions once the guest has settled.
const PERIOD: Duration = Duration::from_secs(10);
/// Between the first questions: a guest that has just booted is about to get its addresses.
const FIRST: Duration = Duration::from_secs(1);
/// Every how many times everything is asked for, not only what a network needs to know.
const ALL: u32 = 6;

/// Starts the thread that asks; it is sent the guest whose agent has connected, or none when it went.
pub(super) fn poller(outbox: Sender<Message>) -> std::io::Result<Sender<Option<Guest>>> {
    let (sender, inbox) = mpsc::channel::<Option<Guest>>();
    std::thread::Builder::new().name("guest-agent".to_owned()).spawn(move || {
        let mut guest = None;
        let mut pause = FIRST;
        let mut info = GuestInfo::default();
        let mut asked = 0;
        loop {
            let wait = if guest.is_some() { pause } else { Duration::MAX };
            match inbox.recv_timeout(wait) {
                Ok(other) => {
                    guest = other;
                    pause = FIRST;
                    info = GuestInfo::default();
                    asked = 0;
                }
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(PERIOD),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(guest) = &guest else { continue };
            match libvirt::query_guest_agent(guest, &info, asked % ALL == 0) {
                Ok(answer) => {
                    asked += 1;
                    info = answer.clone();
                    if outbox.send(Message::Guest(Box::new(answer))).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(error = chain(&error), "the guest agent does not answer"),
            }
        }
    })?;
    Ok(sender)
}
