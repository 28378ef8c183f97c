//go:build device

package hostile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
	"github.com/usb-updater/usb-updater/test/sim"
)

var callName = regexp.MustCompile(`^(?:\d+ +)?([a-z0-9_]+)\(`)

// allowedCalls expands the filter of a unit, line by line, as systemd does.
func allowedCalls(t *testing.T, unit string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../systemd", unit))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	var change func(name string, to bool)
	change = func(name string, to bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = to
			return
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", name).Output()
		if err != nil {
			t.Fatalf("systemd-analyze syscall-filter %s: %v", name, err)
		}
		for line := range strings.Lines(string(out)) {
			if word := strings.TrimSpace(line); word != name && word != "" && !strings.HasPrefix(word, "#") {
				change(word, to)
			}
		}
	}
	change("@default", true)
	for line := range strings.Lines(string(b)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		list, deny := strings.CutPrefix(list, "~")
		for name := range strings.FieldsSeq(list) {
			change(name, !deny)
		}
	}
	return allowed
}

// TestDefenseD14SystemCalls: no system call of a whole update, from the stick to
// the commit, is one that the filter of its unit refuses.
func TestDefenseD14SystemCalls(t *testing.T) {
	needLoop(t, "/usr/bin/strace", "/usr/bin/systemd-analyze")
	// An environment in a block device, and one in files that are replaced.
	for _, loader := range []string{"", sim.GRUBMender} {
		t.Run("loader "+loader, func(t *testing.T) { checkSystemCalls(t, loader) })
	}
}

func checkSystemCalls(t *testing.T, loader string) {
	t.Helper()
	w, err := newWorkshop()
	if err != nil {
		t.Fatal(err)
	}
	dev, err := sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: slotSize, DeviceType: deviceType, Loop: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := &rig{workshop: w, dev: dev}
	old := filepath.Join(t.TempDir(), "release-1")
	if err := os.WriteFile(old, w.images["release-1"], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dev.Flash(2, old); err != nil {
		t.Fatal(err)
	}
	if loader != "" {
		if err := dev.SetLoader(loader); err != nil {
			t.Fatal(err)
		}
	}
	r.boots(t, 2)
	m := newMedium(t, fuse.NewStick(map[string][]byte{image: fileSystem(t, files{name: r.artifact(t, "release-2", nil)})}))
	for _, step := range []struct {
		unit string
		args []string
	}{
		{"usb-updater@.service", []string{"run", m.loop}},
		{"usb-updater-boot.service", []string{"boot-check"}},
		{"usb-updater@.service", []string{"run", m.loop}}, // refused now: is installed
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		args := append([]string{"-f", "-qq", "-o", trace, "../../bin/usb-updater", "--root", dev.Dir}, step.args...)
		var log bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "strace", args...)
		cmd.Stderr = &log
		runErr := cmd.Run()
		b, err := os.ReadFile(trace)
		if err != nil {
			t.Fatalf("%v, %v: %s", runErr, err, log.String())
		}
		allowed, seen := allowedCalls(t, step.unit), map[string]bool{}
		var refused []string
		for line := range strings.Lines(string(b)) {
			call := callName.FindStringSubmatch(line)
			if call == nil || seen[call[1]] {
				continue
			}
			seen[call[1]] = true
			if !allowed[call[1]] {
				refused = append(refused, strings.TrimSpace(line))
			}
		}
		if len(seen) < 30 {
			t.Errorf("%v: %d system calls, want more: %s", step.args, len(seen), log.String())
		}
		if refused != nil {
			t.Errorf("%v: %s refuses\n%s", step.args, step.unit, strings.Join(slices.Sorted(slices.Values(refused)), "\n"))
		}
		if step.args[0] == "run" && dev.Dir != "" && strings.Contains(log.String(), "result=ok") {
			r.boots(t, 3)
		}
	}
	r.boots(t, 3)
	r.boots(t, 3) // for good
}
