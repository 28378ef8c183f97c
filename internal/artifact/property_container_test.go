package artifact

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestEntryNamesAreExact has names that are nearly, or by another way, those of
// the format.
func TestEntryNamesAreExact(t *testing.T) {
	rename := func(at int, name string) func(*parts) {
		return outer(func(l []entry) []entry { l[at].name = name; return l })
	}
	var cases []damage
	for at, names := range [][]string{
		{"version2", "./version", "Version", "version/", "x/version", "version ", ""},
		{"manifest-old", "./manifest", "MANIFEST", "d/manifest", "manifest/"},
		{"manifest.sig2", "manifest.signature", "d/manifest.sig", "./manifest.sig"},
		{"header.tar", "header.tar.gz.gz", "header.tar.GZ", "header.tar.xz", "d/header.tar.gz", "header.tar.gz/", "header.tgz"},
		{
			"data/0.tar.gz", "data/+000.tar.gz", "data/-000.tar.gz", "data/00000.tar.gz", "./data/0000.tar.gz", "data/../data/0000.tar.gz",
			"data//0000.tar.gz", "data/0000.tar.gz/", "0000.tar.gz", "data/0000", "data/0000.tar.bz2", "Data/0000.tar.gz",
		},
	} {
		for _, name := range names {
			kind := Format
			if at == 2 {
				kind = Signature // there is none
			}
			cases = append(cases, damage{name: fmt.Sprint(at, " ", strings.ReplaceAll(name, "/", "|")), spoil: rename(at, name), kind: kind})
		}
	}
	for _, name := range []string{
		"headers/0/type-info", "headers/0000/a/type-info", "headers/0000/../0000/type-info", "other/0000/type-info", "headers/0000/type-info2",
		"headers/0000//type-info", "./headers/0000/type-info", "headers/0000/Type-Info", "headers/0000/type-info/",
	} {
		cases = append(cases, damage{name: strings.ReplaceAll(name, "/", "|"), spoil: func(p *parts) { p.header[2].name = name }, kind: Format})
	}
	for _, name := range []string{"header-info2", "./header-info", "Header-Info", "d/header-info", "header-info/"} {
		cases = append(cases, damage{name: strings.ReplaceAll(name, "/", "|"), spoil: func(p *parts) { p.header[0].name = name }, kind: Format})
	}
	// What one reader takes for a name prefix, another takes for a time.
	for _, magic := range []string{"ustar\x0000", "ustar  \x00"} {
		for _, at := range []int{0, 12, 24, 100} {
			cases = append(cases, damage{name: fmt.Sprintf("prefix %q %d", magic, at), kind: Format, want: "name prefix", spoil: outer(editEntry("version", func(h []byte) {
				copy(h[tarMagicOff:], magic)
				copy(h[tarPrefixOff+at:], "evil")
			}))})
		}
	}
	runSigned(t, cases)
}

// TestRegularFilesOnly has every other type of entry in each archive. Readers
// differ in whether such an entry has content.
func TestRegularFilesOnly(t *testing.T) {
	var cases []damage
	for _, typ := range []byte("1234567gKLSVMDNAX") {
		for where, spoil := range map[string]func(*parts){
			"version": outer(editEntry("version", func(h []byte) { h[tarTypeOff] = typ })),
			"data":    outer(editEntry("data", func(h []byte) { h[tarTypeOff] = typ })),
			"info":    func(p *parts) { p.header = setType("header-info", typ)(p.header) },
			"script":  func(p *parts) { p.header = setType("scripts/", typ)(p.header) },
			"payload": func(p *parts) { p.data = setType("rootfs", typ) },
			"empty payload": func(p *parts) {
				p.data = func(l []entry) []entry { l[0].data = nil; return setType("rootfs", typ)(l) }
			},
		} {
			cases = append(cases, damage{name: where + " " + string(typ), spoil: spoil, kind: Format})
		}
	}
	for _, key := range []string{"linkpath", "GNU.sparse.size", "GNU.sparse.map", "hdrcharset", "comment", "SCHILY.xattr.user.a"} {
		cases = append(cases, damage{name: key, spoil: outer(setPAX("manifest", pax(key, "1"))), kind: Format, want: "not allowed"})
	}
	runSigned(t, append(cases,
		damage{name: "PAX path with NUL", spoil: outer(setPAX("manifest", pax("path", "manifest\x00.sig"))), kind: Format},
		damage{name: "padding", spoil: func(p *parts) {
			p.final = func(b []byte) []byte { b[2*blockSize-1] = 1; return b }
		}, kind: Format, want: `padding behind "version"`},
		damage{name: "padding of PAX", spoil: func(p *parts) {
			p.outer = setPAX("version", pax("uid", "1"))
			p.final = func(b []byte) []byte { b[2*blockSize-1] = 1; return b }
		}, kind: Format, want: "padding behind a PAX header"},
		damage{name: "padding of payload", spoil: func(p *parts) {
			p.dataTar = func(b []byte) []byte { b[blockSize+len(payload)] = 1; return b }
		}, kind: Format, want: `padding behind "rootfs.ext4"`, late: true},
	))
}

// TestSuffixDecides has streams that are not what their name says, and streams
// in streams.
func TestSuffixDecides(t *testing.T) {
	suffixes := []string{"", ".gz", ".xz", ".zst"}
	var cases []damage
	for _, name := range suffixes {
		for _, real := range suffixes {
			if real != name {
				cases = append(cases,
					damage{name: "header" + name + " is" + real, kind: Format, spoil: func(p *parts) {
						p.headerComp, p.headerBlob = name, func([]byte) []byte { return pack(tarOf(p.header), real) }
					}},
					damage{name: "data" + name + " is" + real, kind: Format, spoil: func(p *parts) {
						p.dataComp, p.dataBlob = name, func([]byte) []byte { return pack(tarOf(p.files), real) }
					}})
			}
			if real == "" {
				continue
			}
			twice := func(b []byte) []byte { return pack(b, real) }
			cases = append(cases,
				damage{name: "header" + name + " in" + real, kind: Format, spoil: func(p *parts) { p.headerComp, p.headerBlob = name, twice }},
				damage{name: "data" + name + " in" + real, kind: Format, spoil: func(p *parts) { p.dataComp, p.dataBlob = name, twice }})
		}
		if name != "" {
			cases = append(cases, damage{name: "artifact in" + name, kind: Format, want: "not a tar header", spoil: func(p *parts) {
				p.final = func(b []byte) []byte { return append(pack(b, name), make([]byte, blockSize)...) }
			}})
		}
	}
	runSigned(t, cases)
}

// TestReadToTheEnd puts bytes behind each end there is.
func TestReadToTheEnd(t *testing.T) {
	var cases []damage
	second := tarOf([]entry{{name: "second", data: payload}})
	for _, n := range []int{1, 100, 512, 4000, 20000, 70000} {
		tail := bytes.Repeat([]byte("t"), n)
		add := func(b []byte) []byte { return append(bytes.Clone(b), tail...) }
		name := fmt.Sprint(" ", n)
		cases = append(cases, damage{name: "artifact" + name, kind: Format, late: true, spoil: func(p *parts) { p.final = add }})
		for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
			cases = append(cases,
				damage{name: "data archive" + comp + name, kind: Format, late: true, spoil: func(p *parts) { p.dataComp, p.dataTar = comp, add }},
				damage{name: "data stream" + comp + name, kind: Format, late: true, spoil: func(p *parts) { p.dataComp, p.dataBlob = comp, add }},
				damage{name: "header archive" + comp + name, kind: Format, spoil: func(p *parts) { p.headerComp, p.headerTar = comp, add }},
				damage{name: "header stream" + comp + name, kind: Format, spoil: func(p *parts) { p.headerComp, p.headerBlob = comp, add }})
		}
	}
	for _, comp := range []string{".gz", ".xz", ".zst"} {
		for _, n := range []int{1, 4, 8, 12} {
			cases = append(cases, damage{name: fmt.Sprint("cut", comp, n), kind: Format, want: "unexpected end", late: true, spoil: func(p *parts) {
				p.dataComp, p.dataBlob = comp, func(b []byte) []byte { return b[:len(b)-n] }
			}})
		}
	}
	runSigned(t, append(cases,
		damage{name: "two artifacts", kind: Format, late: true, spoil: func(p *parts) {
			p.final = func(b []byte) []byte { return append(bytes.Clone(b), b...) }
		}},
		damage{name: "two data archives", kind: Format, late: true, spoil: func(p *parts) {
			p.dataTar = func(b []byte) []byte { return append(bytes.Clone(b), second...) }
		}},
		damage{name: "two data streams", kind: Format, late: true, spoil: func(p *parts) {
			p.dataBlob = func(b []byte) []byte { return append(bytes.Clone(b), pack(second, ".gz")...) }
		}}))
}

// TestRootfsHasContent has root file systems without a byte, in all the ways an
// archive can say so. A reader that accepts one switches to a slot that holds
// something else.
func TestRootfsHasContent(t *testing.T) {
	files := func(l ...entry) func(*parts) { return func(p *parts) { p.data = func([]entry) []entry { return l } } }
	cases := []damage{
		{name: "not listed, no file", spoil: func(p *parts) { p.files = nil }, kind: Format, want: "with 0 payload files"},
		{name: "not listed, no data", spoil: func(p *parts) { p.files = nil; p.outer = func(l []entry) []entry { return l[:4] } }, kind: Format, want: "with 0 payload files"},
		{name: "no file", spoil: files(), kind: Format, want: "is missing"},
		{name: "no data", spoil: outer(func(l []entry) []entry { return l[:4] }), kind: Format, want: "unexpected end"},
		{name: "no bytes", spoil: func(p *parts) { p.files[0].data = nil }, kind: Format, want: "0 bytes"},
		{name: "no bytes in v2", make: v2Parts, spoil: func(p *parts) { p.files[0].data = nil }, kind: Format, want: "0 bytes"},
	}
	for _, typ := range []byte("123456S") {
		cases = append(cases, damage{name: "type " + string(typ), spoil: files(entry{name: "rootfs.ext4", typ: typ}), kind: Format})
	}
	runSigned(t, cases)
}

// TestRefusedBeforeFirstByte has faults that a reader can know before the
// payload, and must: runDamage counts the bytes.
func TestRefusedBeforeFirstByte(t *testing.T) {
	line := func(s string) func(*parts) {
		return func(p *parts) { p.manifest = func(b []byte) []byte { return append([]byte(s), b...) } }
	}
	sum := strings.Repeat("0", 64)
	runSigned(t, []damage{
		{name: "unknown manifest line", spoil: line(sum + "  extra\n"), kind: Format, want: "manifest lists"},
		{name: "manifest lists its signature", spoil: line(sum + "  manifest.sig\n"), kind: Format, want: "manifest lists"},
		{name: "bad checksum", spoil: line("00  data/0000/x\n"), kind: Format, want: "malformed manifest line"},
		{name: "second file of a root file system", spoil: line(sum + "  data/0000/x\n"), kind: Format, want: "with 2 payload files"},
		{name: "script that cannot run", spoil: insertHeader(1, entry{name: "scripts/NotAScript"}), kind: Format, want: "state script"},
		{name: "other payload file", spoil: func(p *parts) { p.data = func(l []entry) []entry { l[0].name = "x"; return l } }, kind: Format, want: "not in the manifest"},
		{name: "meta-data is no object", spoil: func(p *parts) { p.setHeader(nameMetaData, "1") }, kind: Format, want: "not a JSON object"},
		{name: "type-info is broken", spoil: func(p *parts) { p.setHeader(nameTypeInfo, "{") }, kind: Format, want: "not a JSON document"},
	})
}

// TestOddPartsAreErrors has what has made readers crash, hang or exhaust memory.
func TestOddPartsAreErrors(t *testing.T) {
	typ := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameTypeInfo, doc) } }
	deep := `{"type":"rootfs-image","a":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`
	runSigned(t, []damage{
		{name: "type-info missing", make: moduleParts, spoil: func(p *parts) { p.header = slices.Delete(p.header, 2, 4) }, kind: Format},
		{name: "checksums of version 1", spoil: insertHeader(2, entry{name: "headers/0000/checksums/rootfs.ext4.sha256sum", data: []byte("x")}), kind: Format},
		{name: "type is null", spoil: typ(`{"type":null}`), kind: Format},
		{name: "type is a number", spoil: typ(`{"type":7}`), kind: Format},
		{name: "type is an object", spoil: typ(`{"type":{}}`), kind: Format},
		{name: "type is a list", spoil: typ(`{"type":["rootfs-image"]}`), kind: Format},
		{name: "type is missing", make: moduleParts, spoil: typ(`{}`), kind: Format},
		{name: "no payloads, no headers", spoil: func(p *parts) {
			p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `{"type":"rootfs-image"}`, ``, 1))
			p.header = p.header[:1]
		}, kind: Format},
		{name: "payload is null", spoil: func(p *parts) {
			p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `{"type":"rootfs-image"}`, `null`, 1))
		}, kind: Format},
		{name: "empty payload with a file", make: emptyParts, spoil: appendData(entry{name: "x", data: payload}), kind: Format},
		{name: "deep type-info", spoil: typ(deep), kind: Format},
		{name: "deep meta-data", spoil: func(p *parts) { p.setHeader(nameMetaData, deep) }, kind: Format},
		{name: "deep header-info", spoil: func(p *parts) { p.setHeader(nameHeaderInfo, deep) }, kind: Format},
		{name: "empty header", spoil: func(p *parts) { p.header = nil }, kind: Format},
		{name: "gzip without its trailer", spoil: func(p *parts) { p.dataBlob = func(b []byte) []byte { return b[:len(b)-8] } }, kind: Format, late: true},
		{name: "signature of zeros", spoil: func(p *parts) { p.sign = func([]byte) []byte { return make([]byte, 100) } }, kind: Signature},
	})
}

// TestHostileSizesCostNoMemory has entries that claim to be large, and are, or
// are not. It measures all that is allocated, which is more than what is held.
func TestHostileSizesCostNoMemory(t *testing.T) {
	size := func(name string, n int64) func(*parts) { return outer(setSize(name, fmt.Sprintf("%011o\x00", n))) }
	zeros := make([]byte, 20<<20)
	const little, window = 3 << 20, 5 << 20
	for _, tt := range []struct {
		name  string
		limit uint64
		spoil func(*parts)
	}{
		{"version", little, size("version", 8<<30-1)},
		{"manifest", little, size("manifest", 8<<30-1)},
		{"signature", little, size("manifest.sig", 8<<30-1)},
		{"header", little, size("header.tar", 8<<30-1)},
		{"sparse", little, outer(setType("manifest", 'S'))},
		{"PAX header", little, outer(setPAX("manifest", pax("uname", strings.Repeat("u", 200<<10))))},
		{"header-info", little, func(p *parts) { p.header[0].edit = func(h []byte) { copy(h[tarSizeOff:], "77777777777\x00") } }},
		{"script", little, func(p *parts) { p.header[1].edit = func(h []byte) { copy(h[tarSizeOff:], "77777777777\x00") } }},
		{"zeros behind a gzip header", little, func(p *parts) { p.headerTar = func(b []byte) []byte { return append(b, zeros...) } }},
		{"zeros behind a zstd header", window, func(p *parts) {
			p.headerComp, p.headerTar = ".zst", func(b []byte) []byte { return append(b, zeros...) }
		}},
		{"zeros behind gzip data", little, func(p *parts) { p.dataTar = func(b []byte) []byte { return append(b, zeros...) } }},
		{"xz dictionary of 1.5 GiB", little, func(p *parts) { p.dataComp, p.dataBlob = ".xz", setDictionary(37) }},
		{"xz dictionary of 4 GiB", little, func(p *parts) { p.headerComp, p.headerBlob = ".xz", setDictionary(40) }},
		{"zstd window of 2 GiB", little, func(p *parts) {
			p.dataComp, p.dataBlob = ".zst", func([]byte) []byte { return []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00") }
		}},
		{"zstd content of 2^60 bytes", little, func(p *parts) {
			p.dataComp, p.dataBlob = ".zst", func([]byte) []byte {
				return []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x00\x00\x00\x10\x01\x00\x00")
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := rootfsParts()
			p.sign = signed(signRaw)
			tt.spoil(p)
			b, opts := p.build(), signedOnly(t)
			var err error
			got := allocated(func() {
				var a *Artifact
				if a, err = Open(bytes.NewReader(b), opts); err == nil {
					_, err = a.Copy(t.Context(), func(File) (io.Writer, error) { return io.Discard, nil })
				}
			})
			if err == nil || got > tt.limit {
				t.Errorf("%d bytes allocated, limit %d; error %v", got, tt.limit, err)
			}
		})
	}
}
