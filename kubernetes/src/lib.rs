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
        let boxed = cause.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
        match boxed.or_else(|| cause.downcast_ref()) {
            // Its text is that of the status and a dump of the whole of it, and its cause is the status once more.
            Some(kube::Error::Api(status)) => {
                text.push_str(&refusal(status));
                break;
            }
            _ => text.push_str(&own_words(cause)),
        }
    }
    text
}

/// What an error says without its cause, which some repeat at their end.
fn own_words(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    match text.strip_suffix(&cause).map(|own| own.trim_end_matches(": ")) {
        Some(own) if !own.is_empty() => own.to_owned(),
        _ => text,
    }
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

    #[derive(Debug, thiserror::Error)]
    #[error("lost sight: {0}")]
    struct Repeats(#[source] Outer);

    #[test]
    fn a_cause_is_told_once() {
        let status = Status::failure("no", "Forbidden").with_code(403);
        let error = Repeats(Outer(Box::new(kube::Error::Api(Box::new(status)))));
        assert_eq!(chain(&error), "lost sight: failed to get pod `a`: no");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let told = |status| chain(&Outer(Box::new(kube::Error::Api(Box::new(status)))));
        let status = Status::failure("pods \"a\" not found", "NotFound").with_code(404);
        assert_eq!(told(status), "failed to get pod `a`: pods \"a\" not found");
        assert_eq!(told(Status::failure("", "").with_code(502)), "failed to get pod `a`: the API server answered 502");
    }
}
