package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"testing"
)

var errCut = errors.New("the power failed")

// memory is a disk with a write cache. Names and contents reach the medium
// when they are flushed, and may reach it earlier: names in order, contents
// at any time or not at all. Operations fail once left is used up.
type memory struct {
	left    int
	current map[string]*inode
	durable map[string]*inode
	// later has what durable may have become by now: one entry for each
	// change of a name that was not flushed.
	later []map[string]*inode
}

type inode struct{ current, durable string }

func newMemory(left int, files map[string]string) *memory {
	m := &memory{left: left, current: map[string]*inode{}}
	for name, text := range files {
		m.current[name] = &inode{current: text, durable: text}
	}
	m.durable = maps.Clone(m.current)
	return m
}

// step is one operation. The cut comes before it.
func (m *memory) step() error {
	if m.left == 0 {
		return errCut
	}
	m.left--
	return nil
}

func (m *memory) renamed() { m.later = append(m.later, maps.Clone(m.current)) }

func (m *memory) create(path string, _ fs.FileMode) (file, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	if m.current[path] != nil {
		return nil, fs.ErrExist
	}
	m.current[path] = &inode{}
	m.renamed()
	return &memoryFile{m, m.current[path]}, nil
}

func (m *memory) remove(path string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.current[path] == nil {
		return fs.ErrNotExist
	}
	delete(m.current, path)
	m.renamed()
	return nil
}

func (m *memory) rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.current[to] = m.current[from]
	delete(m.current, from)
	m.renamed()
	return nil
}

func (m *memory) syncDir(string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.durable, m.later = maps.Clone(m.current), nil
	return nil
}

// outcomes returns every content that path may have after the power is back,
// "absent" if it may not be there.
func (m *memory) outcomes(path string) map[string]bool {
	out := map[string]bool{}
	for _, names := range append([]map[string]*inode{m.durable}, m.later...) {
		if i := names[path]; i == nil {
			out["absent"] = true
		} else {
			out[i.durable], out[i.current] = true, true
		}
	}
	return out
}

type memoryFile struct {
	m *memory
	i *inode
}

// Write takes two operations, so that a cut can leave half of the data.
func (f *memoryFile) Write(p []byte) (int, error) {
	for n := range 2 {
		if err := f.m.step(); err != nil {
			return n * len(p) / 2, err
		}
		f.i.current = string(p[:(n+1)*len(p)/2])
	}
	return len(p), nil
}

func (f *memoryFile) Chmod(fs.FileMode) error { return f.m.step() }

func (f *memoryFile) Sync() error {
	if err := f.m.step(); err != nil {
		return err
	}
	f.i.durable = f.i.current
	return nil
}

func (f *memoryFile) Close() error { return nil }

// TestPowerCut cuts the power before operation 0, 1, 2, … until the write
// succeeds: each time the file must be the old one or the new one, and a write
// that succeeded must last.
func TestPowerCut(t *testing.T) {
	for _, stale := range []bool{false, true} {
		files := map[string]string{"/d/f": "old content"}
		if stale {
			files["/d/.f.tmp"] = "left by a cut"
		}
		for left := 0; ; left++ {
			m := newMemory(left, files)
			err := replace(m, "/d/f", []byte("new content"), 0o600)
			name := fmt.Sprintf("stale %v, cut before operation %d", stale, left)
			got := m.outcomes("/d/f")
			if err == nil {
				if want := map[string]bool{"new content": true}; !maps.Equal(got, want) {
					t.Errorf("no cut: the file may be %v, want %v", got, want)
				}
				if left < 6 {
					t.Errorf("the write took %d operations: the test cuts nothing", left)
				}
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatalf("%s: error %v, want %v", name, err, errCut)
			}
			for text := range got {
				if text != "old content" && text != "new content" {
					t.Errorf("%s: the file may be %q", name, text)
				}
			}
			// With the power back the next write succeeds.
			m.left = 100
			if err := replace(m, "/d/f", []byte("newest"), 0o600); err != nil {
				t.Errorf("%s: the write after it: %v", name, err)
			}
		}
	}
}
