package state

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	historyName = "usb-updater-history.jsonl"
	maxHistory  = 256 << 10 // bytes, before the log is set aside as .1
	maxLine     = 8 << 10   // bytes of one entry
)

// AppendHistory adds a result to the log in the data directory: one line of
// JSON, flushed. A power cut leaves at most the last line torn.
func AppendHistory(dir string, r Result) error {
	if len(r.Message) > maxLine/8 { // JSON may need six bytes for one
		r.Message = r.Message[:maxLine/8]
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	path := filepath.Join(dir, historyName)
	if info, err := os.Stat(path); err == nil && info.Size() > maxHistory {
		if err := os.Rename(path, path+".1"); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// ReadHistory returns the latest results, the oldest of them first. Lines that
// do not parse are skipped.
func ReadHistory(dir string, latest int) ([]Result, error) {
	f, err := os.Open(filepath.Join(dir, historyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer f.Close() // read only
	var out []Result
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Result
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		if out = append(out, r); len(out) > latest {
			out = out[1:]
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return out, nil
}
