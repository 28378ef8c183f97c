package httpsource_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/httpsource"
)

// TestArtifactWithoutLength: an artifact that is whole ends where the connection
// does; one that is cut is a fault of the medium, which is not the artifact's. A
// cut within zeros, as at the very end, is not told from an end.
func TestArtifactWithoutLength(t *testing.T) {
	var b bytes.Buffer
	if err := artifacttest.Write(&b, artifacttest.Spec{Name: "release-2", Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("root.img", bytes.Repeat([]byte("image"), 10000))}}); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 3000, b.Len() / 2, b.Len() - 10} {
		t.Run(fmt.Sprint(cut, " bytes less"), func(t *testing.T) {
			t.Parallel() // each waits for an attempt to resume
			var asked atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.Header().Set("ETag", `"v1"`)
				w.Header().Set("Transfer-Encoding", "identity") // no length and no chunks
				_, _ = w.Write(b.Bytes()[:b.Len()-cut])
			}))
			defer s.Close()
			src, err := httpsource.Open(t.Context(), s.URL, httpsource.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			a, err := artifact.Open(src, artifact.Options{})
			if err == nil {
				_, err = a.Copy(t.Context(), func(artifact.File) (io.Writer, error) { return io.Discard, nil })
			}
			if cut == 0 {
				if n := asked.Load(); err != nil || n != 1 {
					t.Errorf("error %v after %d requests, want none after 1", err, n)
				}
				return
			}
			if ae, ok := errors.AsType[*artifact.Error](err); !ok || ae.Kind != artifact.Media || !errors.Is(err, httpsource.ErrNoLength) {
				t.Errorf("error %v, want one of the medium", err)
			}
		})
	}
}
