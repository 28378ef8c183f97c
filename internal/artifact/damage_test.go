package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// damage is a good artifact with one thing wrong.
type damage struct {
	name  string
	make  func() *parts // nil: rootfsParts
	spoil func(p *parts)
	kind  Kind
	want  string // part of the error text
	late  bool   // may be noticed after something was written
}

// runDamage checks that each artifact is refused for the right reason and, if
// that can be known, before anything is written.
func runDamage(t *testing.T, cases []damage, opts Options) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			p := rootfsParts()
			if tt.make != nil {
				p = tt.make()
			}
			tt.spoil(p)
			res := readAll(t.Context(), bytes.NewReader(p.build()), opts)
			e, ok := errors.AsType[*Error](res.err)
			if !ok {
				t.Fatalf("error %v, want an *Error with %q", res.err, tt.want)
			}
			if e.Kind != tt.kind || !strings.Contains(e.Error(), tt.want) {
				t.Errorf("%v error %q, want %v with %q", e.Kind, e, tt.kind, tt.want)
			}
			if res.proof.Valid() {
				t.Error("valid proof of a damaged artifact")
			}
			if !tt.late && res.written > 0 {
				t.Errorf("%d bytes were written before it was refused", res.written)
			}
		})
	}
}

// editEntry changes the header block of one entry.
func editEntry(name string, edit func(h []byte)) func([]entry) []entry {
	return func(l []entry) []entry {
		for i := range l {
			if strings.HasPrefix(l[i].name, name) {
				l[i].edit = edit
			}
		}
		return l
	}
}

func setType(name string, typ byte) func([]entry) []entry {
	return editEntry(name, func(h []byte) { h[tarTypeOff] = typ })
}

func setSize(name, field string) func([]entry) []entry {
	return editEntry(name, func(h []byte) { copy(h[tarSizeOff:tarSizeEnd], field) })
}

func setPAX(name, records string) func([]entry) []entry {
	return func(l []entry) []entry {
		for i := range l {
			if strings.HasPrefix(l[i].name, name) {
				l[i].pax = records
			}
		}
		return l
	}
}

func outer(f func([]entry) []entry) func(*parts) { return func(p *parts) { p.outer = f } }

// TestDamageTar has the checks of the tar layer.
func TestDamageTar(t *testing.T) {
	t.Parallel()
	var cases []damage
	for _, typ := range []byte("1234567gKLSVxXZ") {
		// An x header is not an entry: what follows is taken for its content.
		want := fmt.Sprintf("has type %q", typ)
		if typ == 'x' {
			want = "PAX"
		}
		cases = append(cases, damage{name: "outer type " + string(typ), spoil: outer(setType("manifest", typ)), kind: Format, want: want})
		if typ == '5' {
			cases[len(cases)-1].want = "unexpected directory"
		}
	}
	cases = append(cases, []damage{
		{name: "header checksum", spoil: func(p *parts) {
			p.final = func(b []byte) []byte { b[2*blockSize+200] ^= 1; return b }
		}, kind: Format, want: "wrong header checksum"},
		{name: "script is a link", spoil: func(p *parts) { p.header = setType("scripts/", '2')(p.header) }, kind: Format, want: "has type '2'"},
		{name: "payload is a link", spoil: func(p *parts) { p.data = setType("rootfs", '1') }, kind: Format, want: "has type '1'"},
		{name: "payload is sparse", spoil: func(p *parts) { p.data = setType("rootfs", 'S') }, kind: Format, want: "has type 'S'"},
		{name: "other directory in header", spoil: func(p *parts) {
			p.header = slices.Insert(p.header, 1, entry{name: "headers/0001/", typ: '5'})
		}, kind: Format, want: "unexpected directory"},
		{name: "directory with content", spoil: func(p *parts) {
			p.header = slices.Insert(p.header, 1, entry{name: "headers/", typ: '5', data: []byte("x")})
		}, kind: Format, want: "unexpected directory"},
		{name: "name with ./", spoil: outer(func(l []entry) []entry { l[0].name = "./version"; return l }), kind: Format, want: "first entry is not version"},
		{name: "name not UTF-8", spoil: outer(func(l []entry) []entry { l[1].name = "manifest\xff"; return l }), kind: Format, want: "not UTF-8"},
		{name: "ustar prefix", spoil: outer(editEntry("manifest", func(h []byte) { h[tarPrefixOff] = 'a' })), kind: Format, want: "name prefix"},
		{name: "size not octal", spoil: outer(setSize("manifest", "0000zz00000\x00")), kind: Format, want: "not octal"},
		{name: "size without terminator", spoil: outer(setSize("manifest", "777777777777")), kind: Format, want: "no terminator"},
		{name: "size negative", spoil: outer(setSize("manifest", strings.Repeat("\xff", 12))), kind: Format, want: "entry size"},
		{name: "size huge", spoil: outer(setSize("manifest", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")), kind: Limit, want: "too large"},
		{name: "PAX duplicate", spoil: outer(setPAX("manifest", pax("uid", "1")+pax("uid", "1"))), kind: Format, want: "twice"},
		{name: "PAX other key", spoil: outer(setPAX("manifest", pax("linkpath", "/etc"))), kind: Format, want: "not allowed"},
		{name: "PAX sparse", spoil: outer(setPAX("manifest", pax("GNU.sparse.major", "1"))), kind: Format, want: "not allowed"},
		{name: "PAX length", spoil: outer(setPAX("manifest", "99 uid=1\n")), kind: Format, want: "malformed PAX"},
		{name: "PAX no newline", spoil: outer(setPAX("manifest", "7 uid=1")), kind: Format, want: "malformed PAX"},
		{name: "PAX path alias", spoil: outer(func(l []entry) []entry {
			l[0].name, l[0].pax = "zz", pax("path", "version")
			return l
		}), kind: Format, want: "another name"},
		{name: "PAX path alias, not ASCII", spoil: func(p *parts) {
			p.header[1] = unicodeScript
			p.header[1].name += "a"
		}, kind: Format, want: "another name"},
		{name: "PAX path NUL", spoil: outer(setPAX("manifest", pax("path", "manifest\x00x"))), kind: Format, want: "malformed PAX path"},
		{name: "PAX size differs", spoil: outer(setPAX("manifest", pax("size", "1"))), kind: Format, want: "differ"},
		{name: "PAX size negative", spoil: outer(setPAX("manifest", pax("size", "-1"))), kind: Format, want: "not a possible size"},
		{name: "PAX too long", spoil: outer(setPAX("manifest", pax("uname", strings.Repeat("u", maxPAXSize)))), kind: Limit, want: "PAX header has"},
		{name: "PAX twice", spoil: outer(func(l []entry) []entry {
			return slices.Insert(l, 1, entry{name: "x", typ: 'x', data: []byte(pax("uid", "1")), pax: pax("uid", "1")})
		}), kind: Format, want: "has type 'x'"},
		{name: "long name", spoil: outer(func(l []entry) []entry {
			l[1].name = strings.Repeat("n", 99)
			l[1].pax = pax("path", strings.Repeat("n", maxNameSize+1))
			l[1].edit = func(h []byte) { h[99] = 'n' }
			return l
		}), kind: Limit, want: "name"},
		{name: "too many header entries", spoil: func(p *parts) {
			p.header = slices.Insert(p.header, 1, slices.Repeat([]entry{{name: "headers/", typ: '5'}}, maxHeaderEntries)...)
		}, kind: Limit, want: "entries in header archive"},
	}...)
	runDamage(t, cases, Options{})
}

// TestDamageEnds has what is wrong at the end of each of the three archives.
func TestDamageEnds(t *testing.T) {
	t.Parallel()
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	add := func(s string) func([]byte) []byte {
		return func(b []byte) []byte { return append(bytes.Clone(b), s...) }
	}
	oneBlock := func(b []byte) []byte {
		return slices.Concat(b[:len(b)-blockSize], bytes.Repeat([]byte("x"), blockSize))
	}
	spoilers := []struct {
		name string
		f    func([]byte) []byte
		kind Kind
		want string
	}{
		{"no end", cut(2 * blockSize), Format, "unexpected end"},
		{"one zero block", cut(blockSize), Format, "unexpected end"},
		{"one zero block and more", oneBlock, Format, "bytes behind the end"},
		{"garbage", add("garbage"), Format, "bytes behind the end"},
		{"garbage after zeros", add(strings.Repeat("\x00", 5000) + "x"), Format, "bytes behind the end"},
		{"too many zeros", add(strings.Repeat("\x00", maxTarPadding+1)), Limit, "zero bytes behind the end"},
	}
	var cases []damage
	for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
		for _, s := range spoilers {
			cases = append(cases,
				damage{
					name: s.name + "/header" + comp, kind: s.kind, want: s.want,
					spoil: func(p *parts) { p.headerComp, p.headerTar = comp, s.f },
				},
				damage{
					name: s.name + "/data" + comp, kind: s.kind, want: s.want, late: true,
					spoil: func(p *parts) { p.dataComp, p.dataTar = comp, s.f },
				})
		}
	}
	for _, s := range spoilers {
		cases = append(cases, damage{
			name: s.name + "/outer", kind: s.kind, want: s.want, late: true,
			spoil: func(p *parts) { p.final = s.f },
		})
	}
	runDamage(t, cases, Options{})
}

// TestDamageOrder has the checks of names and order of the outer entries.
func TestDamageOrder(t *testing.T) {
	remove := func(i int) func(*parts) {
		return outer(func(l []entry) []entry { return slices.Delete(l, i, i+1) })
	}
	insert := func(i int, name string) func(*parts) {
		return outer(func(l []entry) []entry { return slices.Insert(l, i, entry{name: name, data: []byte("x")}) })
	}
	runDamage(t, []damage{
		{name: "no version", spoil: remove(0), kind: Format, want: "first entry is not version"},
		{name: "no manifest", spoil: remove(1), kind: Format, want: "second entry is not manifest"},
		{name: "no header", spoil: remove(2), kind: Format, want: "not the header"},
		{name: "no data", spoil: remove(3), kind: Format, want: "unexpected end of artifact"},
		{name: "version twice", spoil: insert(1, "version"), kind: Format, want: "second entry is not manifest"},
		{name: "manifest twice", spoil: insert(2, "manifest"), kind: Format, want: "not the header"},
		{name: "signature late", spoil: insert(3, "manifest.sig"), kind: Format, want: "not the data entry"},
		{name: "unknown entry", spoil: insert(3, "README"), kind: Format, want: "not the data entry"},
		{name: "entry at the end", spoil: insert(4, "README"), kind: Format, want: "behind the payload", late: true},
		{name: "data twice", spoil: insert(4, "data/0000.tar.gz"), kind: Unsupported, want: "more than one payload", late: true},
		{name: "second payload", spoil: insert(4, "data/0001.tar.gz"), kind: Unsupported, want: "more than one payload", late: true},
		{name: "data by other name", spoil: outer(func(l []entry) []entry { l[3].name = "data/0.tar.gz"; return l }), kind: Format, want: "not the data entry"},
		{name: "data with other suffix", spoil: outer(func(l []entry) []entry { l[3].name = "data/0000.tar.bz2"; return l }), kind: Format, want: "not the data entry"},
		{name: "manifest-augment", spoil: insert(2, "manifest-augment"), kind: Unsupported, want: "augmented"},
		{name: "header-augment", spoil: insert(3, "header-augment.tar.gz"), kind: Unsupported, want: "augmented"},
	}, Options{})
}

// TestDamageVersion has the checks of the version file.
func TestDamageVersion(t *testing.T) {
	set := func(s string) func(*parts) { return func(p *parts) { p.version = s } }
	runDamage(t, []damage{
		{name: "version 1", spoil: set(`{"format":"mender","version":1}`), kind: Unsupported, want: `version "1" is not supported`},
		{name: "version 4", spoil: set(`{"format":"mender","version":4}`), kind: Unsupported, want: `version "4" is not supported`},
		{name: "string", spoil: set(`{"format":"mender","version":"3"}`), kind: Format, want: "not a number"},
		{name: "float", spoil: set(`{"format":"mender","version":3.0}`), kind: Unsupported, want: `version "3.0"`},
		{name: "other format", spoil: set(`{"format":"Mender","version":3}`), kind: Format, want: "not a version file"},
		{name: "more keys", spoil: set(`{"format":"mender","version":3,"x":1}`), kind: Format, want: "not a version file"},
		{name: "key case", spoil: set(`{"Format":"mender","version":3}`), kind: Format, want: "not a version file"},
		{name: "trailing document", spoil: set(`{"format":"mender","version":3}{}`), kind: Format, want: "not a JSON document"},
		{name: "empty", spoil: set(``), kind: Format, want: "not a JSON document"},
		{name: "long", spoil: set(`{"format":"mender","version":3}` + strings.Repeat(" ", maxVersionSize)), kind: Limit, want: "limit 4096"},
		{name: "checksum", spoil: func(p *parts) {
			p.outer = func(l []entry) []entry { l[0].data = append(bytes.Clone(l[0].data), ' '); return l }
		}, kind: Checksum, want: "invalid checksum; expected: ["},
	}, Options{})
}

// TestDamageManifest has the checks of the manifest's grammar.
func TestDamageManifest(t *testing.T) {
	edit := func(f func(string) string) func(*parts) {
		return func(p *parts) { p.manifest = func(b []byte) []byte { return []byte(f(string(b))) } }
	}
	replace := func(from, to string) func(*parts) {
		return edit(func(s string) string { return strings.Replace(s, from, to, 1) })
	}
	line := func(name string) func(*parts) {
		return edit(func(s string) string { return strings.Repeat("0", 64) + "  " + name + "\n" + s })
	}
	runDamage(t, []damage{
		{name: "empty", spoil: edit(func(string) string { return "" }), kind: Format, want: "lacks the line"},
		{name: "no final newline", spoil: edit(func(s string) string { return s[:len(s)-1] }), kind: Format, want: "malformed manifest line"},
		{name: "blank line", spoil: edit(func(s string) string { return s + "\n" }), kind: Format, want: "malformed manifest line"},
		{name: "CRLF", spoil: edit(func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }), kind: Format, want: "manifest lists"},
		{name: "one blank", spoil: replace("  version", " version"), kind: Format, want: "malformed manifest line"},
		{name: "three blanks", spoil: replace("  version", "   version"), kind: Format, want: "manifest lists"},
		{name: "upper case", spoil: edit(strings.ToUpper), kind: Format, want: "malformed manifest line"},
		{name: "short sum", spoil: edit(func(s string) string { return s[1:] }), kind: Format, want: "malformed manifest line"},
		{name: "not hex", spoil: edit(func(s string) string { return "g" + s[1:] }), kind: Format, want: "malformed manifest line"},
		{name: "line twice", spoil: edit(func(s string) string { return s + s }), kind: Format, want: "twice"},
		{name: "unknown name", spoil: line("README"), kind: Format, want: `manifest lists "README"`},
		{name: "path", spoil: line("data/0000/../x"), kind: Format, want: "manifest lists"},
		{name: "dots", spoil: line("data/0000/.."), kind: Format, want: "manifest lists"},
		{name: "shell", spoil: line("data/0000/$(id)"), kind: Format, want: "manifest lists"},
		{name: "second payload", spoil: line("data/0001/x"), kind: Unsupported, want: "more than one payload"},
		{name: "two headers", spoil: line("header.tar.xz"), kind: Format, want: "two headers"},
		{name: "other suffix", spoil: line("header.tar.bz2"), kind: Format, want: "manifest lists"},
		{name: "no version", spoil: edit(func(s string) string { return s[:strings.LastIndex(s[:len(s)-1], "\n")+1] }), kind: Format, want: "lacks the line"},
		{name: "long", spoil: edit(func(s string) string { return strings.Repeat(s, 4000) }), kind: Limit, want: "limit 262144"},
		{name: "many files", spoil: edit(func(s string) string {
			var b strings.Builder
			for i := range maxFiles {
				fmt.Fprintf(&b, "%064x  data/0000/%d\n", i, i)
			}
			return b.String() + s
		}), kind: Limit, want: "payload files"},
	}, Options{})
}
