package bootenv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

// block returns a block with this text after the signature.
func block(text string) []byte {
	b := append([]byte(grubSignature), text...)
	return append(b, bytes.Repeat([]byte{'#'}, max(0, grubBlockSize-len(b)))...)
}

func TestDecodeGRUBBlock(t *testing.T) {
	tests := []struct {
		name   string
		in     []byte
		want   map[string]string // also with an error: what GRUB reads
		errOff int               // -1: no error
	}{
		{"empty", block(""), map[string]string{}, -1},
		{"variables", block("a=1\nb=2\n"), map[string]string{"a": "1", "b": "2"}, -1},
		{"equals sign in value", block("a=b=c\n"), map[string]string{"a": "b=c"}, -1},
		{"spaces", block("a= b \n"), map[string]string{"a": " b "}, -1},
		{"escapes", block("a=\\\\x\\\ny\nb=\\#\n"), map[string]string{"a": "\\x\ny", "b": "#"}, -1},
		{"comment", block("# x=1\na=1\n#\nb=2\n"), map[string]string{"a": "1", "b": "2"}, -1},
		{"comment that goes on", block("# x\\\ny=1\na=1\n"), map[string]string{"a": "1"}, -1},
		{"filler at the end of a value", block("a=##\n"), map[string]string{"a": "##"}, -1},
		{"last of two", block("a=1\na=2\n"), map[string]string{"a": "2"}, -1},
		{"no value", block("a=1\na=\n"), map[string]string{}, -1},
		{"full", block("a=" + strings.Repeat("x", grubBlockSize-25-3) + "\n"), map[string]string{"a": strings.Repeat("x", grubBlockSize-25-3)}, -1},
		{"no signature", make([]byte, grubBlockSize), map[string]string{}, 0},
		{"nothing", nil, map[string]string{}, 0},
		{"no equals sign", block("a=1\nb\nc=3\n"), map[string]string{"a": "1"}, 29},
		{"empty line", block("a=1\n\nc=3\n"), map[string]string{"a": "1"}, 29},
		{"no name", block("=b\n"), map[string]string{}, 25},
		{"NUL", block("a=\x00\n"), map[string]string{}, 25},
		{"no line end", block("a=1\nb=2"), map[string]string{"a": "1"}, 29},
		{"line end is escaped", block("a=1\nb=2\\\n"), map[string]string{"a": "1"}, 29},
		{"comment without end", block("a=1\n#b"), map[string]string{"a": "1"}, 29},
		{"short", block("a=1\n")[:512], map[string]string{"a": "1"}, 512},
		{"long", append(block("a=1\n"), '#'), map[string]string{"a": "1"}, 1024},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeGRUBBlock(tt.in)
			off := -1
			if be, ok := errors.AsType[*blockError](err); ok {
				off = be.offset
			}
			if off != tt.errOff || (err != nil) != errors.Is(err, ErrCorrupt) {
				t.Fatalf("decodeGRUBBlock: error %v, want offset %d", err, tt.errOff)
			}
			if diff := cmp.Diff(tt.want, got.all()); diff != "" {
				t.Errorf("decodeGRUBBlock (-want +got):\n%s", diff)
			}
			if err != nil {
				return
			}
			if out, err := got.encode(); err != nil || !bytes.Equal(out, tt.in) {
				t.Errorf("encode = %q, %v, want %q", out, err, tt.in)
			}
		})
	}
}

func TestGRUBBlockWith(t *testing.T) {
	tests := []struct {
		name    string
		in      string
		pairs   []Var
		want    string
		changed bool
	}{
		{"nothing", "a=1\n", nil, "a=1\n", false},
		{"same", "a=1\n", []Var{{"a", "1"}}, "a=1\n", false},
		{"in place", "a=1\n# c\nb=2\n", []Var{{"a", "10"}}, "a=10\n# c\nb=2\n", true},
		{"new", "# c\n", []Var{{"a", "1"}}, "# c\na=1\n", true},
		{"remove", "a=1\nb=2\n", []Var{{"a", ""}}, "b=2\n", true},
		{"remove nothing", "a=\n", []Var{{"a", ""}, {"b", ""}}, "a=\n", false},
		{"one of two", "a=2\nb=2\na=1\n", []Var{{"a", "1"}}, "a=1\nb=2\n", true},
		{"escape", "", []Var{{"a", `\`}}, "a=\\\\\n", true},
		{"spelling survives", "a=\\1\n", []Var{{"a", "1"}}, "a=\\1\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := block(tt.in)
			g, err := decodeGRUBBlock(in)
			if err != nil {
				t.Fatal(err)
			}
			got, changed, err := g.with(tt.pairs)
			if err != nil {
				t.Fatal(err)
			}
			out, err := got.encode()
			if err != nil {
				t.Fatal(err)
			}
			if want := block(tt.want); !bytes.Equal(out, want) || changed != tt.changed {
				t.Errorf("with(%q) = %q, %v, want %q, %v", tt.pairs, out, changed, want, tt.changed)
			}
			if again, err := g.encode(); err != nil || !bytes.Equal(again, in) {
				t.Error("with changed its receiver")
			}
		})
	}
}

// FuzzGRUBBlock checks that what decodes encodes to the same bytes, that GRUB's
// model reads the same variables, and that an update does what it says.
func FuzzGRUBBlock(f *testing.F) {
	for _, text := range []string{"", "a=1\nb=2\n", "# x\na=\\\\\\\ny\n", "a=1\na=2\n", "a\\=1\n", "\\\n=1\n", "=\n", "a=\x00\n"} {
		f.Add([]byte(text), "a", "x\\y")
	}
	f.Fuzz(func(t *testing.T, text []byte, name, value string) {
		in := block(string(text))
		g, err := decodeGRUBBlock(in)
		if err != nil {
			be, ok := errors.AsType[*blockError](err)
			if !ok || be.offset < 0 || be.offset > len(in) {
				t.Fatalf("error is %T, want *blockError inside the block: %v", err, err)
			}
			return
		}
		out, err := g.encode()
		if err != nil || !bytes.Equal(out, in) {
			t.Fatalf("encode = %q, %v, want the input", out, err)
		}
		same := func(b []byte, want map[string]string) {
			t.Helper()
			vars := grubtest.Vars(b)
			maps.DeleteFunc(vars, func(_, v string) bool { return v == "" })
			if diff := cmp.Diff(want, vars); diff != "" {
				t.Fatalf("GRUB (-want +got):\n%s", diff)
			}
		}
		want := g.all()
		same(in, want)
		changed, _, err := g.with([]Var{{name, value}})
		if err != nil {
			return
		}
		if out, err = changed.encode(); err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			return
		}
		if want[name] = value; value == "" {
			delete(want, name)
		}
		same(out, want)
		if again, err := decodeGRUBBlock(out); err != nil || !maps.Equal(again.all(), want) {
			t.Fatalf("second read = %q, %v, want %q", again.all(), err, want)
		}
	})
}

// plainDisk is a grubenv on a disk.
type plainDisk struct{ diskCopy }

func (d plainDisk) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func openPlainDisk(d *disk) *GRUBPlain {
	g := OpenGRUBPlain(GRUBPlainConfig{Path: "grubenv"})
	g.lock = openDisk(d, 1, binary.NativeEndian).lock
	g.open = func(string, bool) (medium, error) { return plainDisk{diskCopy{d, Copy{}}}, nil }
	return g
}

// plainCut cuts one update and judges by what GRUB reads.
func plainCut(t *testing.T, text string, pairs []Var, w func(*disk) error) tally {
	t.Helper()
	start := block(text)
	before := grubtest.Vars(start)
	after := maps.Clone(before)
	for _, p := range pairs {
		after[p.Name] = p.Value
	}
	run := &disk{data: bytes.Clone(start)}
	if err := w(run); err != nil {
		t.Fatalf("update: %v", err)
	}
	var y tally
	afterCut(start, run.log, cut, func(image []byte) {
		y.states++
		_, err := decodeGRUBBlock(image)
		switch found := grubtest.Vars(image); {
		case err == nil && maps.Equal(found, before):
			y.before++
		case err == nil && maps.Equal(found, after):
			y.after++
		case err == nil:
			y.bad++
			y.mix++
		default:
			y.bad++
			y.lost++
		}
	})
	return y
}

// TestPowerCutGRUBPlain: a change that the store accepts is old or new after a
// cut, wherever the variables are. Writing what it refuses is not, which shows
// that the enumeration can fail.
func TestPowerCutGRUBPlain(t *testing.T) {
	pairs := []Var{{"ORDER", "B A"}, {"B_TRY", "0"}, {"usb_updater_trial", "B"}}
	longer := []Var{{"ORDER", "system1 system0"}, {"B_TRY", "0"}}
	var good, bad tally
	refused := 0
	for pad := range 700 {
		text := "ORDER=A B\nA_OK=1\nA_TRY=0\npad=" + strings.Repeat("x", pad) + "\nB_OK=1\nB_TRY=1\nusb_updater_trial=-\n"
		for _, p := range [][]Var{pairs, longer} {
			plan := func(d *disk) error { return openPlainDisk(d).Update(t.Context(), p...) }
			if err := plan(&disk{data: block(text)}); err == nil {
				good.add(plainCut(t, text, p, plan))
				continue
			} else if !errors.Is(err, ErrNotAtomic) {
				t.Fatal(err)
			}
			refused++
			bad.add(plainCut(t, text, p, func(d *disk) error {
				g, err := decodeGRUBBlock(d.data)
				if err != nil {
					return err
				}
				changed, _, err := g.with(p)
				if err != nil {
					return err
				}
				image, err := changed.encode()
				if err != nil {
					return err
				}
				return writeOnce(diskCopy{d, Copy{}}, image)
			}))
		}
	}
	table := cutTable{format: "plain GRUB environment"}
	table.add("one sector", cut, good)
	table.add("two sectors (refused)", cut, bad)
	table.print(t)
	if good.bad != 0 || good.after == 0 {
		t.Errorf("%d of %d states are neither old nor new", good.bad, good.states)
	}
	if bad.bad == 0 || slices.Contains([]int{0, 1400}, refused) {
		t.Errorf("%d changes refused, %d bad states had they been written", refused, bad.bad)
	}
}
