//go:build device

package hostile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/fuse"
	"github.com/usb-updater/usb-updater/test/sim"
)

// heldSlot is the disk below a slot. It stops at a moment: hit is closed then,
// and what asks waits for release.
type heldSlot struct {
	held func(what access) bool // asked about each access until it says yes
	hit  chan struct{}
	once sync.Once

	release chan struct{}

	mu     sync.Mutex
	bytes  []byte
	synced bool // since the first write
	wrote  bool
}

// access is what the agent asks of the disk.
type access struct {
	write  bool
	synced bool // all that was written is flushed
}

const (
	slotFile = "slot"
	heldSize = 4 << 20 // bytes of the slot
	// bigSize is more than what may be on its way between stick and slot, so
	// that the stick is still being read while the first write is held. In bytes.
	bigSize = 3 << 20
)

func newHeldSlot(held func(access) bool) *heldSlot {
	return &heldSlot{held: held, hit: make(chan struct{}), release: make(chan struct{}), bytes: make([]byte, heldSize)}
}

func (s *heldSlot) List(string) ([]fuse.Entry, error) { return nil, nil }

func (s *heldSlot) Stat(path string) (fuse.Entry, error) {
	switch path {
	case "":
		return fuse.Entry{Mode: unix.S_IFDIR | 0o755}, nil
	case slotFile:
		return fuse.Entry{Name: slotFile, Mode: unix.S_IFREG | 0o600, Size: heldSize}, nil
	}
	return fuse.Entry{}, unix.ENOENT
}

func (s *heldSlot) Open(string) error { return nil }

func (s *heldSlot) ReadAt(_ string, p []byte, offset int64) (int, error) {
	s.wait(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	return copy(p, s.bytes[min(offset, heldSize):]), nil
}

func (s *heldSlot) WriteAt(_ string, p []byte, offset int64) error {
	s.wait(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote, s.synced = true, false
	copy(s.bytes[offset:], p)
	return nil
}

func (s *heldSlot) Sync(string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = s.wrote
	return nil
}

func (s *heldSlot) wait(write bool) {
	s.mu.Lock()
	held := s.held(access{write, s.synced})
	s.mu.Unlock()
	if held {
		s.once.Do(func() { close(s.hit) })
		<-s.release
	}
}

// put makes the disk the inactive slot of the device.
func (s *heldSlot) put(t *testing.T, dev *sim.Device) {
	t.Helper()
	dir, _ := mounted(t, s)
	loop, err := sim.Attach(filepath.Join(dir, slotFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Detach(loop); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(loop, &st); err != nil {
		t.Fatal(err)
	}
	path := dev.Slot(3)
	if err := errors.Join(os.Remove(path), unix.Mknod(path, unix.S_IFBLK|0o600, int(st.Rdev))); err != nil {
		t.Fatal(err)
	}
}

// TestDefenseD12Removed: the stick is pulled out while the slot is written, and
// while it is read back, when nothing is read of the stick any more. The slot's
// disk holds the run there, so that it is always the same place. Both times the
// run ends at once and arms nothing, and the next insertion installs.
func TestDefenseD12Removed(t *testing.T) {
	needLoop(t)
	for what, held := range map[string]func(access) bool{
		"while the slot is written":   func(a access) bool { return a.write },
		"while the slot is read back": func(a access) bool { return !a.write && a.synced },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			slot := newHeldSlot(held)
			free := sync.OnceFunc(func() { close(slot.release) })
			slot.put(t, r.dev)
			t.Cleanup(free) // before the disk goes
			big := append(bytes.Clone(r.images["release-2"]), noise(bigSize-imageSize, 0)...)
			signed := r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Files = []artifacttest.File{artifacttest.Bytes("image.ext4", big)} })
			path := filepath.Join(t.TempDir(), image)
			if err := os.WriteFile(path, fileSystem(t, files{name: signed}), 0o600); err != nil {
				t.Fatal(err)
			}
			stick := attached(t, path)
			if _, err := os.Stat(filepath.Join("/sys/class/block", filepath.Base(stick), "diskseq")); err != nil {
				t.Skipf("the kernel does not number media: %v", err)
			}
			cmd, end := r.agent(t, "run", stick)
			await(t, slot.hit)
			if err := sim.ChangeMedium(stick, path, t.TempDir()); err != nil {
				t.Fatal(err)
			}
			endsSoon(t, cmd)
			free()
			o := end()
			o.oneOf(t, "stick-removed")
			if r.safe(t, o, "release-2") {
				t.Errorf("installed:\n%s", o.log)
			}
			r.boots(t, 2)
			o = r.run(t, stick)
			o.oneOf(t, "ok")
			r.boots(t, 3)
			if !bytes.HasPrefix(slot.bytes, big) {
				t.Error("the slot does not hold the release")
			}
		})
	}
}
