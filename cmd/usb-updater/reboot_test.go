package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRebootSystemd looks at what systemd would find at the moment it is asked,
// and at what is left if it cannot be asked.
func TestRebootSystemd(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, before, argument string
		err                    error
		found, left            string
	}{
		{"none", "", "", nil, "", ""},
		{"argument", "", "0 tryboot", nil, "0 tryboot\n", "0 tryboot\n"},
		{"stale argument", "0 tryboot\n", "", nil, "", ""},
		{"cannot be asked", "", "0 tryboot", broken, "0 tryboot\n", ""},
	} {
		path := filepath.Join(t.TempDir(), "reboot-param")
		if tt.before != "" {
			if err := os.WriteFile(path, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		found := ""
		err := rebootSystemd(tt.argument, path, func() error {
			found = content(t, path)
			return tt.err
		})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if left := content(t, path); found != tt.found || left != tt.left {
			t.Errorf("%s: systemd finds %q and %q is left, want %q and %q", tt.name, found, left, tt.found, tt.left)
		}
	}
}

// TestInsist: systemd may drop the request without a word. It is asked until the
// shutdown stops the program, but not for ever.
func TestInsist(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name      string
		stoppedAt int // in which pause the shutdown comes
		askErr    error
		asked     int
		want      error
	}{
		{"at once", 1, nil, 0, nil},
		{"the third time", 4, nil, 3, nil},
		{"never", askTries + 1, nil, askTries, errNoReboot},
		{"cannot be asked", askTries, broken, 1, broken},
	} {
		pauses, asked := 0, 0
		a := &agent{sleep: func(context.Context, time.Duration) error {
			if pauses++; pauses == tt.stoppedAt {
				return context.Canceled
			}
			return nil
		}}
		err := a.insist(t.Context(), func() error { asked++; return tt.askErr })
		if !errors.Is(err, tt.want) || asked != tt.asked {
			t.Errorf("%s: asked %d times, %v; want %d, %v", tt.name, asked, err, tt.asked, tt.want)
		}
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}
