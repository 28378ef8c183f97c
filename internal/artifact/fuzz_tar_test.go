package artifact

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// mustBeFault checks that an error blames the artifact, in one printable line.
func mustBeFault(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Kind == Media {
		t.Fatalf("error is %T, want *Error that blames the artifact: %v", err, err)
	}
	if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
		t.Fatalf("error is not one printable line: %q", err)
	}
}

// readTar returns all files of an archive.
func readTar(b []byte, dirs []string) ([]entry, error) {
	r := &tarReader{r: newSource(bytes.NewReader(b)), what: "fuzz", dirs: dirs, maxEntries: maxOuterEntries}
	var files []entry
	for {
		name, _, err := r.next()
		if errors.Is(err, errEnd) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := r.content(maxJSONSize)
		if err != nil {
			return nil, err
		}
		files = append(files, entry{name: name, data: data})
	}
}

// FuzzTar checks that what the tar reader accepts is the same archive for
// another reader: archive/tar finds the same files in it, and nothing else but
// the directories that are tolerated.
func FuzzTar(f *testing.F) {
	long := strings.Repeat("n", 150)
	for _, l := range [][]entry{
		nil,
		{{name: "version", data: []byte("{}")}, {name: "data/0000.tar", data: tarOf([]entry{{name: "f", data: noise[:9]}})}},
		{{name: "a", pax: pax("mtime", "1.5") + pax("uid", "1")}},
		{{name: long[:99], pax: pax("path", long), edit: func(h []byte) { h[99] = 'n' }}},
		{{name: "r", pax: pax("path", "ärö")}},
		{{name: "a", data: noise[:600], pax: pax("size", "600"), edit: func(h []byte) { copy(h[tarSizeOff:], "00000000000") }}},
		{{name: "headers/", typ: '5'}, {name: "headers/0000/", typ: '5'}, {name: "scripts/", typ: '5'}, {name: "headers/x"}},
		{{name: "a", edit: func(h []byte) { clear(h[tarMagicOff:]); h[tarTypeOff] = 0 }}},
		{{name: "a", edit: func(h []byte) { copy(h[tarMagicOff:], "ustar  \x00"); h[tarPrefixOff] = '1' }}},
		{{name: "a", data: noise[:1], edit: func(h []byte) { copy(h[tarSizeOff:], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01") }}},
		{{name: "a", typ: '2'}},
		{{name: "a", typ: 'S'}},
	} {
		f.Add(tarOf(l), true)
		f.Add(tarOf(l), false)
	}
	f.Add(append(tarOf([]entry{{name: "a"}}), make([]byte, 9728)...), false)
	f.Fuzz(func(t *testing.T, in []byte, inner bool) {
		var dirs []string
		if inner {
			dirs = []string{"headers/", "headers/0000/", scriptsPrefix}
		}
		in = fixed(in)
		files, err := readTar(in, dirs)
		if err != nil {
			mustBeFault(t, err)
			return
		}
		sameForArchiveTar(t, in, files)
		again, err := readTar(tarOf(asWritten(files)), nil)
		if err != nil || len(again) != len(files) {
			t.Fatalf("second read: %d files, %v", len(again), err)
		}
		for i := range files {
			if again[i].name != files[i].name || !bytes.Equal(again[i].data, files[i].data) {
				t.Fatalf("second read = %q, want %q", again[i].name, files[i].name)
			}
		}
	})
}

// asWritten gives long names the PAX header that they need.
func asWritten(files []entry) []entry {
	for i, e := range files {
		if len(e.name) > tarNameEnd {
			files[i].pax = pax("path", e.name)
			files[i].edit = func(h []byte) { // a long name runs over the field
				clear(h[tarNameEnd:tarMagicOff])
				copy(h[tarSizeOff:], fmt.Sprintf("%011o", len(e.data)))
				h[tarTypeOff] = tarRegular
			}
			files[i].name = e.name
		}
	}
	return files
}

// sameForArchiveTar compares files with what archive/tar makes of the archive.
func sameForArchiveTar(t *testing.T, in []byte, files []entry) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(in))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) {
			return // it minds the fields that mean nothing here
		}
		if err != nil {
			t.Fatalf("archive/tar: %v", err)
		}
		if h.Typeflag == tar.TypeDir && h.Size == 0 {
			continue
		}
		if len(files) == 0 || h.Name != files[0].name || h.Typeflag != tar.TypeReg {
			t.Fatalf("archive/tar sees %q of type %q, want one of %d files", h.Name, h.Typeflag, len(files))
		}
		data, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(data, files[0].data) {
			t.Fatalf("archive/tar sees another %q: %v", h.Name, err)
		}
		files = files[1:]
	}
	if len(files) != 0 {
		t.Fatalf("archive/tar does not see %q", files[0].name)
	}
}

// FuzzPAX checks that the records that are accepted are those that were meant:
// written anew from what was understood, they read the same.
func FuzzPAX(f *testing.F) {
	for _, s := range []string{
		pax("path", "a/b"), pax("size", "17"), pax("mtime", "1.5") + pax("path", strings.Repeat("p", 120)),
		pax("uid", "1") + pax("uid", "1"), pax("linkpath", "x"), pax("path", "a\x00b"), "6 a=b\n", "05 =\n", "99 uid=1\n", pax("uname", "a\nb=c"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parsePAX(in)
		if err != nil {
			mustBeFault(t, err)
			return
		}
		var out string
		if p.path != nil {
			out += pax("path", string(p.path))
		}
		if p.hasSize {
			out += pax("size", fmt.Sprint(p.size))
		}
		again, err := parsePAX([]byte(out))
		if err != nil || !bytes.Equal(again.path, p.path) || again.size != p.size || again.hasSize != p.hasSize {
			t.Fatalf("second read = %+v, %v; first = %+v", again, err, p)
		}
	})
}

// FuzzManifest checks that no byte of an accepted manifest is left over: each of
// its lines is one that was understood, written anew.
func FuzzManifest(f *testing.F) {
	sum := strings.Repeat("0123456789abcdef", 4)
	good := sum + "  data/0000/rootfs.ext4\n" + sum + "  header.tar.gz\n" + sum + "  version\n"
	for _, s := range []string{
		"", good, good + "\n", good + good, strings.ToUpper(good), strings.ReplaceAll(good, "\n", "\r\n"), good[:len(good)-1],
		good + sum + "  data/0000/..\n", good + sum + "  data/0001/x\n", good + sum + "  header.tar\n", sum + "  data/0000/a,b-c\n" + good,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := parseManifest(in)
		if err != nil {
			mustBeFault(t, err)
			return
		}
		lines := map[string]bool{
			hex.EncodeToString(m.version[:]) + "  version\n":         true,
			hex.EncodeToString(m.hdrSum[:]) + "  " + m.header + "\n": true,
		}
		for _, file := range m.files {
			if strings.Trim(file.Name, ".") == "" || strings.ContainsAny(file.Name, "/\\ \x00\n$") {
				t.Fatalf("file name %q", file.Name)
			}
			lines[hex.EncodeToString(file.SHA256[:])+"  data/0000/"+file.Name+"\n"] = true
		}
		n := 0
		for line := range strings.Lines(string(in)) {
			if n++; !lines[line] {
				t.Fatalf("line %q was understood as another one", line)
			}
		}
		if n != len(lines) {
			t.Fatalf("%d lines, understood %d", n, len(lines))
		}
	})
}
