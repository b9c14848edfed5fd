//! The guest code of the KVM probe: 64-bit, paged, counting, writing to memory, ending each round with a port
//! write.
//!
//! Long mode, because some emulators of instructions serve real mode well enough to boot firmware and fail
//! beyond it. Each round's sum is checked, so that a vCPU that skips instructions is found out.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_signal_mask, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

/// Loops of one round, of four instructions each.
pub const LOOPS: u64 = 50_000;
/// What interrupts the vCPU. Ignored by default, so that a stray one does no harm.
pub const INTERRUPT: libc::c_int = libc::SIGURG;
/// Rounds; the fastest counts, for the others may have been preempted.
const ROUNDS: u32 = 3;

const PAGE: usize = 4096;
/// 2 MiB, mapped by one large page at the same address.
const PAGES: usize = 512;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const PD: usize = 0x3000;
const CODE: usize = 0x4000;
const SUM: usize = 0x8000;
const PORT: u16 = 0x10;

/// rbx: number of loops; rdi: where the sum goes.
const PROGRAM: [u8; 20] = [
    0x48, 0x89, 0xd9, // round: mov rcx, rbx
    0x31, 0xc0, //        xor eax, eax
    0x48, 0x01, 0xc8, // next:  add rax, rcx
    0x48, 0x89, 0x07, //        mov [rdi], rax
    0x48, 0xff, 0xc9, //        dec rcx
    0x75, 0xf5, //        jnz next
    0xe6, 0x10, //        out 0x10, al
    0xeb, 0xec, //        jmp round
];

/// What came of running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Each round ended with the right sum.
    Ran {
        /// The shortest round.
        fastest: Duration,
    },
    /// It was interrupted.
    Endless,
    /// KVM failed, or the guest did something else than its program says.
    Failed(String),
}

#[derive(Clone)]
#[repr(align(4096))]
struct Page([u8; PAGE]);

/// The guest's memory, at the same place for as long as the VM is.
struct Memory(Box<[Page]>);

impl Memory {
    fn new() -> Self {
        let mut memory = Self(vec![Page([0; PAGE]); PAGES].into_boxed_slice());
        // Present, writable; the last one is a page of 2 MiB.
        memory.put(PML4, &(PDPT as u64 | 0b11).to_le_bytes());
        memory.put(PDPT, &(PD as u64 | 0b11).to_le_bytes());
        memory.put(PD, &(1u64 << 7 | 0b11).to_le_bytes());
        memory.put(CODE, &PROGRAM);
        memory
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at / PAGE].0[at % PAGE..][..bytes.len()].copy_from_slice(bytes);
    }

    fn sum(&self) -> u64 {
        let at = &raw const self.0[SUM / PAGE].0[SUM % PAGE];
        // SAFETY: in bounds and aligned (SUM starts a page); volatile, for the guest writes it behind the compiler's
        // back. The vCPU is not running meanwhile.
        unsafe { at.cast::<u64>().read_volatile() }
    }
}

/// Runs the program on the KVM at `device`, on the calling thread, which ends up with [`INTERRUPT`] blocked.
pub fn run(device: &Path) -> Trial {
    let memory = Memory::new();
    match start(device, &memory) {
        Ok((_vm, mut vcpu)) => rounds(&mut vcpu, &memory),
        Err((step, error)) => Trial::Failed(format!("{step} failed: {error}")),
    }
}

type StepError = (&'static str, String);

fn step<T, E: std::fmt::Display>(name: &'static str, result: Result<T, E>) -> Result<T, StepError> {
    result.map_err(|error| (name, error.to_string()))
}

fn start(device: &Path, memory: &Memory) -> Result<(VmFd, VcpuFd), StepError> {
    let path = step("opening the device", std::ffi::CString::new(device.as_os_str().as_encoded_bytes()))?;
    let kvm = step("opening the device", Kvm::new_with_path(path))?;
    let vm = step("creating a VM", kvm.create_vm())?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: (PAGES * PAGE) as u64,
        userspace_addr: memory.0.as_ptr() as u64,
    };
    // SAFETY: the region is page-aligned, owned by `memory`, which the caller keeps until the VM is gone.
    step("giving memory to the VM", unsafe { vm.set_user_memory_region(region) })?;
    let vcpu = step("creating a vCPU", vm.create_vcpu(0))?;
    let cpuid = step("reading the CPUID", kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES))?;
    step("setting the CPUID", vcpu.set_cpuid2(&cpuid))?;
    let mut sregs = step("reading the registers", vcpu.get_sregs())?;
    long_mode(&mut sregs);
    step("entering long mode", vcpu.set_sregs(&sregs))?;
    let regs = kvm_regs { rip: CODE as u64, rbx: LOOPS, rdi: SUM as u64, rflags: 0b10, ..kvm_regs::default() };
    step("setting the registers", vcpu.set_regs(&regs))?;
    step("making the vCPU interruptible", interruptible(&vcpu))?;
    Ok((vm, vcpu))
}

fn long_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x10,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment { selector: 0x8, type_: 11, db: 0, l: 1, ..data };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.cr3 = PML4 as u64;
    sregs.cr4 = 1 << 5; // PAE
    sregs.cr0 = 1 << 31 | 1 << 5 | 1 << 4 | 1; // PG, NE, ET, PE
    sregs.efer = 1 << 10 | 1 << 8; // LMA, LME
}

/// Blocks the signal on this thread but for the time that the vCPU runs: it then ends KVM_RUN with EINTR, also
/// when it came before, and no handler is ever called.
fn interruptible(vcpu: &VcpuFd) -> nix::Result<()> {
    /// The kernel's struct with its flexible array filled in: the set of signals to block while running.
    #[repr(C)]
    struct Mask {
        head: kvm_signal_mask,
        set: [u8; 8],
    }
    nix::ioctl_write_ptr_bad!(kvm_set_signal_mask, nix::request_code_write!(0xae, 0x8b, 4), Mask);
    let mut blocked = SigSet::empty();
    blocked.add(Signal::try_from(INTERRUPT)?);
    blocked.thread_block()?;
    let mask = Mask { head: kvm_signal_mask { len: 8, ..kvm_signal_mask::default() }, set: [0; 8] };
    // SAFETY: the descriptor is a vCPU, `mask` is laid out as KVM_SET_SIGNAL_MASK reads it, and outlives the call.
    unsafe { kvm_set_signal_mask(vcpu.as_raw_fd(), &raw const mask) }?;
    Ok(())
}

fn rounds(vcpu: &mut VcpuFd, memory: &Memory) -> Trial {
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, _)) => fastest = fastest.min(start.elapsed()),
            Ok(exit) => return Trial::Failed(format!("the guest ended unexpectedly: {exit:?}")),
            Err(error) if error.errno() == libc::EINTR => return Trial::Endless,
            Err(error) => return Trial::Failed(format!("running the vCPU failed: {error}")),
        }
        let expected = LOOPS * (LOOPS + 1) / 2;
        if memory.sum() != expected {
            return Trial::Failed(format!("the guest computed {} instead of {expected}", memory.sum()));
        }
    }
    Trial::Ran { fastest }
}
