package medium

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Numbers of the protocol (source: NBD, doc/proto.md).
const (
	nbdMagic       = 0x4e42444d41474943
	optionMagic    = 0x49484156454f5054
	replyMagic     = 0x3e889045565a9
	requestMagic   = 0x25609513
	simpleMagic    = 0x67446698
	fixedNewstyle  = 1
	noZeroes       = 2
	optExportName  = 1
	optAbort       = 2
	optInfo        = 6
	optGo          = 7
	repAck         = 1
	repInfo        = 3
	repUnsupported = 1<<31 | 1
	infoExport     = 0

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	flagFUA        = 1

	// hasFlags, sendFlush, sendFUA, sendTrim, sendWriteZeroes
	exportFlags = 1 | 4 | 8 | 32 | 64

	errIO    = 5
	errInval = 22

	maxOption  = 64 << 10
	maxRequest = 64 << 20
)

// Request is what a virtual machine asks of its disk.
type Request struct {
	Write       bool // or zeros, or a flush with Length 0; else it reads
	Off, Length int64
}

// Server serves an image to virtual machines, one connection at a time.
type Server struct {
	listener net.Listener
	done     chan struct{} // closed when nothing is served any more

	mu    sync.Mutex
	image *Image
	trace *Trace
	fail  func(Request) bool
	conn  net.Conn
	err   error
}

// Serve begins to serve the image, which belongs to the server until Close, at a
// Unix socket, and traces it.
func Serve(socket string, image *Image, unit Unit) (*Server, error) {
	l, err := net.Listen("unix", socket) //nolint:noctx // it does not wait
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, image: image, trace: NewTrace(image, unit), done: make(chan struct{})}
	go s.accept()
	return s, nil
}

// URL is the name of the disk for QEMU.
func (s *Server) URL() string { return "nbd+unix:///?socket=" + s.listener.Addr().String() }

// Trace returns the trace that is being written.
func (s *Server) Trace() *Trace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trace
}

// NewTrace begins a new trace at the image as it is now. What was not flushed
// counts as flushed: nobody may cut the power in between.
func (s *Server) NewTrace() *Trace {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = NewTrace(s.image, s.trace.Unit)
	return s.trace
}

// Look calls do with the image as it is now, as the machine sees it.
func (s *Server) Look(do func(*Image) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return do(s.image)
}

// Fail makes requests for which the function returns true fail with an I/O
// error and do nothing. nil ends it.
func (s *Server) Fail(fail func(Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// Close ends the service. It returns the first error that was no end of a
// connection.
func (s *Server) Close() error {
	_ = s.listener.Close() // it may be closed already
	s.mu.Lock()
	if s.conn != nil {
		_ = s.conn.Close() // the machine may be gone
	}
	s.mu.Unlock()
	<-s.done
	return s.err
}

func (s *Server) accept() {
	defer close(s.done)
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.conn = c
		s.mu.Unlock()
		err = s.serve(c)
		_ = c.Close() // what counts was answered
		if err != nil && !gone(err) && s.err == nil {
			s.err = fmt.Errorf("disk: %w", err)
		}
	}
}

// gone tells whether an error is that of a machine that was switched off.
func gone(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

func (s *Server) serve(c net.Conn) error {
	r, w := bufio.NewReaderSize(c, 1<<20), bufio.NewWriterSize(c, 1<<20)
	goOn, err := s.handshake(r, w)
	if err != nil || !goOn {
		return err
	}
	for {
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if goOn, err := s.request(r, w); err != nil || !goOn {
			return err
		}
	}
}

// send writes numbers of fixed size and bytes.
func send(w io.Writer, parts ...any) error {
	for _, p := range parts {
		if err := binary.Write(w, binary.BigEndian, p); err != nil {
			return err
		}
	}
	return nil
}

// handshake negotiates. It tells whether the machine wants the disk.
func (s *Server) handshake(r *bufio.Reader, w *bufio.Writer) (bool, error) {
	if err := send(w, uint64(nbdMagic), uint64(optionMagic), uint16(fixedNewstyle|noZeroes)); err != nil {
		return false, err
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	var clientFlags uint32
	if err := binary.Read(r, binary.BigEndian, &clientFlags); err != nil {
		return false, err
	}
	size := uint64(s.image.Size()) //nolint:gosec // positive
	for {
		var o struct {
			Magic  uint64
			Option uint32
			Length uint32
		}
		if err := binary.Read(r, binary.BigEndian, &o); err != nil {
			return false, err
		}
		if o.Magic != optionMagic || o.Length > maxOption {
			return false, fmt.Errorf("option %d with magic %x and %d bytes", o.Option, o.Magic, o.Length)
		}
		if _, err := r.Discard(int(o.Length)); err != nil {
			return false, err
		}
		var err error
		switch o.Option {
		case optExportName:
			err = send(w, size, uint16(exportFlags))
			if clientFlags&noZeroes == 0 {
				err = errors.Join(err, send(w, make([]byte, 124)))
			}
			return true, errors.Join(err, w.Flush())
		case optGo, optInfo:
			err = send(w, uint64(replyMagic), o.Option, uint32(repInfo), uint32(12), uint16(infoExport), size, uint16(exportFlags),
				uint64(replyMagic), o.Option, uint32(repAck), uint32(0))
		case optAbort:
			return false, errors.Join(send(w, uint64(replyMagic), o.Option, uint32(repAck), uint32(0)), w.Flush())
		default:
			err = send(w, uint64(replyMagic), o.Option, uint32(repUnsupported), uint32(0))
		}
		if err = errors.Join(err, w.Flush()); err != nil || o.Option == optGo {
			return err == nil, err
		}
	}
}

// request answers one request. It tells whether more may come.
func (s *Server) request(r *bufio.Reader, w *bufio.Writer) (bool, error) {
	var q struct {
		Magic  uint32
		Flags  uint16
		Type   uint16
		Handle uint64
		Off    uint64
		Length uint32
	}
	if err := binary.Read(r, binary.BigEndian, &q); err != nil {
		return false, err
	}
	if q.Magic != requestMagic || q.Type <= cmdWrite && q.Length > maxRequest {
		return false, fmt.Errorf("request %d with magic %x and %d bytes", q.Type, q.Magic, q.Length)
	}
	if q.Type == cmdDisconnect {
		return false, nil
	}
	e := Entry{Off: int64(q.Off), Length: int64(q.Length), FUA: q.Flags&flagFUA != 0} //nolint:gosec // checked by Image
	var data []byte
	if q.Type == cmdWrite {
		e.Data = make([]byte, q.Length)
		if _, err := io.ReadFull(r, e.Data); err != nil {
			return false, err
		}
	}
	code := s.do(q.Type, e, &data)
	return true, send(w, uint32(simpleMagic), code, q.Handle, data)
}

// do carries out a request and returns the error number to answer with.
func (s *Server) do(command uint16, e Entry, data *[]byte) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.fail(Request{Write: command != cmdRead, Off: e.Off, Length: e.Length}) {
		return errIO
	}
	switch command {
	case cmdRead:
		b := make([]byte, e.Length)
		if _, err := s.image.ReadAt(b, e.Off); err != nil {
			return errInval
		}
		*data = b
	case cmdFlush:
		s.trace.Add(Entry{Flush: true})
	case cmdWrite, cmdWriteZeroes:
		if err := e.apply(s.image); err != nil {
			return errInval
		}
		s.trace.Add(e)
	case cmdTrim: // a hint; this medium keeps what it has
	default:
		return errInval
	}
	return 0
}
