package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// program is one that installs an image.
type program struct {
	name string
	file string // what it installs
	// command takes the file on the stick and where GNU time writes to.
	command func(file, time string) []string
	// config is usb-updater.conf.
	config string
	// Variables of the boot environment before an install, besides those of a
	// new device, and after it. An install that leaves others is wrong.
	before, after map[string]string
	runs          []result
	failed        error
}

// missing is a program that is not measured.
type missing struct{ name, reason string }

// timed is a command measured by GNU time.
func timed(time string, command ...string) []string {
	return append([]string{"/usr/bin/time", "-q", "-f", "%e %U %S %M", "-o", time}, command...)
}

// programs returns what installs an artifact of this codec: ours, with and
// without the read-back, and, if wanted, the others that are here.
func (b *installBench) programs(ctx context.Context, how codec) ([]*program, []missing, error) {
	file, err := b.cache.menderArtifact(ctx, b.image, how)
	if err != nil {
		return nil, nil, err
	}
	ours := func(file, time string) []string {
		return timed(time, filepath.Join(b.bin, "mender"), "--root", b.device.Dir, "--log-level", "error", "install", file)
	}
	armed := map[string]string{"mender_boot_part": "3", "upgrade_available": "1"}
	all := []*program{
		{name: oursName, file: file, command: ours, config: "{}", after: armed},
		{name: oursName + ", no read-back", file: file, command: ours, config: `{"VerifyWritten": false}`, after: armed},
	}
	var left []missing
	for _, p := range []struct {
		name  string
		needs []string
		can   bool
		make  func(context.Context, codec) (*program, error)
	}{
		{"mender-client", []string{"mender", "fw_printenv"}, how.name != "zstd", b.menderClient},
		{"rauc", []string{"rauc", "mksquashfs", "dbus-run-session", "dbus-send", "openssl", "fw_printenv"}, how.squash != "", b.rauc},
		{"swupdate", []string{"swupdate", "cpio", "openssl", "fw_printenv"}, how.swu != "-", b.swupdate},
		{how.unpack + " | dd", []string{"dd"}, true, b.pipe("conv=fsync,nocreat")},
		{how.unpack + " | dd oflag=direct", []string{"dd"}, true, b.pipe("oflag=direct conv=fsync,nocreat")},
	} {
		if !b.wants(p.name) {
			continue
		}
		reason := lacking(p.needs)
		if !p.can {
			reason = how.name + " is not among its compressions"
		}
		if reason != "" {
			left = append(left, missing{p.name, reason})
			continue
		}
		made, err := p.make(ctx, how)
		if err != nil {
			left = append(left, missing{p.name, err.Error()})
			continue
		}
		made.name = p.name
		all = append(all, made)
	}
	return all, left, nil
}

// peerNames returns what -peers may hold. "1" is all, and the two of dd are
// what a decompressor writes to, one past the page cache.
func peerNames() []string {
	return []string{"1", "mender-client", "rauc", "swupdate", "dd", "dd-direct"}
}

// wants reports whether a program is among -peers.
func (b *installBench) wants(name string) bool {
	if _, writer, ok := strings.Cut(name, " | "); ok {
		name = strings.Replace(writer, " oflag=", "-", 1)
	}
	return slices.Contains(b.peers, "1") || slices.Contains(b.peers, name)
}

func lacking(tools []string) string {
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return t + " is not installed"
		}
	}
	return ""
}

// chrooted is the command of a program that runs in a root directory of its own.
func (b *installBench) chrooted(name string) func(file, time string) []string {
	return func(file, time string) []string {
		return []string{b.peer, name, b.dir, b.loopA, b.slot.path, filepath.Join(b.device.Dir, "dev/mmcblk0"), b.keys, file, time}
	}
}

func (b *installBench) menderClient(ctx context.Context, how codec) (*program, error) {
	file, err := b.cache.menderArtifact(ctx, b.image, how)
	if err != nil {
		return nil, err
	}
	a, err := minor(b.loopA)
	if err != nil {
		return nil, err
	}
	to, err := minor(b.slot.path)
	// It takes the number at the end of a device's name for the partition's.
	return &program{
		file: file, command: b.chrooted("mender-client"),
		before: map[string]string{"mender_boot_part": fmt.Sprint(a), "mender_boot_part_hex": fmt.Sprintf("%x", a)},
		after:  map[string]string{"mender_boot_part": fmt.Sprint(to), "upgrade_available": "1"},
	}, err
}

func minor(device string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Stat(device, &st)
	return unix.Minor(st.Rdev), err
}

func (b *installBench) rauc(ctx context.Context, how codec) (*program, error) {
	file, err := b.cache.raucBundle(ctx, b.image, how)
	return &program{
		file: file, command: b.chrooted("rauc"),
		before: map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"},
		after:  map[string]string{"BOOT_ORDER": "B A"},
	}, err
}

func (b *installBench) swupdate(ctx context.Context, how codec) (*program, error) {
	file, err := b.cache.swu(ctx, b.image, how)
	return &program{
		file: file, command: b.chrooted("swupdate"),
		after: map[string]string{"mender_boot_part": "3", "upgrade_available": "1"},
	}, err
}

// pipe is what a script would do. It checks nothing and switches nothing.
func (b *installBench) pipe(options string) func(ctx context.Context, how codec) (*program, error) {
	return func(ctx context.Context, how codec) (*program, error) {
		file, err := b.cache.compressed(ctx, b.image, how)
		return &program{file: file, command: func(file, time string) []string {
			return timed(time, "sh", "-c", how.unpack+` <"$0" | dd of="$1" bs=1M iflag=fullblock `+options+` status=none`, file, b.slot.path)
		}}, err
	}
}

// configure writes what only ours reads.
func (b *installBench) configure(p *program) error {
	if p.config == "" {
		return nil
	}
	dir := filepath.Join(b.device.Dir, "etc/usb-updater")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "usb-updater.conf"), []byte(p.config), 0o600)
}
