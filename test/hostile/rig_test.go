//go:build device

package hostile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	kib        = 1 << 10
	deviceType = "test-board"
	slotSize   = 1 << 20
	imageSize  = 512 * kib
	sick       = "release-4" // fails its health check
)

// need skips without what all tests use and these things, unless REQUIRE demands
// the device tests. A test has a device of its own, so that several run at a time.
func need(t *testing.T, things ...string) {
	t.Helper()
	tier.Device.Need(t, append(things, "mke2fs", "debugfs")...)
	t.Parallel()
}

// needFUSE is for tests whose stick is a directory that decides what it answers.
func needFUSE(t *testing.T, things ...string) {
	t.Helper()
	need(t, append(things, "root", "/dev/fuse")...)
}

// needLoop is for tests whose stick is a block device.
func needLoop(t *testing.T, things ...string) {
	t.Helper()
	needFUSE(t, append(things, "/dev/loop-control")...)
}

// workshop is what all tests share: a key, images, and a device that runs
// release-1.
type workshop struct {
	key    *ecdsa.PrivateKey
	device *sim.Device
	images map[string][]byte
}

// newWorkshop makes it once: images take their time.
var newWorkshop = sync.OnceValues(func() (*workshop, error) {
	dir, err := os.MkdirTemp("", "hostile")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	w := &workshop{key: key, images: map[string][]byte{}}
	for _, name := range []string{"release-1", "release-2", "release-3", sick} {
		path := filepath.Join(dir, name)
		r, err := w.release(name)
		if err == nil {
			err = r.Image(path, imageSize)
		}
		if err == nil {
			w.images[name], err = os.ReadFile(path)
		}
		if err != nil {
			return nil, err
		}
	}
	// In memory: clones are made by the hundred.
	template, err := os.MkdirTemp("", "hostile-device")
	if err != nil {
		return nil, err
	}
	if w.device, err = sim.New(template, sim.Options{SlotSize: slotSize, DeviceType: deviceType}); err != nil {
		return nil, err
	}
	if err := w.device.Flash(2, filepath.Join(dir, "release-1")); err != nil {
		return nil, err
	}
	_, err = w.device.Boot()
	return w, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if w, err := newWorkshop(); err == nil {
		_ = os.RemoveAll(w.device.Dir) // scratch
	}
	os.Exit(code) //nolint:forbidigo // the only way out of TestMain with a code
}

// release is a root file system that knows the key. Its content does not
// compress to nothing.
func (w *workshop) release(name string) (sim.Release, error) {
	der, err := x509.MarshalPKIXPublicKey(&w.key.PublicKey)
	if err != nil {
		return sim.Release{}, err
	}
	files := map[string]sim.File{
		"etc/mender/key.pem": {Content: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Mode: 0o644},
		"etc/mender/mender.conf": {
			Content: `{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3", "ArtifactVerifyKey": "/etc/mender/key.pem"}`,
			Mode:    0o644,
		},
		"opt/noise": {Content: string(noise(128*kib, name[len(name)-1])), Mode: 0o644},
	}
	if name == sick {
		files["etc/usb-updater/usb-updater.conf"] = sim.File{Content: `{"HealthDeadlineSeconds": 0}`, Mode: 0o644}
		files["etc/usb-updater/health.d/10-ill"] = sim.File{Content: "#!/bin/sh\nexit 1\n", Mode: 0o755}
	}
	return sim.Release{Name: name, Files: files}, nil
}

// noise does not compress. It is always the same for a seed.
func noise(size int, seed byte) []byte {
	rng, b := mathrand.New(mathrand.NewPCG(7, uint64(seed))), make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// artifact makes a signed artifact of a release. The image is not compressed
// unless change says so.
func (w *workshop) artifact(t *testing.T, name string, change func(*artifacttest.Spec)) []byte {
	t.Helper()
	spec := artifacttest.Spec{
		Name: name, DeviceTypes: []string{deviceType}, Compression: "none", Signer: w.key,
		Files: []artifacttest.File{artifacttest.Bytes("image.ext4", w.images[name])},
	}
	if change != nil {
		change(&spec)
	}
	var b bytes.Buffer
	if err := artifacttest.Write(&b, spec); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rig is a device of one test's own.
type rig struct {
	*workshop

	dev *sim.Device
}

func newRig(t *testing.T) *rig {
	t.Helper()
	w, err := newWorkshop()
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.device.Clone(filepath.Join(t.TempDir(), "device"))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{workshop: w, dev: d}
}

// outcome is how a run of the agent ended.
type outcome struct {
	code   int
	result string // name of the result code
	log    string
	out    string
}

var resultWord = regexp.MustCompile(`result=(\S+)`)

// logWriter keeps what the agent says, and tells when it has said its last word.
type logWriter struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ended chan struct{}
}

// Write takes a line.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	over := strings.Contains(w.buf.String(), "run ended")
	w.buf.Write(p)
	if !over && strings.Contains(w.buf.String(), "run ended") {
		close(w.ended)
	}
	return len(p), nil
}

// agent starts the program. The caller waits for it.
func (r *rig) agent(t *testing.T, args ...string) (cmd *exec.Cmd, end func() outcome) {
	t.Helper()
	program, err := filepath.Abs("../../bin/usb-updater")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("build the programs first (make build): %v", err)
	}
	cmd = exec.CommandContext(t.Context(), program, append([]string{"--root", r.dev.Dir}, args...)...)
	var out bytes.Buffer
	log := &logWriter{ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &out, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, func() outcome {
		if err := cmd.Wait(); err != nil {
			if _, exited := errors.AsType[*exec.ExitError](err); !exited {
				t.Fatal(err)
			}
		}
		o := outcome{code: cmd.ProcessState.ExitCode(), log: log.buf.String(), out: out.String()}
		if m := resultWord.FindStringSubmatch(o.log); m != nil {
			o.result = m[1]
		}
		return o
	}
}

// run has the agent look at a stick.
func (r *rig) run(t *testing.T, stick string) outcome {
	t.Helper()
	_, end := r.agent(t, "run", stick)
	return end()
}

// writeStick makes a stick of files in a directory.
func writeStick(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// snapshot is every file of the device by its checksum. Locks and what does not
// outlive the boot are left out.
// A line of the history is what a refused stick may leave.
func (r *rig) snapshot(t *testing.T) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(r.dev.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(r.dev.Dir, path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, "run/") || strings.HasSuffix(name, "-history.jsonl") || strings.Contains(name, "lock") && !strings.HasPrefix(name, "dev/") {
			return nil
		}
		b, err := os.ReadFile(path)
		sums[name] = fmt.Sprintf("%d bytes, %x", len(b), sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// unchanged fails unless the device is as it was, down to the byte.
func (r *rig) unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	if diff := cmp.Diff(before, r.snapshot(t)); diff != "" {
		t.Errorf("the device has changed (-before +after):\n%s", diff)
	}
}

// safe fails unless the device is harmless after a run: either the old slot is
// the default and nothing is armed, or the signed image is whole in the other
// slot and on trial. It tells which.
func (r *rig) safe(t *testing.T, o outcome, release string) (installed bool) {
	t.Helper()
	env, err := r.dev.Env()
	if err != nil {
		t.Fatalf("boot environment: %v", err)
	}
	old, err := os.ReadFile(r.dev.Slot(2))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(old, r.images["release-1"]) {
		at := 0
		for want := r.images["release-1"]; at < len(want) && at < len(old) && old[at] == want[at]; {
			at++
		}
		t.Errorf("the running slot, %d bytes, was written to at %d:\n%s", len(old), at, o.log)
	}
	if strings.Contains(o.log, "internal error") || strings.Contains(o.log, "goroutine ") {
		t.Errorf("the program broke:\n%s", o.log)
	}
	if env["upgrade_available"] == "0" && env["mender_boot_part"] == "2" {
		if o.result == "ok" {
			t.Errorf("result ok, and nothing is armed:\n%s", o.log)
		}
		return false
	}
	slot, err := os.ReadFile(r.dev.Slot(3))
	if err != nil {
		t.Fatal(err)
	}
	if o.result != "ok" || !bytes.HasPrefix(slot, r.images[release]) {
		t.Errorf("armed %v with result %q, slot holds %s: %v\n%s", env, o.result, release, bytes.HasPrefix(slot, r.images[release]), o.log)
	}
	return true
}

// boots fails unless that slot comes up.
func (r *rig) boots(t *testing.T, want int) {
	t.Helper()
	if got, err := r.dev.Boot(); err != nil || got != want {
		t.Errorf("slot %d comes up (%v), want %d", got, err, want)
	}
}

// recovers fails unless the next good stick installs and commits.
func (r *rig) recovers(t *testing.T) {
	t.Helper()
	r.boots(t, 2)
	if _, end := r.agent(t, "boot-check"); true {
		if o := end(); o.result != "nothing-in-progress" {
			t.Errorf("boot-check after a failed run: %q, want nothing-in-progress\n%s", o.result, o.log)
		}
	}
	if o := r.run(t, writeStick(t, map[string][]byte{"good.mender": r.artifact(t, "release-3", nil)})); o.result != "ok" {
		t.Errorf("the next good stick: result %q\n%s", o.result, o.log)
	}
	r.boots(t, 3)
	if _, end := r.agent(t, "boot-check"); true {
		if o := end(); o.result != "ok" {
			t.Errorf("boot-check of the good release: %q\n%s", o.result, o.log)
		}
	}
	if slot, err := os.ReadFile(r.dev.Slot(3)); err != nil || !bytes.HasPrefix(slot, r.images["release-3"]) {
		t.Errorf("slot 3 does not hold release-3 (%v)", err)
	}
}

// one of fails unless the run ended with one of the results.
func (o outcome) oneOf(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Contains(want, o.result) {
		t.Errorf("result %q, want one of %q\n%s", o.result, want, o.log)
	}
}

// sorted gives the keys of a table of cases in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
