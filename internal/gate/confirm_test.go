package gate

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestAwaitFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "confirm")
	if err := AwaitFile(t.Context(), path, time.Minute, func() { touch(t, path) }); err != nil {
		t.Errorf("AwaitFile = %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is still there and would agree to the next update")
	}
	// One that is there from before does not count.
	touch(t, path)
	if err := AwaitFile(t.Context(), path, time.Millisecond, nil); !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("AwaitFile with an old file = %v, want %v", err, ErrNotConfirmed)
	}
	gone := errors.New("stick is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := AwaitFile(ctx, path, time.Hour, func() { cancel(gone) }); !errors.Is(err, gone) {
		t.Errorf("AwaitFile of a run that is stopped = %v, want %v", err, gone)
	}
	// One that cannot be removed would agree for ever.
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := AwaitFile(t.Context(), path, time.Minute, nil); err == nil {
		t.Error("AwaitFile with a directory in its place: no error")
	}
}

// event encodes a struct input_event.
func event(typ, code uint16, value int32) []byte {
	b := make([]byte, timeSize, eventSize)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, uint32(value))
}

func TestAwaitKey(t *testing.T) {
	const want = 28
	press := event(evKey, want, keyPressed)
	tests := []struct {
		name   string
		writes [][]byte
		want   error
	}{
		{"pressed", [][]byte{press}, nil},
		{"after others", [][]byte{event(evKey, 30, 1), event(0, 0, 0), event(evKey, want, 0), event(evKey, want, 2), press}, nil},
		{"another key", [][]byte{event(evKey, 30, 1)}, io.ErrUnexpectedEOF},
		{"released", [][]byte{event(evKey, want, 0)}, io.ErrUnexpectedEOF},
		{"held from before", [][]byte{event(evKey, want, 2)}, io.ErrUnexpectedEOF},
		{"a switch of that number", [][]byte{event(5, want, 1)}, io.ErrUnexpectedEOF},
		{"unplugged", nil, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := fifo(t)
			err := AwaitKey(t.Context(), path, want, time.Minute, func() {
				// Open while nothing is read, so that the pipe has a writer first.
				w, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				for _, b := range tt.writes {
					if _, err := w.Write(b); err != nil {
						t.Error(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("AwaitKey = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestAwaitKeyStops(t *testing.T) {
	path := fifo(t)
	writer := func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { w.Close() })
	}
	if err := AwaitKey(t.Context(), path, 28, time.Millisecond, writer); !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("AwaitKey that nobody answers = %v, want %v", err, ErrNotConfirmed)
	}
	gone := errors.New("stick is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := AwaitKey(ctx, path, 28, time.Hour, func() { cancel(gone) }); !errors.Is(err, gone) {
		t.Errorf("AwaitKey of a run that is stopped = %v, want %v", err, gone)
	}
	if err := CheckKey(path); err != nil {
		t.Errorf("CheckKey = %v", err)
	}
	half := func() {
		if w, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, err = w.Write(event(evKey, 28, 1)[:eventSize-1])
			if err := errors.Join(err, w.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := AwaitKey(t.Context(), path, 28, time.Minute, half); err == nil {
		t.Error("AwaitKey of half an event: no error")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, event(evKey, 28, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if err := AwaitKey(t.Context(), path, 28, time.Minute, nil); err == nil {
			t.Errorf("AwaitKey(%s): no error", path)
		}
		if err := CheckKey(path); err == nil {
			t.Errorf("CheckKey(%s): no error", path)
		}
	}
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "event0")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
