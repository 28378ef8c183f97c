package bootenv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/google/go-cmp/cmp"
)

// run runs a tool and returns its output, or false if it fails.
func run(t *testing.T, stdin, name string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	return string(out), err == nil
}

// onDisk is an environment in files, as the tools and we see it.
type onDisk struct {
	config string
	copies []Copy
	u      *UBoot
}

// newOnDisk makes a file for each copy.
func newOnDisk(t *testing.T, images ...[]byte) *onDisk {
	t.Helper()
	dir := t.TempDir()
	e := &onDisk{config: filepath.Join(dir, "fw_env.config")}
	text := ""
	for i, image := range images {
		c := Copy{Path: filepath.Join(dir, fmt.Sprintf("env%d", i)), Size: len(image)}
		e.copies = append(e.copies, c)
		text += fmt.Sprintf("%s 0x0 0x%x\n", c.Path, c.Size)
	}
	if err := os.WriteFile(e.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	u, err := OpenUBoot(UBootConfig{Copies: e.copies, Locks: []string{filepath.Join(dir, "lock")}})
	if err != nil {
		t.Fatal(err)
	}
	e.u = u
	e.write(t, images...)
	return e
}

func (e *onDisk) write(t *testing.T, images ...[]byte) {
	t.Helper()
	for i, image := range images {
		if err := os.WriteFile(e.copies[i].Path, image, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// agree fails the test unless fw_printenv and we read the same.
func (e *onDisk) agree(t *testing.T, what string) {
	t.Helper()
	out, ok := run(t, "", "fw_printenv", "-c", e.config)
	ours, err := e.u.Get(t.Context())
	if ok != (err == nil) {
		t.Fatalf("%s: Get = %v, fw_printenv succeeds: %v", what, err, ok)
	}
	if !ok {
		return
	}
	theirs := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if theirs[name] = value; value == "" {
			delete(theirs, name)
		}
	}
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Fatalf("%s: Get (-fw_printenv +ours):\n%s", what, diff)
	}
}

// environments makes random ones.
type environments struct{ *rand.Rand }

// pick returns n characters.
func (r environments) pick(n int, from string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = from[r.IntN(len(from))]
	}
	return string(b)
}

func (r environments) name() string {
	return r.pick(1, "abcABC_") + r.pick(r.IntN(3), "abcdeXYZ019_.-")
}

func (r environments) value() string {
	return r.pick(1+r.IntN(40), `ab019 =\;$"'{}()#,.:/`+"\t\x7f\xc3\xa9\xff\x01") + r.pick(1, "az9;")
}

// list returns what fits into room bytes: duplicates, empty values, strings
// that are no variable, and now and then not a byte left.
func (r environments) list(room int) stringList {
	var l stringList
	for range r.IntN(40) {
		s := r.name() + "=" + r.value()
		switch r.IntN(12) {
		case 0:
			s = r.name() + "="
		case 1:
			s = fmt.Sprintf("novalue%d", len(l))
		case 2:
			s = "#" + s
		}
		if next := append(slices.Clone(l), s); next.size() <= room {
			l = next
		}
	}
	if free := room - l.size(); r.IntN(3) == 0 && free > len("full=")+1 {
		l = append(l, "full="+strings.Repeat("x", free-len("full=")-1))
	}
	return l
}

// image returns a copy, with something behind the end of the list.
func (r environments) image(l layout, size int, flags byte) []byte {
	list := r.list(size - l.header())
	image := l.encode(list, flags, size)
	rest := image[l.header()+list.size():]
	for i := range rest {
		rest[i] = []byte{0, 0xff, 'a', '='}[r.IntN(4)]
	}
	l.order.PutUint32(image, crc32.ChecksumIEEE(image[l.header():]))
	return image
}

// TestOracleReads: on random environments, some damaged, fw_printenv and we
// agree on every variable and on whether there is an environment at all.
func TestOracleReads(t *testing.T) {
	tier.Device.Need(t, "fw_printenv")
	r := environments{rand.New(rand.NewPCG(3, 4))}
	for _, redundant := range []bool{false, true} {
		l := layout{redundant: redundant, order: binary.NativeEndian}
		var e *onDisk
		for i := range 150 {
			const size = 0x800
			images := [][]byte{r.image(l, size, byte(r.IntN(256)))}
			if redundant {
				next := images[0][4] + []byte{0, 1, 0xff, byte(r.IntN(256))}[r.IntN(4)]
				images = append(images, r.image(l, size, next))
			}
			for _, image := range images {
				if r.IntN(4) == 0 {
					image[r.IntN(size)] ^= 1 << r.IntN(8)
				}
			}
			if e == nil {
				e = newOnDisk(t, images...)
			}
			e.write(t, images...)
			e.agree(t, fmt.Sprintf("redundant %v, environment %d", redundant, i))
		}
	}
}

// TestOracleWrites: what we write is read by fw_printenv as by us, and the
// other way round what fw_setenv writes; the two write in turn.
func TestOracleWrites(t *testing.T) {
	tier.Device.Need(t, "fw_printenv", "fw_setenv")
	r := environments{rand.New(rand.NewPCG(5, 6))}
	for _, redundant := range []bool{false, true} {
		l := layout{redundant: redundant, order: binary.NativeEndian}
		images := [][]byte{l.encode(stringList{"first=1"}, 7, 0x4000), l.encode(stringList{"first=1"}, 7, 0x4000)}
		if !redundant {
			images = images[:1]
		}
		e := newOnDisk(t, images...)
		want := map[string]string{"first": "1"}
		for i := range 80 {
			var pairs []Var
			next := maps.Clone(want)
			for range 1 + r.IntN(6) {
				p := Var{r.name(), strings.TrimLeft(r.value(), " \t")}
				if r.IntN(4) == 0 {
					p.Value = ""
				}
				pairs = append(pairs, p)
				if next[p.Name] = p.Value; p.Value == "" {
					delete(next, p.Name)
				}
			}
			what := fmt.Sprintf("redundant %v, update %d with %q", redundant, i, pairs)
			if i%2 == 0 {
				if err := e.u.Update(t.Context(), pairs...); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			} else {
				var script strings.Builder
				for _, p := range pairs {
					fmt.Fprintf(&script, "%s=%s\n", p.Name, p.Value)
				}
				if _, ok := run(t, script.String(), "fw_setenv", "-c", e.config, "-s", "-"); !ok {
					t.Fatalf("%s: fw_setenv fails", what)
				}
			}
			want = next
			e.agree(t, what)
			if got, err := e.u.Get(t.Context()); err != nil || !maps.Equal(got, want) {
				t.Fatalf("%s: Get = %q, %v; want %q", what, got, err, want)
			}
		}
	}
}

// TestOracleMkenvimage: what an image builder writes is what we read.
func TestOracleMkenvimage(t *testing.T) {
	tier.Device.Need(t, "mkenvimage", "fw_printenv")
	r := environments{rand.New(rand.NewPCG(7, 8))}
	for i := range 60 {
		redundant := i%2 == 1
		want := map[string]string{}
		var text strings.Builder
		for range r.IntN(30) {
			name := r.name()
			if want[name] == "" {
				want[name] = r.value()
				fmt.Fprintf(&text, "%s=%s\n", name, want[name])
			}
		}
		path := filepath.Join(t.TempDir(), "image")
		args := []string{"-s", "0x800", "-p", []string{"0x00", "0xff", "0x61"}[i%3], "-o", path, "-"}
		if redundant {
			args = slices.Insert(args, 0, "-r")
		}
		if _, ok := run(t, text.String(), "mkenvimage", args...); !ok {
			t.Fatalf("mkenvimage fails on %q", text.String())
		}
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		images := [][]byte{image}
		if redundant {
			images = append(images, image)
		}
		e := newOnDisk(t, images...)
		if got, err := e.u.Get(t.Context()); err != nil || !maps.Equal(got, want) {
			t.Fatalf("Get = %q, %v; mkenvimage was given %q", got, err, want)
		}
		e.agree(t, "mkenvimage")
	}
}

// TestPowerCutFwPrintenv hands a sample of what power cuts leave to
// fw_printenv: it finds the same values, or none where we find none.
func TestPowerCutFwPrintenv(t *testing.T) {
	tier.Device.Need(t, "fw_printenv")
	const stride = 53
	start := starts()["steady 5/4"]
	e := newOnDisk(t, start[:envSize], start[envSize:])
	seen, read := 0, 0
	for _, s := range schemes()[:4] { // those with two copies
		for _, f := range []fault{cut, torn, zeroTail, lies, liesTorn} {
			if f == liesTorn && !s.ours {
				continue // too many
			}
			s.cutAll(t, f, func(_ *UBoot, image []byte) {
				if seen++; seen%stride != 0 {
					return
				}
				read++
				e.write(t, image[:envSize], image[envSize:])
				e.agree(t, fmt.Sprintf("%s, %s, state %d", s.name, f, seen))
			})
		}
	}
	if t.Logf("fw_printenv agrees on %d of %d states", read, seen); read < 300 {
		t.Errorf("%d states read, want more", read)
	}
}

// TestConcurrentUpdates lets two hundred updates run at once, half of them
// through another program: each sets a variable of its own, and none is lost.
func TestConcurrentUpdates(t *testing.T) {
	const updates, workers = 200, 6
	if os.Geteuid() != 0 {
		t.Skip("the customary lock files are root's")
	}
	ours := func(t *testing.T, e *onDisk, locks []string) func(Var) error {
		t.Helper()
		u, err := OpenUBoot(UBootConfig{Copies: e.copies, Locks: locks})
		if err != nil {
			t.Fatal(err)
		}
		return func(v Var) error { return u.Update(t.Context(), v) }
	}
	tests := []struct {
		name  string
		other func(*testing.T, *onDisk) func(Var) error
	}{
		{"fw_setenv of libubootenv", func(t *testing.T, e *onDisk) func(Var) error {
			t.Helper()
			tier.Device.Need(t, "fw_setenv")
			return func(v Var) error {
				return exec.CommandContext(t.Context(), "fw_setenv", "-c", e.config, v.Name, v.Value).Run()
			}
		}},
		{"a program that takes U-Boot's lock only", func(t *testing.T, e *onDisk) func(Var) error {
			t.Helper()
			return ours(t, e, []string{"/run/fw_printenv.lock"})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := layout{redundant: true, order: binary.NativeEndian}
			image := l.encode(stringList{"first=1"}, 1, 0x4000)
			e := newOnDisk(t, image, bytes.Clone(image))
			set := []func(Var) error{ours(t, e, nil), tt.other(t, e)}
			todo := make(chan int)
			var group sync.WaitGroup
			for range workers {
				group.Go(func() {
					for i := range todo {
						if err := set[i%2](Var{fmt.Sprintf("v%d", i), "1"}); err != nil {
							t.Errorf("update %d: %v", i, err)
						}
					}
				})
			}
			for i := range updates {
				todo <- i
			}
			close(todo)
			group.Wait()
			got, err := e.u.Get(t.Context())
			if err != nil || len(got) != updates+1 {
				t.Errorf("%d variables, %v; want %d", len(got), err, updates+1)
			}
			if now, err := e.u.read(false); err != nil || now.copies[now.active].flags != (updates+1)&0xff {
				t.Errorf("flags are %d, %v; want one step for each update", now.copies[now.active].flags, err)
			}
		})
	}
}
