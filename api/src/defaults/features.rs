//! A feature that is named is on unless it says otherwise; so are timers.

use super::VirtualMachineInstanceSpec;
use crate::kubevirt::{Clock, FeatureHyperv, FeatureState, Timer};

/// Spinlock retries before the hypervisor is told, where only the feature is named.
const SPINLOCKS: i64 = 4096;

/// ACPI is on, and so is what is named without `enabled`.
pub(super) fn default_features(spec: &mut VirtualMachineInstanceSpec) {
    let acpi = spec.architecture.as_deref() != Some("s390x");
    let features = spec.domain.features.get_or_insert_default();
    if acpi {
        features.acpi.get_or_insert_default();
    }
    for feature in [&mut features.acpi, &mut features.pvspinlock, &mut features.smm] {
        on(feature);
    }
    if let Some(apic) = &mut features.apic {
        apic.enabled.get_or_insert(true);
    }
    if let Some(hyperv) = &mut features.hyperv {
        default_hyperv(hyperv);
    }
    if let Some(clock) = &mut spec.domain.clock {
        default_clock(clock);
    }
}

fn on(feature: &mut Option<FeatureState>) {
    if let Some(feature) = feature {
        feature.enabled.get_or_insert(true);
    }
}

fn default_hyperv(hyperv: &mut FeatureHyperv) {
    for feature in [
        &mut hyperv.evmcs,
        &mut hyperv.frequencies,
        &mut hyperv.ipi,
        &mut hyperv.reenlightenment,
        &mut hyperv.relaxed,
        &mut hyperv.reset,
        &mut hyperv.runtime,
        &mut hyperv.synic,
        &mut hyperv.vapic,
        &mut hyperv.vpindex,
    ] {
        on(feature);
    }
    if let Some(spinlocks) = &mut hyperv.spinlocks
        && *spinlocks.enabled.get_or_insert(true)
    {
        spinlocks.spinlocks.get_or_insert(SPINLOCKS);
    }
    if let Some(timer) = &mut hyperv.synictimer {
        timer.enabled.get_or_insert(true);
        on(&mut timer.direct);
    }
    if let Some(flush) = &mut hyperv.tlbflush {
        flush.enabled.get_or_insert(true);
        on(&mut flush.direct);
        on(&mut flush.extended);
    }
    if let Some(vendor) = &mut hyperv.vendorid {
        vendor.enabled.get_or_insert(true);
    }
}

fn default_clock(clock: &mut Clock) {
    let Some(timer) = &mut clock.timer else {
        return;
    };
    let Timer { hpet, hyperv, kvm, pit, rtc } = timer;
    let present = [
        hpet.as_mut().map(|t| &mut t.present),
        hyperv.as_mut().map(|t| &mut t.present),
        kvm.as_mut().map(|t| &mut t.present),
        pit.as_mut().map(|t| &mut t.present),
        rtc.as_mut().map(|t| &mut t.present),
    ];
    for present in present.into_iter().flatten() {
        present.get_or_insert(true);
    }
}
