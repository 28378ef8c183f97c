//go:build device

package hostile

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/usb-updater/usb-updater/test/fuse"
)

// mounted makes a stick a directory.
func mounted(t *testing.T, s fuse.FS) (dir string, server *fuse.Server) {
	t.Helper()
	dir = t.TempDir()
	server, err := fuse.Mount(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir, server
}

// region is a part of an artifact, in bytes.
type region struct{ from, to int64 }

// regions takes an artifact apart: the places that a stick can lie about. The
// payload must not be compressed.
func regions(t *testing.T, artifact []byte) map[string]region {
	t.Helper()
	found := map[string]region{}
	walk := func(base int64, b []byte, prefix string) {
		r := bytes.NewReader(b)
		tr := tar.NewReader(r)
		for start := base; ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("regions of the artifact: %v", err)
			}
			content := base + int64(len(b)) - int64(r.Len())
			found[prefix+h.Name+" (tar header)"] = region{start, content}
			found[prefix+h.Name] = region{content, content + h.Size}
			start = content + (h.Size+511)/512*512
		}
	}
	walk(0, artifact, "")
	data := found["data/0000.tar"]
	walk(data.from, artifact[data.from:data.to], "data/")
	payload := found["data/image.ext4"]
	found["payload, first block"] = region{payload.from, payload.from + 4*kib}
	middle := (payload.from + payload.to) / 2
	found["payload, middle"] = region{middle, middle + 4*kib}
	found["payload, last block"] = region{payload.to - 4*kib, payload.to}
	found["end of the payload archive"] = region{payload.to, data.to}
	found["end of the artifact"] = region{data.to, int64(len(artifact))}
	delete(found, "data/0000.tar")
	delete(found, "data/image.ext4")
	return found
}
