//go:build device

package device

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/test/sim"
)

// loopStick makes a stick on a loop device that holds the artifact of release-2
// and returns the device and its image.
func loopStick(t *testing.T) (dev, image string) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(t.TempDir(), "release-2.ext4")
	if err := release("release-2", "").Image(root, 16*mib); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.mender"), artifacttest.Spec{
		Name: "release-2", DeviceTypes: []string{deviceType}, Compression: "none",
		Files: []artifacttest.File{artifacttest.Bytes("release-2.ext4", b)},
	})
	image = filepath.Join(t.TempDir(), "stick.ext4")
	command(t, "mke2fs", "-q", "-t", "ext4", "-d", dir, image, "32M")
	dev = strings.TrimSpace(command(t, "losetup", "--find", "--show", "--read-only", image))
	t.Cleanup(func() {
		if err := exec.CommandContext(context.Background(), "losetup", "--detach", dev).Run(); err != nil {
			t.Errorf("losetup --detach %s: %v", dev, err)
		}
	})
	return dev, image
}

// TestRemovalDuringInstall takes the stick away while the update is written. A
// state script holds the run there, so that it is always the same place.
func TestRemovalDuringInstall(t *testing.T) {
	need(t)
	d := newDevice(t, 32*mib, "")
	dev, image := loopStick(t)
	if _, err := os.Stat(filepath.Join("/sys/class/block", filepath.Base(dev), "diskseq")); err != nil {
		t.Skipf("the kernel does not number media: %v", err)
	}
	for path, content := range map[string]string{
		"etc/usb-updater/usb-updater.conf":     `{"AllowUnsigned": true}`,
		"etc/mender/scripts/Download_Enter_00": "#!/bin/sh\necho 1 > " + filepath.Join(d.Dir, "run/fifo") + "\nexec sleep 300\n",
		"etc/mender/scripts/version":           "3\n",
	} {
		put(t, filepath.Join(d.Dir, path), []byte(content))
	}
	if err := os.Chmod(filepath.Join(d.Dir, "etc/mender/scripts/Download_Enter_00"), 0o755); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(d.Dir, "run/fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "usb-updater"), "--root", d.Dir, "run", dev)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun := make(chan error, 1)
	go func() { _, err := os.ReadFile(fifo); begun <- err }()
	select {
	case err := <-begun:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		t.Fatalf("the run did not begin to write:\n%s", out.String())
	}
	if err := sim.ChangeMedium(dev, image, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	removed := time.Now()
	_ = cmd.Wait() // its exit code is looked at
	if took := time.Since(removed); took > time.Second {
		t.Errorf("the run ended %v after the removal", took)
	}
	if got := cmd.ProcessState.ExitCode(); got != report.StickRemoved.Number {
		t.Errorf("exit code %d, want %d; it printed:\n%s", got, report.StickRemoved.Number, out.String())
	}
	if want := "the running system is untouched"; !strings.Contains(out.String(), want) {
		t.Errorf("the run does not say %q:\n%s", want, out.String())
	}
	notArmed(t, d)
	boot(t, d, 2)

	// The next insertion is a new start. The boot has removed the script.
	put(t, filepath.Join(d.Dir, "etc/usb-updater/usb-updater.conf"), []byte(`{"AllowUnsigned": true}`))
	command(t, filepath.Join(programs(t), "usb-updater"), "--root", d.Dir, "run", dev)
	boot(t, d, 3)
}

func notArmed(t *testing.T, d *sim.Device) {
	t.Helper()
	env, err := d.Env()
	if err != nil {
		t.Fatal(err)
	}
	if env["upgrade_available"] == "1" {
		t.Errorf("the boot environment is armed: %v", env)
	}
}
