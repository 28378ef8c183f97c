//go:build device

package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/fuse"
)

const name = "update.mender"

// refusals are the results that say whose fault it is: the stick's.
func refusals() []string {
	return []string{"stick-changed", "bad-artifact", "stick-failed", "refused", "no-artifact"}
}

func flipped(b []byte, at int64) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x40
	return b
}

// TestDefenseD03LyingBytes: a stick that gives other bytes at the second read
// than at the first, or only at the first, in each part of an artifact.
func TestDefenseD03LyingBytes(t *testing.T) {
	needFUSE(t)
	r := newRig(t)
	honest := r.artifact(t, "release-2", nil)
	parts := regions(t, honest)
	for _, part := range sorted(parts) {
		where := parts[part]
		if where.from == where.to {
			continue
		}
		for _, lie := range []struct {
			pass int
			at   int64
		}{{1, where.from}, {2, where.from}, {2, (where.from + where.to) / 2}, {2, where.to - 1}} {
			t.Run(fmt.Sprintf("%s/byte %d in pass %d", part, lie.at, lie.pass), func(t *testing.T) {
				r := newRig(t)
				s := fuse.NewStick(map[string][]byte{name: honest})
				lying := flipped(honest, lie.at)
				s.Content = func(_ string, pass int, b []byte) []byte {
					if pass == lie.pass {
						return lying
					}
					return b
				}
				dir, _ := mounted(t, s)
				o := r.run(t, dir)
				payload := where.from >= parts["payload, first block"].from
				if lie.pass == 2 && where.to <= parts["data/0000.tar (tar header)"].to {
					o.oneOf(t, "stick-changed") // whatever the other bytes are
				}
				switch installed := r.safe(t, o, "release-2"); {
				case installed && !payload:
					t.Errorf("installed from a stick that lied about what was signed:\n%s", o.log)
				case installed:
					// Bytes that nobody reads, or that were read in the honest pass only.
				default:
					o.oneOf(t, refusals()...)
					if lie.at == where.from {
						r.recovers(t)
					}
				}
			})
		}
	}
}

// TestDefenseD03AnotherArtifact: the second read gives another whole artifact.
func TestDefenseD03AnotherArtifact(t *testing.T) {
	needFUSE(t)
	r := newRig(t)
	honest := r.artifact(t, "release-2", nil)
	for other, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"signed, older":    {r.artifact(t, "release-1", nil), "stick-changed"},
		"signed, newer":    {r.artifact(t, "release-3", nil), "stick-changed"},
		"same, packed":     {r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Compression = "gzip" }), "stick-changed"},
		"unsigned":         {r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Signer = nil }), "stick-changed"},
		"other device":     {r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.DeviceTypes = []string{"other"} }), "stick-changed"},
		"cut in payload":   {honest[:len(honest)-100*kib], "bad-artifact"},
		"cut in header":    {honest[:3*kib], "stick-changed"},
		"nothing":          {nil, "stick-changed"},
		"more at its end":  {append(bytes.Clone(honest), make([]byte, 64*kib)...), "ok"}, // zeros, which an archive may have there
		"zeros throughout": {make([]byte, len(honest)), "stick-changed"},
	} {
		t.Run(other, func(t *testing.T) {
			r := newRig(t)
			s := fuse.NewStick(map[string][]byte{name: honest})
			s.Content = func(_ string, pass int, honest []byte) []byte {
				if pass > 1 {
					return tt.content
				}
				return honest
			}
			dir, _ := mounted(t, s)
			o := r.run(t, dir)
			o.oneOf(t, tt.want)
			if !r.safe(t, o, "release-2") {
				r.recovers(t)
			}
		})
	}
}

// TestDefenseD03LyingDirectory: the directory changes between the choice and
// the installation.
func TestDefenseD03LyingDirectory(t *testing.T) {
	needFUSE(t)
	for what, change := range map[string]func(fuse.Entry) (fuse.Entry, error){
		"a directory":  func(e fuse.Entry) (fuse.Entry, error) { e.Mode = unix.S_IFDIR | 0o755; return e, nil },
		"a link":       func(e fuse.Entry) (fuse.Entry, error) { e.Mode = unix.S_IFLNK | 0o777; return e, nil },
		"a pipe":       func(e fuse.Entry) (fuse.Entry, error) { e.Mode = unix.S_IFIFO | 0o644; return e, nil },
		"a device":     func(e fuse.Entry) (fuse.Entry, error) { e.Mode = unix.S_IFBLK | 0o644; return e, nil },
		"a socket":     func(e fuse.Entry) (fuse.Entry, error) { e.Mode = unix.S_IFSOCK | 0o644; return e, nil },
		"no file":      func(e fuse.Entry) (fuse.Entry, error) { return e, unix.ENOENT },
		"unreadable":   func(e fuse.Entry) (fuse.Entry, error) { return e, unix.EIO },
		"size of 2^62": func(e fuse.Entry) (fuse.Entry, error) { e.Size = 1 << 62; return e, nil },
	} {
		for _, pass := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s after %d opens", what, pass), func(t *testing.T) {
				r := newRig(t)
				s := fuse.NewStick(map[string][]byte{name: r.artifact(t, "release-2", nil)})
				s.Attr = func(path string, opens int, e fuse.Entry) (fuse.Entry, error) {
					if path == name && opens == pass {
						return change(e)
					}
					return e, nil
				}
				dir, _ := mounted(t, s)
				o := r.run(t, dir)
				if r.safe(t, o, "release-2") {
					if what != "size of 2^62" { // which nobody believes
						t.Errorf("installed:\n%s", o.log)
					}
					return
				}
				o.oneOf(t, refusals()...)
				r.recovers(t)
			})
		}
	}
}

// TestDefenseD03Random: lies at random, HOSTILE_RUNS of them (default 60), each
// with a seed that a failure names.
func TestDefenseD03Random(t *testing.T) {
	needFUSE(t)
	runs := 60
	if n, err := strconv.Atoi(os.Getenv("HOSTILE_RUNS")); err == nil {
		runs = n
	}
	r := newRig(t)
	honest := r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Compression = "gzip" })
	lies := 0
	for seed := range runs {
		r := newRig(t)
		rng := rand.New(rand.NewPCG(1, uint64(seed)))
		s := fuse.NewStick(map[string][]byte{name: honest})
		first, often := 1+rng.IntN(2), rng.IntN(3)
		// Half of the lies are in the first 8 KiB, where the signed part is.
		at := rng.Int64N(int64(len(honest)))
		if rng.IntN(2) == 0 {
			at = rng.Int64N(8 * kib)
		}
		lying := flipped(honest, at)
		s.Content = func(_ string, pass int, b []byte) []byte {
			if pass >= first && pass <= first+often {
				return lying
			}
			return b
		}
		dir, server := mounted(t, s)
		o := r.run(t, dir)
		if !r.safe(t, o, "release-2") {
			lies++
			r.boots(t, 2)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("seed %d: byte %d, passes %d to %d\n%s", seed, at, first, first+often, o.log)
		}
	}
	t.Logf("%d of %d lies were told from what was read", lies, runs)
	if lies < runs/2 {
		t.Error("most lies were not seen: the stick does not lie as it should")
	}
}
