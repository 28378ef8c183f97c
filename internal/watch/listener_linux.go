package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds an event, in bytes (source: Linux, UEVENT_BUFFER_SIZE
	// is 2048, plus the header).
	maxMessage = 8 << 10
	// socketBuffer holds the events of a hub full of sticks, in bytes.
	socketBuffer = 1 << 20
	kernelGroup  = 1 // multicast group of the kernel's own events
)

// wanted are the properties that are read. Everything else in a message, a
// partition's label among it, is dropped before it is parsed.
var wanted = []string{"ACTION", "DEVPATH", "SUBSYSTEM", "MAJOR", "MINOR", "DEVNAME", "DEVTYPE", "SEQNUM"}

// Listener receives events. It must be closed.
type Listener struct {
	socket *os.File
	buf    []byte
	oob    []byte
	found  []Device // still to be returned

	message    func() ([]byte, error) // the next one; nil if it was not the kernel's
	sysfs, dev string                 // directories
}

// Listen begins to collect events: none that comes later is missed, as long as
// Next is called soon enough.
func Listen(context.Context) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to kernel events: %w", err)
	}
	// A larger buffer is a favor; the events fit into the default one, too.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen to kernel events: %w", err), unix.Close(fd))
	}
	l := &Listener{
		socket: os.NewFile(uintptr(fd), "uevents"),
		buf:    make([]byte, maxMessage),
		oob:    make([]byte, unix.CmsgSpace(unix.SizeofUcred)),
		sysfs:  "/sys", dev: "/dev",
	}
	l.message = l.receive
	return l, nil
}

// Close ends the listening.
func (l *Listener) Close() error { return l.socket.Close() }

// Next waits for the next event about a block device on USB. Those that came or
// changed are what [Scan] would find; those that are gone come by name. When ctx
// ends it returns its cause, and may be called again with another. If the kernel
// lost events because they came too fast, the devices that are there come again.
// It must not be called by two goroutines at once.
func (l *Listener) Next(ctx context.Context) (Device, error) {
	if err := l.socket.SetReadDeadline(time.Time{}); err != nil {
		return Device{}, fmt.Errorf("receive a kernel event: %w", err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = l.socket.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted // else its deadline could hit the next call
		}
	}()
	for {
		if ctx.Err() != nil {
			return Device{}, context.Cause(ctx)
		}
		if len(l.found) > 0 {
			d := l.found[0]
			l.found = l.found[1:]
			return d, nil
		}
		message, err := l.message()
		switch {
		case ctx.Err() != nil:
			return Device{}, context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS): // events were lost
			if l.found, err = Scan(l.sysfs); err != nil {
				return Device{}, err
			}
			continue
		case err != nil:
			return Device{}, fmt.Errorf("receive a kernel event: %w", err)
		case message == nil:
			continue
		}
		if d, ok, err := l.stick(ctx, message); err != nil || ok {
			return d, err
		}
	}
}

// stick tells whether a message is about a stick, and about which one.
func (l *Listener) stick(ctx context.Context, message []byte) (Device, bool, error) {
	d, usb, err := decode(message)
	if err != nil || !usb {
		return Device{}, false, nil
	}
	if d.Action == Remove {
		return d, true, nil
	}
	if d.Action == Change && !d.Partition {
		l.rouse(ctx, d.Name)
	}
	now, ok, err := lookAt(l.sysfs, d.Name)
	if err != nil {
		return Device{}, false, fmt.Errorf("look at block device %s: %w", d.Name, err)
	}
	now.Action = d.Action
	return now, ok, nil
}

// rouse opens a disk whose medium has changed: only then does the kernel look
// at its size and its partitions, which come as events of their own. It returns
// when that is done, or ctx is; an open that hangs is left behind.
func (l *Listener) rouse(ctx context.Context, name string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		node := filepath.Join(l.dev, strings.ReplaceAll(name, "!", "/")) // the kernel's stand-in for a slash
		// That it cannot be opened, for there is no medium, is no news.
		if fd, err := unix.Open(node, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd) // nothing was written
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// receive returns one message, or nil if it was not the kernel's.
func (l *Listener) receive() ([]byte, error) {
	conn, err := l.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n, oobn, flags int
	var from unix.Sockaddr
	var failure error
	err = conn.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, from, failure = unix.Recvmsg(int(fd), l.buf, l.oob, 0)
			if !errors.Is(failure, unix.EINTR) {
				return !errors.Is(failure, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !fromKernel(from, l.oob[:oobn]) {
		return nil, nil
	}
	return l.buf[:n], nil
}

// fromKernel checks who sent a message: any process of root could send to the
// group, and only the kernel has port 0 and process 0.
func fromKernel(from unix.Sockaddr, oob []byte) bool {
	address, ok := from.(*unix.SockaddrNetlink)
	if !ok || address.Pid != 0 || address.Groups != kernelGroup {
		return false
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return false
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && cred.Pid == 0 && cred.Uid == 0
}

// decode reads one message: "add@/devices/…", NUL, then KEY=VALUE with a NUL
// behind each. It tells whether the device is on USB.
func decode(message []byte) (d Device, usb bool, err error) {
	filtered, err := filter(message)
	if err != nil {
		return Device{}, false, err
	}
	props, err := parse(filtered)
	if err != nil {
		return Device{}, false, err
	}
	d, err = deviceOf(props)
	return d, onUSB(props["DEVPATH"]), err
}

// filter keeps the action and the wanted properties. The path in the header is
// dropped: DEVPATH is the same, and go-udev loses the event if there is an @ in
// it, as in the device tree's soc@0.
func filter(message []byte) ([]byte, error) {
	if len(message) > maxMessage || !bytes.HasSuffix(message, []byte{0}) {
		return nil, errors.New("uevent: message is too long or not closed")
	}
	header, rest, _ := bytes.Cut(message, []byte{0})
	action, path, ok := bytes.Cut(header, []byte("@"))
	if !ok || len(action) == 0 || len(path) == 0 {
		return nil, errors.New("uevent: no ACTION@PATH")
	}
	out := append(bytes.Clone(action), "@/\x00"...)
	var seen []string
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		key, value, ok := bytes.Cut(field, []byte("="))
		if !ok || !slices.Contains(wanted, string(key)) {
			continue
		}
		if slices.Contains(seen, string(key)) || bytes.ContainsAny(value, "=") {
			return nil, fmt.Errorf("uevent: %s is there twice, or makes no sense", key)
		}
		seen = append(seen, string(key))
		out = append(append(out, field...), 0)
	}
	return out, nil
}
