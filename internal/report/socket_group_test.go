package report

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/tier"
)

// onItsOwn runs f on a thread that ends with it, for it is not what it was then.
func onItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// TestSocketTakesTheGroupOfItsDirectory: in the sandbox of the units, where root
// has no capability to give a file away, a program of that group can connect.
func TestSocketTakesTheGroupOfItsDirectory(t *testing.T) {
	tier.Device.Need(t, "root")
	const group, other, nobody = 12345, 12346, 65534
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, 0, group), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, SocketName)
	var s *Socket
	onItsOwn(func() {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Error(err)
			return
		}
		if err := os.Chown(dir, -1, other); !errors.Is(err, unix.EPERM) {
			t.Errorf("without capabilities chown works: %v", err)
		}
		var err error
		if s, err = ListenSocket(path); err != nil {
			t.Error(err)
		}
	})
	if s == nil {
		return
	}
	defer s.Close()
	for gid, want := range map[int]error{group: nil, other: unix.EACCES} {
		onItsOwn(func() {
			for _, id := range []struct{ call, a uintptr }{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETRESGID, uintptr(gid)}, {unix.SYS_SETRESUID, nobody}} {
				if _, _, errno := unix.RawSyscall(id.call, id.a, id.a, id.a); errno != 0 {
					t.Errorf("become somebody else: %v", errno)
					return
				}
			}
			conn, err := net.Dial("unix", path)
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, want) {
				t.Errorf("a program of group %d connects: %v, want %v", gid, err, want)
			}
		})
	}
}
