package artifact

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// prefetchAhead is how much of a file the kernel is asked to have read
	// before it is wanted, in bytes. It evens out what a stick and a slot do:
	// now the one is the slower, now the other, and the kernel's own read-ahead
	// of 128 KiB is used up within milliseconds. It is page cache, which the
	// kernel may take back.
	prefetchAhead = 4 << 20
	// prefetchStep is how much it is asked for at a time, in bytes.
	prefetchStep = 512 << 10
)

// prefetch reads a file, and asks the kernel for what comes next.
type prefetch struct {
	file  *os.File
	pos   int64
	asked int64 // up to here
}

// Prefetch returns a reader of a file from its position on, which keeps the
// medium busy ahead of what is read. Of what is no regular file it is an
// ordinary reader.
func Prefetch(f *os.File) io.Reader {
	pos, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return f
	}
	return &prefetch{file: f, pos: pos, asked: pos}
}

// Read implements io.Reader. The question is only advice: whether it is heard
// changes nothing but the time.
func (p *prefetch) Read(b []byte) (int, error) {
	for p.asked < p.pos+prefetchAhead {
		_ = advise(p.file, p.asked, prefetchStep)
		p.asked += prefetchStep
	}
	n, err := p.file.Read(b)
	p.pos += int64(n)
	return n, err
}

func advise(f *os.File, off, n int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) })
	if err != nil {
		return err
	}
	return failed
}
