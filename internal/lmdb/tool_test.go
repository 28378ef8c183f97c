package lmdb

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"
)

// tool runs one of liblmdb's programs on a database file.
func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		tier.Device.Lack(t, name+" (Debian package lmdb-utils)")
	}
	cmd := exec.CommandContext(t.Context(), name, append([]string{"-n"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// toDump returns kv in the format that mdb_load reads.
func toDump(kv map[string][]byte) string {
	var b strings.Builder
	b.WriteString("VERSION=3\nformat=bytevalue\ntype=btree\nmapsize=16777216\nHEADER=END\n")
	for _, key := range slices.Sorted(maps.Keys(kv)) {
		fmt.Fprintf(&b, " %x\n %x\n", key, kv[key])
	}
	b.WriteString("DATA=END\n")
	return b.String()
}

// fromDump parses what mdb_dump prints.
func fromDump(t *testing.T, dump string) map[string][]byte {
	t.Helper()
	_, data, ok := strings.Cut(dump, "HEADER=END\n")
	data, ok2 := strings.CutSuffix(data, "DATA=END\n")
	if !ok || !ok2 {
		t.Fatalf("mdb_dump: %.200q", dump)
	}
	kv, key := map[string][]byte{}, []byte(nil)
	for line := range strings.Lines(data) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if key == nil {
			key = b
			continue
		}
		kv[string(key)], key = b, nil
	}
	return kv
}

func equal(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// TestWithTools lets this package and liblmdb write in turn, and both read.
func TestWithTools(t *testing.T) {
	mixed := numbered(500, 100)
	mixed["large"] = bytes.Repeat([]byte("large"), 20000)
	mixed["just too large"] = bytes.Repeat([]byte("x"), 2100)
	mixed["larger"] = bytes.Repeat([]byte("larger"), 30000)
	long := map[string][]byte{}
	for i := range 60 { // three levels
		long[fmt.Sprintf("%03d%s", i, strings.Repeat("k", maxKey-3))] = []byte("value")
	}
	for name, kv := range map[string]map[string][]byte{"empty": {}, "mender": mender(), "mixed": mixed, "long keys": long} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			// The word size of the tools need not be that of the test.
			tool(t, toDump(nil), "mdb_load", path)
			_, layout := decodeFile(t, path)
			if err := os.WriteFile(path, mustEncode(t, kv, layout), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := fromDump(t, tool(t, "", "mdb_dump", path)); !equal(got, kv) {
				t.Errorf("mdb_dump read %d keys, not the %d that were written", len(got), len(kv))
			}
			// Change what is there, and add enough to split pages.
			change := map[string][]byte{"artifact-name": []byte("release-2"), "large": []byte("small now")}
			for i := 250; i < 900; i++ {
				change[fmt.Sprintf("key-%05d", i)] = fmt.Appendf(nil, "new %d", i)
				change[fmt.Sprintf("%03d%s", i, strings.Repeat("k", maxKey-3))] = []byte("new")
			}
			tool(t, toDump(change), "mdb_load", path)
			want := maps.Clone(kv)
			maps.Copy(want, change)

			got, layout := decodeFile(t, path)
			if !equal(got, want) {
				t.Errorf("after mdb_load: %d keys, not the %d that are wanted", len(got), len(want))
			}
			if err := os.WriteFile(path, mustEncode(t, got, layout), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := fromDump(t, tool(t, "", "mdb_dump", path)); !equal(got, want) {
				t.Errorf("mdb_dump read %d keys, not the %d that were written again", len(got), len(want))
			}
		})
	}
}

// TestMetaPage compares what a meta page says of the database with what
// liblmdb's own says, for the same keys.
func TestMetaPage(t *testing.T) {
	kv := mender()
	for i := 2000; i < 2100; i++ { // around the largest value that a leaf holds
		kv[fmt.Sprintf("key-%05d", i)] = make([]byte, i)
	}
	kv["large"] = make([]byte, 100000)
	dir := t.TempDir()
	theirPath, ourPath := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	tool(t, toDump(kv), "mdb_load", theirPath)
	theirs, err := os.ReadFile(theirPath)
	if err != nil {
		t.Fatal(err)
	}
	_, l := decodeFile(t, theirPath)
	ours := mustEncode(t, kv, l)

	free := l.header() + 8 + 2*l.WordSize
	// Page size and key order. The high flags say how the tool opened the file.
	if got, want := ours[free:][:5], theirs[free:][:5]; !bytes.Equal(got, want) {
		t.Errorf("the free list's record begins with %x, want %x", got, want)
	}
	if err := os.WriteFile(ourPath, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	got, want := tool(t, "", "mdb_stat", ourPath), tool(t, "", "mdb_stat", theirPath)
	for _, field := range []string{"Tree depth: ", "Overflow pages: ", "Entries: "} { // leaves may be fuller
		g, w := stat(t, got, field), stat(t, want, field)
		if g != w {
			t.Errorf("mdb_stat: %s%s, want %s", field, g, w)
		}
	}
}

func stat(t *testing.T, out, field string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, field)
	if !ok {
		t.Fatalf("mdb_stat: %q", out)
	}
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func decodeFile(t *testing.T, path string) (map[string][]byte, Layout) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kv, l, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return kv, l
}

// TestLiblmdbFiles reads files that liblmdb 0.9.24 wrote in two transactions,
// on a 32-bit and on a 64-bit system: key-00000 to key-00399, and a large
// value.
func TestLiblmdbFiles(t *testing.T) {
	want := map[string][]byte{"large": bytes.Repeat([]byte("x"), 10000)}
	for i := range 400 {
		want[fmt.Sprintf("key-%05d", i)] = fmt.Appendf(nil, "value-%d", i)
	}
	for name, word := range map[string]int{"i386.mdb.gz": 4, "amd64.mdb.gz": 8} {
		t.Run(name, func(t *testing.T) {
			packed, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			z, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			kv, l, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if !equal(kv, want) {
				t.Errorf("%d keys, not the %d that are wanted", len(kv), len(want))
			}
			if wantLayout := (Layout{WordSize: word, PageSize: 4096, MapSize: 4 << 20}); l != wantLayout {
				t.Errorf("layout = %+v, want %+v", l, wantLayout)
			}
		})
	}
}
