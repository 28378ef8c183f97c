package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Append adds line, which has no line break, to the log at path, and creates
// the log with the permissions of mode if there is none. When it returns
// without an error the line is on the medium.
//
// A cut or an error leaves the earlier lines as they are and any part of the
// new one behind them. The next Append then ends that part with a line break,
// so that it cannot spoil the line that follows.
func Append(path string, line []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	size, err := appendLine(f, line)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if size == 0 { // the file may be new, and its name not durable yet
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// appendLine returns how long the file was before.
func appendLine(f *os.File, line []byte) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var last [1]byte
	if size = info.Size(); size > 0 {
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return size, err
		}
	}
	// One write, so that a crash of the program alone tears nothing.
	text := slices.Concat(line, []byte{'\n'})
	if size > 0 && last[0] != '\n' {
		text = slices.Concat([]byte{'\n'}, text)
	}
	if _, err := f.Write(text); err != nil {
		return size, err
	}
	return size, f.Sync()
}
