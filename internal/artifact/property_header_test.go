package artifact

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// TestRefusedArtifactHandsOutNothing swaps the header below a good signature.
// State scripts are the danger: whoever installs them while the header is still
// being read runs what nobody signed. Open gives all of them or nothing.
func TestRefusedArtifactHandsOutNothing(t *testing.T) {
	evil := entry{name: "scripts/ArtifactCommit_Enter_00_evil", data: []byte("#!/bin/sh\n")}
	for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
		for name, spoil := range map[string]func(*parts){
			"header": outer(func(l []entry) []entry {
				swapped := rootfsParts()
				insertHeader(1, evil)(swapped)
				l[3].data = pack(tarOf(swapped.header), comp)
				return l
			}),
			"script": outer(func(l []entry) []entry {
				plain := unpacked(l[3].data, comp)
				l[3].data = pack(bytes.Replace(plain, []byte("#!/bin/sh"), []byte("#!/bin/ed"), 1), comp)
				return l
			}),
		} {
			t.Run(name+comp, func(t *testing.T) {
				p := rootfsParts()
				p.headerComp, p.sign = comp, signed(signRaw)
				spoil(p)
				a, err := Open(bytes.NewReader(p.build()), signedOnly(t))
				if a != nil || kindOf(err) != Checksum {
					t.Errorf("Open = %v, %v, want nothing but a checksum error", a, err)
				}
			})
		}
	}
}

// TestScriptNameTraversal has names of state scripts that lead elsewhere, that
// stand for another file of the directory, or that no phase runs.
func TestScriptNameTraversal(t *testing.T) {
	var cases []damage
	for _, name := range []string{
		"../ArtifactInstall_Enter_00", "../../etc/cron.d/x", "/etc/passwd", "sub/ArtifactInstall_Enter_00",
		"ArtifactInstall_Enter_00_/../../x", "ArtifactInstall_Enter_00/", ".", "..", "",
		"version", "Idle_Enter_00", "Download_Enter_00", "ArtifactInstall_Enter", "ArtifactInstall_Enter_0",
		"ArtifactInstall_Enter_00_a b", "ArtifactInstall_Enter_00_a\nb", "ArtifactInstall_Enter_00_\x1b[31m", "ArtifactInstall_Enter_00_\u00a0", "ArtifactInstall_Enter_00_\u202e",
		"ArtifactInstall_Enter_00.sh", "ArtifactInstall_Enter_00-a", "ArtifactInstall_Enter_00_", "ArtifactInstall_Enter_00ü",
		"artifactinstall_enter_00", "xArtifactInstall_Enter_00", "ArtifactInstall_Enter_00_" + strings.Repeat("x", 300),
	} {
		e := entry{name: scriptsPrefix + name, data: []byte("#!/bin/sh\n")}
		if len(e.name) > tarNameEnd {
			e.pax, e.edit = pax("path", e.name), shortName(e.name)
		}
		cases = append(cases, damage{name: name[:min(len(name), 40)], spoil: insertHeader(1, e), kind: Format})
	}
	cases[len(cases)-1].kind = Limit // of a name's length
	runSigned(t, cases)
}

// shortName repairs a header whose name runs over the fields behind it.
func shortName(name string) func(h []byte) {
	return func(h []byte) {
		clear(h[tarNameEnd:])
		copy(h[tarSizeOff:], "00000000012")
		h[tarTypeOff] = tarRegular
		copy(h[tarMagicOff:], "ustar\x0000")
		copy(h, name[:tarNameEnd])
	}
}

// TestPayloadTypeTraversal has types that would run any file as update module.
func TestPayloadTypeTraversal(t *testing.T) {
	var cases []damage
	for _, typ := range []string{
		"../sh", "../../../../bin/sh", "/bin/sh", "a/b", ".", "..", "...", ".hidden", "-rf", `a\\b`, "a b", "a\\nb", "a\\u0000b", "", "$(id)", "ü",
	} {
		cases = append(cases, damage{name: strings.ReplaceAll(typ, "/", "|"), make: moduleParts, kind: Format, want: "payload type", spoil: func(p *parts) {
			p.setHeader(nameHeaderInfo, strings.Replace(moduleInfo, `"app"`, `"`+typ+`"`, 1))
			p.setHeader(nameTypeInfo, `{"type":"`+typ+`"}`)
		}})
	}
	runSigned(t, cases)
}

// TestPayloadNameTraversal has names of payload files, listed and signed, that
// are paths or that a shell would expand.
func TestPayloadNameTraversal(t *testing.T) {
	var cases []damage
	for _, name := range []string{
		"../x", "../../etc/passwd", "/etc/passwd", "a/../../x", ".", "..", "...", "./x", "a//b", "a/", "", " ", "a b", "$(id)", "`id`", "a;b", "a\tb", "%s", "ü", "a\\b", "*",
	} {
		cases = append(cases, damage{name: strings.ReplaceAll(name, "/", "|"), make: moduleParts, kind: Format, want: "manifest lists", spoil: func(p *parts) {
			p.files[0].name = name
		}})
	}
	runSigned(t, cases)
}

// TestCountMismatch has more or fewer header directories, type-infos and data
// entries than there are payloads.
func TestCountMismatch(t *testing.T) {
	info := func(from, to string) func(*parts) {
		return func(p *parts) { p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, from, to, 1)) }
	}
	const one = `[{"type":"rootfs-image"}]`
	runSigned(t, []damage{
		{name: "two payloads, one header", spoil: info(one, one[:len(one)-1]+`,{"type":"rootfs-image"}]`), kind: Unsupported, want: "more than one payload"},
		{name: "no payload, one header", spoil: info(one, `[]`), kind: Format, want: "no list of payloads"},
		{name: "no payload, no header", spoil: func(p *parts) { info(one, `[]`)(p); p.header = p.header[:2] }, kind: Format, want: "incomplete"},
		{name: "one payload, no header", spoil: func(p *parts) { p.header = p.header[:2] }, kind: Format, want: "incomplete"},
		{name: "one payload, two headers", spoil: insertHeader(4, entry{name: "headers/0001/type-info", data: []byte(goodTypeInfo)}), kind: Format, want: "unexpected file"},
		{name: "one payload, other header", spoil: func(p *parts) { p.header[2].name = "headers/0001/type-info" }, kind: Format, want: "unexpected file"},
		{name: "type-info twice", spoil: insertHeader(3, entry{name: nameTypeInfo, data: []byte(goodTypeInfo)}), kind: Format, want: "unexpected file"},
		{name: "other type", spoil: func(p *parts) { p.setHeader(nameTypeInfo, `{"type":"app"}`) }, kind: Format, want: "different payload types"},
		{name: "no data", spoil: outer(func(l []entry) []entry { return l[:4] }), kind: Format, want: "unexpected end of artifact"},
		{name: "two data entries", spoil: insertOuter(5, entry{name: "data/0001.tar.gz"}), kind: Unsupported, want: "more than one payload", late: true},
		{name: "other data entry", spoil: outer(func(l []entry) []entry { l[4].name = "data/0001.tar.gz"; return l }), kind: Format, want: "not the data entry"},
		{name: "manifest of a second payload", spoil: func(p *parts) {
			p.manifest = func(b []byte) []byte { return append([]byte(strings.Repeat("0", 64)+"  data/0001/x\n"), b...) }
		}, kind: Unsupported, want: "more than one payload"},
	})
}

// TestTypeInfoCannotWiden checks that type-info cannot take back what
// header-info demands, or claim another name.
func TestTypeInfoCannotWiden(t *testing.T) {
	typ := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameTypeInfo, doc) } }
	var cases []damage
	for _, value := range []string{`"x"`, `["x"]`, `null`} {
		cases = append(cases, damage{name: "depends device_type" + value, spoil: typ(`{"type":"","artifact_depends":{"device_type":` + value + `}}`), kind: Format, want: "belongs into header-info"})
		for _, key := range []string{"artifact_name", "artifact_group"} {
			cases = append(cases, damage{name: "depends " + key + value, kind: Format, want: "both depend on", spoil: func(p *parts) {
				p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `"artifact_depends":{`, `"artifact_depends":{"`+key+`":["y"],`, 1))
				p.setHeader(nameTypeInfo, `{"type":"","artifact_depends":{"`+key+`":`+value+`}}`)
			}})
		}
	}
	cases = append(cases, damage{name: "provides artifact_name", spoil: typ(`{"type":"","artifact_provides":{"artifact_name":"rel-1"}}`), kind: Format, want: "belongs into header-info"})
	for _, value := range []string{`"x"`, `""`} {
		cases = append(cases, damage{name: "provides artifact_group" + value, kind: Format, want: "different groups", spoil: func(p *parts) {
			p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `"rel-1"`, `"rel-1","artifact_group":"y"`, 1))
			p.setHeader(nameTypeInfo, `{"type":"","artifact_provides":{"artifact_group":`+value+`}}`)
		}})
	}
	for _, value := range []string{`null`, `1`, `["x"]`, `"a\nb"`, `"` + strings.Repeat("x", maxTextSize+1) + `"`} {
		cases = append(cases, damage{name: "provides artifact_group" + value[:min(len(value), 8)], spoil: typ(`{"type":"","artifact_provides":{"artifact_group":` + value + `}}`), kind: Format, want: "artifact_group"})
	}
	runSigned(t, cases)
}

// TestTypeInfoGroup: the group may be in type-info, where mender-artifact -p
// writes it, and is no key of the payload.
func TestTypeInfoGroup(t *testing.T) {
	for name, tt := range map[string]struct{ info, provides, want string }{
		"in type-info only":   {``, `"pg"`, "pg"},
		"in both":             {`,"artifact_group":"pg"`, `"pg"`, "pg"},
		"none in header-info": {`,"artifact_group":""`, `"pg"`, "pg"},
		"empty":               {``, `""`, ""},
	} {
		p := rootfsParts()
		p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `"rel-1"`, `"rel-1"`+tt.info, 1))
		p.setHeader(nameTypeInfo, `{"type":"","artifact_provides":{"a":"b","artifact_group":`+tt.provides+`}}`)
		a, err := Open(bytes.NewReader(p.build()), Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		h := a.Header()
		if diff := cmp.Diff(map[string]string{"a": "b"}, h.Provides); h.Group != tt.want || diff != "" {
			t.Errorf("%s: group = %q, want %q; provides (-want +got):\n%s", name, h.Group, tt.want, diff)
		}
	}
}

// TestNullIsAbsent: what may be left out may be null.
func TestNullIsAbsent(t *testing.T) {
	p := rootfsParts()
	p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, `"rel-1"`, `"rel-1","artifact_group":null`, 1))
	p.setHeader(nameTypeInfo, `{"type":"","artifact_provides":null,"artifact_depends":null,"clears_artifact_provides":null}`)
	a, err := Open(bytes.NewReader(p.build()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if h := a.Header(); h.Group != "" || len(h.Provides) != 0 || len(h.Depends) != 0 || h.HasClears || h.ClearsProvides != nil {
		t.Errorf("header = %+v", h)
	}
}

// TestEmptyPayloadHasConditions checks that an artifact without payload tells its
// device types and what it depends on like any other, and cannot do without.
func TestEmptyPayloadHasConditions(t *testing.T) {
	p := emptyParts()
	p.setHeader(nameTypeInfo, `{"type":null,"artifact_depends":{"a":"b"}}`)
	h := mustRead(t, p.build(), Options{}).header
	if !h.Empty || h.MatchesDevice("other") || !h.MatchesDevice("box") || len(h.Depends["a"]) != 1 {
		t.Errorf("header = %+v", h)
	}
	runSigned(t, []damage{{name: "no device types", make: emptyParts, kind: Format, want: "device_type", spoil: func(p *parts) {
		p.setHeader(nameHeaderInfo, strings.Replace(emptyInfo, `"device_type":["box"]`, ``, 1))
	}}})
}

// TestJSONSaysOneThing has documents in which two readers see two things.
func TestJSONSaysOneThing(t *testing.T) {
	var cases []damage
	for _, where := range []string{nameHeaderInfo, nameTypeInfo, nameMetaData} {
		for name, doc := range map[string]string{
			"two documents": "%s{}", "garbage": "%sx", "NUL": "%s\x00", "byte order mark": "\ufeff%s",
			"list": "[%s]", "nothing": "", "only blanks": "  ", "UTF-16": "{\x00}\x00",
		} {
			if where == nameMetaData && doc == "" {
				continue // no meta-data is legal
			}
			cases = append(cases, damage{name: where + "/" + name, kind: Format, spoil: func(p *parts) {
				for _, e := range p.header {
					if e.name == where {
						good := string(e.data)
						if good == "" {
							good = "{}"
						}
						p.setHeader(where, strings.Replace(doc, "%s", good, 1))
						return
					}
				}
			}})
		}
	}
	info := func(from, to string) func(*parts) {
		return func(p *parts) { p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, from, to, 1)) }
	}
	version := func(doc string) func(*parts) { return func(p *parts) { p.version = doc } }
	runSigned(t, append(cases, []damage{
		{name: "name twice", spoil: info(`"artifact_name"`, `"artifact_name":"a","artifact_name"`), kind: Format, want: "twice"},
		{name: "name twice, escaped", spoil: info(`"artifact_name"`, `"artifact\u005fname":"a","artifact_name"`), kind: Format, want: "twice"},
		{name: "devices twice", spoil: info(`"device_type"`, `"device_type":["x"],"device_type"`), kind: Format, want: "twice"},
		{name: "key in other case", spoil: info(`"artifact_name"`, `"Artifact_Name"`), kind: Format, want: "other keys"},
		{name: "key in two cases", spoil: info(`"artifact_name"`, `"ARTIFACT_NAME":"x","artifact_name"`), kind: Format, want: "other keys"},
		{name: "name missing", spoil: info(`"artifact_name":"rel-1"`, ``), kind: Format, want: "artifact_name"},
		{name: "name empty", spoil: info(`"rel-1"`, `""`), kind: Format, want: "artifact_name"},
		{name: "format missing", spoil: version(`{"version":3}`), kind: Format, want: "not a version file"},
		{name: "other format", spoil: version(`{"format":"other","version":3}`), kind: Format, want: "not a version file"},
		{name: "version twice", spoil: version(`{"format":"mender","version":1,"version":3}`), kind: Format, want: "twice"},
		{name: "two versions", spoil: version(`{"format":"mender","version":3}{"format":"mender","version":2}`), kind: Format, want: "not a JSON"},
	}...))
}

// TestNamesArePrintable has names that a state file or a log line cannot carry.
func TestNamesArePrintable(t *testing.T) {
	var cases []damage
	for name, text := range map[string]string{
		"NUL": `a\u0000b`, "newline": `a\nb`, "return": `a\rb`, "tab": `a\tb`, "escape": `\u001b[31m`, "delete": `a\u007f`, "C1": `a\u0085b`,
		"bidi": `a\u202eb`, "zero width": `a\u200bb`, "line separator": `a\u2028b`, "empty": ``, "long": strings.Repeat("x", maxTextSize+1),
	} {
		for field, good := range map[string]string{"name": `"rel-1"`, "device type": `"box"`} {
			cases = append(cases, damage{name: field + " " + name, kind: Format, spoil: func(p *parts) {
				p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, good, `"`+text+`"`, 1))
			}})
		}
		cases = append(cases, damage{name: "key " + name, kind: Format, spoil: func(p *parts) {
			p.setHeader(nameTypeInfo, `{"type":"","artifact_provides":{"`+text+`":"x"}}`)
		}})
	}
	runSigned(t, cases)
}

// TestLongClears reads a legal artifact whose pattern is longer than any key it
// is matched with, and one that clears everything.
func TestLongClears(t *testing.T) {
	for _, pattern := range []string{"*" + strings.Repeat("s", maxTextSize-1), "*", "**", "", "rootfs-image.*"} {
		b := written(t, artifacttest.Spec{Name: "rel", Clears: []string{pattern}, Files: []artifacttest.File{artifacttest.Bytes("f", payload)}})
		if h := mustRead(t, b, Options{}).header; !h.HasClears || len(h.ClearsProvides) != 1 || h.ClearsProvides[0] != pattern {
			t.Errorf("clears = %q, want %q", h.ClearsProvides, pattern)
		}
	}
}

// TestUnknownDeviceTypeMatchesNothing checks the answer for a device that does
// not know what it is, even against a header that nothing has checked.
func TestUnknownDeviceTypeMatchesNothing(t *testing.T) {
	for _, types := range [][]string{nil, {}, {""}, {"box", ""}, {"box"}} {
		if (&Header{DeviceTypes: types}).MatchesDevice("") {
			t.Errorf("device types %q match an unknown device", types)
		}
	}
}
