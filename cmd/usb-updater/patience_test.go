package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// stuck is a read that does not return.
type stuck struct{ release chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	<-s.release
	return 0, io.EOF
}

func TestPatientReaderGivesUp(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	const limit = 20 * time.Millisecond
	r := &patientReader{ctx: t.Context(), file: stuck{release}, limit: limit}
	for range 2 { // the second time at once: the first read is still going on
		if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || !strings.Contains(err.Error(), "did not answer for 20ms") {
			t.Errorf("Read = %d, %v, want the limit", n, err)
		}
	}
}

func TestPatientReaderEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("pulled out")
	go cancel(why)
	r := &patientReader{ctx: ctx, file: stuck{release}, limit: time.Hour}
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, why) {
		t.Errorf("Read: %v, want %v", err, why)
	}
}

// TestPatientReaderReads: a stick that is only slow is read to its end.
func TestPatientReaderReads(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 60000)
	for name, file := range map[string]io.Reader{
		"whole": bytes.NewReader(want), "halves": iotest.HalfReader(bytes.NewReader(want)), "error with data": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		got, err := io.ReadAll(&patientReader{ctx: t.Context(), file: file, limit: time.Minute})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
}
