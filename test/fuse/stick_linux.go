package fuse

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Stick is an FS in memory whose answers can be changed on the way. What is set
// must be set before it is mounted, and is called by many at a time.
type Stick struct {
	mu    sync.Mutex
	files map[string][]byte
	opens map[string]int

	// Content, if set, says what a file holds when it has been opened for the
	// pass-th time. The inspecting process reads in pass 1, the installing one in
	// pass 2.
	Content func(path string, pass int, b []byte) []byte
	// Read, if set, sees each read of a file before it is answered.
	Read func(path string, offset int64, n int) error
	// Answer, if set, changes what a read of a file returns.
	Answer func(path string, offset int64, p []byte)
	// Names and Attr, if set, change what a directory says. pass is how often
	// files had been opened before.
	Names func(dir string, entries []Entry) ([]Entry, error)
	Attr  func(path string, pass int, e Entry) (Entry, error)
}

// NewStick makes an honest stick. Paths of files are below its root.
func NewStick(files map[string][]byte) *Stick {
	return &Stick{files: files, opens: map[string]int{}}
}

// Opens returns how often a file has been opened.
func (s *Stick) Opens(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opens[name]
}

func (s *Stick) now(name string) (b []byte, pass int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok = s.files[name]
	pass = s.opens[name]
	if ok && s.Content != nil {
		b = s.Content(name, max(pass, 1), b)
	}
	return b, pass, ok
}

// List names the files in dir and the directories that lead to others.
func (s *Stick) List(dir string) ([]Entry, error) {
	var entries []Entry
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		rest := name
		if dir != "" {
			var inside bool
			if rest, inside = strings.CutPrefix(name, dir+"/"); !inside {
				continue
			}
		}
		first, _, _ := strings.Cut(rest, "/")
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == first }) {
			continue
		}
		e, err := s.plainStat(path.Join(dir, first))
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if s.Names != nil {
		return s.Names(dir, entries)
	}
	return entries, nil
}

// Stat describes a file or directory.
func (s *Stick) Stat(name string) (Entry, error) {
	e, err := s.plainStat(name)
	if s.Attr == nil {
		return e, err
	}
	s.mu.Lock()
	pass := s.opens[name]
	s.mu.Unlock()
	if err != nil {
		return e, err
	}
	return s.Attr(name, pass, e)
}

func (s *Stick) plainStat(name string) (Entry, error) {
	if b, _, ok := s.now(name); ok {
		return Entry{Name: path.Base(name), Mode: unix.S_IFREG | 0o644, Size: int64(len(b))}, nil
	}
	for known := range s.files {
		if name == "" || strings.HasPrefix(known, name+"/") {
			return Entry{Name: path.Base(name), Mode: unix.S_IFDIR | 0o755}, nil
		}
	}
	if name == "" {
		return Entry{Mode: unix.S_IFDIR | 0o755}, nil
	}
	return Entry{}, unix.ENOENT
}

// Open counts.
func (s *Stick) Open(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens[name]++
	return nil
}

// ReadAt answers with what the file holds in this pass.
func (s *Stick) ReadAt(name string, p []byte, offset int64) (int, error) {
	if s.Read != nil {
		if err := s.Read(name, offset, len(p)); err != nil {
			return 0, err
		}
	}
	b, _, _ := s.now(name)
	n, err := bytes.NewReader(b).ReadAt(p, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if s.Answer != nil {
		s.Answer(name, offset, p[:n])
	}
	return n, err
}
