//go:build device

package device

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// TestReportOnStick lets the agent install from a real file system on a block
// device, which it then mounts again to leave its report, before the reboot.
func TestReportOnStick(t *testing.T) {
	need(t)
	d := newDevice(t, 32*mib, "")
	conf := filepath.Join(d.Dir, "etc/usb-updater/usb-updater.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(conf), 0o755),
		os.WriteFile(conf, []byte(`{"AllowUnsigned": true, "WriteReport": true}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	write(t, filepath.Join(tree, "a.mender"), artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{deviceType}, Files: []artifacttest.File{artifacttest.Bytes("image", noise(8*mib, 1))},
	})
	medium := filepath.Join(t.TempDir(), "stick")
	command(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, medium, "32M")
	content, err := os.ReadFile(medium)
	if err != nil {
		t.Fatal(err)
	}
	stick, _ := loop(t, t.TempDir(), content)
	for _, want := range []string{"ok (0)", "pending (12)"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "usb-updater"), "--root", d.Dir, "run", stick)
		var out bytes.Buffer
		cmd.Stderr = &out
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 12) {
			t.Fatalf("usb-updater run: %v\n%s", err, out.String())
		}
		if !strings.Contains(out.String(), "result="+strings.Fields(want)[0]) {
			t.Errorf("usb-updater run, want %s:\n%s", want, out.String())
		}
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "run/usb-updater/reboot-requested")); err != nil {
		t.Errorf("no reboot: %v", err)
	}
	dump := filepath.Join(t.TempDir(), "dump")
	command(t, "debugfs", "-R", "rdump /usb-updater "+mkdir(t, dump), stick)
	files, err := os.ReadDir(filepath.Join(dump, "usb-updater"))
	if err != nil || len(files) != 1 || files[0].Name() != deviceType+"-1.txt" {
		t.Fatalf("reports on the stick: %v, %v, want one", files, err)
	}
	text, err := os.ReadFile(filepath.Join(dump, "usb-updater", files[0].Name()))
	if err != nil || !strings.HasPrefix(string(text), "Result:      ok (0)\r\n") || !strings.Contains(string(text), "release-2") {
		t.Errorf("the report says, %v:\n%s", err, text)
	}
	command(t, "fsck.ext4", "-fn", stick)
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
