package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/internal/atomicfile"
)

const (
	historyName = "usb-updater-history.jsonl"
	olderName   = historyName + ".1"
	maxHistory  = 256 << 10 // bytes, before the log is set aside
	maxLine     = 16 << 10  // bytes of one entry
	maxText     = 1 << 10   // bytes of a message or a name: JSON may need six for one
)

// AppendHistory adds a result to the log in the data directory: one line of
// JSON, flushed. Messages and names are cut at 1 KiB. A power cut leaves at
// most the last line torn. A log of more than 256 KiB is set aside first, in
// place of the one that was set aside before.
func AppendHistory(dir string, r Result) error {
	r.Message = r.Message[:min(len(r.Message), maxText)]
	r.Artifact = r.Artifact[:min(len(r.Artifact), maxText)]
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	path := filepath.Join(dir, historyName)
	if info, err := os.Lstat(path); err == nil && info.Size() > maxHistory {
		// A cut around the rename leaves the log under either name, and
		// ReadHistory reads both.
		if err := os.Rename(path, filepath.Join(dir, olderName)); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	if err := atomicfile.Append(path, line, 0o600); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// ReadHistory returns the latest n results, the oldest of them first. Lines
// that are no result, such as a torn one, are skipped.
func ReadHistory(dir string, n int) ([]Result, error) {
	var out []Result
	for _, name := range []string{olderName, historyName} {
		entries, err := readLog[Result](filepath.Join(dir, name), maxHistory+maxLine)
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		out = append(out, entries...)
	}
	return out[max(0, len(out)-max(0, n)):], nil
}

// readLog returns the entries of a log of one JSON value a line, none if there is
// no log. Lines that are no entry are skipped, and what is behind limit bytes.
func readLog[T any](path string, limit int64) ([]T, error) {
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, err
	}
	var entries []T
	for line := range bytes.Lines(b) {
		var e T
		if json.Unmarshal(line, &e) == nil {
			entries = append(entries, e)
		}
	}
	return entries, nil
}
