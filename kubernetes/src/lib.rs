//! What every process that talks to a Kubernetes API server shares: the client, the log, leader election, events,
//! TLS from mounted Secrets, the HTTP of probes and metrics, and leases as objects of the API.
//!
//! Nothing here knows what a virtual machine is.

pub mod client;
pub mod config;
pub mod events;
pub mod leader;
pub mod log;
pub mod probes;
pub mod store;
pub mod tls;

/// An error with its causes in one line. What an API server refuses is told in its own words.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |cause| cause.source()) {
        let colon = if text.is_empty() { "" } else { ": " };
        text.push_str(colon);
        match cause.downcast_ref() {
            // Its text is that of the status and a dump of the whole of it, and its cause is the status once more.
            Some(kube::Error::Api(status)) => {
                text.push_str(&refusal(status));
                break;
            }
            _ => text.push_str(&cause.to_string()),
        }
    }
    text
}

fn refusal(status: &kube::core::Status) -> String {
    match (status.message.as_str(), status.reason.as_str()) {
        ("", "") => format!("the API server answered {}", status.code),
        ("", reason) => format!("{reason} ({})", status.code),
        (message, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to get pod `a`")]
    struct Outer(#[source] Box<kube::Error>);

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let told = |status| chain(&Outer(Box::new(kube::Error::Api(Box::new(status)))));
        let status = Status::failure("pods \"a\" not found", "NotFound").with_code(404);
        assert_eq!(told(status), "failed to get pod `a`: pods \"a\" not found");
        assert_eq!(told(Status::failure("", "").with_code(502)), "failed to get pod `a`: the API server answered 502");
    }
}
