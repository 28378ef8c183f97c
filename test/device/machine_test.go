//go:build device

package device

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/lmdb"
	"github.com/usb-updater/usb-updater/test/sim"
)

// inSlot runs a program with the slot $SLOT of the device $DEVICE as its root
// file system, read-only, and the machine's programs. The test's directory is in
// /mnt. Nothing of this is seen outside.
const inSlot = `
root=$DEVICE/root
mkdir -p $root
mount -t tmpfs none /run
mkdir /run/dev
for n in null urandom full; do touch /run/dev/$n; mount --bind /dev/$n /run/dev/$n; done
cp -a $DEVICE/dev/mmcblk0p2 $DEVICE/dev/mmcblk0p3 /run/dev
touch /run/dev/mmcblk0
mount --bind $DEVICE/dev/mmcblk0 /run/dev/mmcblk0
mount --rbind /run/dev /dev
mount -o ro /dev/mmcblk0p$SLOT $root
for d in usr bin sbin lib lib64 dev proc; do mount --rbind /$d $root/$d; done
mount --bind $DEVICE/proc/sys/kernel/random/boot_id $root/proc/sys/kernel/random/boot_id
mount --bind $DEVICE/var/lib/mender $root/var/lib/mender
mount --bind $WORK $root/mnt
mount -t tmpfs none $root/tmp
mount -t tmpfs none $root/run
exec chroot $root sh -c 'cd /mnt; [ -z "$BEFORE" ] || eval "$BEFORE"; ` + runArguments + `' sh "$@"`

const machineSlot = 8 * mib

// machine is a device whose slots become the root file system, so that any
// program finds on it what it finds on a real one.
type machine struct {
	*appliance
	device *sim.Device
	files  map[string]sim.File // of every release
}

// newMachine makes a device that runs release-1. files are part of every
// release.
func newMachine(t *testing.T, files map[string]sim.File) *machine {
	t.Helper()
	m := &machine{appliance: &appliance{t: t, dir: t.TempDir(), around: inSlot}, files: map[string]sim.File{}}
	maps.Copy(m.files, files)
	for _, dir := range []string{"usr", "bin", "sbin", "lib", "lib64", "dev", "proc", "mnt", "tmp", "run", "var/lib/mender"} {
		m.files[dir+"/.keep"] = sim.File{Mode: 0o644}
	}
	var err error
	m.device, err = sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: machineSlot, Loop: true, DeviceType: deviceType})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.device.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.device.Flash(2, m.image("release-1")); err != nil {
		t.Fatal(err)
	}
	m.store(map[string][]byte{"artifact-name": []byte("release-1")})
	m.boot(2)
	t.Setenv("DEVICE", m.device.Dir)
	t.Setenv("WORK", m.dir)
	return m
}

func (m *machine) image(name string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := (sim.Release{Name: name, Files: m.files}).Image(path, machineSlot/2); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// artifact makes an artifact with the image of a release, and returns its name
// on the machine. Scripts write their names to calls; those in fail end with an
// error.
func (m *machine) artifact(name string, spec artifacttest.Spec) string {
	m.t.Helper()
	if spec.Name = name; spec.DeviceTypes == nil {
		spec.DeviceTypes = []string{deviceType}
	}
	if spec.PayloadType == "" {
		image := m.image(name)
		spec.Files = []artifacttest.File{{Name: name, Size: machineSlot / 2, Open: func() (io.Reader, error) { return os.Open(image) }}}
	}
	write(m.t, filepath.Join(m.dir, name+".mender"), spec)
	return "/mnt/" + name + ".mender"
}

// says is a state script that tells of itself, and fails if it is told to.
const says = "#!/bin/sh\nn=${0##*/}; n=${n%_00}; echo $n >>/var/lib/mender/calls; [ ! -e /var/lib/mender/fail-$n ]\n"

// scripts are those of every state that an artifact can have in standalone mode.
func scripts() []artifacttest.Script {
	var all []artifacttest.Script
	for _, state := range []string{"ArtifactInstall", "ArtifactCommit", "ArtifactRollback", "ArtifactFailure"} {
		for _, action := range []string{"Enter", "Leave", "Error"} {
			all = append(all, artifacttest.Script{Name: state + "_" + action + "_00", Data: []byte(says)})
		}
	}
	return all
}

func (m *machine) boot(want int) {
	m.t.Helper()
	boot(m.t, m.device, want)
	m.t.Setenv("SLOT", strconv.Itoa(want))
}

// code runs a program on the machine and returns its exit code and output.
func (m *machine) code(program string, args ...string) (int, string) {
	m.t.Helper()
	return m.run(m.there(program), args...)
}

// there returns where the machine finds a program: the client where it is, ours
// as a copy.
func (m *machine) there(program string) string {
	m.t.Helper()
	if program == client {
		return program
	}
	to := filepath.Join(m.dir, "ours")
	if _, err := os.Stat(to); err != nil {
		content, err := os.ReadFile(program)
		if err := errors.Join(err, os.WriteFile(to, content, 0o755)); err != nil {
			m.t.Fatal(err)
		}
	}
	return "/mnt/ours"
}

// must runs a program that has to succeed.
func (m *machine) must(program string, args ...string) string {
	m.t.Helper()
	code, out := m.code(program, args...)
	if code != 0 {
		m.t.Fatalf("%s %v: exit status %d\n%s", program, args, code, out)
	}
	return out
}

// named returns what artifact is installed, by the program's words.
func (m *machine) named(program string) string {
	m.t.Helper()
	_, out := m.code(program, "--log-level", "error", "show-artifact")
	lines := strings.Fields(out)
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// holds names the release in a slot.
func (m *machine) holds(n int) string {
	m.t.Helper()
	content, err := os.ReadFile(m.device.Slot(n))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"release-1", "release-2", "release-3"} {
		image, err := os.ReadFile(filepath.Join(m.dir, name))
		if err == nil && bytes.HasPrefix(content, image) {
			return name
		}
	}
	return "nothing known"
}

// armed tells what the boot loader would do next.
func (m *machine) armed() string {
	m.t.Helper()
	env, err := m.device.Env()
	if err != nil {
		m.t.Fatal(err)
	}
	return env["mender_boot_part"] + "/" + env["upgrade_available"]
}

// data is a file of the data directory.
func (m *machine) data(name string) string { return filepath.Join(m.device.Data(), name) }

// store makes a store as an update has left it.
func (m *machine) store(kv map[string][]byte) {
	m.t.Helper()
	content, err := lmdb.Encode(kv, lmdb.Native())
	if err := errors.Join(err, os.WriteFile(m.data("mender-store"), content, 0o600)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) called() []string {
	m.t.Helper()
	content, err := os.ReadFile(m.data("calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return strings.Fields(string(content))
}

// TestImageWithMenderClient: a root file system that this program installs,
// Debian's mender-client commits or rolls back, and the other way round.
func TestImageWithMenderClient(t *testing.T) {
	need(t, "unshare", "chroot", "fw_setenv", client)
	ours := filepath.Join(programs(t), "mender")
	for _, tt := range []struct {
		name, installs, ends, verb, artifact, armed string
		boots                                       int
	}{
		{"ours, committed by the client", ours, client, "commit", "release-2", "3/0", 3},
		{"ours, rolled back by the client", ours, client, "rollback", "release-1", "2/0", 2},
		{"the client's, committed by ours", client, ours, "commit", "release-2", "3/0", 3},
		{"the client's, rolled back by ours", client, ours, "rollback", "release-1", "2/0", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, nil)
			m.must(tt.installs, "install", m.artifact("release-2", artifacttest.Spec{Scripts: scripts()}))
			if got := m.holds(3); got != "release-2" || m.armed() != "3/1" {
				t.Fatalf("slot B holds %s, armed: %s", got, m.armed())
			}
			m.boot(3)
			m.must(tt.ends, tt.verb)
			if got := m.armed(); got != tt.armed {
				t.Errorf("boot environment: %s, want %s", got, tt.armed)
			}
			m.boot(tt.boots)
			for _, program := range []string{ours, client} {
				if got := m.named(program); got != tt.artifact {
					t.Errorf("%s show-artifact: %s, want %s", program, got, tt.artifact)
				}
				if code, out := m.code(program, "commit"); code != 2 {
					t.Errorf("%s commit: exit status %d, want 2: %s", program, code, out)
				}
			}
		})
	}
}

// stored returns the values in the store.
func (m *machine) stored() map[string][]byte {
	m.t.Helper()
	content, err := os.ReadFile(m.data("mender-store"))
	if err != nil {
		m.t.Fatal(err)
	}
	kv, _, err := lmdb.Decode(content)
	if err != nil {
		m.t.Fatal(err)
	}
	return kv
}

// TestStoreIsHandedBack: a trial of a system with this program, which Debian's
// mender-client has installed, does not last. The client of the old system finds
// everything in its store, and goes on with it.
func TestStoreIsHandedBack(t *testing.T) {
	need(t, "unshare", "chroot", "fw_setenv", client)
	ours := filepath.Join(programs(t), "mender")
	for _, tt := range []struct {
		name    string
		trial   func(m *machine) // under ours
		lost    []string         // keys that the trial may take away
		commits int              // exit code of the client's commit in the old system
	}{
		{"the commit failed", func(m *machine) {
			m.fail("ArtifactCommit_Enter")
			if code, out := m.code(ours, "commit"); code != 1 || m.armed() != "2/0" {
				m.t.Fatalf("commit: exit status %d, armed: %s: %s", code, m.armed(), out)
			}
		}, []string{"standalone-state"}, 2},
		{"it was rolled back", func(m *machine) { m.must(ours, "rollback") }, []string{"standalone-state"}, 2},
		{"nobody committed it", func(m *machine) {
			m.must(ours, "show-artifact")
			m.must(ours, "show-provides")
		}, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, nil)
			m.store(map[string][]byte{
				"artifact-name": []byte("release-1"), "artifact-group": []byte("beta"),
				"artifact-provides": []byte(`{"data.version":"1"}`), "authtoken": []byte("token\x00\xff"),
			})
			m.must(client, "install", m.artifact("release-2", artifacttest.Spec{Scripts: scripts()}))
			want := m.stored()
			m.boot(3)
			tt.trial(m)
			m.boot(2)
			got := m.stored()
			maps.DeleteFunc(got, func(key string, _ []byte) bool { return strings.HasPrefix(key, "usb-updater-") })
			for _, key := range tt.lost {
				delete(want, key)
			}
			if !maps.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("the store holds %q, want %q", got, want)
			}
			if code, out := m.code(client, "commit"); code != tt.commits {
				t.Errorf("the client's commit: exit status %d, want %d: %s", code, tt.commits, out)
			}
			out := m.must(client, "--log-level", "error", "show-provides")
			for _, line := range []string{"artifact_group=beta", "artifact_name=release-1", "data.version=1"} {
				if !strings.Contains("\n"+out, "\n"+line+"\n") {
					t.Errorf("the client's show-provides lacks %s: %s", line, out)
				}
			}
			m.must(client, "install", m.artifact("release-3", artifacttest.Spec{}))
			m.boot(3)
			m.must(client, "commit")
			if got := m.named(client); got != "release-3" {
				t.Errorf("the client's show-artifact: %s, want release-3", got)
			}
		})
	}
}

// TestOneBadLine: a system that has lost its device type, and has a line in
// artifact_info that is none, is committed and rolled back, by Debian's
// mender-client and by this program.
func TestOneBadLine(t *testing.T) {
	need(t, "unshare", "chroot", "fw_setenv", client)
	for _, program := range []string{filepath.Join(programs(t), "mender"), client} {
		for verb, armed := range map[string]string{"commit": "3/0", "rollback": "2/0"} {
			t.Run(program+" "+verb, func(t *testing.T) {
				m := newMachine(t, nil)
				m.must(program, "install", m.artifact("release-2", artifacttest.Spec{}))
				m.boot(3)
				m.put("artifact_info", "artifact_name=release-2\nno key here\n")
				t.Setenv("BEFORE", "mount --bind /mnt/artifact_info /etc/mender/artifact_info; rm /var/lib/mender/device_type")
				m.must(program, verb)
				if got := m.armed(); got != armed {
					t.Errorf("boot environment: %s, want %s", got, armed)
				}
			})
		}
	}
}

// TestUnmountIsTold: that a mounted slot is taken out of use is a warning, which
// who wants to see no more than warnings sees.
func TestUnmountIsTold(t *testing.T) {
	need(t, "unshare", "chroot")
	m := newMachine(t, nil)
	if err := m.device.Flash(3, m.image("release-1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(m.data("mounted"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BEFORE", "mount -o ro /dev/mmcblk0p3 /var/lib/mender/mounted")
	out := m.must(filepath.Join(programs(t), "mender"), "--log-level", "warning", "install", m.artifact("release-2", artifacttest.Spec{}))
	if want := "mender: warning: the inactive slot /dev/mmcblk0p3 is mounted on \"/var/lib/mender/mounted\": umount, to write it\n"; !strings.Contains(out, want) {
		t.Errorf("install: %s, want %s", out, want)
	}
}

// TestNotRoot: who may not is told so in one line, and changes nothing.
func TestNotRoot(t *testing.T) {
	need(t, "unshare", "chroot", "setpriv")
	ours := filepath.Join(programs(t), "mender")
	m := newMachine(t, nil)
	if err := os.Chmod(m.device.Data(), 0o700); err != nil {
		t.Fatal(err)
	}
	artifact := m.artifact("release-2", artifacttest.Spec{})
	for _, args := range [][]string{{"install", artifact}, {"commit"}, {"rollback"}, {"resume"}} {
		nobody := append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", m.there(ours)}, args...)
		code, out := m.run("setpriv", nobody...)
		if code != 1 || !strings.Contains(out, "permission denied") || !strings.Contains(out, "hint: run as root") {
			t.Errorf("%v: exit status %d: %s", args, code, out)
		}
	}
	if got := m.state(ours, 0); got != "0 2/0 release-1" || m.holds(3) != "nothing known" {
		t.Errorf("afterward: %s, slot B holds %s", got, m.holds(3))
	}
}
