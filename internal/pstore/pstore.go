package pstore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/runner"
)

const (
	maxLogs  = 64      // crash logs that are told apart
	maxTail  = 4 << 10 // bytes of one that are kept
	maxFile  = 1 << 20 // bytes of one that are read: the kernel does not always say how long it is
	maxDepth = 3       // of directories
)

// ErrTooMany means that there are more crash logs than are told apart.
var ErrTooMany = errors.New("too many crash logs")

type log struct {
	path string
	info fs.FileInfo
}

// key tells one crash log from the next under the same name. The kernel's time
// of it need not be right for that, only another one.
func (l log) key() string {
	return fmt.Sprintf("%.64s@%d", filepath.Base(l.path), l.info.ModTime().UnixNano())
}

// List returns what is known of the crash logs in the directories, for
// [Latest]. A directory that is missing has none.
func List(dirs ...string) ([]string, error) {
	logs, err := find(dirs)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(logs))
	for i, l := range logs {
		keys[i] = l.key()
	}
	return keys, nil
}

// Latest returns the end of the latest crash log that is not known, at most
// 4 KiB and safe to print; "" if there is none. A kernel's panic is preferred
// to the console's log, which is there after every boot.
func Latest(known []string, dirs ...string) (string, error) {
	logs, err := find(dirs)
	if err != nil {
		return "", err
	}
	logs = slices.DeleteFunc(logs, func(l log) bool { return slices.Contains(known, l.key()) })
	if len(logs) == 0 {
		return "", nil
	}
	latest := slices.MaxFunc(logs, func(a, b log) int {
		return cmp.Or(cmp.Compare(rank(a.path), rank(b.path)), a.info.ModTime().Compare(b.info.ModTime()), cmp.Compare(a.path, b.path))
	})
	return tail(latest.path)
}

func rank(path string) int {
	switch name := filepath.Base(path); {
	case strings.HasPrefix(name, "dmesg"):
		return 2
	case strings.HasPrefix(name, "console"):
		return 1
	default: // in the words of programs, or binary
		return 0
	}
}

// find returns the files in the directories, at most maxLogs.
func find(dirs []string) ([]log, error) {
	var logs []log
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // taken away while we looked, or never there
			}
			if err != nil {
				return err
			}
			if e.IsDir() {
				if rel, err := filepath.Rel(dir, path); err != nil || strings.Count(rel, "/") >= maxDepth {
					return fs.SkipDir
				}
				return nil
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				return nil
			}
			if len(logs) == maxLogs {
				return ErrTooMany
			}
			logs = append(logs, log{path, info})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("crash logs: %w", err)
		}
	}
	return logs, nil
}

func tail(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("crash log: %w", err)
	}
	defer f.Close() // read only
	var kept []byte
	buf := make([]byte, maxTail)
	r := io.LimitReader(f, maxFile)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		kept = kept[max(0, len(kept)-maxTail):]
		if errors.Is(err, io.EOF) {
			return strings.TrimSpace(runner.Printable(strings.ToValidUTF8(string(kept), "?"))), nil
		}
		if err != nil {
			return "", fmt.Errorf("crash log: %w", err)
		}
	}
}
