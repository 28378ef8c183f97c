package artifact

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Kind says what sort of fault an [Error] is.
type Kind int

// The kinds of [Error].
const (
	Format      Kind = iota + 1 // not an artifact, or a malformed or truncated one
	Checksum                    // bytes differ from what a checksum promises
	Signature                   // signature missing, malformed or from an unknown key
	Limit                       // larger than this package is willing to process
	Unsupported                 // well-formed, but a feature that is refused
	Media                       // the stream itself gave an I/O error
)

// String returns the kind in one lower-case word.
func (k Kind) String() string {
	switch k {
	case Format:
		return "format"
	case Checksum:
		return "checksum"
	case Signature:
		return "signature"
	case Limit:
		return "limit"
	case Unsupported:
		return "unsupported"
	case Media:
		return "media"
	default:
		return "kind " + strconv.Itoa(int(k))
	}
}

// Error is any fault of an artifact or of the stream it is read from. Faults of
// the caller's writer and of its context are returned as they are, never as an
// Error. Its text is one line.
type Error struct {
	Kind   Kind
	Entry  string // where the reader was, "" before the first entry; foreign text
	Offset int64  // bytes of the stream that had been read
	Err    error  // the cause; for Media the reader's own error
}

// Error returns place and cause.
func (e *Error) Error() string {
	if e.Entry == "" {
		return fmt.Sprintf("artifact at byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("artifact entry %s at byte %d: %v", quote(e.Entry), e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fault makes an Error without its place, which [Artifact.place] fills in.
func fault(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// malformed makes an Error of kind Format without its place.
func malformed(format string, args ...any) *Error {
	return fault(Format, format, args...)
}

// wrongChecksum has the words that scripts around Mender search for.
func wrongChecksum(want, got []byte) *Error {
	return fault(Checksum, "invalid checksum; expected: [%x]; actual: [%x]", want, got)
}

// readFull fills p from r. A stream that ends before is malformed; what names
// the thing that is cut.
func readFull(r io.Reader, p []byte, what string) error {
	_, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A fault of the layer below may wrap such an error: it knows better.
		if _, ok := errors.AsType[*Error](err); ok {
			return err
		}
		return malformed("unexpected end of %s", what)
	}
	return err
}

// quote makes a foreign string safe to print: on one line and not long.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}
