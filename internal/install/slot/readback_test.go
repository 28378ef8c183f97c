package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// verdict installs on a medium and tells what Verify says, and what is true.
func verdict(m *fakeMedium, promised bool, image []byte) (said error, holds bool) {
	_, said = m.install(promised, image)
	return said, bytes.Equal(m.disk[:len(image)], image)
}

// TestVerifySeesAFault has each write and each command fail in each way, one
// after the other. Whatever reads back must see it, unless the medium holds the
// image all the same.
func TestVerifySeesAFault(t *testing.T) {
	image := release(3*blockSize+cellSize+100, 1)
	clear(image[blockSize : blockSize+3*zeroRun])
	before := slices.Clone(append(image, noise(blockSize, 3)...))
	for at := 0; at < len(image); at += 11 * cellSize {
		before[min(at+cellSize, len(image))-1] ^= 1
	}
	copy(before[blockSize+zeroRun:], noise(2*cellSize, 4)) // fewer than are worth a command
	copy(before[2*blockSize:], noise(blockSize/2, 4))
	for name, set := range map[string]func(*fakeMedium){
		"changed":                    func(*fakeMedium) {},
		"changed, page cache":        func(m *fakeMedium) { m.cached = true },
		"all":                        func(m *fakeMedium) { m.readBack = ReadAll },
		"changed, nothing was equal": func(m *fakeMedium) { m.cache = noise(len(before), 5) },
	} {
		for _, kind := range []faultKind{faultDrop, faultFlip, faultCut} {
			t.Run(fmt.Sprintf("%s, fault %d", name, kind), func(t *testing.T) {
				seen := 0
				for victim := 1; ; victim++ {
					struck := false
					m := newFakeMedium(t, before)
					m.zeroes = true
					m.fault = func(op, n int) fault {
						if op != victim {
							return fault{}
						}
						struck = true
						return fault{kind, n - 1}
					}
					set(m)
					said, holds := verdict(m, true, image)
					if holds != (said == nil) || said != nil && !errors.Is(said, ErrMismatch) {
						t.Errorf("operation %d: medium holds the image: %v; Verify: %v", victim, holds, said)
					}
					if said != nil {
						seen++
					}
					if !struck {
						break
					}
				}
				if seen < 4 {
					t.Errorf("%d faults seen: this test does nothing", seen)
				}
			})
		}
	}
}

// TestMismatchNamesThePlace: the offset is that of the block.
func TestMismatchNamesThePlace(t *testing.T) {
	image := noise(5*blockSize+10, 1)
	m := newFakeMedium(t, noise(6*blockSize, 2))
	m.fault = func(op, _ int) fault {
		if op == 4 {
			return fault{faultFlip, 5}
		}
		return fault{}
	}
	said, _ := verdict(m, false, image)
	want := fmt.Sprintf("verify slot /dev/fake3: %v in the %d bytes from offset %d on", ErrMismatch, blockSize, 3*blockSize)
	if said == nil || said.Error() != want {
		t.Errorf("Verify: %v, want %q", said, want)
	}
}

// agree checks that reading back what changed and reading back everything come
// to one verdict, and that it is true. faultHit is the exception: it destroys
// what may have been compared before, and only reading everything sees that.
func agree(t *testing.T, seed uint64, kind faultKind) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 1 + rng.IntN(4*blockSize)
	size := n + rng.IntN(blockSize)
	image := release(n, byte(seed))
	before := noise(size, 9)
	for at := 0; at < n; { // alternating: as the image, zeros, something else
		run := min(n-at, (1+rng.IntN(60))*cellSize)
		switch rng.IntN(4) {
		case 0:
		case 1:
			clear(before[at : at+run])
		default:
			copy(before[at:at+run], image[at:at+run])
		}
		at += run
	}
	victim, where := 1+rng.IntN(6), rng.Uint32()
	promised, zeroes, sends := rng.IntN(2) == 0, rng.IntN(3) > 0, rng.IntN(4) == 0
	bad := int64(-1)
	if rng.IntN(8) == 0 {
		bad = int64(rng.IntN(size))
	}
	for _, what := range []ReadBack{ReadChanged, ReadAll} {
		for _, cached := range []bool{false, true} {
			m := newFakeMedium(t, before)
			m.readBack, m.cached, m.zeroes, m.sends, m.badRead = what, cached, zeroes, sends, bad
			m.fault = func(op, n int) fault {
				switch {
				case op != victim:
					return fault{}
				case kind == faultHit:
					return fault{kind, int(where) % max(1, size-cellSize)}
				default:
					return fault{kind, int(where) % n}
				}
			}
			said, holds := verdict(m, promised, image)
			name := fmt.Sprintf("seed %d, fault %d, reading %d, page cache %v, bad read at %d of %d", seed, kind, what, cached, bad, n)
			switch {
			case said == nil && !holds && kind == faultHit && what == ReadChanged && !cached:
			case said == nil && !holds:
				t.Errorf("%s: verified, and the medium holds something else", name)
			case said != nil && holds && !errors.Is(said, unix.EIO):
				t.Errorf("%s: %v, and the medium holds the image", name, said)
			case said != nil && !errors.Is(said, ErrMismatch) && !errors.Is(said, unix.EIO):
				t.Errorf("%s: %v", name, said)
			}
		}
	}
}

func TestReadBackAgrees(t *testing.T) {
	for seed := range uint64(150) {
		agree(t, seed, faultKind(seed%5))
	}
}

// FuzzReadBack is TestReadBackAgrees from any beginning.
func FuzzReadBack(f *testing.F) {
	f.Add(uint64(1), uint8(faultFlip))
	f.Fuzz(func(t *testing.T, seed uint64, kind uint8) { agree(t, seed, faultKind(kind%5)) })
}

// TestReadBackOfChanges: what was seen to be right is not read again; what
// shares a group with a change is.
func TestReadBackOfChanges(t *testing.T) {
	const n = 8 * blockSize
	image := noise(n, 1)
	clear(image[4*blockSize : 6*blockSize])
	for _, tt := range []struct {
		name string
		set  func(m *fakeMedium)
		want []run64 // read back
	}{
		{"nothing changed", func(*fakeMedium) {}, nil},
		{"a byte", func(m *fakeMedium) { m.cache[blockSize+groupSize+9]++ }, []run64{{blockSize + groupSize, groupSize}}},
		{"two groups over the end of a block", func(m *fakeMedium) { m.cache[blockSize-1]++; m.cache[blockSize]++ }, []run64{{blockSize - groupSize, 2 * groupSize}}},
		{"a zero", func(m *fakeMedium) { m.cache[5*blockSize]++ }, []run64{{5 * blockSize, groupSize}}},
		{"zeros by command", func(m *fakeMedium) { copy(m.cache[5*blockSize:], noise(blockSize, 4)) }, []run64{{5 * blockSize, blockSize}}},
		{"an unreadable cell", func(m *fakeMedium) { m.badRead = 3 * blockSize; m.heal = true }, []run64{{3 * blockSize, blockSize}}},
		{"page cache", func(m *fakeMedium) { m.cached = true }, []run64{{0, verifySize}, {verifySize, verifySize}, {2 * verifySize, verifySize}, {3 * verifySize, verifySize}}},
		{"everything", func(m *fakeMedium) { m.readBack = ReadAll }, []run64{{0, verifySize}, {verifySize, verifySize}, {2 * verifySize, verifySize}, {3 * verifySize, verifySize}}},
		{"behind what is remembered", func(m *fakeMedium) { m.remembered = 6 }, []run64{{6 * blockSize, verifySize}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newFakeMedium(t, image)
			m.zeroes = true
			tt.set(m)
			copy(m.disk, m.cache)
			w := m.open(true)
			defer w.Close()
			if err := fill(t.Context(), w, image); err != nil {
				t.Fatal(err)
			}
			m.reads = nil
			if err := w.Verify(t.Context(), sha256.Sum256(image)); err != nil {
				t.Error(err)
			}
			if !slices.Equal(m.reads, tt.want) {
				t.Errorf("read back %v, want %v", m.reads, tt.want)
			}
			sum := int64(0)
			for _, r := range tt.want {
				sum += r.n
			}
			if got := w.Stats().ReadBack; got != sum {
				t.Errorf("%d bytes read back in the figures, want %d", got, sum)
			}
		})
	}
}

// TestZerosThatAreThere are neither commanded nor sent.
func TestZerosThatAreThere(t *testing.T) {
	image := make([]byte, 40*blockSize)
	copy(image, noise(blockSize, 1))
	m := newFakeMedium(t, image)
	m.zeroes = true
	stats, err := m.install(true, image)
	if err != nil || m.zeroed != 0 || stats.Skipped != int64(len(image)) || stats.ReadBack != 0 {
		t.Errorf("%d commands, %+v, %v", m.zeroed, stats, err)
	}
}

// TestComparingZerosGivesUp: where zeros are new, they are not compared for
// long, though the content is.
func TestComparingZerosGivesUp(t *testing.T) {
	const n = 3 * firstWindow
	image := bytes.Repeat(noise(n/64, 1), 64)
	before := slices.Clone(image)
	for at := 0; at < n; at += 2 * blockSize {
		clear(image[at : at+blockSize])
	}
	m := newFakeMedium(t, before)
	m.zeroes = true
	stats, err := m.install(true, image)
	if err != nil || !bytes.Equal(m.disk, image) {
		t.Fatal(err)
	}
	if stats.Skipped != n/2 || stats.Compared != n/2+firstWindow {
		t.Errorf("%+v, want %d skipped and %d compared", stats, n/2, n/2+firstWindow)
	}
}

// TestVerifyOnce: what Verify reads into is then not the ring's any more, and
// without a read back it says so.
func TestVerifyOnce(t *testing.T) {
	image := noise(blockSize, 1)
	m := newFakeMedium(t, make([]byte, blockSize))
	w := m.open(false)
	defer w.Close()
	if err := fill(t.Context(), w, image); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Verify(ctx, sha256.Sum256(image)); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: %v, want context.Canceled", err)
	}
	if err := w.Verify(t.Context(), sha256.Sum256(image)); !errors.Is(err, errClosed) {
		t.Errorf("Verify again: %v, want %v", err, errClosed)
	}
	m.readBack = ReadNothing
	w = m.open(false)
	defer w.Close()
	if err := fill(t.Context(), w, image); err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(t.Context(), sha256.Sum256(image)); !errors.Is(err, errClosed) || !strings.Contains(err.Error(), "verify slot") {
		t.Errorf("Verify without a read back: %v, want %v", err, errClosed)
	}
}
