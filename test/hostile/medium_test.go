//go:build device

package hostile

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
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
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--read-only", filepath.Join(dir, image)).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	m := &medium{strings.TrimSpace(string(out)), server}
	t.Cleanup(func() { m.end(t) })
	return m
}

func (m *medium) end(t *testing.T) {
	t.Helper()
	if m.loop == "" {
		return
	}
	if out, err := exec.CommandContext(context.Background(), "losetup", "--detach", m.loop).CombinedOutput(); err != nil {
		t.Errorf("losetup --detach %s: %v: %s", m.loop, err, out)
	}
	m.loop = ""
	if err := m.server.Close(); err != nil {
		t.Error(err)
	}
}

// fileSystem makes an ext4 image that holds the files.
func fileSystem(t *testing.T, files map[string][]byte, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stick.img")
	args := append([]string{"-q", "-F", "-t", "ext4", "-N", "64", "-d", writeStick(t, files)}, options...)
	out, err := exec.CommandContext(t.Context(), "mke2fs", append(args, path, "2M")...).CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
