package bootenv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeStrings(t *testing.T) {
	tests := []struct {
		name string
		in   string
		list stringList
		all  map[string]string
	}{
		{"empty area", "", nil, map[string]string{}},
		{"empty list", "\x00\x00", nil, map[string]string{}},
		{"stale bytes", "a=1\x00\x00b=2\x00\x00", stringList{"a=1"}, map[string]string{"a": "1"}},
		{"no empty string", "a=1\x00b=2\x00", stringList{"a=1", "b=2"}, map[string]string{"a": "1", "b": "2"}},
		{"no last NUL", "a=1\x00b=2", stringList{"a=1", "b=2"}, map[string]string{"a": "1", "b": "2"}},
		{"equals signs", "a=b=c\x00b==\x00", stringList{"a=b=c", "b=="}, map[string]string{"a": "b=c", "b": "="}},
		{"last wins", "a=1\x00b=x\x00a=2\x00", stringList{"a=1", "b=x", "a=2"}, map[string]string{"a": "2", "b": "x"}},
		{"empty value removes", "a=1\x00b\x00a=\x00", stringList{"a=1", "b", "a="}, map[string]string{}},
		{"no name", "=v\x00a=1\x00", stringList{"=v", "a=1"}, map[string]string{"a": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list := decodeStrings([]byte(tt.in))
			if diff := cmp.Diff(tt.list, list); diff != "" {
				t.Errorf("decodeStrings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.all, list.all()); diff != "" {
				t.Errorf("all (-want +got):\n%s", diff)
			}
			for _, name := range []string{"a", "b", "c"} {
				if got := list.lookup(name); got != tt.all[name] {
					t.Errorf("lookup(%s) = %q, want %q", name, got, tt.all[name])
				}
			}
		})
	}
}

func TestWith(t *testing.T) {
	list := stringList{"a=1", "#c", "b=x\\;y", "a=2", "novalue", ".flags=ro:sr,once:so,dec:d,hex:xa,bool:b,ip:i"}
	tail := list[4:]
	tests := []struct {
		name  string
		pairs []Var
		want  stringList // nil: no change
		err   string
	}{
		{"nothing", nil, nil, ""},
		{"same value", []Var{{"a", "2"}, {"absent", ""}}, nil, ""},
		{"replace in place, drop duplicates", []Var{{"a", "3"}}, append(stringList{"a=3", "#c", "b=x\\;y"}, tail...), ""},
		{"append", []Var{{"n", "1"}}, append(slices.Clone(list), "n=1"), ""},
		{"remove", []Var{{"a", ""}}, append(stringList{"#c", "b=x\\;y"}, tail...), ""},
		{"last pair wins", []Var{{"n", "1"}, {"n", "2"}}, append(slices.Clone(list), "n=2"), ""},
		{"decimal", []Var{{"dec", "27"}, {"hex", "1B"}, {"bool", "1"}}, append(slices.Clone(list), "dec=27", "hex=1B", "bool=1"), ""},
		{"prefixed", []Var{{"hex", "0x1b"}}, append(slices.Clone(list), "hex=0x1b"), ""},
		{"read-only", []Var{{"ro", "1"}}, nil, "protected"},
		{"write-once", []Var{{"once", "1"}}, nil, "protected"},
		{"unchanged read-only", []Var{{"ro", ""}}, nil, ""},
		{"not decimal", []Var{{"dec", "1B"}}, nil, "type d"},
		{"not hexadecimal", []Var{{"hex", "g"}}, nil, "type x"},
		{"not boolean", []Var{{"bool", "2"}}, nil, "type b"},
		{"address", []Var{{"ip", "1"}}, nil, "type i"},
		{"flags themselves", []Var{{".flags", ""}}, nil, "protected"},
		{"no name", []Var{{"", "1"}}, nil, "name"},
		{"comment", []Var{{"#a", "1"}}, nil, "name"},
		{"leading blank", []Var{{" a", "1"}}, nil, "name"},
		{"equals sign in name", []Var{{"a=b", "1"}}, nil, "name"},
		{"line break", []Var{{"n", "1\nupgrade_available=1"}}, nil, "line break"},
		{"NUL", []Var{{"n", "1\x00"}}, nil, "NUL"},
		{"second is bad", []Var{{"n", "1"}, {"", "1"}}, nil, "name"},
	}
	before := slices.Clone(list)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, changed, err := list.with(tt.pairs)
			if !slices.Equal(list, before) {
				t.Fatal("with changed its receiver")
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("with: %v, want text %q", err, tt.err)
				}
				return
			}
			if err != nil || changed != (tt.want != nil) {
				t.Fatalf("with: changed %v, error %v", changed, err)
			}
			if changed && !slices.Equal(got, tt.want) {
				t.Errorf("with = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzDecodeStrings(f *testing.F) {
	f.Add([]byte("a=1\x00b=2\x00\x00stale"))
	f.Add([]byte("=\x00a"))
	f.Fuzz(func(t *testing.T, in []byte) {
		list := decodeStrings(in)
		if list.size() > len(in)+2 {
			t.Fatalf("%d bytes decode to a list of %d", len(in), list.size())
		}
		out := make([]byte, list.size()+3)
		list.encode(out)
		if again := decodeStrings(out); !slices.Equal(again, list) {
			t.Fatalf("second read = %q, first = %q", again, list)
		}
		for name, value := range list.all() {
			if got := list.lookup(name); got != value {
				t.Fatalf("lookup(%q) = %q, all has %q", name, got, value)
			}
		}
	})
}

// FuzzUpdate checks that an update is refused without a write, or is what the
// reader reads afterwards, with everything else as it was.
func FuzzUpdate(f *testing.F) {
	f.Add([]byte("a=1\x00b=2\x00"), "a", "2")
	f.Add([]byte("\x00"), "mender_boot_part", "3")
	f.Add([]byte(".flags=a:dr\x00"), "a", "")
	f.Add([]byte("a=1\x00a=2\x00=v\x00"), "a", "1")
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		l := layout{redundant: true, order: binary.NativeEndian}
		list := decodeStrings(data)
		if list.size() > envSize-l.header() {
			t.Skip()
		}
		image := l.encode(list, 1, envSize)
		d := &disk{data: slices.Concat(image, image)}
		u := openDisk(d, 2, binary.NativeEndian)
		start := slices.Clone(d.data)
		err := u.Update(t.Context(), Var{name, value})
		got, readErr := u.Get(t.Context())
		if readErr != nil {
			t.Fatalf("Get: %v", readErr)
		}
		want := list.all()
		if err != nil {
			if !slices.Equal(d.data, start) {
				t.Fatalf("Update: %v, but the medium changed", err)
			}
		} else if want[name] = value; value == "" {
			delete(want, name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Get after Update (-want +got):\n%s", diff)
		}
		if !slices.Equal(d.data[:envSize], start[:envSize]) {
			t.Fatal("the copy in force changed")
		}
	})
}

// FuzzImage reads arbitrary copies and updates them: whatever the reader
// accepts it also accepts after an update, with the new value and all others,
// and whatever it refuses is left alone.
func FuzzImage(f *testing.F) {
	f.Add([]byte("....\x05a=1\x00\x00"), []byte("....\x06a=2\x00b"), byte(3), "a", "3")
	f.Add([]byte("....\xffa=1\x00\x00"), []byte("....\x00a=2\x00"), byte(2), "b", "")
	f.Add([]byte{}, bytes.Repeat([]byte{0xff}, 300), byte(1), "b", "1")
	f.Fuzz(func(t *testing.T, first, second []byte, good byte, name, value string) {
		const size = 256
		l := layout{redundant: true, order: binary.LittleEndian}
		d := &disk{data: make([]byte, 2*size)}
		for i, b := range [][]byte{first, second} {
			image := d.data[i*size:][:size]
			copy(image, b)
			if good>>i&1 == 1 {
				l.order.PutUint32(image, crc32.ChecksumIEEE(image[l.header():]))
			}
		}
		start := bytes.Clone(d.data)
		u := openDisk(d, 2, l.order)
		u.copies = []Copy{{"disk", 0, size}, {"disk", size, size}}
		now, err := u.read(false)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("read: %v, want ErrCorrupt", err)
			}
			if err := u.Update(t.Context(), Var{name, value}); err == nil || !bytes.Equal(d.data, start) {
				t.Fatalf("Update of what cannot be read: %v", err)
			}
			return
		}
		if now.list.size() <= size-l.header() {
			again := decodeStrings(l.encode(now.list, 0, size)[l.header():])
			if !slices.Equal(again, now.list) {
				t.Fatalf("decode(encode) = %q, want %q", again, now.list)
			}
		}
		want := now.list.all()
		if err := u.Update(t.Context(), Var{name, value}); err == nil {
			if want[name] = value; value == "" {
				delete(want, name)
			}
		} else if !bytes.Equal(d.data, start) {
			t.Fatalf("Update: %v, but the medium changed", err)
		}
		got, err := u.Get(t.Context())
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Get (-want +got):\n%s", diff)
		}
	})
}

func TestNewer(t *testing.T) {
	tests := []struct {
		first, second byte
		want          int
	}{
		{0, 0, 0},
		{1, 1, 0},
		{255, 255, 0},
		{1, 2, 1},
		{2, 1, 0},
		{254, 255, 1},
		{255, 0, 1},
		{0, 255, 0},
		{255, 1, 0},
		{1, 255, 1},
		{254, 0, 0},
		{200, 10, 0},
		{10, 200, 1},
	}
	for _, tt := range tests {
		if got := newer(tt.first, tt.second); got != tt.want {
			t.Errorf("newer(%d, %d) = %d, want %d", tt.first, tt.second, got, tt.want)
		}
	}
	for f := range 256 { // what an update writes must be newer than both
		if newer(byte(f), byte(f+1)) != 1 || newer(byte(f+1), byte(f)) != 0 {
			t.Errorf("the copy written after flag %d is not newer", f)
		}
	}
}

func TestByteOrder(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		l := layout{redundant: true, order: order}
		image := l.encode(environment("2", "0", "0"), 1, envSize)
		u := openDisk(&disk{data: slices.Concat(image, image)}, 2, order)
		if err := u.Update(t.Context(), armPairs...); err != nil {
			t.Fatalf("%v: %v", order, err)
		}
		if got, err := u.Get(t.Context(), "mender_boot_part"); err != nil || got["mender_boot_part"] != "3" {
			t.Errorf("%v: Get = %v, %v", order, got, err)
		}
	}
	// The CRC-32 of "123456789" is 0xcbf43926 (source: any CRC catalog).
	data := "123456789"
	if layout := (layout{order: binary.BigEndian}); layout.check([]byte("\xcb\xf4\x39\x26"+data)) != nil {
		t.Error("big-endian CRC is refused")
	}
	if layout := (layout{order: binary.LittleEndian}); layout.check([]byte("\x26\x39\xf4\xcb"+data)) != nil {
		t.Error("little-endian CRC is refused")
	}
}

func TestHint(t *testing.T) {
	list := environment("2", "0", "0")
	little := binary.ByteOrder(binary.LittleEndian)
	redundant, single := layout{true, little}, layout{false, little}
	torn := redundant.encode(list, 1, envSize)
	torn[100]++
	tests := []struct {
		name  string
		as    layout
		image []byte
		want  string
	}{
		{"erased", redundant, slices.Repeat([]byte{0xff}, envSize), "never saved"},
		{"zeros", single, make([]byte, envSize), "never saved"},
		{"other order", layout{true, binary.BigEndian}, redundant.encode(list, 1, envSize), "byte order"},
		{"one copy read as two", redundant, single.encode(list, 0, envSize), "one copy"},
		{"two copies read as one", single, redundant.encode(list, 1, envSize), "one of two copies"},
		{"damaged", redundant, torn, "bad CRC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.as.check(tt.image)
			if !errors.Is(err, ErrCorrupt) || !strings.HasPrefix(err.Error(), "bad CRC") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check = %v, want %q", err, tt.want)
			}
		})
	}
}
