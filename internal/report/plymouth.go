package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// PlymouthAddress is where Plymouth listens: an abstract socket, which belongs
	// to a network namespace (source: Plymouth, ply-boot-protocol.h).
	PlymouthAddress = "@/org/freedesktop/plymouthd"
	// plymouthTimeout bounds one message.
	plymouthTimeout = 500 * time.Millisecond
	// maxPlymouthText is how long a text may be, in bytes: its length, with a NUL,
	// is one byte of the request.
	maxPlymouthText = 254

	plymouthShow, plymouthHide    = 'M', 'm'
	plymouthArgument, plymouthAck = 0x02, 0x06
)

// NewPlymouth returns a sink that shows each event as a message on the boot
// screen of Plymouth, in place of the one before. Without Plymouth nothing
// happens: most of the time it does not run.
func NewPlymouth(address string) Sink { return &plymouthSink{address: address} }

type plymouthSink struct {
	address string
	shown   string // "": nothing
}

func (p *plymouthSink) Send(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, plymouthTimeout)
	defer cancel()
	err := p.show(ctx, cut("usb-updater: "+e.Line(), maxPlymouthText))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		p.shown = ""
		return nil
	}
	if err != nil {
		return fmt.Errorf("show message on the boot screen: %w", err)
	}
	return nil
}

func (p *plymouthSink) show(ctx context.Context, text string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", p.address)
	if err != nil {
		return err
	}
	defer conn.Close() // what was sent was acknowledged
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if p.shown != "" { // some themes would show both
		if err := request(conn, plymouthHide, p.shown); err != nil {
			return err
		}
	}
	p.shown = text
	return request(conn, plymouthShow, text)
}

// request sends a command with its argument, and waits until it was taken.
func request(conn net.Conn, command byte, argument string) error {
	message := append([]byte{command, plymouthArgument, byte(len(argument) + 1)}, argument...)
	if _, err := conn.Write(append(message, 0)); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != plymouthAck {
		return fmt.Errorf("command %c: answer %#x", command, answer[0])
	}
	return nil
}

func (*plymouthSink) Close() error { return nil }
