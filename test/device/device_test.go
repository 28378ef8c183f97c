//go:build device

// Package device tests the real programs on loop devices, with artifacts of
// the real mender-artifact and the real fw_printenv as witnesses. It needs
// root and the packages of test/packages.txt.
package device

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	mib        = 1 << 20
	deviceType = "test-board"
)

// need skips without root, unless REQUIRE demands the device tests.
func need(t *testing.T, tools ...string) {
	t.Helper()
	tier.Device.Need(t, append(tools, "root", "losetup", "mke2fs", "/usr/bin/time")...)
}

// programs builds both programs as they are shipped.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mender")); err != nil {
		t.Fatalf("build the programs first (make build): %v", err)
	}
	return dir
}

// newDevice makes a device on loop devices, running release-1 in slot A. key
// is the path of a public key, or "".
func newDevice(t *testing.T, slotSize int64, key string) *sim.Device {
	t.Helper()
	d, err := sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: slotSize, Loop: true, DeviceType: deviceType})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	image := filepath.Join(t.TempDir(), "release-1.ext4")
	if err := release("release-1", key).Image(image, 16*mib); err != nil {
		t.Fatal(err)
	}
	if err := d.Flash(2, image); err != nil {
		t.Fatal(err)
	}
	boot(t, d, 2)
	return d
}

// release is a root file system that knows the public key in the file, if any.
func release(name, key string) sim.Release {
	r := sim.Release{Name: name, Files: map[string]sim.File{}}
	if key == "" {
		return r
	}
	pem, err := os.ReadFile(key)
	if err != nil {
		panic(err) // the tests made it a moment ago
	}
	r.Files["etc/mender/key.pem"] = sim.File{Content: string(pem), Mode: 0o644}
	r.Files["etc/mender/mender.conf"] = sim.File{
		Content: `{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3", "ArtifactVerifyKey": "/etc/mender/key.pem"}`,
		Mode:    0o644,
	}
	return r
}

func boot(t *testing.T, d *sim.Device, want int) {
	t.Helper()
	if got, err := d.Boot(); err != nil || got != want {
		t.Fatalf("slot on partition %d came up (%v), want %d", got, err, want)
	}
}

// mender runs the program on the device and returns its exit code, its
// standard error, and its peak resident size in bytes. That is measured by
// time(1): a process that this large one starts itself would inherit its peak.
func mender(t *testing.T, d *sim.Device, args ...string) (code int, stderr string, peak int64) {
	t.Helper()
	measured := filepath.Join(t.TempDir(), "time")
	args = append([]string{"-q", "-f", "%M", "-o", measured, filepath.Join(programs(t), "mender"), "--root", d.Dir}, args...)
	cmd := exec.CommandContext(t.Context(), "/usr/bin/time", args...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(measured)
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), kib << 10
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func sum(t *testing.T, path string, n int64) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// bigImage makes a real ext4 image with content that does not compress to
// nothing.
func bigImage(t *testing.T, size int64, key string) string {
	t.Helper()
	r := release("release-2", key)
	noise := make([]byte, 24*mib)
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	r.Files["opt/noise"] = sim.File{Content: string(noise), Mode: 0o644}
	r.Files["opt/text"] = sim.File{Content: strings.Repeat("The quick brown fox jumps over the lazy dog. ", 24*mib/45), Mode: 0o644}
	path := filepath.Join(t.TempDir(), "release-2.ext4")
	if err := r.Image(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// printenv asks Debian's fw_printenv, which knows nothing of ours.
func printenv(t *testing.T, d *sim.Device) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "fw_env.config")
	content := strings.ReplaceAll(sim.FwEnvConfig, "/dev/", d.Dir+"/dev/")
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return command(t, "fw_printenv", "-c", config, "mender_boot_part", "mender_boot_part_hex", "upgrade_available", "bootcount", "vendor_serial")
}

// TestRealArtifacts installs what the real mender-artifact wrote, with each
// compression and each kind of signature, and looks at every byte.
func TestRealArtifacts(t *testing.T) {
	need(t, "mender-artifact", "fw_printenv", "openssl")
	const size = 200 * mib
	dir := t.TempDir()
	rsa, ec := filepath.Join(dir, "rsa"), filepath.Join(dir, "ec")
	command(t, "openssl", "genrsa", "-traditional", "-out", rsa+".key", "3072")
	command(t, "openssl", "rsa", "-in", rsa+".key", "-pubout", "-out", rsa+".pem")
	command(t, "openssl", "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", ec+".key")
	command(t, "openssl", "ec", "-in", ec+".key", "-pubout", "-out", ec+".pem")
	for _, tt := range []struct{ compression, key string }{
		{"none", ""}, {"gzip", rsa}, {"lzma", ec},
	} {
		t.Run(tt.compression, func(t *testing.T) {
			public := ""
			args := []string{"--compression", tt.compression, "write", "rootfs-image", "-t", deviceType, "-n", "release-2", "-o", filepath.Join(dir, tt.compression+".mender")}
			if tt.key != "" {
				public = tt.key + ".pem"
				args = append(args, "-k", tt.key+".key")
			}
			image := bigImage(t, size, public)
			command(t, "mender-artifact", append(args, "-f", image)...)
			install(t, newDevice(t, size+8*mib, public), filepath.Join(dir, tt.compression+".mender"), image, size)
		})
	}
}

// TestZstd: Debian's mender-artifact cannot write it, so ours does.
func TestZstd(t *testing.T) {
	need(t, "fw_printenv")
	const size = 200 * mib
	image := bigImage(t, size, "")
	path := filepath.Join(t.TempDir(), "zstd.mender")
	write(t, path, artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{deviceType}, Compression: "zstd",
		Files: []artifacttest.File{{Name: "release-2.ext4", Size: size, Open: func() (io.Reader, error) { return os.Open(image) }}},
	})
	install(t, newDevice(t, size+8*mib, ""), path, image, size)
}

// install goes the whole way with an artifact that holds the image.
func install(t *testing.T, d *sim.Device, path, image string, size int64) {
	t.Helper()
	t.Setenv("GODEBUG", "gctrace=1")
	code, stderr, peak := mender(t, d, "install", path)
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	// A large dictionary must not keep the garbage collector at work: nearly
	// nothing is allocated while an image is written.
	const mostCollections = 8
	n := len(regexp.MustCompile(`(?m)^gc \d+ @`).FindAllString(stderr, -1))
	if n > mostCollections {
		t.Errorf("%d garbage collections, want at most %d", n, mostCollections)
	}
	t.Logf("peak resident size %.1f MiB, %d garbage collections", float64(peak)/mib, n)
	if got, want := sum(t, d.Slot(3), size), sum(t, image, size); got != want {
		t.Errorf("slot: sha256 %s, image: %s", got, want)
	}
	if got, want := printenv(t, d), "mender_boot_part=3\nmender_boot_part_hex=3\nupgrade_available=1\nbootcount=0\nvendor_serial=keep me\n"; got != want {
		t.Errorf("fw_printenv says\n%s, want\n%s", got, want)
	}
	command(t, "e2fsck", "-fn", d.Slot(3))
	boot(t, d, 3)
	if code, stderr, _ := mender(t, d, "commit"); code != 0 {
		t.Fatalf("commit: exit code %d:\n%s", code, stderr)
	}
	boot(t, d, 3)
}

func write(t *testing.T, path string, spec artifacttest.Spec) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(artifacttest.Write(f, spec), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// text is a payload of any size that is never in memory as a whole.
type text struct{ left, n int64 }

func (s *text) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.left)]
	for i := range p {
		p[i] = byte((s.n + int64(i)) >> 7)
	}
	s.n += int64(len(p))
	s.left -= int64(len(p))
	return len(p), nil
}

// TestMemory: what an install needs is set by constants, not by the image.
func TestMemory(t *testing.T) {
	need(t)
	const limit = 20 * mib
	for _, compression := range []string{"none", "gzip"} {
		t.Run(compression, func(t *testing.T) {
			var peaks []int64
			for _, size := range []int64{64 * mib, 512 * mib} {
				path := filepath.Join(t.TempDir(), "big.mender")
				write(t, path, artifacttest.Spec{
					Name: "release-2", DeviceTypes: []string{deviceType}, Compression: compression,
					Files: []artifacttest.File{{Name: "image", Size: size, Open: func() (io.Reader, error) { return &text{left: size}, nil }}},
				})
				code, stderr, peak := mender(t, newDevice(t, size, ""), "install", path)
				if code != 0 {
					t.Fatalf("exit code %d:\n%s", code, stderr)
				}
				t.Logf("%d MiB: peak resident size %.1f MiB", size/mib, float64(peak)/mib)
				if peak > limit {
					t.Errorf("%d MiB: peak resident size %d bytes, limit %d", size/mib, peak, limit)
				}
				peaks = append(peaks, peak)
			}
			const noise = 4 * mib // of the garbage collector
			if peaks[1] > peaks[0]+noise {
				t.Errorf("peak resident size grows with the image: %d, then %d bytes", peaks[0], peaks[1])
			}
		})
	}
}

// TestRefusedOnBlockDevices: a slot that is in use, read-only or too small.
func TestRefusedOnBlockDevices(t *testing.T) {
	need(t)
	d := newDevice(t, 16*mib, "")
	image := filepath.Join(t.TempDir(), "release-2.ext4")
	if err := release("release-2", "").Image(image, 8*mib); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "good.mender")
	spec := artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{deviceType},
		Files: []artifacttest.File{{Name: "image", Size: 8 * mib, Open: func() (io.Reader, error) { return os.Open(image) }}},
	}
	write(t, path, spec)
	if err := d.Flash(3, image); err != nil {
		t.Fatal(err)
	}
	before := sum(t, d.Slot(3), 16*mib)

	where := t.TempDir()
	command(t, "mount", "-o", "ro", d.Slot(3), where)
	inUse, err := os.Open(where)
	if err != nil {
		t.Fatal(err)
	}
	code, stderr, _ := mender(t, d, "install", path)
	if err := inUse.Close(); err != nil {
		t.Fatal(err)
	}
	command(t, "umount", where)
	if code != 1 || !strings.Contains(stderr, where) || !strings.Contains(stderr, "busy") {
		t.Errorf("mounted slot in use: exit code %d:\n%s", code, stderr)
	}

	other := filepath.Join(t.TempDir(), "other.mender")
	changed := spec
	changed.Files = []artifacttest.File{{Name: "image", Size: 8 * mib, Open: func() (io.Reader, error) { return &text{left: 8 * mib}, nil }}}
	write(t, other, changed)
	command(t, "blockdev", "--setro", d.Slot(3))
	code, stderr, _ = mender(t, d, "install", other)
	command(t, "blockdev", "--setrw", d.Slot(3))
	if code != 1 || !strings.Contains(stderr, "slot") {
		t.Errorf("read-only slot: exit code %d:\n%s", code, stderr)
	}
	if after := sum(t, d.Slot(3), 16*mib); after != before {
		t.Error("the slot has changed")
	}
	if env := printenv(t, d); !strings.Contains(env, "upgrade_available=0") {
		t.Errorf("armed:\n%s", env)
	}
	if code, _, _ := mender(t, d, "commit"); code != 2 {
		t.Errorf("commit: exit code %d, want 2", code)
	}
}
