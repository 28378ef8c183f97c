package report

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the progress socket's path in the run directory.
const SocketName = "progress/socket"

const (
	// MaxClients is how many programs may listen at a time. Further ones are
	// turned away.
	MaxClients = 8
	// clientTimeout is how long a client may take for one line before it is
	// dropped. Lines wait in the socket's buffer, which holds hundreds; so only
	// a client that has stopped reading gets here.
	clientTimeout = 100 * time.Millisecond
	socketMode    = 0o660
	socketDirMode = 0o755
)

// Socket is a [Sink] that writes each event as a line of JSON to all programs
// that are connected to a Unix stream socket. A program that comes late gets
// the latest event first. What programs send is not read.
type Socket struct {
	listener *net.UnixListener
	accepted chan struct{} // closed when nobody is accepted any longer

	mu      sync.Mutex
	latest  []byte // line; nil before the first event
	clients map[*net.UnixConn]bool
	closed  bool
}

// ListenSocket makes the socket at path, with mode 0660. It takes the group of
// its directory, if that has the set-group-ID bit: this needs no right to give
// files away. A directory that is not there is made, for root. A socket that is
// there from a run that was killed is replaced: only one run at a time may call
// this. The caller closes the socket.
func ListenSocket(path string) (*Socket, error) {
	if err := os.MkdirAll(filepath.Dir(path), socketDirMode); err != nil {
		return nil, fmt.Errorf("progress socket: %w", err)
	}
	if err := removeSocket(path); err != nil {
		return nil, fmt.Errorf("progress socket %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("progress socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil { // until then it is what the process's mask allows
		return nil, errors.Join(fmt.Errorf("progress socket %s: %w", path, err), listener.Close())
	}
	s := &Socket{listener: listener, accepted: make(chan struct{}), clients: map[*net.UnixConn]bool{}}
	go s.accept()
	return s, nil
}

// removeSocket removes a socket, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something that is no socket")
	}
	return os.Remove(path)
}

func (s *Socket) accept() {
	defer close(s.accepted)
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed, or no descriptor is left: the run needs them more
		}
		s.add(conn)
	}
}

// add takes a client in and tells it where the run is.
func (s *Socket) add(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) >= MaxClients {
		s.dropGone()
	}
	if s.closed || len(s.clients) >= MaxClients {
		_ = conn.Close() // nothing was written
		return
	}
	s.clients[conn] = true
	if s.latest != nil {
		s.write(conn, s.latest)
	}
}

// dropGone drops the clients that have hung up, which else are found at the next
// event. One that has closed its own side only still reads. s.mu is held.
func (s *Socket) dropGone() {
	for conn := range s.clients {
		raw, err := conn.SyscallConn()
		if err != nil {
			continue
		}
		gone := false
		err = raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP is told unasked
			n, err := unix.Poll(p, 0)
			gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		})
		if err == nil && gone {
			delete(s.clients, conn)
			_ = conn.Close() // nobody is there to hear
		}
	}
}

// write drops a client that does not take the line. s.mu is held.
func (s *Socket) write(conn *net.UnixConn, line []byte) {
	err := conn.SetWriteDeadline(time.Now().Add(clientTimeout))
	if err == nil {
		_, err = conn.Write(line)
	}
	if err != nil {
		delete(s.clients, conn)
		_ = conn.Close() // it hears no more
	}
}

// Send writes the event to all clients. It never fails: a client that is gone
// or too slow is dropped.
func (s *Socket) Send(_ context.Context, e Event) error {
	line := append(e.JSON(), '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = line
	for conn := range s.clients {
		s.write(conn, line)
	}
	return nil
}

// Close ends all connections and removes the socket.
func (s *Socket) Close() error {
	err := s.listener.Close() // removes it
	s.mu.Lock()
	s.closed = true
	for conn := range s.clients {
		_ = conn.Close() // what it was told is in its buffer
	}
	clear(s.clients)
	s.mu.Unlock()
	<-s.accepted
	if err != nil {
		return fmt.Errorf("close progress socket: %w", err)
	}
	return nil
}
