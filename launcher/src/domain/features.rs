//! Features of the machine: ACPI, APIC, Hyper-V enlightenments, what KVM shows of itself.

use holdfast_api::kubevirt::{DomainSpec, FeatureHyperv, FeatureState};
use serde::Serialize;

/// `<features>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Features {
    #[serde(skip_serializing_if = "Option::is_none")]
    acpi: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apic: Option<Apic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hyperv: Option<HyperV>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kvm: Option<Kvm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pvspinlock: Option<State>,
    vmport: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    smm: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcg: Option<Tcg>,
}

#[derive(Clone, Debug, Serialize)]
struct Empty {}

#[derive(Clone, Debug, Serialize)]
struct Tcg {
    #[serde(rename = "tb-cache")]
    cache: TranslationCache,
}

#[derive(Clone, Debug, Serialize)]
struct TranslationCache {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    mib: u32,
}

/// Cache of translated code of an emulated CPU. QEMU would take up to 1 GiB; a whole distribution runs well in this.
const TRANSLATION_CACHE_MIB: u32 = 128;

#[derive(Clone, Debug, Serialize)]
struct Apic {
    #[serde(rename = "@eoi", skip_serializing_if = "Option::is_none")]
    eoi: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Kvm {
    hidden: State,
}

#[derive(Clone, Debug, Serialize)]
struct State {
    #[serde(rename = "@state")]
    state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct HyperV {
    #[serde(rename = "@mode", skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relaxed: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vapic: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spinlocks: Option<Spinlocks>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vpindex: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synic: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stimer: Option<SynicTimer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<State>,
    #[serde(rename = "vendor_id", skip_serializing_if = "Option::is_none")]
    vendor_id: Option<VendorId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequencies: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reenlightenment: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlbflush: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipi: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evmcs: Option<State>,
}

#[derive(Clone, Debug, Serialize)]
struct Spinlocks {
    #[serde(rename = "@state")]
    state: &'static str,
    #[serde(rename = "@retries", skip_serializing_if = "Option::is_none")]
    retries: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
struct VendorId {
    #[serde(rename = "@state")]
    state: &'static str,
    #[serde(rename = "@value", skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct SynicTimer {
    #[serde(rename = "@state")]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<State>,
}

fn on_off(enabled: Option<bool>) -> &'static str {
    if enabled == Some(false) { "off" } else { "on" }
}

fn state(feature: &Option<FeatureState>) -> Option<State> {
    feature.as_ref().map(|feature| State { state: on_off(feature.enabled) })
}

/// ACPI unless it is turned off; what else the spec lists; never VMware's I/O port.
pub(super) fn build(spec: &DomainSpec, emulation: bool) -> Features {
    let features = spec.features.clone().unwrap_or_default();
    let on = |feature: &FeatureState| feature.enabled != Some(false);
    let apic = features.apic.as_ref().filter(|apic| apic.enabled != Some(false));
    let eoi = |yes| if yes { "on" } else { "off" };
    let passthrough = features.hyperv_passthrough.as_ref().filter(|feature| feature.enabled != Some(false));
    Features {
        acpi: features.acpi.as_ref().is_none_or(on).then_some(Empty {}),
        apic: apic.map(|apic| Apic { eoi: apic.end_of_interrupt.map(eoi) }),
        hyperv: match (&features.hyperv, passthrough) {
            (Some(hyperv), _) => Some(enlightenments(hyperv, None)),
            (None, Some(_)) => Some(enlightenments(&FeatureHyperv::default(), Some("passthrough"))),
            (None, None) => None,
        },
        kvm: features.kvm.as_ref().map(|kvm| Kvm { hidden: State { state: on_off(kvm.hidden.or(Some(false))) } }),
        pvspinlock: state(&features.pvspinlock),
        vmport: State { state: "off" },
        smm: state(&features.smm),
        tcg: emulation.then_some(Tcg { cache: TranslationCache { unit: "MiB", mib: TRANSLATION_CACHE_MIB } }),
    }
}

fn enlightenments(hyperv: &FeatureHyperv, mode: Option<&'static str>) -> HyperV {
    HyperV {
        mode,
        relaxed: state(&hyperv.relaxed),
        vapic: state(&hyperv.vapic),
        spinlocks: hyperv.spinlocks.as_ref().map(|spinlocks| Spinlocks {
            state: on_off(spinlocks.enabled),
            retries: spinlocks.spinlocks.or(Some(4096)).filter(|_| spinlocks.enabled != Some(false)),
        }),
        vpindex: state(&hyperv.vpindex),
        runtime: state(&hyperv.runtime),
        synic: state(&hyperv.synic),
        stimer: hyperv
            .synictimer
            .as_ref()
            .map(|timer| SynicTimer { state: on_off(timer.enabled), direct: state(&timer.direct) }),
        reset: state(&hyperv.reset),
        vendor_id: hyperv
            .vendorid
            .as_ref()
            .map(|vendor| VendorId { state: on_off(vendor.enabled), value: vendor.vendorid.clone() }),
        frequencies: state(&hyperv.frequencies),
        reenlightenment: state(&hyperv.reenlightenment),
        tlbflush: hyperv.tlbflush.as_ref().map(|flush| State { state: on_off(flush.enabled) }),
        ipi: state(&hyperv.ipi),
        evmcs: state(&hyperv.evmcs),
    }
}
