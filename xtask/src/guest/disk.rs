//! A disk that a BIOS boots: a master boot record, one FAT partition, and syslinux in it.
//!
//! mtools and syslinux work on the image as a file: neither loop devices nor mounts are needed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Program;

const SECTOR: u64 = 512;
/// First sector of the partition: aligned to 1 MiB.
const START: u64 = 2048;
/// Sectors of a track and heads of a cylinder, as BIOSes pretend.
const GEOMETRY: (u64, u64) = (32, 64);
/// FAT16 with addresses in sectors (LBA).
const PARTITION_TYPE: u8 = 0x0e;

/// The kernel's command line: the serial console, no wait for a user after a panic, and none of the self-tests
/// and timer checks that take their time under emulation.
pub const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 quiet cryptomgr.notests no_timer_check tsc=reliable noreplace-smp";

/// Writes a raw disk image to `disk` that boots the kernel with the initramfs. `scratch` is for files on the way.
pub fn build(disk: &Path, kernel: &Path, initramfs: &[u8], scratch: &Path) -> Result<()> {
    let configuration = scratch.join("syslinux.cfg");
    fs::write(
        &configuration,
        format!("DEFAULT guest\nPROMPT 0\nLABEL guest\nKERNEL vmlinuz\nINITRD initrd\nAPPEND {COMMAND_LINE}\n"),
    )?;
    let initrd = scratch.join("initrd");
    fs::write(&initrd, initramfs)?;

    let content = fs::metadata(kernel).context("failed to find the kernel")?.len() + initramfs.len() as u64;
    // Room for the boot loader and the FAT itself; whole tracks.
    let sectors = ((content + (4 << 20)) / SECTOR).next_multiple_of(GEOMETRY.0 * GEOMETRY.1);
    write_boot_record(disk, sectors)?;

    let partition = format!("{}@@{}", disk.display(), START * SECTOR);
    let numbers = [("-T", sectors), ("-s", GEOMETRY.0), ("-h", GEOMETRY.1), ("-H", START), ("-c", 8)]
        .map(|(option, value)| [option.to_owned(), value.to_string()]);
    Program::new("mformat")
        .args(["-i", &partition])
        .args(numbers.as_flattened())
        .args(["::"])
        .output()
        .context("failed to make the file system")?;
    for (source, name) in
        [(kernel.to_owned(), "vmlinuz"), (initrd, "initrd"), (configuration, "syslinux.cfg")] as [(PathBuf, &str); 3]
    {
        Program::new("mcopy")
            .args(["-i".as_ref(), partition.as_ref(), source.as_os_str(), format!("::{name}").as_ref()])
            .output()
            .with_context(|| format!("failed to copy {} to the disk", source.display()))?;
    }
    Program::new("syslinux")
        .args(["--install", "--offset", &(START * SECTOR).to_string()])
        .args([disk])
        .output()
        .context("failed to install the boot loader")?;
    Ok(())
}

/// An image with nothing but syslinux's boot code and a table of one active partition.
fn write_boot_record(disk: &Path, sectors: u64) -> Result<()> {
    let code = ["/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/SYSLINUX/mbr.bin"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .context("failed to find mbr.bin of the package syslinux-common")?;
    if code.len() > 440 {
        bail!("the boot code has {} bytes, and there is room for 440", code.len());
    }
    let image = File::create(disk).with_context(|| format!("failed to make {}", disk.display()))?;
    image.set_len((START + sectors) * SECTOR)?;
    image.write_all_at(&code, 0)?;
    image.write_all_at(&partition_entry(START, sectors)?, 446)?;
    image.write_all_at(&[0x55, 0xaa], 510)?;
    Ok(())
}

/// An entry of the partition table. Cylinders, heads and sectors hold "too large": only the LBA fields count.
fn partition_entry(start: u64, sectors: u64) -> Result<[u8; 16]> {
    let mut entry = [0; 16];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = PARTITION_TYPE;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&u32::try_from(start)?.to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(sectors)?.to_le_bytes());
    Ok(entry)
}
