package inflate

import (
	"errors"
	"fmt"
)

// ErrChecksum is wrapped by an [Error] for a member whose content has another
// CRC-32 or another length than its trailer says.
var ErrChecksum = errors.New("invalid checksum")

// Error is a stream that breaks the format. A stream that ends too early is
// io.ErrUnexpectedEOF instead, and errors of the reader below stay as they are.
type Error struct {
	Offset int64  // compressed bytes up to about the fault
	Reason string // what is wrong, without foreign text
	Err    error  // ErrChecksum or nil
}

// Error returns place and reason.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("gzip stream at byte %d: %v: %s", e.Offset, e.Err, e.Reason)
	}
	return fmt.Sprintf("gzip stream at byte %d: %s", e.Offset, e.Reason)
}

// Unwrap returns the sentinel, if there is one.
func (e *Error) Unwrap() error { return e.Err }
