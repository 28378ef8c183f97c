package main

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/report"
)

// page is the compatibility page, whose tables are held against the program.
func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// commandLines returns the command lines in the page's tables by the word in
// front of them.
func commandLines(t *testing.T) map[string][][]string {
	t.Helper()
	lines := map[string][][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([a-z]+) \\| `mender ?([^`]*)` \\|").FindAllStringSubmatch(page(t), -1) {
		lines[row[1]] = append(lines[row[1]], strings.Fields(row[2]))
	}
	for state := range lines {
		if state != "works" && state != "refused" {
			t.Errorf("a row says %q, want works or refused", state)
		}
	}
	return lines
}

// accepted tells whether a command line gets as far as the device.
func accepted(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if _, ok := report.ParseLevel(o.logLevel); !ok && o.logLevel != "" {
		return usageError("log level")
	}
	return nil
}

// TestCompatibilityTables: what the page says that works is accepted, and what
// it says that is refused is not.
func TestCompatibilityTables(t *testing.T) {
	lines := commandLines(t)
	for _, args := range lines["works"] {
		if err := accepted(args); err != nil {
			t.Errorf("the page says that mender %q works: %v", args, err)
		}
	}
	for _, args := range lines["refused"] {
		if accepted(args) == nil {
			t.Errorf("the page says that mender %q is refused, it is not", args)
		}
	}
}

// TestCompatibilityIsComplete: every command, option, state and exit code has
// its row, and so has every option of the help text.
func TestCompatibilityIsComplete(t *testing.T) {
	lines := commandLines(t)
	works := func(word string) bool {
		return slices.ContainsFunc(lines["works"], func(args []string) bool { return slices.Contains(args, word) })
	}
	for name := range commands {
		if !works(name) && !works("-"+name) {
			t.Errorf("no row for the command %s", name)
		}
	}
	for _, name := range managed {
		if !slices.ContainsFunc(lines["refused"], func(args []string) bool { return len(args) > 0 && args[0] == name }) {
			t.Errorf("no row for the managed command %s", name)
		}
	}
	known := map[string]bool{}
	for _, f := range flags() {
		known["--"+f.long], known["-"+f.short] = true, true
		if !works("--" + f.long) {
			t.Errorf("no row for --%s", f.long)
		}
		if f.short != "" && !works("-"+f.short) {
			t.Errorf("no row for -%s", f.short)
		}
	}
	options := usage[strings.Index(usage, "\nOptions:"):]
	for _, match := range regexp.MustCompile(`(?m)^  (?:(-\w), |    )(--[a-z-]+)`).FindAllStringSubmatch(options, -1) {
		if !known[match[2]] || match[1] != "" && !known[match[1]] {
			t.Errorf("the help text has %s, which is no option", match[0])
		}
	}
	for _, s := range install.StopStates() {
		if !works(s) {
			t.Errorf("no row for --stop-before %s", s)
		}
	}
	for _, code := range []int{exitOK, exitFailed, exitNothingPending, exitReboot, exitPanic, exitSignal} {
		if !strings.Contains(page(t), "\n| "+strconv.Itoa(code)+" | ") {
			t.Errorf("no row for exit code %d", code)
		}
	}
}
