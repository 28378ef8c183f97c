package bootenv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const yamlOne = "uboot:\n  size: 0x400\n  devices:\n    - path: /e\n"

func TestParseYAML(t *testing.T) {
	one := FwEnvConfig{Copies: []Copy{{"/e", 0, 0x400}}}
	full := FwEnvConfig{
		Copies:    []Copy{{"/dev/mmcblk0", 0x40000, 0x4000}, {"/dev/mmcblk0", -0x8000, 0x4000}},
		Locks:     []string{"/run/env.lock"},
		WriteList: WriteList{"upgrade_available": "da", "mender_boot_part": "d", "free": ""},
	}
	const fullText = `---
# The boot loader's.
uboot:   # a namespace
  size : 0x4000
  lockfile: /run/env.lock # a comment

  writelist:
  - upgrade_available:da
  - mender_boot_part:d
  - 'free:'
  devices :
    - path : "/dev/mmcblk0"
      offset : 0x40000
      sectorsize : 512
      disablelock : yes
    -   offset : -0x8000
        path : /dev/mmcblk0
app:
  size: 1024
  devices:
  - path: /e
`
	tests := []struct {
		name, in, namespace string
		want                FwEnvConfig
	}{
		{"smallest", yamlOne, "", one},
		{"no final newline", strings.TrimSuffix(yamlOne, "\n"), "", one},
		{"line ends of DOS", strings.ReplaceAll(yamlOne, "\n", "\r\n"), "", one},
		{"first", fullText, "", full},
		{"by name", fullText, "uboot", full},
		{"second by name", fullText, "app", one},
		{"octal", strings.Replace(yamlOne, "0x400", "02000", 1), "", one},
		{"decimal", strings.Replace(yamlOne, "0x400", "1024", 1), "", one},
		{"hash inside a value", strings.Replace(yamlOne, "/e", "/e#1", 1), "", FwEnvConfig{Copies: []Copy{{"/e#1", 0, 0x400}}}},
		{"blank inside a value", strings.Replace(yamlOne, "/e", "/e 1", 1), "", FwEnvConfig{Copies: []Copy{{"/e 1", 0, 0x400}}}},
		{"colon inside a value", strings.Replace(yamlOne, "/e", "/dev/ubi0:env", 1), "", FwEnvConfig{Copies: []Copy{{"/dev/ubi0:env", 0, 0x400}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFwEnvConfig([]byte(tt.in), tt.namespace)
			if err != nil {
				t.Fatalf("ParseFwEnvConfig: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseFwEnvConfig (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseYAMLErrors(t *testing.T) {
	change := func(old, replacement string) string { return strings.Replace(yamlOne, old, replacement, 1) }
	device := func(line string) string { return yamlOne + "      " + line + "\n" }
	field := func(line string) string { return change("  devices", "  "+line+"\n  devices") }
	tests := []struct {
		name, in, namespace string
		text                string
		unsupported         bool
	}{
		{"no such namespace", yamlOne, "app", `no namespace "app"`, false},
		{"unknown key", field("sizes: 4"), "", `line 3: unknown key "sizes"`, false},
		{"unknown key of a device", device("unlock: yes"), "", `line 5: unknown key "unlock"`, false},
		{"in a namespace not asked for", yamlOne + "app:\n  x: 1\n", "uboot", `namespace "app": line 6: unknown key "x"`, false},
		{"namespace twice", yamlOne + yamlOne, "", "comes twice", false},
		{"key twice", field("size: 0x400"), "", `key "size" comes twice`, false},
		{"empty namespace", "uboot:\n", "", "want keys", false},
		{"namespace is a list", "uboot:\n  - size: 1\n", "", "want keys", false},
		{"no size", "uboot:\n  devices:\n    - path: /e\n", "", "size must come before", false},
		{"size after devices", "uboot:\n  devices:\n    - path: /e\n  size: 0x400\n", "", "size must come before", false},
		{"size zero", change("0x400", "0"), "", "size 0x0 ", false},
		{"negative size", change("0x400", "-1024"), "", "negative", false},
		{"size with a unit", change("0x400", "1k"), "", `"1k" is not a number`, false},
		{"huge size", change("0x400", "0x100001"), "", "too large", false},
		{"size is not hexadecimal without 0x", change("0x400", "40a"), "", "not a number", false},
		{"no devices", "uboot:\n  size: 0x400\n", "", "0 copies", false},
		{"devices without a list", "uboot:\n  size: 0x400\n  devices:\n", "", "0 devices", false},
		{"devices as a mapping", "uboot:\n  size: 0x400\n  devices:\n    path: /e\n", "", "0 devices", false},
		{"three devices", yamlOne + "    - path: /f\n    - path: /g\n", "", "3 devices", false},
		{"same bytes", yamlOne + "    - path: /e\n", "", "overlap", false},
		{"no path", change("path: /e", "offset: 0"), "", "no path", false},
		{"empty path", change("path: /e", "path:"), "", "want a value", false},
		{"empty offset", device("offset:"), "", "not a number", false},
		{"offset overflows", device("offset: 0x8000000000000000"), "", "too large", false},
		{"lock is not absolute", field("lockfile: x"), "", "absolute", false},
		{"disablelock", device("disablelock: true"), "", "neither yes nor no", false},
		{"writelist without items", field("writelist: a:b"), "", "not a list", false},
		{"writelist without flags", field("writelist:\n    - a"), "", "name:flags", false},
		{"writelist without a name", field("writelist:\n    - ':sr'"), "", "name:flags", false},
		{"writelist entry twice", field("writelist:\n    - a:s\n    - a:d"), "", "comes twice", false},
		{"wrong indentation", yamlOne + " x: 1\n", "", "line 5: unexpected indentation", false},
		{"item among keys", yamlOne + "  - x\n", "", "unexpected indentation", false},
		{"only the start of a document", "---\n", "", "empty", false},
		{"flow mapping", "uboot: {size: 4}\n", "", "line 1", true},
		{"flow sequence", change("\n    - path: /e", " [/e]"), "", "line 3", true},
		{"anchor", change("0x400", "&a 0x400"), "", "line 2", true},
		{"alias", change("0x400", "*a"), "", "line 2", true},
		{"tag", change("0x400", "!!int 4"), "", "line 2", true},
		{"block scalar", change("/e", "|\n        /e"), "", "line 4", true},
		{"two lines of a scalar", change("/e", "/e\n        more"), "", "line 5", false},
		{"two documents", yamlOne + "---\n" + yamlOne, "", "line 5", true},
		{"end of the document", yamlOne + "...\n", "", "line 5", true},
		{"tab as indentation", change("  size", "\tsize"), "", "line 2", true},
		{"escape", change("/e", `"/\x65"`), "", "line 4", true},
		{"open quote", change("/e", `"/e`), "", "line 4", true},
		{"text after a quote", change("/e", `"/e" x`), "", "line 4", true},
		{"key in quotes", change("size", `"size"`), "", "line 2", true},
		{"two keys in a line", change("0x400", "a: 0x400"), "", "line 2", true},
		{"item without a value", yamlOne + "    -\n", "", "line 5", true},
		{"too deep", "a:\n - - - - - - - x: 1\n", "", "line 2", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFwEnvConfig([]byte(tt.in), tt.namespace)
			if err == nil || !strings.HasPrefix(err.Error(), "parse fw_env.config: ") || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("ParseFwEnvConfig = %v, %v; want text %q", got, err, tt.text)
			}
			if errors.Is(err, ErrUnsupported) != tt.unsupported {
				t.Errorf("ParseFwEnvConfig: %v; want ErrUnsupported: %v", err, tt.unsupported)
			}
		})
	}
}

// TestWriteList: what the configuration does not list cannot be set, and what
// it does list only to values of its type.
func TestWriteList(t *testing.T) {
	tests := []struct {
		name string
		list WriteList
		pair Var
		ok   bool
	}{
		{"no list", nil, Var{"n", "1"}, true},
		{"empty list", WriteList{}, Var{"n", "1"}, false},
		{"listed", WriteList{"bootcount": "da"}, Var{"bootcount", "1"}, true},
		{"listed without flags", WriteList{"bootcount": ""}, Var{"bootcount", "x"}, true},
		{"removed", WriteList{"bootcount": "da"}, Var{"bootcount", ""}, true},
		{"not listed", WriteList{"bootcount": "da"}, Var{"n", "1"}, false},
		{"not listed, but set already", WriteList{"n": "da"}, Var{"bootcount", "0"}, true},
		{"wrong type", WriteList{"bootcount": "d"}, Var{"bootcount", "x"}, false},
		{"read-only", WriteList{"bootcount": "dr"}, Var{"bootcount", "1"}, false},
		{"write-once", WriteList{"bootcount": "so"}, Var{"bootcount", "1"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &disk{data: starts()["steady 5/4"]}
			u := openDisk(d, 2, binary.NativeEndian)
			u.writeList = tt.list
			before := slices.Clone(d.data)
			_, checked := u.Check(t.Context(), tt.pair)
			err := u.Update(t.Context(), tt.pair)
			if (err == nil) != tt.ok || (checked == nil) != tt.ok {
				t.Fatalf("Update = %v, Check = %v; want success: %v", err, checked, tt.ok)
			}
			if !tt.ok && (!errors.Is(err, ErrReadOnlyVar) || !slices.Equal(d.data, before)) {
				t.Errorf("Update = %v, want ErrReadOnlyVar and no write", err)
			}
		})
	}
}

// FuzzParseYAML checks that no input panics, that what is understood is valid,
// and that it reads the same when it is written plainly.
func FuzzParseYAML(f *testing.F) {
	f.Add(yamlOne, "")
	f.Add("a:\n  size : 020\n  lockfile: '/l'\n  writelist:\n  - x:sr\n  devices:\n  - path: \"/e\" # c\n    offset: -1\n", "a")
	f.Add("---\na:\n - - x\n", "")
	f.Add("a: {b: [c]}", "b")
	f.Fuzz(func(t *testing.T, in, namespace string) {
		if len(in) > maxConfigSize || !looksLikeYAML(in) {
			return
		}
		cfg, err := parseYAML(in, namespace)
		if err != nil {
			return
		}
		if err := validate(cfg.Copies); err != nil {
			t.Fatalf("parseYAML = %v, which is not valid: %v", cfg, err)
		}
		plain := plainYAML(cfg)
		if again, err := parseYAML(plain, ""); err != nil || !cmp.Equal(again, cfg) {
			t.Fatalf("parseYAML(%q) = %v, %v; want %v", plain, again, err, cfg)
		}
	})
}

func plainYAML(cfg FwEnvConfig) string {
	scalar := func(s string) string {
		if strings.Contains(s, `"`) {
			return "'" + s + "'"
		}
		return `"` + s + `"`
	}
	var b strings.Builder
	fmt.Fprintf(&b, "n:\n  size: %d\n", cfg.Copies[0].Size)
	for _, l := range cfg.Locks {
		fmt.Fprintf(&b, "  lockfile: %s\n", scalar(l))
	}
	if cfg.WriteList != nil {
		b.WriteString("  writelist:\n")
	}
	for name, flags := range cfg.WriteList {
		fmt.Fprintf(&b, "  - %s\n", scalar(name+":"+flags))
	}
	b.WriteString("  devices:\n")
	for _, c := range cfg.Copies {
		fmt.Fprintf(&b, "  - path: %s\n    offset: %d\n", scalar(c.Path), c.Offset)
	}
	return b.String()
}
