// Package bootenv reads and writes the boot loader variables that decide which
// root slot boots next.
//
// There are two levels. A [Store] holds variables: one call of Update is one
// transaction, so after a power cut at any instant Get returns all old values
// or all new ones. A [Loader] gives them a meaning: which slot runs, which one
// boots next, and whether that is a trial. [UBoot] is the store of a U-Boot
// environment in files and on block devices, [GRUBMender] that of Mender's GRUB
// integration, and [GRUBPlain] that of one GRUB environment block. [Mender] is
// the loader that uses the variables of Mender's boot loader integration,
// [RAUC] the one that uses those of RAUC's.
//
// # U-Boot environment
//
// One copy is a header and an area of "name=value" strings, each with a NUL;
// an empty string ends the list. The header is the CRC-32 of the area in the
// target's byte order and, where there are two copies, a flag byte that says
// which one is newer. The flag byte is outside the CRC. /etc/fw_env.config
// says where the copies are (sources: U-Boot, include/env_internal.h,
// env/common.c and tools/env/fw_env.c; libubootenv, uboot_env.c).
//
// # GRUB environment
//
// A block of 1024 bytes holds "name=value" lines behind a signature, and '#' to
// its end. It has no checksum, and GRUB reads a damaged one up to the damage.
// GRUB can change a block in place, but not make one (sources: GRUB,
// lib/envblk.c and commands/loadenv.c; grub-mender-grubenv).
//
// # Mender variables
//
//	mender_boot_part      decimal partition number of the root to boot
//	mender_boot_part_hex  the same number in hexadecimal, for U-Boot
//	upgrade_available     "1" while that boot is a trial, else "0"
//	bootcount             trial boots so far; the boot loader counts it up
//
// (source: Mender, boot loader integration, and meta-mender's U-Boot patches).
//
// Nothing here invents values: if no copy is good the error is [ErrCorrupt],
// where other tools answer from a built-in default.
package bootenv
