package artifact

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// written returns what artifacttest makes of a spec.
func written(t *testing.T, spec artifacttest.Spec) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := artifacttest.Write(&b, spec); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHeader checks every field of a header.
func TestHeader(t *testing.T) {
	spec := artifacttest.Spec{
		Name:          "rel-1 (ü)",
		Group:         "production",
		DeviceTypes:   []string{"box", "box-2"},
		PayloadType:   "app",
		Files:         []artifacttest.File{artifacttest.Bytes("b", []byte("bb")), artifacttest.Bytes("a", nil)},
		MetaData:      []byte(`{"mode":"644"}`),
		Provides:      map[string]string{"app.version": "2", "x": ""},
		Depends:       map[string][]string{"app.version": {"1"}, "color": {"red", "blue"}},
		DependsNames:  []string{"rel-0"},
		DependsGroups: []string{"production"},
		Clears:        []string{"app.*", "*ssssssssssssss"},
		Scripts:       []artifacttest.Script{{Name: "ArtifactCommit_Leave_99_x", Data: []byte("#!/bin/sh\n")}},
	}
	b := written(t, spec)
	res := mustRead(t, b, Options{})
	manifest := outerEntry(t, b, "manifest")
	data := bytes.Index(b, []byte("data/0000.tar.gz\x00"))
	want := &Header{
		FormatVersion:  3,
		ManifestDigest: sha256.Sum256(manifest),
		RawDigest:      sha256.Sum256(b[:data+blockSize]),
		RawSize:        int64(data + blockSize),
		Name:           "rel-1 (ü)",
		Group:          "production",
		DeviceTypes:    []string{"box", "box-2"},
		Depends: map[string][]string{
			"app.version": {"1"}, "color": {"red", "blue"},
			"artifact_name": {"rel-0"}, "artifact_group": {"production"},
		},
		Provides:       map[string]string{"app.version": "2", "x": ""},
		ClearsProvides: []string{"app.*", "*ssssssssssssss"},
		HasClears:      true,
		PayloadType:    "app",
		Files:          []ManifestFile{{"b", sha256.Sum256([]byte("bb"))}, {"a", sha256.Sum256(nil)}},
		Scripts:        []Script{{"ArtifactCommit_Leave_99_x", []byte("#!/bin/sh\n")}},
		HeaderInfo:     res.header.HeaderInfo, // any order of keys
		TypeInfo:       res.header.TypeInfo,
		MetaData:       []byte(`{"mode":"644"}`),
	}
	if diff := cmp.Diff(want, res.header); diff != "" {
		t.Errorf("header differs (-want +got):\n%s", diff)
	}
	if !bytes.Contains(res.header.HeaderInfo, []byte(`"artifact_group":"production"`)) ||
		!bytes.Contains(res.header.TypeInfo, []byte(`"clears_artifact_provides"`)) {
		t.Errorf("raw documents are %q and %q", res.header.HeaderInfo, res.header.TypeInfo)
	}
	if diff := cmp.Diff(map[string][]byte{"a": {}, "b": []byte("bb")}, res.files); diff != "" {
		t.Errorf("files differ (-want +got):\n%s", diff)
	}
	if got := res.proof.ManifestDigest(); got != want.ManifestDigest {
		t.Errorf("proof is of %x, want %x", got, want.ManifestDigest)
	}
}

// outerEntry returns the content of an outer entry, found by hand.
func outerEntry(t *testing.T, b []byte, name string) []byte {
	t.Helper()
	at := bytes.Index(b, []byte(name+"\x00"))
	if at < 0 {
		t.Fatalf("no entry %q", name)
	}
	size, err := tarNumber(b[at+tarSizeOff : at+tarSizeEnd])
	if err != nil {
		t.Fatal(err)
	}
	return b[at+blockSize:][:size]
}

func TestClears(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spec   artifacttest.Spec
		want   []string
		wantIs bool
	}{
		{"absent", artifacttest.Spec{NoClears: true}, nil, false},
		{"empty", artifacttest.Spec{Clears: []string{}}, []string{}, true},
		{"default", artifacttest.Spec{}, []string{"artifact_group", "rootfs_image_checksum", "rootfs-image.*"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.Name = "rel"
			tt.spec.Files = []artifacttest.File{artifacttest.Bytes("f", payload)}
			h := mustRead(t, written(t, tt.spec), Options{}).header
			if !slices.Equal(h.ClearsProvides, tt.want) || h.HasClears != tt.wantIs {
				t.Errorf("clears = %q, %v, want %q, %v", h.ClearsProvides, h.HasClears, tt.want, tt.wantIs)
			}
		})
	}
}

func TestMatchesDevice(t *testing.T) {
	h := &Header{DeviceTypes: []string{"box", "box-2", ""}}
	for in, want := range map[string]bool{"box": true, "box-2": true, "Box": false, "box ": false, "bo": false, "": false} {
		if got := h.MatchesDevice(in); got != want {
			t.Errorf("MatchesDevice(%q) = %v, want %v", in, got, want)
		}
	}
}

// TestGood reads artifacts that look unusual and must be accepted.
func TestGood(t *testing.T) {
	t.Parallel()
	longName := strings.Repeat("image-", 20) + ".ext4"
	tests := []struct {
		name string
		make func() *parts
		edit func(*parts)
	}{
		{"plain tar inside", rootfsParts, func(p *parts) { p.headerComp, p.dataComp = "", "" }},
		{"xz", rootfsParts, func(p *parts) { p.headerComp, p.dataComp = ".xz", ".xz" }},
		{"zstd", rootfsParts, func(p *parts) { p.headerComp, p.dataComp = ".zst", ".zst" }},
		{"mixed", rootfsParts, func(p *parts) { p.headerComp, p.dataComp = ".xz", "" }},
		{"version 2", v2Parts, nil},
		{"module", moduleParts, nil},
		{"module without files", moduleParts, func(p *parts) { p.files = nil }},
		{"module, other order", moduleParts, func(p *parts) {
			p.data = func(l []entry) []entry { slices.Reverse(l); return l }
		}},
		{"empty payload", emptyParts, nil},
		{"empty payload without data", emptyParts, func(p *parts) { p.outer = func(l []entry) []entry { return l[:3] } }},
		{"type-info of mender-artifact 3", rootfsParts, func(p *parts) { p.setHeader(nameTypeInfo, `{"type":"","future":{}}`) }},
		{"no meta-data", rootfsParts, func(p *parts) { p.header = p.header[:3] }},
		{"depends", rootfsParts, func(p *parts) { p.setHeader(nameTypeInfo, `{"type":"","artifact_depends":{"a":"","b":["c"]}}`) }},
		{"depends on a name", rootfsParts, func(p *parts) {
			p.setHeader(nameTypeInfo, `{"type":"","artifact_depends":{"artifact_name":"a","artifact_group":["b"]}}`)
		}},
		{"escapes", rootfsParts, func(p *parts) {
			p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, "rootfs-image", `rootfs\u002dimage`, 1))
		}},
		{"version with newline", rootfsParts, func(p *parts) { p.version = "{\n \"version\": 3,\n \"format\": \"mender\"\n}\n" }},
		{"directories in header", rootfsParts, func(p *parts) {
			p.header = slices.Insert(p.header, 1, entry{name: "scripts/", typ: '5'}, entry{name: "headers/", typ: '5'}, entry{name: "headers/0000/", typ: '5'})
		}},
		{"GNU tar", rootfsParts, func(p *parts) {
			p.outer = editEntry("", func(h []byte) { copy(h[tarMagicOff:], "ustar  \x00"); h[tarPrefixOff] = '1' })
			p.final = func(b []byte) []byte { return append(b, make([]byte, 10240)...) }
		}},
		{"old tar", rootfsParts, func(p *parts) {
			p.outer = editEntry("", func(h []byte) { clear(h[tarMagicOff:]); h[tarTypeOff] = 0 })
		}},
		{"PAX times", rootfsParts, func(p *parts) { p.outer = setPAX("", pax("mtime", "1.5")+pax("atime", "2")) }},
		{"PAX size", rootfsParts, func(p *parts) {
			p.data = func(l []entry) []entry {
				l[0].pax = pax("size", fmt.Sprint(len(payload)))
				l[0].edit = func(h []byte) { copy(h[tarSizeOff:], "00000000000\x00") }
				return l
			}
		}},
		{"PAX path", rootfsParts, func(p *parts) {
			p.files[0].name = longName
			p.data = func(l []entry) []entry { l[0].pax = pax("path", longName); return l }
			p.files[0].edit = func(h []byte) { copy(h[tarNameEnd:], "0000600\x000000000\x000000000\x00") }
		}},
		{"PAX path of a name that is not ASCII", rootfsParts, func(p *parts) { p.header[1] = unicodeScript }},
		{"the same, long", rootfsParts, func(p *parts) {
			e := entry{name: "scripts/ArtifactInstall_Enter_00_" + strings.Repeat("xxä", 50), data: []byte("#!/bin/sh\n")}
			e.pax, e.edit = pax("path", e.name), shortName(strings.ReplaceAll(e.name, "ä", ""))
			p.header[1] = e
		}},
		{"base 256 size", rootfsParts, func(p *parts) {
			p.data = setSize("rootfs", "\x80\x00\x00\x00\x00\x00\x00\x00"+string([]byte{0, byte(len(payload) >> 16), byte(len(payload) >> 8 & 0xff), byte(len(payload) & 0xff)}))
		}},
		{"gzip members", rootfsParts, func(p *parts) {
			p.dataBlob = func([]byte) []byte {
				b := tarOf(p.files)
				return slices.Concat(pack(b[:7], ".gz"), pack(nil, ".gz"), pack(b[7:7000], ".gz"), pack(b[7000:], ".gz"))
			}
		}},
		{"xz streams and padding", rootfsParts, func(p *parts) {
			p.dataComp = ".xz"
			p.dataBlob = func([]byte) []byte {
				b := tarOf(p.files)
				return slices.Concat(pack(b[:7000], ".xz"), make([]byte, 8), pack(b[7000:], ".xz"), make([]byte, 4))
			}
		}},
		{"zstd frames", rootfsParts, func(p *parts) {
			p.dataComp = ".zst"
			p.dataBlob = func([]byte) []byte {
				b := tarOf(p.files)
				return slices.Concat(pack(b[:7000], ".zst"), []byte("\x50\x2a\x4d\x18\x05\x00\x00\x00pzstd"), pack(b[7000:], ".zst"))
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.make()
			if tt.edit != nil {
				tt.edit(p)
			}
			b := p.build()
			res := mustRead(t, b, Options{})
			for _, f := range p.files {
				if !bytes.Equal(res.files[f.name], f.data) {
					t.Errorf("file %q differs", f.name)
				}
			}
			if len(res.files) != len(p.files) {
				t.Errorf("%d files, want %d", len(res.files), len(p.files))
			}
			// However the stream is cut into reads, the outcome is the same.
			again := readAll(t.Context(), iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(b))), Options{})
			if again.err != nil || again.header.RawDigest != res.header.RawDigest {
				t.Errorf("second read: %v", again.err)
			}
		})
	}
}

// TestCutAndBroken cuts the stream, or lets it fail, at every block and around
// it. The first is the artifact's fault and the second the medium's, and neither
// is ever taken for the end.
func TestCutAndBroken(t *testing.T) {
	t.Parallel()
	errBroken := fmt.Errorf("broken: %w", io.EOF) // an error that looks like the end
	for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
		p := rootfsParts()
		p.files[0].data = noise
		p.headerComp, p.dataComp = comp, comp
		b := p.build()
		for at := range len(b) {
			if mod := at % blockSize; mod > 1 && mod != blockSize-1 {
				continue
			}
			res := readAll(t.Context(), bytes.NewReader(b[:at]), Options{})
			if kind := kindOf(res.err); kind != Format || !strings.Contains(res.err.Error(), "unexpected end") || res.proof.Valid() {
				t.Fatalf("%q cut at %d: %v", comp, at, res.err)
			}
			res = readAll(t.Context(), io.MultiReader(bytes.NewReader(b[:at]), iotest.ErrReader(errBroken)), Options{})
			if kind := kindOf(res.err); kind != Media || !errors.Is(res.err, errBroken) || res.proof.Valid() {
				t.Fatalf("%q broken at %d: %v error %v", comp, at, kind, res.err)
			}
		}
	}
}

// kindOf returns the kind of an Error and 0 for any other.
func kindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

func TestBrokenAtEnd(t *testing.T) {
	b := rootfsParts().build()
	res := readAll(t.Context(), io.MultiReader(bytes.NewReader(b), iotest.ErrReader(iotest.ErrTimeout)), Options{})
	if kindOf(res.err) != Media || !errors.Is(res.err, iotest.ErrTimeout) {
		t.Errorf("a stream that fails instead of ending: %v", res.err)
	}
	_, err := Open(readerFunc(func([]byte) (int, error) { return 0, nil }), Options{})
	if kindOf(err) != Media || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestRawDigest checks that two artifacts with the same manifest and other bytes
// before the payload differ, and that bytes after it do not count.
func TestRawDigest(t *testing.T) {
	digest := func(p *parts) [32]byte { return mustRead(t, p.build(), Options{}).header.RawDigest }
	base := digest(rootfsParts())
	p := rootfsParts()
	p.outer = editEntry("header.tar", func(h []byte) { copy(h[tarSizeEnd:], "00000000001") }) // mtime
	if digest(p) == base {
		t.Error("another header block, same RawDigest")
	}
	p = rootfsParts()
	p.final = func(b []byte) []byte { return append(b, make([]byte, blockSize)...) }
	if digest(p) != base {
		t.Error("RawDigest depends on the end of the file")
	}
}

// TestErrorText checks that hostile names cannot break the log.
func TestErrorText(t *testing.T) {
	p := rootfsParts()
	p.outer = func(l []entry) []entry { l[0].name = "a\n\x1b[31m" + strings.Repeat("x", 90); return l }
	_, err := Open(bytes.NewReader(p.build()), Options{})
	want := `artifact entry "a\n\x1b[31m` + strings.Repeat("x", 57) + `"... at byte 512: first entry is not version`
	if err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}
