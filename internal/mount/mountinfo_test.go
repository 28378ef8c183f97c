package mount

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIsMounted(t *testing.T) {
	const list = "27 1 179:2 / / rw,relatime shared:1 master:2 - ext4 /dev/root rw\n31 27 8:1 / /again ro - vfat /dev/sda1 ro\n"
	file := filepath.Join(t.TempDir(), "mountinfo")
	if _, _, err := isMounted(file, 1); err == nil {
		t.Error("isMounted without a mountinfo: no error")
	}
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if where, ok, err := isMounted(file, unix.Mkdev(8, 1)); where != "/again" || !ok || err != nil {
		t.Errorf("isMounted = %q, %v, %v, want /again, true", where, ok, err)
	}
	if where, ok, err := isMounted(file, unix.Mkdev(8, 2)); ok || err != nil {
		t.Errorf("isMounted = %q, %v, %v, want false", where, ok, err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self", &st); err != nil {
		t.Skip("no /proc")
	}
	if where, ok, err := IsMounted(uint64(st.Dev)); where != "/proc" || !ok || err != nil {
		t.Errorf("IsMounted(/proc) = %q, %v, %v, want /proc, true", where, ok, err)
	}
}
