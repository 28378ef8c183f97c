//go:build device

package hostile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

type files = map[string][]byte

// TestDefenseD05Contents: what a stick may hold, by mistake or on purpose, and
// what comes of it. A stick that is refused has cost nothing: every file of the
// device is as it was.
func TestDefenseD05Contents(t *testing.T) {
	need(t)
	for _, kind := range kinds() {
		t.Run(kind.name, func(t *testing.T) { kind.need(t); checkContents(t, kind.plugIn) })
	}
}

func checkContents(t *testing.T, plugIn func(*testing.T, files) string) {
	t.Helper()
	r := newRig(t)
	forBoard := func(device string) []byte {
		return r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.DeviceTypes = []string{device} })
	}
	good := r.artifact(t, "release-2", nil)
	unsigned := r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Signer = nil })
	ten := files{}
	for i := range 10 {
		ten[fmt.Sprintf("%d.mender", i)] = forBoard(fmt.Sprintf("board-%d", i))
	}
	tests := []struct {
		name    string
		files   files
		want    string // result
		chosen  string // release that is installed, "" for none
		in, out string // what the log must say, and must not
	}{
		{"nothing", files{"notes.txt": []byte("x")}, "no-artifact", "", "", ""},
		{"empty file", files{"a.mender": nil}, "no-artifact", "", "", ""},
		{"litter of macOS and Windows", files{
			"._update.mender": []byte("\x00\x05\x16\x07"), ".DS_Store": []byte("x"), ".Trashes/501/old.mender": good, ".Spotlight-V100/x.mender": good,
			"System Volume Information/x.mender": good, "$RECYCLE.BIN/x.mender": good, "Thumbs.db": []byte("x"), "update.mender.part": good, "other/deep.mender": good,
		}, "no-artifact", "", "", ""},
		{"litter beside an artifact", files{"._update.mender": []byte("x"), "System Volume Information/x": nil, "update.mender": good}, "ok", "release-2", "", ""},
		{"folder of any case", files{"Mender/UPDATE.MENDER": good}, "ok", "release-2", "", ""},
		{"ten devices, not this one", ten, "not-for-device", "", "not compatible", ""},
		{"ten devices and this one", with(ten, "z.mender", good), "ok", "release-2", "", ""},
		{"another device and a broken one", files{"a.mender": forBoard("board-1"), "b.mender": good[:2*kib]}, "refused", "", "not compatible", ""},
		{"two versions", files{"a.mender": r.artifact(t, "release-3", nil), "b.mender": good}, "ok", "release-3", "older than", ""},
		{"same version, other content", files{"a.mender": good, "b.mender": r.artifact(t, "release-2", func(s *artifacttest.Spec) {
			s.Files = []artifacttest.File{artifacttest.Bytes("image.ext4", r.images["release-3"])}
		})}, "refused", "", "2 different artifacts have the version", ""},
		{"two copies", files{"a.mender": good, "b.mender": good}, "ok", "release-2", "the same artifact as", ""},
		{"unsigned", files{"a.mender": unsigned}, "bad-artifact", "", "signed", ""},
		{"unsigned, newer, beside a signed one", files{"a.mender": good, "b.mender": r.artifact(t, "release-3", func(s *artifacttest.Spec) { s.Signer = nil })}, "ok", "release-2", "", ""},
		{"downgrade", files{"a.mender": r.artifact(t, "release-0", func(s *artifacttest.Spec) {
			s.Files = []artifacttest.File{artifacttest.Bytes("image.ext4", r.images["release-3"])}
		})}, "refused", "", "AllowDowngrade", ""},
		{"too large for the slot", files{"a.mender": r.artifact(t, "release-2", func(s *artifacttest.Spec) {
			s.Files = []artifacttest.File{artifacttest.Bytes("image.ext4", make([]byte, slotSize+1))}
		})}, "refused", "", "the partition", ""},
		{"copied in part, header", files{"a.mender": good[:2*kib]}, "bad-artifact", "", "unexpected end", ""},
		{"zeros of its size", files{"a.mender": make([]byte, len(good))}, "bad-artifact", "", "", ""},
		{"configuration", files{
			"etc/mender/mender.conf": []byte(`{}`), "mender.conf": []byte(`{}`), "usb-updater.conf": []byte(`{"AllowUnsigned": true}`),
			"mender/usb-updater.conf": []byte(`{"AllowUnsigned": true}`), "device_type": []byte("device_type=x\n"), "a.mender": unsigned,
		}, "bad-artifact", "", "signed", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			before := r.snapshot(t)
			o := r.run(t, plugIn(t, tt.files))
			if o.result != tt.want {
				t.Errorf("result %q, want %q\n%s", o.result, tt.want, o.log)
			}
			if !strings.Contains(o.log, tt.in) {
				t.Errorf("the log lacks %q:\n%s", tt.in, o.log)
			}
			harmless(t, "log", o.log, maxLines+16)
			if installed := r.safe(t, o, tt.chosen); installed != (tt.chosen != "") {
				t.Errorf("installed: %v, want %q", installed, tt.chosen)
			}
			if tt.chosen == "" {
				r.unchanged(t, before)
			}
		})
	}
}

func with(m files, name string, content []byte) files {
	all := files{name: content}
	maps.Copy(all, m)
	return all
}

// TestDefenseD12CutPayload: the copy to the stick was interrupted.
func TestDefenseD12CutPayload(t *testing.T) {
	need(t)
	good := newRig(t).artifact(t, "release-2", nil)
	for _, missing := range []int{1, 512, 4 * kib, 100 * kib} {
		r := newRig(t)
		o := r.run(t, writeStick(t, files{"a.mender": good[:len(good)-missing]}))
		if r.safe(t, o, "release-2") {
			continue // what is missing is padding
		}
		o.oneOf(t, "bad-artifact")
		r.recovers(t)
	}
}

// TestDefenseD07Crowds: many files, links in circles, deep and huge directories
// end in a bounded number of lines and leave the device alone.
func TestDefenseD07Crowds(t *testing.T) {
	need(t)
	many := func(n int, pattern string) func(string) error {
		return func(dir string) error {
			for i := range n {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(pattern, i)), []byte("x"), 0o600); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for what, fill := range map[string]func(string) error{
		"10,000 artifacts": many(10000, "%d.mender"),
		"20,000 files":     many(20000, "%d.txt"),
		"links in circles": func(dir string) error {
			return errors.Join(
				os.Symlink(".", filepath.Join(dir, "mender")), os.Symlink("b.mender", filepath.Join(dir, "a.mender")), os.Symlink("a.mender", filepath.Join(dir, "b.mender")),
				os.Symlink("/etc/passwd", filepath.Join(dir, "c.mender")), os.Symlink("/dev/zero", filepath.Join(dir, "d.mender")), os.Symlink("..", filepath.Join(dir, "MENDER")),
				os.Symlink("/proc/self/fd/0", filepath.Join(dir, "e.mender")))
		},
		"deep": func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, strings.Repeat("mender/", 500)), 0o700)
		},
		"50 spellings of the folder": func(dir string) error {
			for i := range 50 {
				spelling := []byte("mender")
				for bit := range spelling {
					if i>>bit&1 == 1 {
						spelling[bit] -= 'a' - 'A'
					}
				}
				sub := filepath.Join(dir, string(spelling))
				if err := errors.Join(os.Mkdir(sub, 0o700), many(100, "%d.mender")(sub)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			dir := t.TempDir()
			if err := fill(dir); err != nil {
				t.Fatal(err)
			}
			before := r.snapshot(t)
			o := r.run(t, dir)
			o.oneOf(t, "no-artifact", "refused", "bad-artifact")
			harmless(t, "log", o.log, maxLines)
			r.unchanged(t, before)
		})
	}
}

// TestDefenseD09LeftIn: a stick that stays in for 50 boots is installed once.
func TestDefenseD09LeftIn(t *testing.T) {
	need(t)
	for _, kind := range kinds() {
		t.Run(kind.name, func(t *testing.T) { kind.need(t); checkLeftIn(t, kind.plugIn) })
	}
}

func checkLeftIn(t *testing.T, plugIn func(*testing.T, files) string) {
	t.Helper()
	for what, tt := range map[string]struct {
		release                      string
		installs, commits, rollbacks int
		slot                         int // in the end
	}{
		"good":                {"release-2", 1, 1, 0, 3},
		"fails its check":     {sick, 1, 0, 1, 2},
		"does not come up":    {"no root", 1, 0, 1, 2},
		"beside an older one": {"release-3", 1, 1, 0, 3},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			name := tt.release
			content := files{}
			if name == "no root" {
				content["a.mender"] = r.artifact(t, "release-5", func(s *artifacttest.Spec) {
					s.Files = []artifacttest.File{artifacttest.Bytes("image.ext4", make([]byte, imageSize))}
				})
			} else {
				content["a.mender"] = r.artifact(t, name, nil)
			}
			if what == "beside an older one" {
				content["b.mender"] = r.artifact(t, "release-2", nil)
			}
			installs, commits, rollbacks, slot := r.leftIn(t, []string{plugIn(t, content)}, func(string) {})
			if installs != tt.installs || commits != tt.commits || rollbacks != tt.rollbacks || slot != tt.slot {
				t.Errorf("%d installs, %d commits, %d rollbacks, slot %d; want %d, %d, %d, %d",
					installs, commits, rollbacks, slot, tt.installs, tt.commits, tt.rollbacks, tt.slot)
			}
		})
	}
}

// leftIn boots 50 times with all sticks plugged in, and counts what comes of it.
// before is called before each look at a stick.
func (r *rig) leftIn(t *testing.T, sticks []string, before func(stick string)) (installs, commits, rollbacks, slot int) {
	t.Helper()
	for boot := range 50 {
		var err error
		if slot, err = r.dev.Boot(); err != nil {
			t.Fatalf("boot %d: %v", boot, err)
		}
		_, end := r.agent(t, "boot-check")
		o := end()
		switch o.result {
		case "ok":
			commits++
		case "health-failed", "trial-failed":
			rollbacks++
		case "nothing-in-progress":
		default:
			t.Fatalf("boot %d: boot-check: %q\n%s", boot, o.result, o.log)
		}
		for _, stick := range sticks {
			if _, err := os.Stat(filepath.Join(r.dev.Dir, "run/usb-updater/reboot-requested")); err == nil {
				break
			}
			before(stick)
			if o := r.run(t, stick); o.result == "ok" {
				installs++
			}
		}
	}
	return installs, commits, rollbacks, slot
}

// TestDefenseD09Turns: several sticks or partitions that stay in for 50 boots, each
// with an artifact that may replace what another one has brought. They do not take
// turns: the number of installs is what the rules say, and the last ones install
// nothing.
func TestDefenseD09Turns(t *testing.T) {
	need(t)
	type spec = artifacttest.Spec
	named := func(name string) func(*spec) { return func(s *spec) { s.Name = name } }
	app := func(content, version string) func(*spec) {
		return func(s *spec) {
			s.Name, s.PayloadType, s.Files = "app-"+content, "app", []artifacttest.File{artifacttest.Bytes("app", []byte(content))}
			if version != "" {
				s.Provides = map[string]string{"rootfs-image.app.version": version}
			}
		}
	}
	const downgrade = `{"AllowDowngrade": true}`
	for what, tt := range map[string]struct {
		sticks   []func(*spec)
		conf     string
		again    bool // each look is at a stick that seems to have just been plugged in
		installs int
	}{
		"equal versions":      {sticks: []func(*spec){named("release-2"), named("build-2")}, installs: 2},
		"three in a ring":     {sticks: []func(*spec){named("release-2"), named("build-2"), named("image-2")}, installs: 3},
		"no order":            {sticks: []func(*spec){named("zebra"), named("yak")}, installs: 2},
		"older ones, allowed": {sticks: []func(*spec){named("release-3"), named("release-2")}, conf: downgrade, installs: 3},
		"modules":             {sticks: []func(*spec){app("a", ""), app("b", "")}, installs: 2},
		"module and image":    {sticks: []func(*spec){app("a", "1"), named("release-2")}, installs: 2},
		"a bad contact":       {sticks: []func(*spec){named("release-2"), named("build-2")}, again: true, installs: 8},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			module := filepath.Join(r.dev.Dir, "usr/share/mender/modules/v3/app")
			err := errors.Join(os.MkdirAll(filepath.Dir(module), 0o755),
				os.WriteFile(module, []byte("#!/bin/sh\ntest $1 = SupportsRollback && echo Yes\nexit 0\n"), 0o755))
			if err != nil {
				t.Fatal(err)
			}
			var sticks []string
			for _, change := range tt.sticks {
				sticks = append(sticks, writeStick(t, files{"a.mender": r.artifact(t, "release-2", change)}))
			}
			looks := 0
			before := func(stick string) {
				conf := filepath.Join(r.dev.Dir, "etc/usb-updater/usb-updater.conf")
				if looks++; tt.conf != "" {
					err = errors.Join(os.MkdirAll(filepath.Dir(conf), 0o755), os.WriteFile(conf, []byte(tt.conf), 0o600))
				}
				if tt.again {
					later := time.Now().Add(time.Duration(looks) * time.Hour)
					err = errors.Join(err, os.Chtimes(stick, later, later))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if installs, _, rollbacks, _ := r.leftIn(t, sticks, before); installs != tt.installs || rollbacks != 0 {
				t.Errorf("%d installs, %d rollbacks; want %d, 0", installs, rollbacks, tt.installs)
			}
		})
	}
}

// TestDefenseD09Broken: two sticks with damaged artifacts that stay in for 50 boots
// are written to the slot three times each, and after that a boot with them changes
// nothing.
func TestDefenseD09Broken(t *testing.T) {
	need(t)
	r := newRig(t)
	var sticks []string
	for _, name := range []string{"release-2", "build-2"} {
		a := r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Name = name })
		a[len(a)-imageSize/2] ^= 1
		sticks = append(sticks, writeStick(t, files{"a.mender": a}))
	}
	before := map[string]string{}
	looks := 0
	installs, commits, rollbacks, slot := r.leftIn(t, sticks, func(string) {
		if looks++; looks == 3*len(sticks)+1 {
			before = r.snapshot(t)
		}
	})
	if installs+commits+rollbacks != 0 || slot != 2 || looks != 50*len(sticks) {
		t.Errorf("%d installs, %d commits, %d rollbacks, slot %d, %d looks", installs, commits, rollbacks, slot, looks)
	}
	for _, name := range []string{"proc/sys/kernel/random/boot_id"} { // of each boot
		delete(before, name)
	}
	after := r.snapshot(t)
	delete(after, "proc/sys/kernel/random/boot_id")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("looks at sticks that are refused have changed the device (-before +after):\n%s", diff)
	}
}

// TestDefenseD09ManyStarts: many sticks, or many partitions of one, start the
// agent at the same time. One of the runs installs.
func TestDefenseD09ManyStarts(t *testing.T) {
	need(t)
	const starts = 8
	r := newRig(t)
	stick := writeStick(t, files{"a.mender": r.artifact(t, "release-2", nil)})
	var ends []func() outcome
	for range starts {
		_, end := r.agent(t, "run", stick)
		ends = append(ends, end)
	}
	installs := 0
	for _, end := range ends {
		o := end()
		o.oneOf(t, "ok", "busy", "pending")
		if o.result == "ok" {
			installs++
		}
	}
	if installs != 1 {
		t.Errorf("%d installs, want 1", installs)
	}
	r.boots(t, 3)
}

// TestDefenseD06Floor: a device that has lost its data partition knows no release
// to compare with. The floor is in the release that runs, and holds all the same.
func TestDefenseD06Floor(t *testing.T) {
	need(t)
	for floor, want := range map[string]string{"": "ok", "2": "ok", "release-3": "refused", "no version": "config-failed"} {
		t.Run(floor, func(t *testing.T) {
			r := newRig(t)
			good := r.artifact(t, "release-2", nil)
			for _, lost := range []string{"var/lib/mender/mender-store", "etc/mender/artifact_info"} {
				if err := os.RemoveAll(filepath.Join(r.dev.Dir, lost)); err != nil {
					t.Fatal(err)
				}
			}
			conf := filepath.Join(r.dev.Dir, "etc/usb-updater/usb-updater.conf")
			err := errors.Join(os.MkdirAll(filepath.Dir(conf), 0o755),
				os.WriteFile(conf, fmt.Appendf(nil, `{"AllowDowngrade": true, "MinVersion": %q}`, floor), 0o600))
			if err != nil {
				t.Fatal(err)
			}
			o := r.run(t, writeStick(t, files{"a.mender": good}))
			o.oneOf(t, want)
			if installed := r.safe(t, o, "release-2"); installed != (want == "ok") {
				t.Errorf("installed: %v\n%s", installed, o.log)
			}
			if want != "ok" && !strings.Contains(o.log, "MinVersion") {
				t.Errorf("the log does not say why:\n%s", o.log)
			}
		})
	}
}
