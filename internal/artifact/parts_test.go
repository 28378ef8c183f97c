package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// entry is a tar entry that may be wrong in any way.
type entry struct {
	name string
	typ  byte // 0: regular
	data []byte
	edit func(header []byte) // before the header's checksum is computed
	pax  string              // content of a PAX header before it
}

// tarOf returns the entries as a tar, with end.
func tarOf(entries []entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		if e.pax != "" {
			b.Write(tarEntry(entry{name: "PaxHeaders/x", typ: 'x', data: []byte(e.pax)}))
		}
		b.Write(tarEntry(e))
	}
	b.Write(make([]byte, 2*blockSize))
	return b.Bytes()
}

func tarEntry(e entry) []byte {
	h := make([]byte, blockSize)
	copy(h, e.name)
	copy(h[100:], "0000600\x000000000\x000000000\x00")
	copy(h[tarSizeOff:], fmt.Sprintf("%011o\x0000000000000\x00", len(e.data)))
	h[tarTypeOff] = '0'
	if e.typ != 0 {
		h[tarTypeOff] = e.typ
	}
	copy(h[tarMagicOff:], "ustar\x0000")
	if e.edit != nil {
		e.edit(h)
	}
	sealHeader(h)
	out := append(h, e.data...)
	return append(out, make([]byte, -len(out)&(blockSize-1))...)
}

// sealHeader computes a tar header's checksum.
func sealHeader(h []byte) {
	copy(h[tarChecksumOff:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[tarChecksumOff:], fmt.Sprintf("%06o\x00 ", sum))
}

// pax returns one PAX record.
func pax(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// parts are the parts of an artifact, each of which a test may damage. Hooks
// that are nil change nothing. What is derived (checksums, manifest) is derived
// from the damaged part, so that only the damage itself is wrong.
type parts struct {
	version  string
	manifest func([]byte) []byte
	sign     func(manifest []byte) []byte // content of manifest.sig

	header     []entry
	headerComp string // suffix
	headerTar  func([]byte) []byte
	headerBlob func([]byte) []byte

	files    []entry // as in the manifest
	data     func([]entry) []entry
	dataComp string
	dataTar  func([]byte) []byte
	dataBlob func([]byte) []byte

	outer func([]entry) []entry
	final func([]byte) []byte
}

var payload = bytes.Repeat([]byte("0123456789abcdef"), 1234)

// noise does not compress.
var noise = func() (b []byte) {
	for sum := sha256.Sum256(nil); len(b) < 4096; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return b
}()

const (
	goodInfo     = `{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"rel-1"},"artifact_depends":{"device_type":["box"]}}`
	goodTypeInfo = `{"type":"rootfs-image","artifact_provides":{"rootfs-image.version":"1"},"clears_artifact_provides":["rootfs-image.*"]}`
	goodInfo2    = `{"updates":[{"type":"rootfs-image"}],"artifact_name":"rel-1","device_types_compatible":["box"]}`
	moduleInfo   = `{"payloads":[{"type":"app"}],"artifact_provides":{"artifact_name":"rel-1"},"artifact_depends":{"device_type":["box"]}}`
	emptyInfo    = `{"payloads":[{"type":null}],"artifact_provides":{"artifact_name":"rel-1"},"artifact_depends":{"device_type":["box"]}}`
)

// unicodeScript is a state script as mender-artifact writes it, which keeps a name
// that is not ASCII for the PAX header.
var unicodeScript = entry{
	name: "scripts/ArtifactInstall_Enter_00_r", data: []byte("#!/bin/sh\n"),
	pax: pax("path", "scripts/ArtifactInstall_Enter_00_ärö"),
}

// rootfsParts returns the parts of a good artifact.
func rootfsParts() *parts {
	return &parts{
		version: `{"format":"mender","version":3}`,
		header: []entry{
			{name: nameHeaderInfo, data: []byte(goodInfo)},
			{name: "scripts/ArtifactInstall_Enter_00_a", data: []byte("#!/bin/sh\n")},
			{name: nameTypeInfo, data: []byte(goodTypeInfo)},
			{name: nameMetaData},
		},
		headerComp: ".gz",
		files:      []entry{{name: "rootfs.ext4", data: payload}},
		dataComp:   ".gz",
	}
}

// moduleParts returns a good artifact with two files for an update module.
func moduleParts() *parts {
	p := rootfsParts()
	p.setHeader(nameHeaderInfo, moduleInfo)
	p.setHeader(nameTypeInfo, `{"type":"app"}`)
	p.files = []entry{{name: "one", data: []byte("1")}, {name: "two", data: payload}, {name: "empty"}}
	return p
}

// emptyParts returns a good artifact without payload.
func emptyParts() *parts {
	p := rootfsParts()
	p.header = []entry{
		{name: nameHeaderInfo, data: []byte(emptyInfo)},
		{name: nameTypeInfo, data: []byte(`{"type":null}`)},
	}
	p.files = nil
	return p
}

// v2Parts returns a good artifact of format version 2.
func v2Parts() *parts {
	p := rootfsParts()
	p.version = `{"format":"mender","version":2}`
	p.setHeader(nameHeaderInfo, goodInfo2)
	p.header = slices.Insert(p.header, 2, entry{name: nameFiles, data: []byte(`{"files":["rootfs.ext4"]}`)})
	return p
}

// setHeader replaces one file of the header archive.
func (p *parts) setHeader(name, content string) {
	for i := range p.header {
		if p.header[i].name == name {
			p.header[i].data = []byte(content)
			return
		}
	}
	p.header = append(p.header, entry{name: name, data: []byte(content)})
}

// build puts the artifact together.
func (p *parts) build() []byte {
	header := tarOf(p.header)
	header = hooked(p.headerBlob, pack(hooked(p.headerTar, header), p.headerComp))
	var manifest []byte
	for _, f := range p.files {
		manifest = fmt.Appendf(manifest, "%x  data/0000/%s\n", sha256.Sum256(f.data), f.name)
	}
	manifest = fmt.Appendf(manifest, "%x  header.tar%s\n", sha256.Sum256(header), p.headerComp)
	manifest = fmt.Appendf(manifest, "%x  version\n", sha256.Sum256([]byte(p.version)))
	manifest = hooked(p.manifest, manifest)

	files := slices.Clone(p.files)
	if p.data != nil {
		files = p.data(files)
	}
	data := hooked(p.dataBlob, pack(hooked(p.dataTar, tarOf(files)), p.dataComp))

	outer := []entry{{name: "version", data: []byte(p.version)}, {name: "manifest", data: manifest}}
	if p.sign != nil {
		outer = append(outer, entry{name: "manifest.sig", data: p.sign(manifest)})
	}
	outer = append(outer,
		entry{name: "header.tar" + p.headerComp, data: header},
		entry{name: "data/0000.tar" + p.dataComp, data: data})
	if p.outer != nil {
		outer = p.outer(outer)
	}
	return hooked(p.final, tarOf(outer))
}

func hooked(f func([]byte) []byte, b []byte) []byte {
	if f == nil {
		return b
	}
	return f(b)
}

// pack compresses b as the suffix says.
func pack(b []byte, suffix string) []byte {
	var out bytes.Buffer
	w, err := artifacttest.Compressor(&out, suffix)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // of a test's own making
	}
	return out.Bytes()
}

// result is what reading an artifact gave.
type result struct {
	header  *Header
	files   map[string][]byte
	proof   *Verified
	written int
	err     error
}

// readAll opens and copies an artifact.
func readAll(ctx context.Context, r io.Reader, opts Options) result {
	res := result{files: map[string][]byte{}}
	a, err := Open(r, opts)
	if err != nil {
		res.err = err
		return res
	}
	res.header = a.Header()
	res.proof, res.err = a.Copy(ctx, func(f File) (io.Writer, error) {
		res.files[f.Name] = []byte{}
		return writerFunc(func(p []byte) (int, error) {
			res.written += len(p)
			res.files[f.Name] = append(res.files[f.Name], p...)
			return len(p), nil
		}), nil
	})
	return res
}

// mustRead reads an artifact that must be good.
func mustRead(t *testing.T, b []byte, opts Options) result {
	t.Helper()
	res := readAll(t.Context(), bytes.NewReader(b), opts)
	if res.err != nil {
		t.Fatal(res.err)
	}
	if !res.proof.Valid() {
		t.Fatal("no valid proof")
	}
	return res
}
