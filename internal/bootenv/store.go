package bootenv

import (
	"context"
	"errors"
	"strconv"
)

// Errors of a [Store], to be told apart with errors.Is.
var (
	// ErrNotFound means that a file or device that should hold the
	// environment is not there.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt means that what was read is not an environment, or holds
	// values that nobody writes. The boot loader may be using its built-in
	// default then.
	ErrCorrupt = errors.New("corrupt")
	// ErrUnsupported means a storage or a configuration that this package
	// does not handle.
	ErrUnsupported = errors.New("not supported")
	// ErrBusy means that another program kept the environment locked. It
	// joins the context's error if that ended the wait.
	ErrBusy = errors.New("locked by another program")
	// ErrNoSpace means that the new values do not fit. Nothing was written.
	ErrNoSpace = errors.New("no space left")
	// ErrReadOnlyVar means that the environment's .flags or the write list of
	// its configuration forbid the value. Nothing was written.
	ErrReadOnlyVar = errors.New("variable is protected")
	// ErrNotAtomic means that a power cut during the write could lose the
	// environment. Nothing was written.
	ErrNotAtomic = errors.New("a power cut during the write could lose the environment")
	// ErrVerify means that the medium does not return what was written. The
	// old values are still in force, unless there is only one copy.
	ErrVerify = errors.New("medium does not return what was written")
)

// Var is one variable. In an update an empty Value removes it.
type Var struct {
	Name, Value string
}

// Store holds boot loader variables. Each method is one transaction: it
// excludes other programs that use the customary locks, and a wait for them
// ends with ctx at the latest ([ErrBusy]).
type Store interface {
	// Get returns the variables of these names, or all if there are no names.
	// Variables that are not set, or set to nothing, are absent from the map.
	Get(ctx context.Context, names ...string) (map[string]string, error)

	// Update sets all pairs or none. Nothing is written if nothing changes.
	// On nil the values are on the medium and were read back. On error either
	// the old or the new ones are in force; Get tells. A retry is safe.
	Update(ctx context.Context, pairs ...Var) error

	// Check describes the medium. Its error is what Get would return or, if
	// there are pairs, what Update would refuse them for before its first
	// write. The Health is filled as far as possible in any case. Nothing is
	// written.
	Check(ctx context.Context, pairs ...Var) (Health, error)
}

// Health is the condition of a store.
type Health struct {
	Copies   []CopyHealth
	Active   int      // index of the copy in force, -1 if none is good
	Vars     int      // number of stored strings, -1 if unknown
	Free     int      // bytes left for strings, -1 if unknown
	Atomic   bool     // a power cut during Update leaves all old or all new values
	Degraded []string // what is not as it should be, one phrase each
}

// CopyHealth is the condition of one copy of an environment.
type CopyHealth struct {
	Place string // path and offset, for people
	Flags byte   // 0 if there is only one copy
	Err   error  // why the copy is no good; nil if it is
}

// corruptError is an [ErrCorrupt] that says what is wrong and no more.
type corruptError string

func (e corruptError) Error() string        { return string(e) }
func (e corruptError) Is(target error) bool { return target == ErrCorrupt }

// quote makes foreign text fit for an error.
func quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return strconv.Quote(s[:limit]) + "…"
	}
	return strconv.Quote(s)
}
