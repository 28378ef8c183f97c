package artifact

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

func TestPrefetch(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcde"), 1<<19)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 1000, int64(len(content))} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		r := Prefetch(f)
		if err := iotest.TestReader(io.MultiReader(r), content[from:]); err != nil {
			t.Errorf("from %d: %v", from, err)
		}
		if p, ok := r.(*prefetch); !ok || p.pos != int64(len(content)) || p.asked < p.pos || p.asked > p.pos+prefetchAhead+prefetchStep {
			t.Errorf("from %d: ends as %+v", from, r)
		}
	}
}

// TestPrefetchOfPipe: what has no position is read as it is.
func TestPrefetchOfPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(Prefetch(r))
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
}
