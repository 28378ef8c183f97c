package runner

import (
	"errors"
	"os"
	"syscall"
)

var (
	// ErrNotRoots reports a file that belongs to somebody else.
	ErrNotRoots = errors.New("does not belong to root")
	// ErrWorldWritable reports a file that everybody may write.
	ErrWorldWritable = errors.New("is writable by everybody")
)

// CheckOwner tells whether root may run the program at path, or what lies in the
// directory at path: it belongs to root and is not writable by everybody. A
// sticky bit is no excuse: it keeps others from replacing what is in the
// directory, and not from adding to it. Links are followed, so the directory
// that holds a link needs a look of its own.
//
// The errors are [ErrNotRoots], [ErrWorldWritable], and that of stat. Somebody
// else than root may run anything: it gains nothing by it.
func CheckOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || st.Uid != 0:
		return ErrNotRoots
	case info.Mode().Perm()&0o002 != 0:
		return ErrWorldWritable
	default:
		return nil
	}
}
