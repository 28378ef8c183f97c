package artifact

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestDamageMeaning has the checks of what header-info, type-info, meta-data and
// files say.
func TestDamageMeaning(t *testing.T) {
	t.Parallel()
	replace := func(name, from, to string) func(*parts) {
		return func(p *parts) {
			for i, e := range p.header {
				if e.name == name {
					if !bytes.Contains(e.data, []byte(from)) {
						panic("nothing to replace: " + from)
					}
					p.header[i].data = bytes.Replace(e.data, []byte(from), []byte(to), 1)
				}
			}
		}
	}
	info := func(from, to string) func(*parts) { return replace(nameHeaderInfo, from, to) }
	typ := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameTypeInfo, doc) } }
	meta := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameMetaData, doc) } }
	files := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameFiles, doc) } }
	long := strings.Repeat("x", maxTextSize+1)
	const notText = "not printable"

	runDamage(t, []damage{
		{name: "two payloads", spoil: info(`[{"type":"rootfs-image"}]`, `[{"type":"rootfs-image"},{"type":"app"}]`), kind: Unsupported, want: "more than one payload"},
		{name: "no payload", spoil: info(`[{"type":"rootfs-image"}]`, `[]`), kind: Format, want: "no list of payloads"},
		{name: "payload keys", spoil: info(`"rootfs-image"}`, `"rootfs-image","x":1}`), kind: Format, want: "other keys than type"},
		{name: "type empty", spoil: info(`"rootfs-image"`, `""`), kind: Format, want: notText},
		{name: "type is a path", spoil: info(`"rootfs-image"`, `"../sh"`), kind: Format, want: "not a plain name"},
		{name: "type is a number", spoil: info(`"rootfs-image"`, `1`), kind: Format, want: "not a string"},
		{name: "unknown key", spoil: info(`{"payloads"`, `{"x":1,"payloads"`), kind: Format, want: "other keys"},
		{name: "key case", spoil: info(`"payloads"`, `"Payloads"`), kind: Format, want: "other keys"},
		{name: "provides keys", spoil: info(`"artifact_name"`, `"x":"y","artifact_name"`), kind: Format, want: "other keys"},
		{name: "provides null", spoil: info(`{"artifact_name":"rel-1"}`, `null`), kind: Format, want: "artifact_provides"},
		{name: "depends keys", spoil: info(`"device_type"`, `"x":["y"],"device_type"`), kind: Format, want: "other keys"},
		{name: "name missing", spoil: info(`"artifact_name":"rel-1"`, ``), kind: Format, want: "artifact_name: not a string"},
		{name: "name null", spoil: info(`"rel-1"`, `null`), kind: Format, want: "artifact_name: not a string"},
		{name: "name empty", spoil: info(`"rel-1"`, `""`), kind: Format, want: notText},
		{name: "name long", spoil: info(`"rel-1"`, `"`+long+`"`), kind: Format, want: notText},
		{name: "name control", spoil: info(`"rel-1"`, `"a\u0000b"`), kind: Format, want: notText},
		{name: "name newline", spoil: info(`"rel-1"`, `"a\nb"`), kind: Format, want: notText},
		{name: "name bidi", spoil: info(`"rel-1"`, `"a\u202eb"`), kind: Format, want: notText},
		{name: "group number", spoil: info(`"rel-1"`, `"rel-1","artifact_group":1`), kind: Format, want: "artifact_group: not a string"},
		{name: "no device type", spoil: info(`"device_type":["box"]`, ``), kind: Format, want: "device_type: not a list"},
		{name: "no device types", spoil: info(`["box"]`, `[]`), kind: Format, want: "device_type: not a list"},
		{name: "device type string", spoil: info(`["box"]`, `"box"`), kind: Format, want: "device_type: not a list"},
		{name: "device type null", spoil: info(`["box"]`, `[null]`), kind: Format, want: "device_type: not a string"},
		{name: "device type empty", spoil: info(`["box"]`, `[""]`), kind: Format, want: notText},
		{name: "many device types", spoil: info(`["box"]`, `["box"`+strings.Repeat(`,"b"`, maxDeviceTypes)+`]`), kind: Format, want: "device_type: not a list"},
		{name: "depends on no name", spoil: info(`"device_type"`, `"artifact_name":[],"device_type"`), kind: Format, want: "depends on artifact_name"},

		{name: "other type", spoil: typ(`{"type":"app"}`), kind: Format, want: "different payload types"},
		{name: "type null", spoil: typ(`{"type":null}`), kind: Format, want: "different payload types"},
		{name: "type absent", spoil: typ(`{}`), kind: Format, want: "different payload types"},
		{name: "module type empty", make: moduleParts, spoil: typ(`{"type":""}`), kind: Format, want: "different payload types"},
		{name: "provides name", spoil: typ(`{"type":"","artifact_provides":{"artifact_name":"x"}}`), kind: Format, want: "belongs into header-info"},
		{name: "provides group number", spoil: typ(`{"type":"","artifact_provides":{"artifact_group":1}}`), kind: Format, want: "not a string"},
		{name: "provides number", spoil: typ(`{"type":"","artifact_provides":{"a":1}}`), kind: Format, want: "not a string"},
		{name: "provides list", spoil: typ(`{"type":"","artifact_provides":[]}`), kind: Format, want: "not an object"},
		{name: "provides empty key", spoil: typ(`{"type":"","artifact_provides":{"":"x"}}`), kind: Format, want: notText},
		{name: "provides newline", spoil: typ(`{"type":"","artifact_provides":{"a\nb":"x"}}`), kind: Format, want: notText},
		{name: "depends device type", spoil: typ(`{"type":"","artifact_depends":{"device_type":"x"}}`), kind: Format, want: "belongs into header-info"},
		{name: "depends number", spoil: typ(`{"type":"","artifact_depends":{"a":1}}`), kind: Format, want: "not a list"},
		{name: "depends empty list", spoil: typ(`{"type":"","artifact_depends":{"a":[]}}`), kind: Format, want: "not a list"},
		{name: "depends mixed list", spoil: typ(`{"type":"","artifact_depends":{"a":["x",1]}}`), kind: Format, want: "not a string"},
		{name: "clears string", spoil: typ(`{"type":"","clears_artifact_provides":"*"}`), kind: Format, want: "not a list"},
		{name: "provides value null", spoil: typ(`{"type":"","artifact_provides":{"a":null}}`), kind: Format, want: "not a string"},
		{name: "depends value null", spoil: typ(`{"type":"","artifact_depends":{"a":null}}`), kind: Format, want: "not a list"},
		{name: "clears value null", spoil: typ(`{"type":"","clears_artifact_provides":[null]}`), kind: Format, want: "not a string"},
		{name: "clears number", spoil: typ(`{"type":"","clears_artifact_provides":[1]}`), kind: Format, want: "not a string"},

		{name: "meta-data list", spoil: meta(`[]`), kind: Format, want: "meta-data is not a JSON object"},
		{name: "rootfs without file", spoil: func(p *parts) { p.files = nil }, kind: Format, want: "rootfs-image with 0 payload files"},
		{name: "rootfs with two files", spoil: func(p *parts) { p.files = append(p.files, entry{name: "b"}) }, kind: Format, want: "rootfs-image with 2 payload files"},
		{name: "empty payload with file", make: emptyParts, spoil: func(p *parts) { p.files = []entry{{name: "b"}} }, kind: Format, want: "empty payload with"},
		{name: "empty payload with meta-data", make: emptyParts, spoil: meta(""), kind: Format, want: "empty payload with"},
		{name: "empty payload with unlisted file", make: emptyParts, spoil: func(p *parts) {
			p.data = func([]entry) []entry { return []entry{{name: "evil"}} }
		}, kind: Format, want: "not in the manifest"},

		{name: "v2 keys", make: v2Parts, spoil: info(`"updates"`, `"payloads"`), kind: Format, want: "other keys"},
		{name: "v2 empty payload", make: v2Parts, spoil: info(`"rootfs-image"`, `null`), kind: Format, want: "not a string"},
		{name: "v2 module", make: v2Parts, spoil: info(`"rootfs-image"`, `"app"`), kind: Unsupported, want: "not supported in format version 2"},
		{name: "v2 device types", make: v2Parts, spoil: info(`["box"]`, `[]`), kind: Format, want: "device_types_compatible"},
		{name: "v2 files missing", make: v2Parts, spoil: func(p *parts) { p.header = slices.Delete(p.header, 2, 3) }, kind: Format, want: "unexpected file"},
		{name: "v2 files late", make: v2Parts, spoil: func(p *parts) { p.header[2], p.header[3] = p.header[3], p.header[2] }, kind: Format, want: "unexpected file"},
		{name: "v2 files empty", make: v2Parts, spoil: files(`{"files":[]}`), kind: Format, want: "list different"},
		{name: "v2 other file", make: v2Parts, spoil: files(`{"files":["x"]}`), kind: Format, want: "list different"},
		{name: "v2 file twice", make: v2Parts, spoil: files(`{"files":["rootfs.ext4","rootfs.ext4"]}`), kind: Format, want: "list different"},
		{name: "v2 files number", make: v2Parts, spoil: files(`{"files":[1]}`), kind: Format, want: "list different"},
		{name: "v2 files object", make: v2Parts, spoil: files(`{"files":[{}]}`), kind: Format, want: "list different"},
	}, Options{})
}

// TestDamagePayload has the checks of the payload files.
func TestDamagePayload(t *testing.T) {
	data := func(f func([]entry) []entry) func(*parts) { return func(p *parts) { p.data = f } }
	otherBytes := func(l []entry) []entry {
		l[0].data = bytes.Clone(l[0].data)
		l[0].data[0] ^= 1
		return l
	}
	var cases []damage
	for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
		cases = append(cases, damage{
			name: "checksum" + comp, late: true, kind: Checksum, want: "invalid checksum; expected: [",
			spoil: func(p *parts) { p.dataComp, p.data = comp, otherBytes },
		})
	}
	cases = append(cases, []damage{
		{name: "other name", spoil: data(func(l []entry) []entry { l[0].name = "b"; return l }), kind: Format, want: "not in the manifest"},
		{name: "path", spoil: data(func(l []entry) []entry { l[0].name = "./rootfs.ext4"; return l }), kind: Format, want: "not in the manifest"},
		{name: "no file", spoil: data(func([]entry) []entry { return nil }), kind: Format, want: `"rootfs.ext4" is missing`},
		{name: "zero bytes", spoil: func(p *parts) { p.files[0].data = nil }, kind: Format, want: "0 bytes"},
		{name: "twice", spoil: data(func(l []entry) []entry { return append(l, l[0]) }), kind: Format, want: "occurs twice", late: true},
		{name: "unlisted file", make: moduleParts, spoil: data(func(l []entry) []entry { return append(l, entry{name: "x"}) }), kind: Format, want: "not in the manifest", late: true},
		{name: "missing file", make: moduleParts, spoil: data(func(l []entry) []entry { return l[:2] }), kind: Format, want: `"empty" is missing`, late: true},
		{name: "size too large", spoil: data(setSize("rootfs", "00777777777\x00")), kind: Format, want: "unexpected end of data archive", late: true},
		{name: "size too small", spoil: data(setSize("rootfs", "00000000777\x00")), kind: Checksum, want: "invalid checksum", late: true},
		{name: "trailing bytes in the entry", spoil: func(p *parts) {
			p.dataComp = ".zst"
			p.dataBlob = func(b []byte) []byte { return append(bytes.Clone(b), 0) }
		}, kind: Format, want: "zst stream", late: true},
	}...)
	runDamage(t, cases, Options{})
}
