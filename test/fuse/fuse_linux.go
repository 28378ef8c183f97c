package fuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// Entry is a name in a directory.
type Entry struct {
	Name string
	Mode uint32 // S_IFREG or S_IFDIR, and permissions
	Size int64  // bytes
}

// FS decides what the stick is. Its methods run at the same time. A path is
// relative to the root, which is "". They may block: the kernel waits then.
type FS interface {
	// List names what is in a directory.
	List(dir string) ([]Entry, error)
	// Stat describes one path.
	Stat(path string) (Entry, error)
	// Open hears that a file is opened.
	Open(path string) error
	// ReadAt fills p from a file, and returns less at its end.
	ReadAt(path string, p []byte, offset int64) (int, error)
}

// Writer is an FS whose files can be written. Their size stays.
type Writer interface {
	FS
	// WriteAt writes all of p to a file, or returns an error.
	WriteAt(path string, p []byte, offset int64) error
	// Sync hears that a file is flushed.
	Sync(path string) error
}

// Server is a mounted FS.
type Server struct {
	dir  string
	fs   FS
	done chan struct{}

	mu     sync.Mutex
	paths  map[uint64]string
	closed bool
}

// Mount mounts fs on the directory dir, read-only if it is no [Writer].
func Mount(dir string, fs FS) (*Server, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", fd, maxWrite)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if _, ok := fs.(Writer); !ok {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("stick", dir, "fuse.stick", flags, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount fuse on %s: %w", dir, err), unix.Close(fd))
	}
	s := &Server{dir: dir, fs: fs, done: make(chan struct{}), paths: map[uint64]string{rootID: ""}}
	go s.serve(fd)
	return s, nil
}

// Pull ends the server as if the stick were pulled out: what waits and what
// comes fails with ECONNABORTED or ENOTCONN. Close is still needed.
func (s *Server) Pull() error { return unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH) }

// Close unmounts, whoever still uses it. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		err = nil // pulled out
	}
	if err == nil {
		<-s.done // the abort ends it
	}
	return err
}

// serve takes requests until the mount is gone. The descriptor is closed when
// nobody uses it any more, for its number will be another file's then: an FS
// may hold an answer back for longer.
func (s *Server) serve(fd int) {
	defer close(s.done)
	var answers sync.WaitGroup
	defer func() {
		go func() {
			answers.Wait()
			_ = unix.Close(fd) // nothing is left to lose
		}()
	}()
	for {
		buf := make([]byte, maxRequest)
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil || n < inHeaderSize {
			return // unmounted
		}
		req := parse(buf[:n])
		answers.Go(func() {
			body, err, silent := s.answer(req)
			if silent {
				return
			}
			errno := unix.Errno(0)
			if err != nil {
				body = nil
				if !errors.As(err, &errno) {
					errno = unix.EIO
				}
			}
			// A request that was interrupted, or a mount that is gone, takes no answer.
			_, _ = unix.Write(fd, reply(req.unique, errno, body))
		})
	}
}

// answer says what to reply. silent requests want no reply.
func (s *Server) answer(r request) (body []byte, err error, silent bool) {
	ne := binary.NativeEndian
	switch r.op {
	case opForget, opBatchForget, opInterrupt:
		return nil, nil, true
	case opInit:
		return initOut(), nil, false
	case opStatfs:
		return make([]byte, 80), nil, false
	case opRelease, opReleasedir, opFlush:
		return nil, nil, false
	}
	s.mu.Lock()
	name, known := s.paths[r.node]
	s.mu.Unlock()
	if !known {
		return nil, unix.ESTALE, false
	}
	switch r.op {
	case opLookup:
		child, _, _ := bytes.Cut(r.body, []byte{0})
		full := path.Join(name, string(child))
		e, err := s.fs.Stat(full)
		if err != nil {
			return nil, err, false
		}
		node := nodeOf(full)
		s.mu.Lock()
		s.paths[node] = full
		s.mu.Unlock()
		return entryOut(node, e), nil, false
	case opGetattr:
		e, err := s.fs.Stat(name)
		return attrOut(r.node, e), err, false
	case opOpen:
		return openOut(openDirectIO), s.fs.Open(name), false
	case opOpendir:
		return openOut(0), nil, false
	case opRead:
		p := make([]byte, min(ne.Uint32(r.body[16:]), maxRequest))
		n, err := s.fs.ReadAt(name, p, int64(ne.Uint64(r.body[8:])))
		return p[:n], err, false
	case opWrite:
		const fixed = 40 // struct fuse_write_in
		data := r.body[fixed:][:ne.Uint32(r.body[16:])]
		w, ok := s.fs.(Writer)
		if !ok {
			return nil, unix.EROFS, false
		}
		return writeOut(len(data)), w.WriteAt(name, data, int64(ne.Uint64(r.body[8:]))), false
	case opFsync:
		if w, ok := s.fs.(Writer); ok {
			return nil, w.Sync(name), false
		}
		return nil, nil, false
	case opReaddir:
		body, err := s.readdir(name, ne.Uint64(r.body[8:]), int(ne.Uint32(r.body[16:])))
		return body, err, false
	}
	return nil, unix.ENOSYS, false
}

func (s *Server) readdir(dir string, offset uint64, size int) ([]byte, error) {
	entries, err := s.fs.List(dir)
	if err != nil {
		return nil, err
	}
	var b []byte
	for i := offset; i < uint64(len(entries)); i++ {
		var fits bool
		if b, fits = appendDirent(b, size, nodeOf(path.Join(dir, entries[i].Name)), i+1, entries[i]); !fits {
			break
		}
	}
	return b, nil
}
