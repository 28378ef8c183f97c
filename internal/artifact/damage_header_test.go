package artifact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
)

// TestDamageCompression has what is wrong below the header archive and the data
// archive: streams that are not what their names say, or cut, or bombs.
func TestDamageCompression(t *testing.T) {
	t.Parallel()
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-at] ^= 1; return b }
	}
	add := func(s string) func([]byte) []byte {
		return func(b []byte) []byte { return append(bytes.Clone(b), s...) }
	}
	before := func(s string, n int) func([]byte) []byte {
		return func(b []byte) []byte { return append([]byte(strings.Repeat(s, n)), b...) }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	as := func(comp string) func([]byte) []byte { return func([]byte) []byte { return pack(noise, comp) } }
	emptyGzip := string(pack(nil, ".gz"))

	cases := []struct {
		name string
		comp string
		blob func([]byte) []byte
		kind Kind
		want string
	}{
		{"gzip in none", "", as(".gz"), Format, "not a tar header"},
		{"none in gzip", ".gz", as(""), Format, "decompress gz stream"},
		{"xz in gzip", ".gz", as(".xz"), Format, "decompress gz stream"},
		{"gzip in xz", ".xz", as(".gz"), Format, "decompress xz stream"},
		{"gzip in zstd", ".zst", as(".gz"), Format, "decompress zst stream"},
		{"empty gzip", ".gz", func([]byte) []byte { return nil }, Format, "unexpected end of gz stream"},
		{"empty xz", ".xz", func([]byte) []byte { return nil }, Format, "unexpected end of xz stream"},
		{"empty zstd", ".zst", func([]byte) []byte { return nil }, Format, "unexpected end of"},
		{"gzip of gzip", ".gz", func([]byte) []byte { return pack(pack(noise, ".gz"), ".gz") }, Format, "not a tar header"},
		{"gzip CRC", ".gz", flip(8), Checksum, "invalid checksum"},
		{"gzip size", ".gz", flip(4), Checksum, "invalid checksum"},
		{"gzip cut", ".gz", cut(4), Format, "unexpected end of gz stream"},
		{"gzip garbage", ".gz", add("x"), Format, "gz stream"},
		{"gzip garbage, long", ".gz", add(strings.Repeat("x", 30000)), Format, "decompress gz stream"},
		{"gzip zeros", ".gz", add("\x00\x00\x00\x00"), Format, "gz stream"},
		{"gzip member cut in its header", ".gz", add("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name"), Format, "unexpected end of gz stream"},
		{"gzip flood", ".gz", before(emptyGzip, 30000), Limit, "compressed bytes without content"},
		{"zstd checksum", ".zst", flip(1), Checksum, "CRC"},
		{"zstd cut", ".zst", cut(1), Format, "unexpected end of zst stream"},
		{"zstd garbage of 1 byte", ".zst", add("x"), Format, "zst stream"},
		{"zstd garbage", ".zst", add("xxxxxxxxxxxxx"), Format, "decompress zst stream"},
		{"zstd flood", ".zst", before("\x50\x2a\x4d\x18\x00\x00\x00\x00", 70000), Limit, "compressed bytes without content"},
		{"zstd window", ".zst", func([]byte) []byte { return []byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00") }, Limit, "window size exceeded"},
		{"zstd dictionary", ".zst", func([]byte) []byte { return []byte("\x28\xb5\x2f\xfd\x01\x50\x07\x01\x00\x00") }, Unsupported, "dictionary"},
		{"xz footer", ".xz", flip(3), Checksum, "xz stream"},
		{"xz index", ".xz", flip(13), Checksum, "xz stream"},
		{"xz cut", ".xz", cut(1), Format, "xz stream"},
		{"xz odd padding", ".xz", add("\x00\x00\x00"), Format, "decompress xz stream"},
		{"xz dictionary", ".xz", setDictionary(37), Limit, "dictionary"},
	}
	for n := 1; n < 40; n += 3 {
		cases = append(cases, struct {
			name string
			comp string
			blob func([]byte) []byte
			kind Kind
			want string
		}{fmt.Sprintf("xz garbage of %d bytes", n), ".xz", add(strings.Repeat("x", n)), Format, "xz stream"})
	}
	for _, c := range cases {
		runDamage(t, []damage{
			{
				name: c.name + "/header", kind: c.kind, want: c.want,
				spoil: func(p *parts) { p.headerComp, p.headerBlob = c.comp, c.blob },
			},
			{
				name: c.name + "/data", kind: c.kind, want: c.want, late: true,
				spoil: func(p *parts) { p.dataComp, p.dataBlob = c.comp, c.blob },
			},
		}, Options{})
	}
}

// setDictionary changes the dictionary size in the block header of an xz stream
// made by pack.
func setDictionary(code byte) func([]byte) []byte {
	return func(b []byte) []byte {
		b = bytes.Clone(b)
		const start, size = 12, 8
		header := b[start:]
		header[4] = code
		binary.LittleEndian.PutUint32(header[size:], crc32.ChecksumIEEE(header[:size]))
		return b
	}
}

// TestMaxWindow checks that the limit is the caller's.
func TestMaxWindow(t *testing.T) {
	p := rootfsParts()
	p.dataComp, p.dataBlob = ".xz", setDictionary(20) // 4 MiB
	if res := readAll(t.Context(), bytes.NewReader(p.build()), Options{MaxWindow: 4 << 20}); res.err != nil {
		t.Errorf("window as large as the limit: %v", res.err)
	}
	runDamage(t, []damage{{
		name: "below", kind: Limit, want: "dictionary",
		spoil: func(d *parts) { *d = *p },
	}}, Options{MaxWindow: 4<<20 - 1})
	p.dataComp, p.dataBlob = ".zst", nil
	runDamage(t, []damage{{
		name: "zstd", kind: Limit, want: "exceed",
		spoil: func(d *parts) { *d = *p },
	}}, Options{MaxWindow: 2048})
}

// TestDamageHeader has the checks of the header archive's layout and limits.
func TestDamageHeader(t *testing.T) {
	t.Parallel()
	add := func(at int, e entry) func(*parts) {
		return func(p *parts) { p.header = slices.Insert(p.header, at, e) }
	}
	script := func(name string, size int) entry {
		return entry{name: "scripts/" + name, data: make([]byte, size)}
	}
	cases := []damage{
		{name: "checksum", spoil: func(p *parts) {
			p.manifest = func(b []byte) []byte {
				return []byte(strings.ReplaceAll(string(b), "header.tar.gz", "header.tar"))
			}
			p.outer = func(l []entry) []entry {
				l[2].name, l[2].data = "header.tar", tarOf([]entry{{name: nameHeaderInfo, data: []byte("junk")}})
				return l
			}
		}, kind: Checksum, want: "invalid checksum; expected: ["},
		{name: "checksum and damage", spoil: func(p *parts) {
			p.outer = func(l []entry) []entry {
				l[2].data = bytes.Clone(l[2].data)
				l[2].data[40] ^= 0xff
				return l
			}
		}, kind: Checksum, want: `"header.tar.gz" at byte`},
		{name: "stored size", spoil: func(p *parts) {
			p.outer = setSize("header.tar", fmt.Sprintf("%011o\x00", maxHeaderStored+1))
		}, kind: Limit, want: "limit 16777216"},
		{name: "header-info size", spoil: func(p *parts) {
			p.header[0].data = []byte(goodInfo + strings.Repeat(" ", maxJSONSize))
		}, kind: Limit, want: "limit 262144"},
		{name: "script size", spoil: add(1, script("ArtifactCommit_Leave_00", maxScriptSize+1)), kind: Limit, want: "limit 1048576"},
		{name: "scripts size", spoil: func(p *parts) {
			for i := range 5 {
				p.header = slices.Insert(p.header, 1, script(fmt.Sprintf("ArtifactCommit_Leave_%02d", i), maxScriptSize))
			}
		}, kind: Limit, want: "bytes, limit"},
		{name: "scripts count", spoil: func(p *parts) {
			for i := range maxScripts {
				p.header = slices.Insert(p.header, 1, script(fmt.Sprintf("ArtifactCommit_Leave_00_%d", i), 0))
			}
		}, kind: Limit, want: "more than 256 state scripts"},
		{name: "meta-data size", spoil: func(p *parts) { p.setHeader(nameMetaData, `{"a":"`+strings.Repeat("x", maxMetaDataSize)+`"}`) }, kind: Limit, want: "limit 1048576"},
		{name: "header-info late", spoil: func(p *parts) { p.header[0], p.header[1] = p.header[1], p.header[0] }, kind: Format, want: "does not begin with header-info"},
		{name: "header-info twice", spoil: add(1, entry{name: nameHeaderInfo, data: []byte(goodInfo)}), kind: Format, want: "unexpected file"},
		{name: "script twice", spoil: add(1, script("ArtifactInstall_Enter_00_a", 1)), kind: Format, want: "occurs twice"},
		{name: "script late", spoil: add(3, script("ArtifactCommit_Leave_00", 1)), kind: Format, want: "unexpected file"},
		{name: "type-info twice", spoil: add(3, entry{name: nameTypeInfo, data: []byte(goodTypeInfo)}), kind: Format, want: "unexpected file"},
		{name: "type-info missing", spoil: func(p *parts) { p.header = p.header[:2] }, kind: Format, want: "incomplete"},
		{name: "meta-data first", spoil: func(p *parts) { p.header[2], p.header[3] = p.header[3], p.header[2] }, kind: Format, want: "unexpected file"},
		{name: "files in version 3", spoil: add(2, entry{name: nameFiles, data: []byte(`{"files":["rootfs.ext4"]}`)}), kind: Format, want: "unexpected file"},
		{name: "second payload", spoil: add(4, entry{name: "headers/0001/type-info"}), kind: Format, want: "unexpected file"},
		{name: "unknown file", spoil: add(4, entry{name: "README"}), kind: Format, want: "unexpected file"},
		{name: "path", spoil: add(4, entry{name: "headers/0000/../0000/type-info"}), kind: Format, want: "unexpected file"},
	}
	for _, name := range []string{
		"version", "", "ArtifactInstall_Enter_0", "ArtifactInstall_Enter_000", "ArtifactInstall_Enter_00_",
		"ArtifactInstall_Enter_00_a/b", "../ArtifactInstall_Enter_00", "ArtifactInstall_Enter_00_a b",
		"Idle_Enter_00", "xArtifactInstall_Enter_00", "ArtifactInstall_Begin_00", "ArtifactInstall_Enter_00\n",
	} {
		cases = append(cases, damage{name: "script " + name, spoil: add(1, script(name, 1)), kind: Format, want: "not the name of a state script"})
	}
	runDamage(t, cases, Options{})
}

// TestHeaderPlainLimit checks the limit on the whole decompressed header. Files
// within their own limits cannot reach it, but PAX headers can.
func TestHeaderPlainLimit(t *testing.T) {
	t.Parallel()
	records := pax("uname", strings.Repeat("u", maxPAXSize-20))
	runDamage(t, []damage{{name: "plain size", kind: Limit, want: "when decompressed", spoil: func(p *parts) {
		for i := range maxScripts - 1 {
			name := fmt.Sprintf("scripts/ArtifactCommit_Leave_00_%d", i)
			p.header = slices.Insert(p.header, 1, entry{name: name, pax: records})
		}
		p.header = append(p.header, entry{name: "x"}) // never reached
	}}}, Options{})
}

// TestDamageJSON has the checks that every JSON document goes through.
func TestDamageJSON(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	var cases []damage
	for _, c := range []struct {
		name, doc string
		kind      Kind
		want      string
	}{
		{"byte order mark", "\ufeff{}", Format, "byte order mark"},
		{"not UTF-8", "{\"a\":\"\xff\"}", Format, "not UTF-8"},
		{"trailing document", `{}{}`, Format, "not a JSON document"},
		{"trailing garbage", `{}x`, Format, "not a JSON document"},
		{"comment", `{/**/}`, Format, "not a JSON document"},
		{"NaN", `{"a":NaN}`, Format, "not a JSON document"},
		{"array", `[]`, Format, "not a JSON object"},
		{"null", `null`, Format, "not a JSON object"},
		{"deep", deep(maxJSONDepth), Limit, "nested deeper"},
		{"very deep", deep(9000), Limit, "nested deeper"},
		{"too deep for encoding/json", deep(20000), Format, "not a JSON document"},
		{"duplicate key", `{"a":1,"a":1}`, Format, "twice"},
		{"duplicate key, escaped", `{"a":1,"\u0061":1}`, Format, "twice"},
		{"duplicate key, nested", `{"a":[{"b":1,"b":1}]}`, Format, "twice"},
		{"high surrogate", `{"a":"\ud800"}`, Format, "surrogate"},
		{"low surrogate", `{"a":"\udc00"}`, Format, "surrogate"},
		{"high surrogate, text", `{"a":"\ud800x"}`, Format, "surrogate"},
		{"high surrogate, escape", `{"a":"\ud800\n"}`, Format, "surrogate"},
		{"two high surrogates", `{"a":"\ud800\ud800"}`, Format, "surrogate"},
		{"surrogates in a key", `{"\udc00\ud800":1}`, Format, "surrogate"},
		{"long number", `{"a":` + strings.Repeat("9", maxNumberSize+1) + `}`, Limit, "digits"},
		{"many values", `{"a":[` + strings.Repeat("1,", maxJSONValues) + `1]}`, Limit, "values"},
	} {
		cases = append(cases, damage{name: c.name, kind: c.kind, want: c.want, spoil: func(p *parts) { p.setHeader(nameMetaData, c.doc) }})
	}
	runDamage(t, cases, Options{})

	for _, doc := range []string{
		`{}`, ` { "a" : [ 1 , {} , null , true , -1.5e3 ] } `, deep(maxJSONDepth - 1), `{"a":"\ud83d\ude00\\ud800\""}`,
	} {
		p := rootfsParts()
		p.setHeader(nameMetaData, doc)
		mustRead(t, p.build(), Options{})
	}
}
