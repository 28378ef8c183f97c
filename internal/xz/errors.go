package xz

import (
	"errors"
	"fmt"
)

// What an [*Error] says, for errors.Is.
var (
	// ErrCorrupt means that the input is no .xz stream, or a damaged one.
	ErrCorrupt = errors.New("corrupt")
	// ErrChecksum means that a check value is not that of what was read.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrMemlimit means that a dictionary is larger than allowed. Nothing has
	// been allocated for it.
	ErrMemlimit = errors.New("dictionary too large")
	// ErrUnsupported means that the stream is of a later version of the format,
	// or uses a filter or a check that this package does not know.
	ErrUnsupported = errors.New("unsupported")
	// ErrUnsupportedCheck is an ErrUnsupported: the kind of check value is not
	// known, so that the content could not be verified.
	ErrUnsupportedCheck = fmt.Errorf("check value: %w", ErrUnsupported)
)

// Error is everything that may be wrong with a stream, except that it ends too
// early: that is io.ErrUnexpectedEOF.
type Error struct {
	Offset int64  // of the compressed input, in bytes, near the fault
	Reason string // what is wrong
	Kind   error  // ErrCorrupt, ErrChecksum, ErrMemlimit or ErrUnsupported
}

func (e *Error) Error() string {
	return fmt.Sprintf("byte %d: %s: %v", e.Offset, e.Reason, e.Kind)
}

// Unwrap returns e.Kind.
func (e *Error) Unwrap() error { return e.Kind }

func (in *input) fault(kind error, reason string) error {
	return &Error{Offset: in.offset(), Reason: reason, Kind: kind}
}

func (in *input) corrupt(reason string) error { return in.fault(ErrCorrupt, reason) }
