package artifact

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// readDifferently are the rows of the compatibility page, "Artifacts that are
// read differently": what an artifact is like, and what is said of it here.
func readDifferently() map[string]func(*parts) {
	script := func(name string) func(*parts) {
		return func(p *parts) { p.header[1].name = scriptsPrefix + name }
	}
	info := func(from, to string) func(*parts) {
		return func(p *parts) { p.setHeader(nameHeaderInfo, strings.Replace(goodInfo, from, to, 1)) }
	}
	typ := func(doc string) func(*parts) { return func(p *parts) { p.setHeader(nameTypeInfo, doc) } }
	const group = `"rel-1","artifact_group":"x"`
	return map[string]func(*parts){
		"state script with a name that is nearly right, `ArtifactInstall_Enter_00.sh` | refused": script("ArtifactInstall_Enter_00.sh"),
		"state script with a character in its name that does not print | refused":                script("ArtifactInstall_Enter_00_\u202e"),
		"`artifact_group` in header-info and in type-info | refused, unless both are the same": func(p *parts) {
			info(`"rel-1"`, group)(p)
			typ(`{"type":"","artifact_provides":{"artifact_group":"y"}}`)(p)
		},
		"`artifact_name` in type-info | refused": typ(`{"type":"","artifact_provides":{"artifact_name":"rel-1"}}`),
		"`null` for the group, or for provides, depends or clears of type-info | as if it was left out": func(p *parts) {
			info(`"rel-1"`, `"rel-1","artifact_group":null`)(p)
			typ(`{"type":"","artifact_provides":null,"artifact_depends":null,"clears_artifact_provides":null}`)(p)
		},
		"an empty list in `clears_artifact_provides` | clears nothing": typ(`{"type":"","clears_artifact_provides":[]}`),
		"other keys in `artifact_depends` of header-info | refused":    info(`"device_type"`, `"other":["x"],"device_type"`),
		"payload type that is no plain name, `my app` | refused": func(p *parts) {
			info(`"rootfs-image"`, `"my app"`)(p)
			typ(`{"type":"my app"}`)(p)
		},
		"type-info without `type` | refused":                       typ(`{}`),
		"type-info with another `type` than header-info | refused": typ(`{"type":"app"}`),
		"ECDSA signature in ASN.1 form | works":                    func(p *parts) { p.sign = signed(signDER) },
	}
}

// TestReadDifferently: each row of the page is about an artifact that is refused
// if the page says so, and read if not.
func TestReadDifferently(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Artifacts that are read differently\n")
	table, _, _ = strings.Cut(table, "\n## ")
	cases := readDifferently()
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || cells[0] == "| artifact" {
			continue
		}
		row := strings.TrimPrefix(cells[0], "| ") + " | " + cells[3]
		spoil, ok := cases[row]
		if !ok {
			t.Errorf("no test of the row %q", row)
			continue
		}
		delete(cases, row)
		p := rootfsParts()
		p.sign = signed(signRaw)
		spoil(p)
		a, err := Open(bytes.NewReader(p.build()), signedOnly(t))
		if refused := strings.HasPrefix(cells[3], "refused"); refused != (err != nil) {
			t.Errorf("row %q: Open: %v", row, err)
		}
		if strings.HasPrefix(cells[3], "clears nothing") && (a == nil || !a.Header().HasClears) {
			t.Errorf("row %q: it clears everything", row)
		}
	}
	for row := range cases {
		t.Errorf("the page has no row %q", row)
	}
}
