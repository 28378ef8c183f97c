package gate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// timeSize is the size of the time in front of an event: two words of the
	// kernel's (source: Linux, include/uapi/linux/input.h).
	timeSize = 2 * (32 << (^uint(0) >> 63)) / 8
	// eventSize is the size of struct input_event, in bytes.
	eventSize = timeSize + 8
	// eventBatch is how many events are read at once.
	eventBatch = 64

	evKey      = 1 // EV_KEY
	keyPressed = 1 // 0 is a release, 2 a repetition
)

// AwaitKey waits until the key with that code is pressed on the input device
// at path, "/dev/input/event0" for example. A GPIO button is such a device.
// Codes are those of <linux/input-event-codes.h>; 28 is KEY_ENTER, 116 is
// KEY_POWER. Only what happens after the call counts. asked is called when an
// answer begins to count; it may be nil.
//
// It returns [ErrNotConfirmed] after limit, or the cause of ctx.
func AwaitKey(ctx context.Context, path string, code uint16, limit time.Duration, asked func()) error {
	f, err := openKey(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	if asked != nil {
		asked()
	}
	wait, cancel := context.WithTimeoutCause(ctx, limit, ErrNotConfirmed)
	defer cancel()
	if err := awaitKey(wait, f, code); err != nil {
		return fmt.Errorf("confirmation %s: %w", path, err)
	}
	return nil
}

// CheckKey tells whether AwaitKey could wait for a key on the input device at
// path. It waits for nothing, and does not ask which keys there are.
func CheckKey(path string) error {
	f, err := openKey(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// openKey opens an input device, or something else that has events.
func openKey(path string) (*os.File, error) {
	// O_NONBLOCK lets the runtime wait for events, and so be interrupted.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("confirmation: %w", err)
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil { // a regular file, for example
		return nil, errors.Join(fmt.Errorf("confirmation %s: %w", path, errNoInput), f.Close())
	}
	return f, nil
}

var errNoInput = errors.New("not an input device")

func awaitKey(ctx context.Context, f *os.File, code uint16) error {
	stop := context.AfterFunc(ctx, func() {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file
	})
	defer stop()
	var buf [eventBatch * eventSize]byte
	for {
		n, err := f.Read(buf[:])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // an input device has no end
		}
		if err != nil {
			return err
		}
		if n%eventSize != 0 { // the kernel gives whole events
			return errNoInput
		}
		for event := range slices.Chunk(buf[:n], eventSize) {
			if pressed(event, code) {
				return nil
			}
		}
	}
}

// pressed tells whether an event is the press of that key.
func pressed(event []byte, code uint16) bool {
	e := event[timeSize:]
	return binary.NativeEndian.Uint16(e) == evKey &&
		binary.NativeEndian.Uint16(e[2:]) == code &&
		int32(binary.NativeEndian.Uint32(e[4:])) == keyPressed
}
