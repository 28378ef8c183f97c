package artifact

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The memory of a process that verifies an artifact, in KiB: any artifact, and
// what a declared xz dictionary may add.
const (
	maxResident   = 24 << 10
	maxDictionary = DefaultMaxWindow >> 10
)

// TestCheckProgram runs `usb-updater check` over a corpus: it gives the verdict
// that the corpus gives, and its memory stays small, whatever the artifact says.
// CHECK_PROGRAM is the path of usb-updater.
func TestCheckProgram(t *testing.T) {
	dir, program := os.Getenv("ARTIFACT_CORPUS"), os.Getenv("CHECK_PROGRAM")
	if dir == "" || program == "" {
		t.Skip("ARTIFACT_CORPUS and CHECK_PROGRAM do not name a corpus directory and a program")
	}
	const gnuTime = "/usr/bin/time"
	if _, err := os.Stat(gnuTime); err != nil {
		t.Skip(gnuTime + " is not installed")
	}
	dev := openCorpus(t, dir)
	var largest, largestXZ int
	for _, row := range corpusRows(t, dir) {
		t.Run(strings.TrimSuffix(row["file"], ".mender"), func(t *testing.T) {
			rss := checkRow(t, dev, gnuTime, program, row)
			if usesXZ(t, filepath.Join(dir, row["file"])) {
				largestXZ = max(largestXZ, rss)
				if rss > maxResident+maxDictionary {
					t.Errorf("resident memory %d KiB, limit %d with a dictionary", rss, maxResident+maxDictionary)
				}
				return
			}
			largest = max(largest, rss)
			if rss > maxResident {
				t.Errorf("resident memory %d KiB, limit %d", rss, maxResident)
			}
		})
	}
	t.Logf("largest resident memory: %d KiB, with xz %d KiB", largest, largestXZ)
}

// usesXZ reports whether an xz stream is in the file.
func usesXZ(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte("\xfd7zXZ\x00"))
}

// checkRow runs the program on one row and returns its peak resident memory in
// KiB.
func checkRow(t *testing.T, dev corpusDevice, gnuTime, program string, row corpusRow) int {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	args := []string{
		"-q", "-f", "%M", "-o", memory, program, "check", filepath.Join(dev.dir, row["file"]),
		"--device-type", row["device_type"], "--provides", filepath.Join(dev.dir, "device", "provides.json"),
		"--slot-size", strconv.FormatInt(dev.partSize, 10), "--module", "test-module",
	}
	for key := range strings.SplitSeq(row["key"], ",") {
		if key != "-" {
			args = append(args, "--key", filepath.Join(dev.dir, "keys", key))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, gnuTime, args...).CombinedOutput()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	want := 1
	if row["verdict"] == "valid" {
		want = 0
	}
	if code != want {
		t.Errorf("exit status %d, want %d (%s):\n%s", code, want, row["reason"], out)
	}
	text, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s wrote %q", gnuTime, text)
	}
	return kib
}
