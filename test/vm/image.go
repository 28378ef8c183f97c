package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

// Layout of the device's disk: sizes in MiB, start sectors in sectors of 512
// bytes. Before the boot partition lie GRUB's core and the two copies of U-Boot's
// environment, where boot.cmd and overlay/etc/fw_env.config have them. They are in
// a partition, too, which nobody uses but the tests that put something below it.
const (
	mib        = 1 << 20
	sectorSize = 512
	bootSize   = 4
	slotSize   = 96
	dataSize   = 32
	diskSize   = 4 + bootSize + 2*slotSize + dataSize

	coreStart = 64
	envStart  = 2048
	bootStart = 4096
	slotStart = 12288
	slotEnd   = slotStart + slotSize*mib/sectorSize
	dataStart = slotEnd + slotSize*mib/sectorSize
)

// Numbers of the partitions.
const (
	partBoot = 1 + iota
	partA
	partB
	partData
	partEnv
)

// DeviceType is the device's type.
const DeviceType = "virtual-device"

// BootLoader is what starts a device.
type BootLoader int

// The boot loaders. U-Boot keeps Mender's variables in a raw, redundant
// environment; GRUB in the two directories of grub-mender-grubenv, on a FAT
// partition.
const (
	UBoot BootLoader = iota
	GRUB
)

// String returns the boot loader's name.
func (b BootLoader) String() string { return [...]string{"U-Boot", "GRUB"}[b] }

// Firmware returns what QEMU starts the boot loader with; "" is its PC BIOS.
func (p *Parts) Firmware(loader BootLoader) string {
	if loader == GRUB {
		return ""
	}
	return filepath.Join(p.Dir, "u-boot.rom")
}

// files are those of a root file system that depend on the boot loader. With
// GRUB there is no D-Bus and no logind either, so that both kinds of device are
// seen.
func (b BootLoader) files() map[string]string {
	if b == UBoot {
		return nil
	}
	return map[string]string{
		"/etc/fstab":                                 "/dev/vda4 /data ext4 defaults,noatime 0 0\n/dev/vda1 /boot/efi vfat defaults 0 0\n",
		"/etc/fw_env.config":                         "",
		"/etc/systemd/system/dbus.service":           "",
		"/etc/systemd/system/dbus.socket":            "",
		"/etc/systemd/system/systemd-logind.service": "",
	}
}

// Release is a root file system: the common one and these files, all of them
// executable, by absolute path.
type Release struct {
	Name   string
	Files  map[string]string // content
	Copies map[string]string // path of a file of the host
}

// Image writes the release's root file system.
func (p *Parts) Image(ctx context.Context, path string, loader BootLoader, r Release) error {
	if err := run(ctx, "cp", "--sparse=always", p.base, path); err != nil {
		return err
	}
	files := map[string]string{"/etc/mender/artifact_info": "artifact_name=" + r.Name + "\n"}
	maps.Copy(files, loader.files())
	maps.Copy(files, r.Files)
	scratch, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	sources := maps.Clone(r.Copies)
	if sources == nil {
		sources = map[string]string{}
	}
	for i, name := range slices.Sorted(maps.Keys(files)) {
		sources[name] = filepath.Join(scratch, fmt.Sprint(i))
		if err := os.WriteFile(sources[name], []byte(files[name]), 0o755); err != nil {
			return err
		}
	}
	var script strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		for i, c := range name[1:] { // debugfs says that a directory is there, and goes on
			if c == '/' {
				fmt.Fprintf(&script, "mkdir %s\n", name[:i+1])
			}
		}
		dir, base := filepath.Split(name)
		fmt.Fprintf(&script, "cd %s\nrm %s\nwrite %s %s\n", dir, base, sources[name], base)
		for field, value := range map[string]string{"mode": "0100755", "uid": "0", "gid": "0"} {
			fmt.Fprintf(&script, "sif %s %s %s\n", base, field, value)
		}
	}
	commands := filepath.Join(scratch, "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o600); err != nil {
		return err
	}
	return run(ctx, "debugfs", "-w", "-f", commands, path)
}

// Disk writes the disk of a device that runs the release in slot A and has
// never been switched on.
func (p *Parts) Disk(ctx context.Context, path string, loader BootLoader, image string) error {
	scratch, err := os.MkdirTemp("", "disk")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	dataDir := filepath.Join(scratch, "data.d")
	err = errors.Join(os.MkdirAll(filepath.Join(dataDir, "mender"), 0o755),
		os.WriteFile(filepath.Join(dataDir, "mender/device_type"), []byte("device_type="+DeviceType+"\n"), 0o644))
	if err != nil {
		return err
	}
	bootImage, dataImage := filepath.Join(scratch, "boot"), filepath.Join(scratch, "data")
	if err := p.bootPartition(ctx, bootImage, loader, scratch); err != nil {
		return err
	}
	if err := filesystem(ctx, dataImage, dataSize, dataDir, "-t", "ext4"); err != nil {
		return err
	}
	if err := truncate(path, diskSize*mib); err != nil {
		return err
	}
	partition := func(number, start, size int) []string {
		return []string{"-n", fmt.Sprintf("%d:%d:+%dM", number, start, size)}
	}
	err = run(ctx, "sgdisk", slices.Concat([]string{"-a", "2048"}, partition(partBoot, bootStart, bootSize), []string{"-A", "1:set:2"},
		partition(partA, slotStart, slotSize), partition(partB, slotEnd, slotSize), partition(partData, dataStart, dataSize),
		partition(partEnv, envStart, (bootStart-envStart)*sectorSize/mib), []string{path})...)
	if err != nil {
		return err
	}
	err = errors.Join(insert(path, bootStart, bootImage), insert(path, slotStart, image), insert(path, dataStart, dataImage))
	if err == nil && loader == GRUB {
		err = p.installGRUB(path)
	}
	return err
}

// bootPartition makes the partition that the boot loader reads first.
func (p *Parts) bootPartition(ctx context.Context, path string, loader BootLoader, scratch string) error {
	dir := filepath.Join(scratch, "boot.d")
	if loader == UBoot {
		if err := errors.Join(os.Mkdir(dir, 0o755), run(ctx, "cp", filepath.Join(p.Dir, "boot.scr"), dir)); err != nil {
			return err
		}
		return filesystem(ctx, path, bootSize, dir, "-t", "ext2")
	}
	vars := []string{fmt.Sprintf("mender_boot_part=%d", partA), "upgrade_available=0", "bootcount=0"}
	if err := grubtest.WriteDir(filepath.Join(dir, "grub-mender-grubenv"), vars...); err != nil {
		return err
	}
	return errors.Join(truncate(path, bootSize*mib), run(ctx, "mkfs.vfat", path),
		run(ctx, "mcopy", "-s", "-i", path, filepath.Join(dir, "grub-mender-grubenv"), filepath.Join(p.Dir, "grub"), "::/"))
}

// installGRUB does what grub-bios-setup does, without a device: the first
// sector of the disk loads that of the core, which has a list of the rest
// (source: GRUB, include/grub/i386/pc/boot.h).
func (p *Parts) installGRUB(disk string) error {
	boot, err := os.ReadFile(filepath.Join(p.Dir, "grub-boot.img"))
	if err != nil {
		return err
	}
	core, err := os.ReadFile(filepath.Join(p.Dir, "grub-core.img"))
	if err != nil {
		return err
	}
	const codeSize, kernelSector, firstBlock = 0x1b8, 0x5c, 0x1f4
	if len(boot) < sectorSize || len(core) < sectorSize || len(core) > (envStart-coreStart)*sectorSize {
		return fmt.Errorf("install GRUB: boot.img has %d bytes, core.img %d", len(boot), len(core))
	}
	binary.LittleEndian.PutUint64(boot[kernelSector:], coreStart)
	binary.LittleEndian.PutUint64(core[firstBlock:], coreStart+1)
	out, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = out.WriteAt(boot[:codeSize], 0)
	_, err2 := out.WriteAt(core, coreStart*sectorSize)
	return errors.Join(err, err2, out.Close())
}

// insert copies a file to a sector of the disk.
func insert(disk string, sector int64, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(out, sector*sectorSize), in)
	return errors.Join(err, out.Close())
}

// filesystem makes an image of size MiB with the content of a directory.
func filesystem(ctx context.Context, path string, size int64, dir string, options ...string) error {
	if err := truncate(path, size*mib); err != nil {
		return err
	}
	return run(ctx, "mke2fs", slices.Concat([]string{"-q", "-F"}, options, []string{"-d", dir, path})...)
}

func truncate(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}
