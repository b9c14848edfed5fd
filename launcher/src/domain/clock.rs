//! The guest's clock and its timers.

use holdfast_api::kubevirt::DomainSpec;
use serde::Serialize;

/// `<clock>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Clock {
    #[serde(rename = "@offset")]
    offset: &'static str,
    #[serde(rename = "@timezone", skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(rename = "@adjustment", skip_serializing_if = "Option::is_none")]
    adjustment: Option<String>,
    #[serde(rename = "timer")]
    timers: Vec<Timer>,
}

#[derive(Clone, Debug, Serialize)]
struct Timer {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@present")]
    present: &'static str,
    #[serde(rename = "@tickpolicy", skip_serializing_if = "Option::is_none")]
    tick_policy: Option<String>,
    #[serde(rename = "@track", skip_serializing_if = "Option::is_none")]
    track: Option<String>,
}

impl Timer {
    fn new(name: &'static str, present: Option<bool>) -> Self {
        let present = if present == Some(false) { "no" } else { "yes" };
        Self { name, present, tick_policy: None, track: None }
    }
}

/// UTC unless the spec says otherwise; a spec that says UTC also resets what the guest adjusted at each start.
pub(super) fn build(spec: &DomainSpec) -> Clock {
    let Some(clock) = &spec.clock else {
        return Clock { offset: "utc", timezone: None, adjustment: None, timers: Vec::new() };
    };
    let adjustment = clock
        .utc
        .as_ref()
        .map(|utc| utc.offset_seconds.map_or_else(|| "reset".to_owned(), |seconds| seconds.to_string()));
    let timezone = clock.timezone.clone().filter(|_| clock.utc.is_none());
    let mut timers = Vec::new();
    if let Some(timer) = &clock.timer {
        if let Some(rtc) = &timer.rtc {
            let (tick_policy, track) = (rtc.tick_policy.clone(), rtc.track.clone());
            timers.push(Timer { tick_policy, track, ..Timer::new("rtc", rtc.present) });
        }
        if let Some(pit) = &timer.pit {
            timers.push(Timer { tick_policy: pit.tick_policy.clone(), ..Timer::new("pit", pit.present) });
        }
        if let Some(kvm) = &timer.kvm {
            timers.push(Timer::new("kvmclock", kvm.present));
        }
        if let Some(hpet) = &timer.hpet {
            timers.push(Timer { tick_policy: hpet.tick_policy.clone(), ..Timer::new("hpet", hpet.present) });
        }
        if let Some(hyperv) = &timer.hyperv {
            timers.push(Timer::new("hypervclock", hyperv.present));
        }
    }
    Clock { offset: if timezone.is_some() { "timezone" } else { "utc" }, timezone, adjustment, timers }
}
