package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// rates are those of a medium; 0 is as fast as memory.
type rates struct {
	read, write    float64       // bytes a second
	request, flush time.Duration // what each costs besides its bytes
	// zeroes: the medium makes zeros by command.
	zeroes bool
}

// slowFile shows a file as if it lay on a slow medium: a FUSE file system that
// consists of that file, served one request after the other, as a card serves
// them. Each request takes its time, counted from the end of the one before,
// so that lateness of ours does not add up.
type slowFile struct {
	rates
	f    *os.File
	busy time.Time // until then the medium is at work
	now  func() time.Time
	wait func(time.Duration)
}

// Operations and flags of the protocol (source: Linux,
// include/uapi/linux/fuse.h, version 7.31).
const (
	fuseForget, fuseGetattr, fuseOpen, fuseRead, fuseWrite         = 2, 3, 14, 15, 16
	fuseRelease, fuseFsync, fuseFlush, fuseInit                    = 18, 20, 25, 26
	fuseInterrupt, fuseDestroy, fuseBatchForget, fuseFallocate     = 36, 38, 42, 43
	fuseAsyncRead, fuseBigWrites, fuseMaxPages                     = 1 << 0, 1 << 5, 1 << 22
	fuseDirectIO                                                   = 1 << 0
	fuseInHeader, fuseOutHeader, fuseInitOut, fuseAttrOut, openOut = 40, 16, 64, 104, 16
	fuseWriteIn                                                    = 40
	fuseStatfs, fuseStatfsOut                                      = 17, 80

	fuseMaxRequest = 1 * mib   // bytes of data in a read or a write
	fuseSlack      = 64 << 10  // for headers
	fuseReadAhead  = 128 << 10 // as the kernel reads a stick
)

// A gap that is shorter is the way through the kernel, not an idle medium.
const idleGap = 300 * time.Microsecond

// mountSlow mounts the slow view of a file over the file at, which exists. The
// server ends when undo has unmounted it.
func mountSlow(file, at string, r rates) (undo func() error, err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open /dev/fuse: %w", err), f.Close())
	}
	options := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0,max_read=%d", dev, fuseMaxRequest)
	if err := unix.Mount("bench", at, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", at, err), unix.Close(dev), f.Close())
	}
	s := &slowFile{rates: r, f: f, now: time.Now, wait: nap}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(dev) }()
	return func() error {
		err := unix.Unmount(at, unix.MNT_DETACH)
		return errors.Join(err, <-ended, unix.Close(dev), f.Close())
	}, nil
}

// nap is finer than time.Sleep, which may round up to a millisecond.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	for unix.Nanosleep(&t, &t) == unix.EINTR {
	}
}

// serve answers until the file system is unmounted.
func (s *slowFile) serve(dev int) error {
	in := make([]byte, fuseMaxRequest+fuseSlack)
	out := make([]byte, fuseMaxRequest+fuseSlack)
	for {
		n, err := unix.Read(dev, in)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.ENODEV): // unmounted
			return nil
		case err != nil:
			return fmt.Errorf("read /dev/fuse: %w", err)
		}
		answer := s.handle(in[:n], out)
		if answer == nil {
			continue
		}
		if _, err := unix.Write(dev, answer); err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: nobody waits for it
			return fmt.Errorf("write /dev/fuse: %w", err)
		}
	}
}

// handle returns the answer to one request, made in out, or nil where none is
// expected.
func (s *slowFile) handle(in, out []byte) []byte {
	le := binary.LittleEndian
	op, unique := le.Uint32(in[4:]), le.Uint64(in[8:])
	body, data := in[fuseInHeader:], out[fuseOutHeader:]
	n, err := 0, error(nil)
	switch op {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil
	case fuseInit:
		n = initAnswer(data)
	case fuseGetattr:
		n, err = s.attributes(data)
	case fuseStatfs: // the loop device passes no zeros on to a file without block size
		clear(data[:fuseStatfsOut])
		le.PutUint32(data[40:], 4096)
		n = fuseStatfsOut
	case fuseOpen:
		clear(data[:openOut])
		le.PutUint32(data[8:], fuseDirectIO) // every request reaches the medium
		n = openOut
	case fuseRead:
		n, err = s.f.ReadAt(data[:min(le.Uint32(body[16:]), fuseMaxRequest)], int64(le.Uint64(body[8:])))
		if n > 0 {
			err = nil
		}
		s.take(s.request, n, s.read)
	case fuseWrite:
		var wrote int
		wrote, err = s.f.WriteAt(body[fuseWriteIn:], int64(le.Uint64(body[8:])))
		s.take(s.request, wrote, s.write)
		le.PutUint64(data, uint64(wrote))
		n = 8
	case fuseFsync:
		s.take(s.flush, 0, 0)
	case fuseFallocate:
		err = unix.EOPNOTSUPP
		if s.zeroes { // whatever the mode, what the loop device asks for are zeros
			err = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(le.Uint64(body[8:])), int64(le.Uint64(body[16:])))
			s.take(s.request, 0, 0)
		}
	case fuseFlush, fuseRelease, fuseDestroy:
	default:
		err = unix.ENOSYS
	}
	var errno unix.Errno
	if err != nil {
		n, errno = 0, unix.EIO
		errors.As(err, &errno)
	}
	le.PutUint32(out, uint32(fuseOutHeader+n))
	le.PutUint32(out[4:], uint32(-int32(errno)))
	le.PutUint64(out[8:], unique)
	return out[:fuseOutHeader+n]
}

func initAnswer(out []byte) int {
	clear(out[:fuseInitOut])
	le := binary.LittleEndian
	le.PutUint32(out, 7)
	le.PutUint32(out[4:], 31)
	le.PutUint32(out[8:], fuseReadAhead)
	le.PutUint32(out[12:], fuseAsyncRead|fuseBigWrites|fuseMaxPages)
	le.PutUint32(out[20:], fuseMaxRequest)
	le.PutUint32(out[24:], 1) // granularity of times, in nanoseconds
	le.PutUint16(out[28:], fuseMaxRequest/4096)
	return fuseInitOut
}

func (s *slowFile) attributes(out []byte) (int, error) {
	st, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	clear(out[:fuseAttrOut])
	le := binary.LittleEndian
	le.PutUint64(out, 3600) // seconds for which it holds
	attr := out[16:]
	le.PutUint64(attr, 1) // the root
	le.PutUint64(attr[8:], uint64(st.Size()))
	le.PutUint64(attr[16:], uint64(st.Size()/512))
	le.PutUint32(attr[60:], unix.S_IFREG|0o600)
	le.PutUint32(attr[64:], 1) // links
	le.PutUint32(attr[80:], 4096)
	return fuseAttrOut, nil
}

// take lets the time pass that a request takes.
func (s *slowFile) take(fixed time.Duration, n int, rate float64) {
	if rate > 0 {
		fixed += time.Duration(float64(n) / rate * float64(time.Second))
	}
	now := s.now()
	if now.Sub(s.busy) > idleGap {
		s.busy = now
	}
	s.busy = s.busy.Add(fixed)
	if d := s.busy.Sub(now); d > 0 {
		s.wait(d)
	}
}
