package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// partition makes a file that stands for a partition.
func partition(t *testing.T, name string, content []byte) Partition {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Find(path, Options{AllowFile: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// write writes the image in pieces of odd sizes.
func write(t *testing.T, p Partition, image []byte) (Stats, error) {
	t.Helper()
	w, err := OpenWriter(p, p.Size, ReadChanged)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rng := rand.New(rand.NewPCG(7, 7))
	for rest := image; len(rest) > 0; {
		n := min(1+rng.IntN(700_000), len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return w.Stats(), err
		}
		rest = rest[n:]
	}
	if err := w.Sync(t.Context()); err != nil {
		return w.Stats(), err
	}
	return w.Stats(), w.Verify(t.Context(), sha256.Sum256(image))
}

func TestWriteChangesOnlyTheImage(t *testing.T) {
	const size = 5 << 20
	for _, n := range []int{1, 511, blockSize - 1, blockSize, blockSize + 777, 3*blockSize + 1, 4<<20 + 7, size} {
		before := noise(size, 1)
		image := noise(n, 2)
		p := partition(t, "slot3", before)
		stats, err := write(t, p, image)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, err := os.ReadFile(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:n], image) || !bytes.Equal(got[n:], before[n:]) {
			t.Errorf("%d bytes: the slot holds something else", n)
		}
		if stats.Written != int64(n) || stats.Skipped != 0 {
			t.Errorf("%d bytes: %+v", n, stats)
		}
	}
}

func TestWriteSkipsWhatIsRight(t *testing.T) {
	image := noise(5*blockSize+100, 3)
	p := partition(t, "slot3", image)
	stats, err := write(t, p, image)
	if err != nil || stats.Written != 0 || stats.Skipped != int64(len(image)) {
		t.Errorf("the same image again: %+v, %v", stats, err)
	}
	image[2*blockSize+5] ^= 1
	stats, err = write(t, p, image)
	if err != nil || stats.Written != cellSize {
		t.Errorf("one bit differs: %+v, %v", stats, err)
	}
}

func TestWriteRefusesTooMuch(t *testing.T) {
	before := noise(2*blockSize, 1)
	p := partition(t, "slot3", before)
	if _, err := write(t, p, noise(2*blockSize+1, 2)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	info, err := os.Stat(p.Path)
	if err != nil || info.Size() != int64(len(before)) {
		t.Errorf("size %d, %v", info.Size(), err)
	}
}

func TestVerifySeesADifference(t *testing.T) {
	image := noise(2*blockSize+9, 4)
	for _, at := range []int64{0, blockSize, int64(len(image)) - 1} {
		p := partition(t, "slot3", make([]byte, 3*blockSize))
		w, err := OpenWriter(p, p.Size, ReadChanged)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write(image); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(p.Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{image[at] ^ 0x80}, at); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := w.Verify(t.Context(), sha256.Sum256(image)); !errors.Is(err, ErrMismatch) {
			t.Errorf("byte %d differs: %v, want ErrMismatch", at, err)
		}
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	p := partition(t, "slot3", make([]byte, blockSize))
	w, err := OpenWriter(p, p.Size, ReadChanged)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Verify(ctx, [32]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// TestWriterRefusesAnotherDevice: between plan and write the path was given to
// something else.
func TestWriterRefusesAnotherDevice(t *testing.T) {
	p := partition(t, "slot3", make([]byte, 10))
	other := partition(t, "slot3", make([]byte, 10))
	if err := os.Rename(other.Path, p.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWriter(p, p.Size, ReadChanged); err == nil || !strings.Contains(err.Error(), "another device") {
		t.Errorf("OpenWriter: %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mmcblk0p3", "nvme0n1p12", "sda2", "noname"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("mmcblk0p3", filepath.Join(dir, "by-partuuid-0042")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		number int
		err    string
	}{
		{"mmcblk0p3", 3, ""},
		{"nvme0n1p12", 12, ""},
		{"sda2", 2, ""},
		{"by-partuuid-0042", 3, ""},
		{"noname", 0, "no partition number"},
		{"absent1", 0, "no such file"},
		{".", 0, "neither a block device, nor a UBI volume, nor a regular file"},
	} {
		p, err := Find(filepath.Join(dir, tt.name), Options{AllowFile: true})
		if tt.err == "" && (err != nil || p.Number != tt.number || p.Size != 100) {
			t.Errorf("Find(%s) = %+v, %v, want number %d", tt.name, p, err, tt.number)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("Find(%s): %v, want %q", tt.name, err, tt.err)
		}
	}
	if _, err := Find(filepath.Join(dir, "sda2"), Options{}); err == nil || !strings.Contains(err.Error(), "not a block device") {
		t.Errorf("a file on a real device: %v", err)
	}
}

func TestBooted(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "dev/disk/by-partuuid"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	var parts [2]Partition
	for i, name := range []string{"mmcblk0p2", "mmcblk0p3", "mmcblk0p12"} {
		path := filepath.Join(dir, "dev", name)
		if err := os.WriteFile(path, []byte{1}, 0o600); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			p, err := Find(path, Options{AllowFile: true})
			if err != nil {
				t.Fatal(err)
			}
			parts[i] = p
		}
	}
	if err := os.Symlink("../../mmcblk0p3", filepath.Join(dir, "dev/disk/by-partuuid/abc-03")); err != nil {
		t.Fatal(err)
	}
	root := Root{Dir: dir, Simulated: true}
	for _, tt := range []struct {
		cmdline string
		want    int
		err     string
	}{
		{"quiet root=/dev/mmcblk0p2 rw\n", 0, ""},
		{"root=/dev/mmcblk0p3", 1, ""},
		{"root=/dev/mmcblk0p2 root=/dev/mmcblk0p3", 1, ""},
		{"root=PARTUUID=abc-03", 1, ""},
		{"root=/dev/mmcblk0p12", 0, "on neither RootfsPartA nor RootfsPartB"}, // its name ends as A's does
		{"root=PARTUUID=none", 0, "root=PARTUUID=none"},
		{"root=LABEL=rootfs", 0, "use PARTUUID="},
		{"root=UUID=1234", 0, "use PARTUUID="},
		{"quiet", 0, "no root="},
	} {
		if err := os.WriteFile(filepath.Join(dir, "proc/cmdline"), []byte(tt.cmdline), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Booted(parts, root)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%q: %d, %v, want %d", tt.cmdline, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.cmdline, err, tt.err)
		}
	}
	if _, err := Booted([2]Partition{parts[0], parts[0]}, root); err == nil || !strings.Contains(err.Error(), "same partition") {
		t.Errorf("the same partition twice: %v", err)
	}
	// On a real device the mounted root decides, and these files are not it.
	if _, err := Booted(parts, Root{Dir: "/"}); err == nil {
		t.Error("the root of this machine is on neither file")
	}
}
