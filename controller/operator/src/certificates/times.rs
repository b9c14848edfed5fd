//! How long certificates are good for, and when they are replaced.

use std::time::Duration;

use holdfast_api::kubevirt::{CertConfig, KubeVirtSpec};
use jiff::SignedDuration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a new authority is known before it signs: the kubelet brings a changed ConfigMap to pods within two
/// minutes.
const KNOWN: Duration = Duration::from_secs(300);
/// Shorter than this, certificates would have to be replaced faster than the kubelet brings them.
const SHORTEST: Duration = Duration::from_secs(600);

/// Why times make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TimesError {
    /// It is no duration.
    #[error("failed to read `{1}` of certificateRotateStrategy.selfSigned.{0} as a duration, such as 24h0m0s")]
    Read(&'static str, String),
    /// It is too short.
    #[error("certificateRotateStrategy.selfSigned.{0} is shorter than 10m0s")]
    Short(&'static str),
    /// A certificate would always be due.
    #[error("certificateRotateStrategy.selfSigned.{0}.renewBefore is not shorter than its duration")]
    Renew(&'static str),
    /// A certificate would outlive who signed it.
    #[error("certificateRotateStrategy.selfSigned.server.duration is longer than that of the authority")]
    Server,
}

/// When certificates are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long an authority is good for.
    pub authority: Duration,
    /// How long before its end it is replaced.
    pub authority_before: Duration,
    /// How long what it signs is good for.
    pub leaf: Duration,
    /// How long before its end that is replaced.
    pub leaf_before: Duration,
    /// How long a new authority is known before it signs.
    pub known: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let before = |duration: Duration| duration / 5;
        Self {
            authority: 7 * DAY,
            authority_before: before(7 * DAY),
            leaf: DAY,
            leaf_before: before(DAY),
            known: KNOWN,
        }
    }
}

impl Times {
    /// Of a KubeVirt object.
    ///
    /// # Errors
    /// Where what it says makes no sense.
    pub fn of(spec: &KubeVirtSpec) -> Result<Self, TimesError> {
        let given = spec.certificate_rotate_strategy.as_ref().and_then(|strategy| strategy.self_signed.as_ref());
        let Some(given) = given else { return Ok(Self::default()) };
        let default = Self::default();
        let (authority, authority_before) = pair(
            "ca",
            given.ca.as_ref(),
            (given.ca_rotate_interval.as_ref(), given.ca_overlap_interval.as_ref()),
            default.authority,
        )?;
        let (leaf, leaf_before) =
            pair("server", given.server.as_ref(), (given.cert_rotate_interval.as_ref(), None), default.leaf)?;
        if leaf > authority {
            return Err(TimesError::Server);
        }
        let known = KNOWN.min(authority_before / 2).min(leaf_before / 2);
        Ok(Self { authority, authority_before, leaf, leaf_before, known })
    }
}

/// Duration, and time before its end, of new fields or older ones.
fn pair(
    what: &'static str,
    given: Option<&CertConfig>,
    older: (Option<&String>, Option<&String>),
    default: Duration,
) -> Result<(Duration, Duration), TimesError> {
    let read = |text: Option<&String>| text.filter(|text| !text.is_empty()).map(|text| parse(what, text)).transpose();
    let duration = read(given.and_then(|given| given.duration.as_ref()).or(older.0))?.unwrap_or(default);
    let before = read(given.and_then(|given| given.renew_before.as_ref()).or(older.1))?.unwrap_or(duration / 5);
    if duration < SHORTEST {
        return Err(TimesError::Short(what));
    }
    if before >= duration {
        return Err(TimesError::Renew(what));
    }
    Ok((duration, before))
}

fn parse(what: &'static str, text: &str) -> Result<Duration, TimesError> {
    let wrong = || TimesError::Read(what, text.to_owned());
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    duration.try_into().map_err(|_| wrong())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(self_signed: Value) -> Result<Times, TimesError> {
        let spec = json!({"certificateRotateStrategy": {"selfSigned": self_signed}});
        Times::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_default_is_a_week_and_a_day() {
        assert_eq!(Times::of(&KubeVirtSpec::default()).unwrap(), Times::default());
        assert_eq!(of(json!({})).unwrap(), Times::default());
        assert_eq!(Times::default().leaf_before, Duration::from_secs(17_280));
    }

    #[test]
    fn durations_are_those_of_go() {
        let times = of(json!({"ca": {"duration": "48h0m0s", "renewBefore": "16h"}, "server": {"duration": "24h"}}));
        let times = times.unwrap();
        assert_eq!((times.authority, times.authority_before), (2 * DAY, Duration::from_secs(16 * 3600)));
        assert_eq!(times.leaf, DAY);
        let older = of(json!({"caRotateInterval": "72h", "caOverlapInterval": "1h30m", "certRotateInterval": "12h"}));
        assert_eq!(older.unwrap().authority_before, Duration::from_secs(5400));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(of(json!({"ca": {"duration": "soon"}})), Err(TimesError::Read("ca", "soon".to_owned())));
        assert_eq!(of(json!({"ca": {"duration": "-5h"}})), Err(TimesError::Read("ca", "-5h".to_owned())));
        assert_eq!(of(json!({"server": {"duration": "1m"}})), Err(TimesError::Short("server")));
        assert_eq!(of(json!({"server": {"duration": "1h", "renewBefore": "1h"}})), Err(TimesError::Renew("server")));
        assert_eq!(of(json!({"server": {"duration": "200h"}})), Err(TimesError::Server));
    }
}
