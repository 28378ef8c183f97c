//go:build device

// Package kill ends the real mender with SIGKILL at each system call that
// writes, and then does what a person or the next boot would do. A system call
// that is killed is not carried out, so that each point is the state between
// two writes. What a medium loses that was not flushed is the matter of the
// power cut tests beside the packages.
package kill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	mib        = 1 << 20
	slotSize   = 6 * mib
	imageSize  = 4 * mib
	noiseSize  = 2 * mib
	deviceType = "test-board"
)

// bench is a device, the artifacts for it, and a state to return to. With root
// its slots are loop devices, without they are files.
type bench struct {
	*sim.Device
	t        *testing.T
	bin      string
	work     string
	releases map[string][]byte // what a whole slot begins with
	about    string            // what is tried
	kills    int               // in it, so far
	// trialLost: the boot loader has ended the trial of an update that waited
	// for its commit. Nothing is rolled back then.
	trialLost  bool
	lostBefore bool // in the scene's state already
	scratch    []byte
}

// snapshot is a state of the device to return to.
type snapshot struct {
	files map[string]file
	slots map[int][]byte
}

type file struct {
	mode    fs.FileMode
	content []byte
}

// need skips where the simulated device cannot be made, unless REQUIRE demands
// the device tests.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		_, err := exec.LookPath(tool)
		if _, sbin := os.Stat("/usr/sbin/" + tool); err == nil || sbin == nil {
			continue
		}
		tier.Device.Lack(t, tool)
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "mender")); err != nil {
		t.Fatalf("build the programs first (make build): %v", err)
	}
	root := os.Getuid() == 0
	b := &bench{t: t, bin: bin, work: t.TempDir(), releases: map[string][]byte{}}
	// A flush costs nothing in memory, and nodes work, other than in /dev/shm. The
	// slots are on disk, where they can be zeroed by command.
	if root {
		if err := unix.Mount("none", b.work, "tmpfs", 0, "size=256m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(b.work, 0); err != nil {
				t.Error(err)
			}
		})
	}
	b.Device, err = sim.New(filepath.Join(b.work, "device"), sim.Options{SlotSize: slotSize, Loop: root, Backing: t.TempDir(), DeviceType: deviceType})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"release-1", "release-2"} {
		b.releases[name] = b.image(name)
	}
	b.check(b.Flash(2, filepath.Join(b.work, "release-1")))
	b.fill(3, bytes.Repeat([]byte{0xA5}, slotSize)) // so that zeros are an achievement
	b.boot(2)
	return b
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// image makes the image of a release, with scripts that tell of themselves and
// content that no compression makes small.
func (b *bench) image(name string) []byte {
	b.t.Helper()
	noise := make([]byte, noiseSize)
	rng := rand.New(rand.NewPCG(1, uint64(len(name))))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	r := sim.Release{Name: name, Files: map[string]sim.File{
		"etc/mender/scripts/version": {Content: "3", Mode: 0o644},
		"opt/noise":                  {Content: string(noise), Mode: 0o644},
	}}
	for _, state := range []string{"Download_Enter", "Download_Leave", "Download_Error"} {
		r.Files["etc/mender/scripts/"+state+"_00"] = sim.File{Content: string(b.script(state)), Mode: 0o755}
	}
	path := filepath.Join(b.work, name)
	b.check(r.Image(path, imageSize))
	content, err := os.ReadFile(path)
	b.check(err)
	return content
}

func (b *bench) script(state string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\necho %s >>%s\n", state, b.calls())
}

// calls is where scripts and modules write what they were called for.
func (b *bench) calls() string { return filepath.Join(b.Dir, "var/calls") }

// app is what the module installs.
func (b *bench) app() string { return filepath.Join(b.Dir, "var/app") }

// artifact writes an artifact with every state script, and returns its path.
func (b *bench) artifact(name string, spec artifacttest.Spec) string {
	b.t.Helper()
	spec.Name, spec.DeviceTypes = name, []string{deviceType}
	for _, state := range []string{
		"ArtifactInstall_Enter", "ArtifactInstall_Leave", "ArtifactInstall_Error",
		"ArtifactCommit_Enter", "ArtifactCommit_Leave", "ArtifactCommit_Error",
		"ArtifactRollback_Enter", "ArtifactRollback_Leave", "ArtifactFailure_Enter", "ArtifactFailure_Leave",
	} {
		spec.Scripts = append(spec.Scripts, artifacttest.Script{Name: state + "_00", Data: b.script(state)})
	}
	path := filepath.Join(b.work, name+".mender")
	f, err := os.Create(path)
	b.check(err)
	b.check(artifacttest.Write(f, spec))
	b.check(f.Close())
	return path
}

// imageArtifact holds the image of release-2.
func (b *bench) imageArtifact() string {
	image := b.releases["release-2"]
	return b.artifact("release-2", artifacttest.Spec{Compression: "none", Files: []artifacttest.File{{
		Name: "rootfs.ext4", Size: int64(len(image)), Open: func() (io.Reader, error) { return bytes.NewReader(image), nil },
	}}})
}

// moduleArtifact is for the module that is given to the device with it.
func (b *bench) moduleArtifact(rollback string) string {
	path := filepath.Join(b.Dir, "usr/share/mender/modules/v3/app")
	b.check(os.MkdirAll(filepath.Dir(path), 0o755))
	body := fmt.Sprintf("#!/bin/sh\necho $1 >>%s\ncase $1 in\nSupportsRollback) echo %s;;\nArtifactInstall) cp files/app %s;;\nArtifactRollback) echo old >%[3]s;;\nesac\n",
		b.calls(), rollback, b.app())
	b.check(os.WriteFile(path, []byte(body), 0o755))
	b.check(os.WriteFile(b.app(), []byte("old\n"), 0o600))
	return b.artifact("app-2", artifacttest.Spec{PayloadType: "app", Files: []artifacttest.File{artifacttest.Bytes("app", []byte("new\n"))}})
}

// tree is the module's work tree.
func (b *bench) tree() string { return filepath.Join(b.Data(), "modules/v3/payloads/0000/tree") }

// trace runs a program and kills it at its write number killAt, counted from 0.
func (b *bench) trace(killAt int, program string, args ...string) run {
	b.t.Helper()
	return trace(b.t, b.Dir, killAt, filepath.Join(b.bin, program), append([]string{"--root", b.Dir}, args...)...)
}

// mender runs the program without anything that could end it.
func (b *bench) mender(args ...string) (int, string) { return b.program("mender", args...) }

func (b *bench) program(name string, args ...string) (int, string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), filepath.Join(b.bin, name), append([]string{"--root", b.Dir}, args...)...)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// must runs mender where it cannot fail.
func (b *bench) must(args ...string) {
	b.t.Helper()
	if code, out := b.mender(args...); code != 0 {
		b.t.Fatalf("mender %v: exit status %d\n%s", args, code, out)
	}
}

func (b *bench) boot(want int) {
	b.t.Helper()
	if got, err := b.Boot(); err != nil || got != want {
		b.t.Fatalf("slot %d came up (%v), want %d", got, err, want)
	}
}

// snapshot remembers the state of the device.
func (b *bench) snapshot() snapshot {
	b.t.Helper()
	s := snapshot{map[string]file{}, map[int][]byte{}}
	for _, dir := range []string{"var", "etc", "run", "proc", "dev/mmcblk0"} {
		b.check(filepath.WalkDir(filepath.Join(b.Dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			f := file{mode: info.Mode()}
			if info.Mode().IsRegular() {
				f.content, err = os.ReadFile(path)
			}
			s.files[path] = f
			return err
		}))
	}
	for _, n := range sim.Slots {
		s.slots[n] = slices.Clone(b.read(n, slotSize))
	}
	return s
}

// restore returns to a state.
func (b *bench) restore(s snapshot) {
	b.t.Helper()
	for _, dir := range []string{"var", "etc", "run", "proc"} {
		b.check(os.RemoveAll(filepath.Join(b.Dir, dir)))
	}
	for _, path := range slices.Sorted(maps.Keys(s.files)) { // a directory comes before what is in it
		switch f := s.files[path]; {
		case f.mode.IsDir():
			b.check(os.MkdirAll(path, f.mode.Perm()))
		case f.mode.IsRegular():
			b.check(os.WriteFile(path, f.content, f.mode.Perm()))
		case f.mode&fs.ModeNamedPipe != 0:
			b.check(unix.Mkfifo(path, uint32(f.mode.Perm())))
		}
	}
	for n, content := range s.slots {
		if bytes.Equal(b.read(n, slotSize), content) {
			continue
		}
		b.fill(n, content)
	}
}

// state names what decides how the device goes on: two points that leave the same
// one differ in temporary files and in a slot that nothing points to.
func (b *bench) state() string {
	b.t.Helper()
	r, err := state.Read(b.Data())
	b.check(err)
	r.Failed, r.Known, r.Result = nil, nil, nil // have the time in them
	env, err := b.Env()
	b.check(err)
	app, err := os.ReadFile(b.app())
	if !errors.Is(err, fs.ErrNotExist) {
		b.check(err)
	}
	_, noTree := os.Lstat(b.tree())
	record, err := json.Marshal(r)
	b.check(err)
	return fmt.Sprintf("%s %v %q %s %v", record, env, b.called(), app, noTree == nil)
}

func (b *bench) fill(n int, content []byte) {
	b.t.Helper()
	f, err := os.OpenFile(b.Slot(n), os.O_WRONLY, 0)
	b.check(err)
	_, err = f.Write(content)
	b.check(errors.Join(err, f.Sync(), f.Close()))
}

// read returns what a slot begins with, until the next read.
func (b *bench) read(n, size int) []byte {
	b.t.Helper()
	f, err := os.Open(b.Slot(n))
	b.check(err)
	defer f.Close()
	if b.scratch == nil {
		b.scratch = make([]byte, slotSize)
	}
	_, err = io.ReadFull(f, b.scratch[:size])
	b.check(err)
	return b.scratch[:size]
}
