package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func appendHistory(t *testing.T, dir string, r Result) {
	t.Helper()
	if err := AppendHistory(dir, r); err != nil {
		t.Fatal(err)
	}
}

func history(t *testing.T, dir string, n int) []Result {
	t.Helper()
	rs, err := ReadHistory(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	if got := history(t, dir, 10); len(got) != 0 {
		t.Errorf("history of an empty directory = %v", got)
	}
	var want []Result
	for i := range 5 {
		r := Result{Code: i, Name: "done", Message: "line\nbreak", Time: time.Date(2026, 1, i+1, 0, 0, 0, 0, time.UTC)}
		appendHistory(t, dir, r)
		want = append(want, r)
	}
	for n := range 7 {
		if diff := cmp.Diff(want[max(0, 5-n):], history(t, dir, n)); diff != "" {
			t.Errorf("latest %d: %s", n, diff)
		}
	}
	if got := history(t, dir, -1); len(got) != 0 {
		t.Errorf("latest -1 = %v", got)
	}
}

// TestTornHistory cuts the last line at every byte: the lines before it and
// the one after it must be read.
func TestTornHistory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, historyName)
	one, two, three := Result{Code: 1}, Result{Code: 2, Message: "torn"}, Result{Code: 3}
	appendHistory(t, dir, one)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	first := info.Size()
	appendHistory(t, dir, two)
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int(first); cut < len(log)-1; cut++ { // the last byte is the line break
		if err := os.WriteFile(path, log[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Result{one}, history(t, dir, 9)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		appendHistory(t, dir, three)
		if diff := cmp.Diff([]Result{one, three}, history(t, dir, 9)); diff != "" {
			t.Fatalf("cut at %d, then one more: %s", cut, diff)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, historyName)
	full := strings.Repeat(fmt.Sprintf("{\"code\":7,\"message\":%q}\n", strings.Repeat("x", 100)), maxHistory/100)
	for range 3 {
		if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
			t.Fatal(err)
		}
		appendHistory(t, dir, Result{Code: 8, Message: strings.Repeat("\x01", 1<<20), Artifact: strings.Repeat("\x01", 1<<20)})
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("the directory holds %v, %v, want two logs", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxLine {
		t.Errorf("the log has %d bytes, %v, want one line of at most %d", info.Size(), err, maxLine)
	}
	got := history(t, dir, 2)
	if len(got) != 2 || got[0].Code != 7 || got[1].Code != 8 {
		t.Errorf("the latest two are not from both logs: %d", len(got))
	}
}
