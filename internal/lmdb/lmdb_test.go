package lmdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mender() map[string][]byte {
	return map[string][]byte{
		"artifact-name":     []byte("release-1"),
		"artifact-provides": []byte(`{"rootfs-image.version":"release-1"}`),
		"empty":             {},
		"standalone-state":  []byte(`{"Version":1}`),
	}
}

// numbered has n keys with values of the given size.
func numbered(n, size int) map[string][]byte {
	kv := map[string][]byte{}
	for i := range n {
		kv[fmt.Sprintf("key-%05d", i)] = bytes.Repeat([]byte{byte(i)}, size)
	}
	return kv
}

func mustEncode(tb testing.TB, kv map[string][]byte, l Layout) []byte {
	tb.Helper()
	b, err := Encode(kv, l)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func layouts() []Layout {
	var out []Layout
	for _, word := range []int{4, 8} {
		for size := minPage; size <= maxPage; size *= 2 {
			out = append(out, Layout{WordSize: word, PageSize: size, MapSize: 64 << 20})
		}
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	long := map[string][]byte{}
	for i := range 400 {
		key := fmt.Sprintf("%04d", i)
		long[key+strings.Repeat("k", 60)] = []byte(key)
	}
	for name, kv := range map[string]map[string][]byte{
		"empty":            {},
		"mender":           mender(),
		"several leaves":   numbered(300, 100),
		"most keys":        numbered(maxKeys, 10),
		"long keys":        long,
		"overflow pages":   numbered(3, 40000),
		"one page exactly": numbered(1, 4096-16),
		"one byte more":    numbered(1, 4096-16+1),
	} {
		for _, l := range layouts() {
			t.Run(fmt.Sprintf("%s/%d/%d", name, l.WordSize, l.PageSize), func(t *testing.T) {
				b := mustEncode(t, kv, l)
				got, gotLayout, err := Decode(b)
				if err != nil {
					t.Fatal(err)
				}
				if !maps.EqualFunc(got, kv, bytes.Equal) {
					t.Errorf("%d keys, or their values, are not the %d that went in", len(got), len(kv))
				}
				if gotLayout != l {
					t.Errorf("layout = %+v, want %+v", gotLayout, l)
				}
				checkBranches(t, b, l)
			})
		}
	}
}

// checkBranches checks what liblmdb asserts of each branch page: two nodes at
// least.
func checkBranches(t *testing.T, b []byte, l Layout) {
	t.Helper()
	for offset := 2 * l.PageSize; offset < len(b); {
		page := b[offset:][:l.PageSize]
		lower := int(binary.LittleEndian.Uint16(page[l.WordSize+4:]))
		switch l.flags(page) {
		case pageBranch:
			if n := (lower - l.header()) / 2; n < 2 {
				t.Errorf("branch page at %d has %d nodes", offset, n)
			}
		case pageOverflow:
			offset += (int(binary.LittleEndian.Uint32(page[l.WordSize+4:])) - 1) * l.PageSize
		}
		offset += l.PageSize
	}
}

// TestBranchCounts goes over every number of leaves that can leave one node
// alone on a branch page.
func TestBranchCounts(t *testing.T) {
	l := Layout{WordSize: 8, PageSize: minPage, MapSize: minMap}
	kv := map[string][]byte{}
	for i := range 200 {
		kv[fmt.Sprintf("%03d%s", i, strings.Repeat("k", l.maxKey()-3))] = []byte("v")
		b := mustEncode(t, kv, l)
		checkBranches(t, b, l)
		if got, _, err := Decode(b); err != nil || len(got) != len(kv) {
			t.Fatalf("%d keys: read %d, %v", len(kv), len(got), err)
		}
	}
}

func TestEmptyFile(t *testing.T) {
	kv, l, err := Decode(nil)
	if err != nil || len(kv) != 0 || l != Native() {
		t.Errorf("Decode(nil) = %v, %+v, %v", kv, l, err)
	}
}

func TestMapSize(t *testing.T) {
	tests := []struct {
		name string
		word int
		in   uint64
		size int // of a value
		want uint64
	}{
		{"at least the default", 8, 0, 1, minMap},
		{"kept", 8, 10 << 20, 1, 10 << 20},
		{"whole pages", 8, minMap + 1, 1, minMap + mapAlign},
		{"room for updates", 8, 0, 2 << 20, 4<<20 + mapAlign},
		{"more than 32 bits", 4, 1 << 32, 1, maxMap},
		{"nonsense", 8, ^uint64(0), 1, maxMap},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := mustEncode(t, numbered(1, tt.size), Layout{WordSize: tt.word, PageSize: 4096, MapSize: tt.in})
			_, l, err := Decode(b)
			if err != nil || l.MapSize != tt.want {
				t.Errorf("map size = %d, %v, want %d", l.MapSize, err, tt.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	small := Layout{WordSize: 8, PageSize: minPage}
	tests := []struct {
		name string
		kv   map[string][]byte
		l    Layout
	}{
		{"no key", map[string][]byte{"": nil}, Native()},
		{"long key", map[string][]byte{strings.Repeat("k", maxKey+1): nil}, Native()},
		{"long key for the page", map[string][]byte{strings.Repeat("k", minPage/4+1): nil}, small},
		{"too many keys", numbered(maxKeys+1, 0), Native()},
		{"too much", numbered(2, MaxFile/2), Native()},
		{"too much in leaves", numbered(1200, 15000), Layout{WordSize: 8, PageSize: maxPage}},
		{"word size", nil, Layout{WordSize: 2, PageSize: 4096}},
		{"page size", nil, Layout{WordSize: 8, PageSize: 4097}},
		{"page too large", nil, Layout{WordSize: 8, PageSize: 2 * maxPage}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if b, err := Encode(tt.kv, tt.l); err == nil {
				t.Errorf("Encode: %d bytes, want an error", len(b))
			}
		})
	}
}

// at returns b with the bytes at offset overwritten.
func at(b []byte, offset int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[offset:], with)
	return b
}

// nodeOf returns the offset of a key's node.
func nodeOf(t *testing.T, b []byte, key string) int {
	t.Helper()
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		t.Fatalf("no key %q", key)
	}
	return i - nodeHead
}

func TestDamage(t *testing.T) {
	const page, header, metaSize = 4096, 16, 16 + 24 + 2*48 + 16
	l := Layout{WordSize: 8, PageSize: page, MapSize: minMap}
	leaf := mustEncode(t, mender(), l)           // root: page 2
	big := mustEncode(t, numbered(1, 5000), l)   // run: pages 2 and 3; root: page 4
	tree := mustEncode(t, numbered(100, 100), l) // leaves from page 2, root last
	root, name := len(tree)-page, nodeOf(t, leaf, "artifact-name")
	bigNode := nodeOf(t, big, "key-00000")
	second := root + int(binary.LittleEndian.Uint16(tree[root+header+2:])) // child of the branch page
	mainRecord := page + header + 24 + 48

	tests := []struct {
		name string
		in   []byte
		off  int
	}{
		{"not a database", []byte("hello, world"), 0},
		{"text", bytes.Repeat([]byte("hello, world"), 1000), 0},
		{"zeros", make([]byte, 3*page), 0},
		{"too large", make([]byte, MaxFile+1), 0},
		{"cut in the meta pages", leaf[:metaSize-1], 0},
		{"both magic numbers", at(at(leaf, header, 0), page+header, 0), 0},
		{"page size", at(at(leaf, header+24, 1), page+header+24, 1), 0},
		{"sorted sets", at(leaf, mainRecord+4, 4), 0},
		{"cut before the root", leaf[:2*page], 0},
		{"root is a meta page", at(leaf, mainRecord+40, 1), 0},
		{"root is far away", at(leaf, mainRecord+40, 2, 0, 0, 0, 0, 0, 0, 1), 0},
		{"page has another number", at(leaf, 2*page, 3), 2 * page},
		{"page is of no kind", at(leaf, 2*page+10, 0), 2 * page},
		{"page is of two kinds", at(leaf, 2*page+10, pageLeaf|pageBranch), 2 * page},
		{"fixed-size leaf", at(leaf, 2*page+10, pageLeaf|0x20), 2 * page},
		{"lower bound in the header", at(leaf, 2*page+12, 1, 0), 2 * page},
		{"lower bound outside", at(leaf, 2*page+12, 1, 0x10), 2 * page},
		{"node in the header", at(leaf, 2*page+16, 1, 0), 2*page + 16},
		{"node outside", at(leaf, 2*page+16, 0xff, 0x0f), 2*page + 16},
		{"empty key", at(leaf, name+6, 0, 0), name},
		{"long key", at(leaf, name+6, 0xff, 0x01), name},
		{"huge key", at(leaf, name+6, 0, 2), name},
		{"value outside", at(leaf, name, 0xff, 0xff, 0xff, 0xff), name},
		{"value a little outside", at(leaf, name, 0x01, 0x10), name},
		{"value is a database", at(leaf, name+4, nodeSub), name},
		{"overflow page outside", at(big, bigNode+8+9, 99), bigNode},
		{"overflow page is the leaf", at(big, bigNode+8+9, 4), bigNode},
		{"overflow page is none", at(big, 2*page+10, pageLeaf), 2 * page},
		{"overflow run outside", at(big, 2*page+12, 99), 2 * page},
		{"overflow run of none", at(big, 2*page+12, 0), 2 * page},
		{"value larger than its run", at(big, bigNode, 0xff, 0xff), bigNode},
		{"branch to itself", at(tree, second, byte(root/page)), 0},
		{"branch to a leaf twice", at(tree, second, 2), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Decode(tt.in)
			fe, ok := errors.AsType[*FormatError](err)
			if !ok {
				t.Fatalf("Decode: %v (%T), want a *FormatError", err, err)
			}
			if fe.Offset != tt.off {
				t.Errorf("Decode: %v, want offset %d", err, tt.off)
			}
		})
	}
}

// TestSalvage checks that one damaged node costs one key.
func TestSalvage(t *testing.T) {
	b := mustEncode(t, mender(), Native())
	kv, _, err := Decode(at(b, nodeOf(t, b, "standalone-state"), 0xff, 0xff))
	if err == nil {
		t.Fatal("no error")
	}
	want := mender()
	delete(want, "standalone-state")
	if diff := cmp.Diff(want, kv); diff != "" {
		t.Error(diff)
	}
}

// TestMetaPages checks that the newer meta page holds, and that the other one
// serves where it is damaged.
func TestMetaPages(t *testing.T) {
	for _, word := range []int{4, 8} {
		l := Layout{WordSize: word, PageSize: 4096, MapSize: minMap}
		full := mustEncode(t, mender(), l)
		rootAt := l.header() + 8 + 2*word + l.record() + 8 + 4*word // in the meta page
		none := bytes.Repeat([]byte{0xff}, word)
		emptyOne := at(full, l.PageSize+rootAt, none...) // transaction 1
		emptyZero := at(full, rootAt, none...)           // transaction 0
		txnAt := l.header() + 8 + 2*word + 2*l.record() + word
		tests := []struct {
			name string
			in   []byte
			keys int
		}{
			{"page 1 is newer", emptyOne, 0},
			{"page 1 is newer and has the keys", emptyZero, 4},
			{"page 0 is newer", at(emptyOne, txnAt, 2), 4},
			{"page 1 is damaged", at(emptyOne, l.PageSize+l.header(), 0), 4},
			{"page 0 is damaged", at(emptyZero, l.header(), 0), 4},
			{"page 1 has another page size", at(emptyOne, l.PageSize+l.header()+8+2*word, 0, 2), 4},
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%d/%s", word, tt.name), func(t *testing.T) {
				kv, got, err := Decode(tt.in)
				if err != nil || len(kv) != tt.keys || got != l {
					t.Errorf("Decode: %d keys, %+v, %v, want %d keys, %+v", len(kv), got, err, tt.keys, l)
				}
			})
		}
	}
}

// TestOverlap points each of many nodes at the same large value: what is read
// must not be more than the file.
func TestOverlap(t *testing.T) {
	l := Layout{WordSize: 8, PageSize: maxPage, MapSize: minMap}
	b := mustEncode(t, numbered(1000, 10), l)
	for i := range 1000 { // each value reaches from its node to the end of the page
		node := nodeOf(t, b, fmt.Sprintf("key-%05d", i))
		room := l.PageSize - node%l.PageSize - nodeHead - len("key-00000")
		binary.LittleEndian.PutUint32(b[node:], uint32(room))
	}
	kv, _, err := Decode(b)
	if err == nil {
		t.Error("no error")
	}
	total := 0
	for k, v := range kv {
		total += len(k) + len(v)
	}
	if total > len(b) {
		t.Errorf("read %d bytes out of %d", total, len(b))
	}
}

func TestDecodeDoesNotAlias(t *testing.T) {
	b := mustEncode(t, mender(), Native())
	kv, _, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if diff := cmp.Diff(mender(), kv); diff != "" {
		t.Error(diff)
	}
}

// FuzzDecode checks that no input panics, that every error is a FormatError,
// that what is read is bounded by the file, and that what decodes survives a
// write and a read unchanged.
func FuzzDecode(f *testing.F) {
	for _, word := range []int{4, 8} {
		l := Layout{WordSize: word, PageSize: minPage, MapSize: minMap}
		for _, kv := range []map[string][]byte{nil, {"artifact-name": []byte("release-1")}, numbered(1, 600), numbered(30, 20)} {
			f.Add(mustEncode(f, kv, l))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		kv, l, err := Decode(in)
		total := 0
		for k, v := range kv {
			total += len(k) + len(v)
		}
		if total > len(in) {
			t.Fatalf("read %d bytes out of %d", total, len(in))
		}
		if err != nil {
			if _, ok := errors.AsType[*FormatError](err); !ok {
				t.Fatalf("error is %T, want *FormatError: %v", err, err)
			}
			return
		}
		out, err := Encode(kv, l)
		if err != nil {
			t.Skip() // keys too long for a small page
		}
		again, _, err := Decode(out)
		if err != nil || !maps.EqualFunc(again, kv, bytes.Equal) {
			t.Fatalf("second read = %q, %v; first = %q", again, err, kv)
		}
	})
}
