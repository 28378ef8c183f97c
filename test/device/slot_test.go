//go:build device

package device

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/test/sim"
)

// loop makes a loop device over a file with the content in dir, "" for a
// directory of the test's own.
func loop(t *testing.T, dir string, content []byte, args ...string) (path, backing string) {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "slot")
	if err != nil {
		t.Fatal(err)
	}
	backing = f.Name()
	t.Cleanup(func() { _ = os.Remove(backing) }) // scratch
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", append(args, "--find", "--show", backing)...).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup %v: %v: %s", args, err, out)
	}
	path = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := sim.Detach(path); err != nil {
			t.Error(err)
		}
	})
	return path, backing
}

// image is content between runs of zeros.
func image(n int) []byte {
	b := noise(n, 1)
	for at := 3 * 64 << 10; at+5*64<<10 < n; at += 13 * 64 << 10 {
		clear(b[at : at+5*64<<10])
	}
	return b
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func writeSlot(t *testing.T, path string, image []byte) slot.Stats {
	t.Helper()
	p, err := slot.Find(path, slot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := slot.OpenWriter(p, p.Size, slot.ReadChanged)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(image)
	if err == nil {
		err = w.Sync(t.Context())
	}
	if err == nil {
		err = w.Verify(t.Context(), sha256.Sum256(image))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return w.Stats()
}

// TestSlotOnBlockDevices writes images of awkward sizes to loop devices of
// several kinds, and looks at every byte of the device.
func TestSlotOnBlockDevices(t *testing.T) {
	need(t)
	const size = 9*mib + 512
	for _, tt := range []struct {
		name, dir string
		size      int
		args      []string
	}{
		{"over a file", "", size, nil},
		{"over a file, direct", "", size, []string{"--direct-io=on"}},
		{"over memory", "/dev/shm", size, nil},
		{"sectors of 4 KiB", "/dev/shm", 9 * mib, []string{"--sector-size", "4096"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 511, 4096 + 513, 5*mib + 1000, 8*mib + 4096, tt.size} {
				before, image := noise(tt.size, 2), image(n)
				path, backing := loop(t, tt.dir, before, tt.args...)
				promised := zeroes(t, path)
				stats := writeSlot(t, path, image)
				if stats.Flushes != 1 || stats.Written+stats.Skipped+stats.Zeroed != int64(n) {
					t.Errorf("%d bytes: %+v", n, stats)
				}
				if kept := promised && zeroes(t, path); n > mib && (stats.Zeroed > 0) != kept {
					t.Errorf("%d bytes: %d zeroed by command, promised %v", n, stats.Zeroed, kept)
				}
				again := writeSlot(t, path, image)
				if again.Written != 0 || again.Zeroed != 0 || again.ReadBack != 0 {
					t.Errorf("%d bytes again: %+v", n, again)
				}
				got, err := os.ReadFile(backing)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[:n], image) || !bytes.Equal(got[n:], before[n:]) {
					t.Errorf("%d bytes: the device holds something else", n)
				}
			}
		})
	}
}

// TestSlotReadBack: something else destroys a byte between the flush and the
// read back. Where it was written, both ways see it; where it was compared, only
// reading everything does.
func TestSlotReadBack(t *testing.T) {
	need(t)
	content := image(4 * mib)
	const written, zeroed, equal = 300_000, 13*64<<10 + 3*64<<10 + 5, 2 * mib
	before := bytes.Clone(content)
	before[written] ^= 1
	copy(before[13*64<<10+3*64<<10:], noise(5*64<<10, 3))
	for _, tt := range []struct {
		name string
		what slot.ReadBack
		hit  int64
		sees bool
	}{
		{"changed, written", slot.ReadChanged, written, true},
		{"changed, zeroed", slot.ReadChanged, zeroed, true},
		{"changed, compared", slot.ReadChanged, equal, false},
		{"all, written", slot.ReadAll, written, true},
		{"all, zeroed", slot.ReadAll, zeroed, true},
		{"all, compared", slot.ReadAll, equal, true},
		{"changed, nothing", slot.ReadChanged, -1, false},
		{"all, nothing", slot.ReadAll, -1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, backing := loop(t, "/dev/shm", before)
			p, err := slot.Find(path, slot.Options{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := slot.OpenWriter(p, p.Size, tt.what)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			_, err = w.Write(content)
			if err := errors.Join(err, w.Sync(t.Context())); err != nil {
				t.Fatal(err)
			}
			if tt.hit >= 0 {
				f, err := os.OpenFile(backing, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = f.WriteAt([]byte{content[tt.hit] ^ 0x40}, tt.hit)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Verify(t.Context(), sha256.Sum256(content)); tt.sees != errors.Is(err, slot.ErrMismatch) || !tt.sees && err != nil {
				t.Errorf("Verify: %v, want a mismatch: %v", err, tt.sees)
			}
		})
	}
}

// zeroes asks the kernel whether the device zeros by command.
func zeroes(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/queue/write_zeroes_max_bytes")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// TestSlotBypassesThePageCache: an install must not push out what the running
// system has in memory.
func TestSlotBypassesThePageCache(t *testing.T) {
	need(t)
	image := noise(8*mib, 1)
	path, _ := loop(t, "", noise(8*mib, 2))
	writeSlot(t, path, image)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, len(image), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	resident := make([]byte, len(image)/4096)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, addr(m), uintptr(len(m)), addr(resident)); errno != 0 {
		t.Fatal(errno)
	}
	cached := len(resident) - len(bytes.ReplaceAll(resident, []byte{1}, nil))
	if cached > len(resident)/8 {
		t.Errorf("%d of %d pages of the slot are in the page cache", cached, len(resident))
	}
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// TestSlotIsExclusive: a partition that is mounted, or being written, is refused
// by the kernel.
func TestSlotIsExclusive(t *testing.T) {
	need(t)
	path, _ := loop(t, "", noise(mib, 2))
	p, err := slot.Find(path, slot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := slot.OpenWriter(p, p.Size, slot.ReadChanged)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := slot.OpenWriter(p, p.Size, slot.ReadChanged); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second OpenWriter: %v, want EBUSY", err)
	}
}

// TestInterruptedInstall: a signal in the middle of an image ends the program
// within a second, the old slot is the one that boots, and the next install
// writes only what is missing.
func TestInterruptedInstall(t *testing.T) {
	need(t)
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		t.Run(sig.String(), func(t *testing.T) { interruptInstall(t, sig, code) })
	}
}

func interruptInstall(t *testing.T, sig syscall.Signal, want int) {
	t.Helper()
	const size = 32 * mib
	d := newDevice(t, size, "")
	content := noise(size, 3)
	var whole bytes.Buffer
	spec := artifacttest.Spec{Name: "release-2", DeviceTypes: []string{deviceType}, Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("image", content)}}
	if err := artifacttest.Write(&whole, spec); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "artifact")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "mender"), "--root", d.Dir, "install", fifo)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(whole.Bytes()[:size/2]); err != nil { // returns when nearly all is read
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = cmd.Wait()
	if took := time.Since(began); cmd.ProcessState.ExitCode() != want || took > time.Second {
		t.Errorf("exit code %d after %v (%v), want %d within a second:\n%s", cmd.ProcessState.ExitCode(), took, err, want, out.String())
	}
	for _, want := range []string{"System not modified.", "interrupted by signal"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if env := printenv(t, d); !strings.Contains(env, "mender_boot_part=2\n") || !strings.Contains(env, "upgrade_available=0") {
		t.Errorf("armed:\n%s", env)
	}
	path := filepath.Join(t.TempDir(), "again.mender")
	if err := os.WriteFile(path, whole.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stderr, _ := mender(t, d, "install", "--progress", "json", path)
	if code != 0 {
		t.Fatalf("install again: exit code %d:\n%s", code, stderr)
	}
	i := strings.Index(stderr, `"medium":{"written":`)
	if i < 0 {
		t.Fatalf("no figures of the medium in\n%s", stderr)
	}
	var written int64
	if _, err := fmt.Sscanf(stderr[i:], `"medium":{"written":%d`, &written); err != nil {
		t.Fatal(err)
	}
	if limit := int64(size/2 + 4*mib); written > limit {
		t.Errorf("installed again: %d bytes written, want at most %d", written, limit)
	}
	if got, want := sum(t, d.Slot(3), size), fmt.Sprintf("%x", sha256.Sum256(content)); got != want {
		t.Errorf("slot: sha256 %s, image: %s", got, want)
	}
}
