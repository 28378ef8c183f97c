package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/usb-updater/usb-updater/internal/atomicfile"
)

const (
	blackBoxName = "usb-updater-blackbox.jsonl"
	maxBlackBox  = 32 << 10 // bytes; a full one takes no more stages
	maxStageLine = 16 << 10 // bytes of one stage
)

// Stages of a trial boot, in the order of a good one.
const (
	StageArmed   = "armed"
	StageStarted = "trial boot started"
	StageSettled = "settled"
	StageFailing = "check failing" // it is tried again
	StagePassed  = "checks passed"
	StageFailed  = "check failed" // for good
	StageGaveUp  = "gave up"
)

// Stage is one line of the black box: what a trial boot reached.
//
// The new system writes the black box, and the old one reads it when the boot
// loader went back without a word. It is kept in the data directory, beside
// the store and not in it, because a trial in trouble should not rewrite the
// store.
type Stage struct {
	Name           string `json:"stage"`
	Detail         string `json:"detail,omitempty"`
	ManifestDigest string `json:"manifest,omitempty"` // of the update on trial, "" if unknown
	BootID         string `json:"boot_id,omitempty"`
	// Crashes are the crash logs that were there when the trial was armed.
	// Only a log that is none of them can be the trial's.
	Crashes []string `json:"crashes,omitempty"`
	// CrashesKnown tells that Crashes is complete.
	CrashesKnown bool `json:"crashes_known,omitempty"`
}

// StartBlackBox begins a new black box with its first stage, in place of one of
// an earlier trial. A power cut leaves the earlier one or the new one; a stage
// names its update, so that an earlier one explains nothing wrong.
func StartBlackBox(dir string, first Stage) error {
	line, err := first.line()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, blackBoxName), append(line, '\n'), 0o600); err != nil {
		return fmt.Errorf("black box: %w", err)
	}
	return nil
}

// AppendBlackBox adds a stage, flushed. A power cut leaves at most the last
// line torn. A black box that holds 32 KiB takes no more.
func AppendBlackBox(dir string, s Stage) error {
	line, err := s.line()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, blackBoxName)
	if info, err := os.Lstat(path); err == nil && info.Size() > maxBlackBox {
		return errors.New("black box: it is full")
	}
	if err := atomicfile.Append(path, line, 0o600); err != nil {
		return fmt.Errorf("black box: %w", err)
	}
	return nil
}

func (s Stage) line() ([]byte, error) {
	s.Detail = s.Detail[:min(len(s.Detail), maxText)]
	line, err := json.Marshal(s)
	if err == nil && len(line) > maxStageLine {
		err = fmt.Errorf("stage has more than %d bytes", maxStageLine)
	}
	if err != nil {
		return nil, fmt.Errorf("black box: %w", err)
	}
	return line, nil
}

// ReadBlackBox returns the stages in the order in which they were reached,
// none if there is no black box. Lines that are no stage, such as a torn one,
// are skipped.
func ReadBlackBox(dir string) ([]Stage, error) {
	stages, err := readLog[Stage](filepath.Join(dir, blackBoxName), maxBlackBox+maxStageLine)
	if err != nil {
		return nil, fmt.Errorf("black box: %w", err)
	}
	return slices.DeleteFunc(stages, func(s Stage) bool { return s.Name == "" }), nil
}

// RemoveBlackBox removes the black box when its update is closed: after the
// record that closes it is on the medium. A power cut between the two leaves a
// black box of an update that is not pending, which nobody reads and the next
// one replaces.
func RemoveBlackBox(dir string) error {
	err := os.Remove(filepath.Join(dir, blackBoxName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("black box: %w", err)
	}
	return nil
}
