package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"golang.org/x/sys/unix"
)

// needRoot skips tests of real block devices where they cannot run. REQUIRE with
// "device" in it turns the skip into a failure.
func needRoot(t *testing.T) {
	t.Helper()
	tier.Device.Need(t, "root", "losetup")
}

// loop makes a loop device of image and returns its path and number.
func loop(t *testing.T, image string, flags ...string) (dev string, number uint64) {
	t.Helper()
	args := append([]string{"--find", "--show"}, append(flags, image)...)
	out, err := exec.CommandContext(t.Context(), "losetup", args...).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	dev = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.CommandContext(context.Background(), "losetup", "--detach", dev).Run(); err != nil {
			t.Errorf("losetup --detach %s: %v", dev, err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	return dev, uint64(st.Rdev)
}

// ext4Image makes an ext4 with the files of dir. The superblock asks for a
// kernel panic at the first error.
func ext4Image(t *testing.T, dir string, options ...string) string {
	t.Helper()
	image := newImage(t, 32<<20)
	mkfs(t, append([]string{"mkfs.ext4", "-q", "-F", "-e", "panic", "-N", "16384", "-d", dir}, append(options, image)...)...)
	return image
}

// evilTree makes the files of a hostile stick.
func evilTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, evilNames()...)
	fill(t, dir, "good.mender", "MENDER/upper.mender")
	err := errors.Join(
		os.Symlink("/etc/shadow", filepath.Join(dir, "x.mender")),
		os.Symlink("/", filepath.Join(dir, "mender")),
		os.Symlink("good.mender", filepath.Join(dir, "inside.mender")),
		unix.Mkfifo(filepath.Join(dir, "y.mender"), 0o600),
		unix.Mknod(filepath.Join(dir, "null.mender"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(filepath.Join(dir, "disk.mender"), unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0))),
		os.Mkdir(filepath.Join(dir, "z.mender"), 0o755),
		os.Chmod(filepath.Join(dir, "good.mender"), 0o755|os.ModeSetuid))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// visible returns where the device shows up in the mounts of this process's
// threads and of process 1.
func visible(t *testing.T, number uint64) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range append(files, "/proc/1/mountinfo") {
		where, ok, err := isMounted(file, number)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
			continue // the thread is gone
		}
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			found = append(found, file+": "+where)
		}
	}
	return found
}

// inUse reports whether any mount anywhere holds the device.
func inUse(t *testing.T, dev string) bool {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return false
}

// writable runs f with dev mounted for writing on a directory that nobody else
// sees as a mount.
func writable(t *testing.T, dev string, f func(dir string) error) {
	t.Helper()
	dir := t.TempDir()
	err := onThread(func() error {
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		if err == nil {
			err = unix.Mount(dev, dir, "ext4", 0, "")
		}
		if err == nil {
			err = errors.Join(f(dir), unix.Unmount(dir, unix.MNT_DETACH))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// overwrite writes b at the start of image.
func overwrite(t *testing.T, image string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// mountsChange reports whether anything was mounted or unmounted in this
// process's namespace while f ran (source: proc_pid_mounts(5)).
func mountsChange(t *testing.T, f func()) bool {
	t.Helper()
	// An os.File would be in the runtime's epoll set, which takes the event.
	mounts, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mounts)
	f()
	fds := []unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}}
	if _, err := unix.Poll(fds, 0); err != nil {
		t.Fatal(err)
	}
	return fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0
}
