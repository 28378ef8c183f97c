package pstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLatest(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, at int64) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{filepath.Join(dir, "none"), dir}
	newest := func(known []string) string {
		t.Helper()
		text, err := Latest(known, dirs...)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write("dmesg-ramoops-0", "old panic", 1000)
	known, err := List(dirs...)
	if err != nil || len(known) != 1 {
		t.Fatalf("List = %q, %v, want one", known, err)
	}
	if got := newest(known); got != "" {
		t.Errorf("Latest = %q, want none", got)
	}
	write("console-ramoops-0", "console", 3000)
	if got := newest(known); got != "console" {
		t.Errorf("Latest = %q, want the console's log", got)
	}
	// The clock went back: the name is the same, the time is another one.
	write("dmesg-ramoops-0", strings.Repeat("line\n", 5000)+"Kernel panic \x1b[0m\xff end\n", 500)
	got := newest(known)
	if !strings.HasSuffix(got, "line\nKernel panic \ufffd[0m? end") || len(got) > maxTail+8 {
		t.Errorf("Latest ends in %q with %d bytes", got[max(0, len(got)-40):], len(got))
	}
	write("moved/001/dmesg.txt", "moved", 4000)
	if got := newest(known); got != "moved" {
		t.Errorf("Latest = %q, want the one that systemd moved", got)
	}
	for i := range maxLogs {
		write(fmt.Sprintf("many-%d", i), "", 1)
	}
	if _, err := List(dirs...); !errors.Is(err, ErrTooMany) {
		t.Errorf("List: error %v, want ErrTooMany", err)
	}
}
