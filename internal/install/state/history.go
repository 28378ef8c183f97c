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
		b, err := readLog(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		for line := range bytes.Lines(b) {
			var r Result
			if json.Unmarshal(line, &r) == nil {
				out = append(out, r)
			}
		}
	}
	return out[max(0, len(out)-max(0, n)):], nil
}

// readLog returns the content of a log, empty if there is none.
func readLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	return io.ReadAll(io.LimitReader(f, maxHistory+maxLine))
}
