package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// MaxCandidates is how many files Candidates returns at most.
	MaxCandidates = 16
	// MaxEntries is how many names Candidates reads in one directory at most.
	MaxEntries = 16384

	// maxDirs bounds the spellings of /mender (mender, MENDER, …) that are read.
	// File systems made by Windows can hold one only.
	maxDirs = 4

	suffix    = ".mender"
	directory = "mender"

	readBatch = 256 // names read at a time
)

// Entry is a file that may be an artifact. Only its name and size are known.
type Entry struct {
	// Path is the name below the root directory of the stick, with at most
	// one slash. It may hold any byte but NUL: quote it before showing it.
	Path string
	// Size in bytes, more than zero, as the file system claims.
	Size int64
}

// Listing is what a stick offers.
type Listing struct {
	// Entries are at most [MaxCandidates], sorted by path.
	Entries []Entry
	// LeftOut is how many more there were. They sort after Entries.
	LeftOut int
	// Truncated is set if a directory has more than [MaxEntries] names, or
	// /mender has too many spellings. The rest was not looked at.
	Truncated bool
}

// add keeps the first [MaxCandidates] entries in the order of their paths, so
// that memory does not grow with the stick.
func (l *Listing) add(e Entry) {
	i, _ := slices.BinarySearchFunc(l.Entries, e, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	l.Entries = slices.Insert(l.Entries, i, e)
	if len(l.Entries) > MaxCandidates {
		l.Entries = l.Entries[:MaxCandidates]
		l.LeftOut++
	}
}

// Candidates lists the regular, non-empty files named *.mender in the root
// directory and in /mender, both in any letter case. Names that begin with a dot
// are skipped. Nothing is opened but the two directories.
//
// An error means that the stick could not be read to the end; a file system
// that contradicts itself is such an error too.
func (s *Stick) Candidates(ctx context.Context) (Listing, error) {
	var list Listing
	top, err := s.root.Open(".")
	if err != nil {
		return Listing{}, fmt.Errorf("list stick %.64q: %w", s.Name, cause(err))
	}
	defer top.Close()
	dirs, err := list.read(ctx, top, "")
	if err != nil {
		return Listing{}, fmt.Errorf("list stick %.64q: %w", s.Name, err)
	}
	for _, name := range dirs {
		if err := list.readDirectory(ctx, top, name); err != nil {
			return Listing{}, fmt.Errorf("list stick %.64q: %w", s.Name, err)
		}
	}
	return list, nil
}

// readDirectory adds the candidates of the directory name in top. A name that is
// no directory is skipped.
func (l *Listing) readDirectory(ctx context.Context, top *os.File, name string) error {
	dir, err := openAt(top, name, unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = l.read(ctx, dir, name)
	return err
}

// read adds the candidates of dir, whose path below the root is prefix. It
// returns the names that spell the directory that is searched as well.
func (l *Listing) read(ctx context.Context, dir *os.File, prefix string) (dirs []string, err error) {
	for n := 0; ; {
		names, err := dir.Readdirnames(readBatch)
		if errors.Is(err, io.EOF) {
			return dirs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read directory %.64q: %w", "/"+prefix, cause(err))
		}
		for _, name := range names {
			if n++; n > MaxEntries {
				l.Truncated = true
				return dirs, nil
			}
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			switch {
			case strings.EqualFold(name, directory):
				if len(dirs) == maxDirs {
					l.Truncated = true
					continue
				}
				dirs = append(dirs, name)
			case isArtifactName(name):
				if err := l.stat(dir, prefix, name); err != nil {
					return nil, err
				}
			}
		}
	}
}

// stat adds the file name in dir if it is regular and not empty.
func (l *Listing) stat(dir *os.File, prefix, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile: possible where a directory stands in
	}
	if err != nil {
		return fmt.Errorf("stat %.64q: %w", name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
		l.add(Entry{Path: path.Join(prefix, name), Size: st.Size})
	}
	return nil
}

// isArtifactName reports whether a file of this name may be an artifact.
func isArtifactName(name string) bool {
	base := len(name) - len(suffix)
	return base > 0 && name[0] != '.' && strings.EqualFold(name[base:], suffix)
}

// Open opens the file of e for reading. It refuses what Candidates would not
// list and what is no regular file; it follows no symbolic link and never waits
// for a writer. The caller closes the file.
func (s *Stick) Open(e Entry) (*os.File, error) {
	f, err := s.openEntry(e)
	if err != nil {
		return nil, fmt.Errorf("open %.64q: %w", e.Path, err)
	}
	return f, nil
}

func (s *Stick) openEntry(e Entry) (*os.File, error) {
	dirName, name, nested := strings.Cut(e.Path, "/")
	if !nested {
		dirName, name = ".", e.Path
	}
	if strings.Contains(name, "/") || !isArtifactName(name) || nested && !strings.EqualFold(dirName, directory) {
		return nil, fmt.Errorf("not a candidate: %w", fs.ErrInvalid)
	}
	top, err := s.root.Open(".")
	if err != nil {
		return nil, cause(err)
	}
	defer top.Close()
	dir, err := openAt(top, dirName, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := openAt(dir, name, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("not a regular file: %w", fs.ErrInvalid)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

// openAt opens one path component in dir. os.Root would follow a symbolic link
// that stays inside the stick, so it cannot be used here. O_NONBLOCK keeps a named
// pipe from waiting for its writer.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	flags |= unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// A file that the runtime can poll (that of a file system in user space)
		// would have Close wait for a read that hangs.
		if err := unix.SetNonblock(fd, false); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// cause drops the path of a path error. It would name a descriptor of ours
// (/proc/self/fd/7), which tells the reader nothing.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
