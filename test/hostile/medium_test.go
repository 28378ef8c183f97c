//go:build device

package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
	"github.com/usb-updater/usb-updater/test/sim"
	"github.com/usb-updater/usb-updater/test/tier"
)

// medium is a file on FUSE below a loop device: the stick as the kernel's own
// file system driver sees it.
type medium struct {
	loop   string
	server *fuse.Server
}

const image = "stick.img"

func newMedium(t *testing.T, s *fuse.Stick) *medium {
	t.Helper()
	dir, server := mounted(t, s)
	out := command(t, "losetup", "--find", "--show", "--read-only", filepath.Join(dir, image))
	m := &medium{strings.TrimSpace(out), server}
	t.Cleanup(func() { m.end(t) })
	return m
}

func (m *medium) end(t *testing.T) {
	t.Helper()
	if m.loop == "" {
		return
	}
	if err := sim.Detach(m.loop); err != nil {
		t.Error(err)
	}
	m.loop = ""
	if err := m.server.Close(); err != nil {
		t.Error(err)
	}
}

// fileSystem makes an ext4 image that holds the files.
func fileSystem(t *testing.T, files map[string][]byte, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), image)
	size := 2 << 20
	for _, content := range files {
		size += len(content)
	}
	args := append([]string{"-q", "-F", "-t", "ext4", "-N", "64", "-d", writeStick(t, files)}, options...)
	command(t, "mke2fs", append(args, path, fmt.Sprintf("%dK", size/kib))...)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kind is a kind of stick.
type kind struct {
	name   string
	needs  []string
	plugIn func(t *testing.T, files map[string][]byte) string // returns what the agent gets
}

// kinds are a directory, which stands in for a stick, and a disk with a file
// system, which the agent mounts.
func kinds() []kind {
	return []kind{
		{"directory", nil, writeStick},
		{"block device", []string{"root", "/dev/loop-control"}, func(t *testing.T, files map[string][]byte) string {
			t.Helper()
			path := filepath.Join(t.TempDir(), image)
			if err := os.WriteFile(path, fileSystem(t, files), 0o600); err != nil {
				t.Fatal(err)
			}
			return attached(t, path)
		}},
	}
}

func (k kind) need(t *testing.T) {
	t.Helper()
	tier.Device.Need(t, k.needs...)
}

// attached makes a read-only loop device over a file.
func attached(t *testing.T, path string) string {
	t.Helper()
	loop := strings.TrimSpace(command(t, "losetup", "--find", "--show", "--read-only", path))
	t.Cleanup(func() {
		if err := sim.Detach(loop); err != nil {
			t.Error(err)
		}
	})
	return loop
}

// command runs a program and returns what it prints.
func command(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), sim.Tool(program), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}
