package artifact

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/usb-updater/usb-updater/internal/inflate"
)

// newGunzip returns the content of a series of gzip members, decoded by what is
// faster on this platform.
func newGunzip(r io.Reader) io.Reader {
	if inflate.Fast {
		return inflate.NewReader(r)
	}
	return &gunzip{in: bufio.NewReaderSize(r, gzipBufferSize)}
}

// gunzip reads a series of gzip members. The library can do that by itself, but
// then takes a member that is cut inside its header for the end.
type gunzip struct {
	in     *bufio.Reader
	z      gzip.Reader
	inside bool // a member has been opened and not ended
	second bool // at least one member has ended
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		if !g.inside {
			if err := g.open(); err != nil {
				return 0, err
			}
		}
		var member io.Reader = &g.z
		n, err := member.Read(p)
		if err == io.EOF {
			g.inside, g.second, err = false, true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// open starts the next member. It returns io.EOF if there is none.
func (g *gunzip) open() error {
	if _, err := g.in.Peek(1); g.second && err != nil {
		return err
	}
	if err := g.z.Reset(g.in); errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	g.z.Multistream(false)
	g.inside = true
	return nil
}
