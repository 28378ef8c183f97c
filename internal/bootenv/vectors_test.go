package bootenv

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The vectors are environments with what real tools make of them. Most come
// from answers on which U-Boot's own tool and two versions of libubootenv
// agree; where they part, the wanted answer is U-Boot's at boot.
const vectorFile = "testdata/vectors.json"

// vectorSet is the committed form. Most files differ in their flag byte alone,
// so contents are kept once, without it.
type vectorSet struct {
	Contents map[string][]byte // deflated, byte 4 is zero
	Vectors  []vector
}

// vector is one environment. {D} in it stands for its directory.
type vector struct {
	Name   string
	Config string
	Files  map[string]vectorFileSpec
	Set    []string `json:",omitempty"` // name=value, in one update
	// What is wanted: the update is refused or not, which file it wrote and
	// the file's new flag byte, and what is read in the end, by lines.
	Refused bool     `json:",omitempty"`
	Wrote   string   `json:",omitempty"`
	Flags   byte     `json:",omitempty"`
	Error   string   `json:",omitempty"` // of reading: "corrupt", or "unusable" for any other
	Vars    []string `json:",omitempty"`
}

type vectorFileSpec struct {
	Content string `json:",omitempty"`
	Byte4   byte   `json:",omitempty"`
	Link    string `json:",omitempty"`
}

// TestVectors runs the committed vectors. With BOOTENV_VECTORS, a directory with
// the full recording, it runs that too, and checks that the committed ones are
// made from it; UPDATE_VECTORS=1 makes them anew.
func TestVectors(t *testing.T) {
	if dir := os.Getenv("BOOTENV_VECTORS"); dir != "" {
		full := distill(t, filepath.Join(dir, "vectors.json"))
		text := full.encode(t)
		if os.Getenv("UPDATE_VECTORS") != "" {
			if err := os.WriteFile(vectorFile, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Run("full", func(t *testing.T) { full.run(t) })
		if committed, err := os.ReadFile(vectorFile); err != nil || !bytes.Equal(committed, text) {
			t.Errorf("%s is not what the recording in %s yields: %v", vectorFile, dir, err)
		}
	}
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var set vectorSet
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	set.run(t)
}

func (s vectorSet) run(t *testing.T) {
	t.Helper()
	const want = 384
	if len(s.Vectors) != want {
		t.Errorf("%d vectors, want %d", len(s.Vectors), want)
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, v := range s.Vectors {
			t.Run(order.String()+"/"+v.Name, func(t *testing.T) {
				dir := t.TempDir()
				s.write(t, v, dir, order)
				v.run(t, dir, order)
			})
		}
	}
}

// write makes the files of a vector. The recordings are of a little-endian
// machine; the CRC is all that depends on it.
func (s vectorSet) write(t *testing.T, v vector, dir string, order binary.ByteOrder) {
	t.Helper()
	for name, spec := range v.Files {
		path := filepath.Join(dir, name)
		if spec.Link != "" {
			if err := os.Symlink(spec.Link, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := io.ReadAll(flate.NewReader(bytes.NewReader(s.Contents[spec.Content])))
		if err != nil {
			t.Fatalf("content %q: %v", spec.Content, err)
		}
		if len(content) > 4 {
			content[4] = spec.Byte4
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := ParseFwEnvConfig([]byte(strings.ReplaceAll(v.Config, "{D}", dir)), "")
	if err != nil || order == binary.LittleEndian {
		return
	}
	for _, c := range cfg.Copies {
		content, err := os.ReadFile(c.Path)
		if c.Offset < 0 {
			c.Offset += int64(len(content))
		}
		if err != nil || int64(len(content)) < c.Offset+4 {
			continue
		}
		slices.Reverse(content[c.Offset : c.Offset+4])
		if err := os.WriteFile(c.Path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (v vector) run(t *testing.T, dir string, order binary.ByteOrder) {
	t.Helper()
	var u *UBoot
	cfg, err := ParseFwEnvConfig([]byte(strings.ReplaceAll(v.Config, "{D}", dir)), "")
	if err == nil {
		u, err = OpenUBoot(UBootConfig{Copies: cfg.Copies, Locks: []string{filepath.Join(dir, "lock")}})
	}
	if err != nil {
		if v.Error != "unusable" {
			t.Errorf("the configuration is refused: %v; want %q, %q", err, v.Error, v.Vars)
		}
		return
	}
	u.layout.order = order
	if v.Set != nil {
		v.update(t, u, dir)
	}
	got, err := u.Get(t.Context())
	class := ""
	switch {
	case errors.Is(err, ErrCorrupt):
		class = "corrupt"
	case err != nil:
		class = "unusable"
	}
	if class != v.Error {
		t.Fatalf("Get = %q, %v; want error class %q", got, err, v.Error)
	}
	if diff := cmp.Diff(v.Vars, lines(got)); diff != "" {
		t.Errorf("Get (-want +got):\n%s", diff)
	}
}

// update sets what the vector sets, and checks what that did to the files.
func (v vector) update(t *testing.T, u *UBoot, dir string) {
	t.Helper()
	before := map[string][]byte{}
	for name := range v.Files {
		before[name], _ = os.ReadFile(filepath.Join(dir, name))
	}
	var pairs []Var
	for _, s := range v.Set {
		name, value, _ := strings.Cut(s, "=")
		pairs = append(pairs, Var{name, value})
	}
	if err := u.Update(t.Context(), pairs...); (err != nil) != v.Refused {
		t.Errorf("Update(%q) = %v, want it refused: %v", v.Set, err, v.Refused)
	}
	for name, old := range before {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.Equal(now, old) != (name != v.Wrote) {
			t.Errorf("%s changed: %v, want a change of %q; %v", name, !bytes.Equal(now, old), v.Wrote, err)
		}
		if name == v.Wrote && len(u.copies) == 2 && now[4] != v.Flags {
			t.Errorf("%s has flags %d, want %d", name, now[4], v.Flags)
		}
	}
}

// lines renders variables as a tool prints them: a line break in a value makes
// more lines.
func lines(vars map[string]string) []string {
	var l []string
	for name, value := range vars {
		var text []rune // JSON has no bytes: one character for each
		for _, c := range []byte(name + "=" + value) {
			text = append(text, rune(c))
		}
		l = append(l, strings.Split(string(text), "\n")...)
	}
	slices.Sort(l)
	return l
}

// recorded is what is used of an entry of the full recording.
type recorded struct {
	Name, Config string
	Files        map[string]struct{ Z, Symlink string }
	Set          *struct{ Script string }
	Expect       map[string]recordedAnswer
}

type recordedAnswer struct {
	RC     json.RawMessage `json:"rc"`
	Out    []string        `json:"out"`
	SetRC  json.RawMessage `json:"set_rc"`
	Wrote  []string        `json:"written"`
	E0, E1 struct{ Flags byte }
}

// distill makes the committed form from the recording.
func distill(t *testing.T, path string) vectorSet {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	set := vectorSet{Contents: map[string][]byte{}}
	for _, r := range all {
		v := vector{Name: r.Name, Config: r.Config, Files: map[string]vectorFileSpec{}}
		for name, f := range r.Files {
			spec := vectorFileSpec{Link: f.Symlink}
			if f.Symlink == "" {
				spec = set.add(t, f.Z)
			}
			v.Files[name] = spec
		}
		ours := r.Expect["ours"]
		if string(ours.RC) == "0" {
			v.Vars = fold(ours.Out)
		} else if v.Error = "unusable"; string(r.Expect["lub037"].RC) == "243" { // no good copy
			v.Error = "corrupt"
		}
		if r.Set != nil {
			v.Set = scriptLines(r.Set.Script)
			v.Refused = string(ours.SetRC) != "0"
			if len(ours.Wrote) > 0 {
				v.Wrote = ours.Wrote[0]
				v.Flags = map[string]byte{"e0": ours.E0.Flags, "e1": ours.E1.Flags}[v.Wrote]
			}
		}
		if intend := intended[v.Name]; intend != nil {
			intend(&v)
		}
		set.Vectors = append(set.Vectors, v)
	}
	return set
}

// intended are the wanted answers that no tool of the recording gives.
var intended = map[string]func(*vector){
	// One of the tools reads the YAML form, and so do we.
	"config/yaml": func(v *vector) {
		v.Error, v.Vars = "", []string{"bootcount=0", "mender_boot_part=3", "upgrade_available=1"}
	},
	// Two entries for the same bytes are no redundancy.
	"redund/overlap": func(v *vector) { v.Error, v.Vars = "unusable", nil },
	// The rules in .flags hold.
	"write/flags-readonly": func(v *vector) {
		v.Refused, v.Wrote, v.Flags = true, "", 0
		v.Vars = slices.DeleteFunc(append(v.Vars, "bootcount=0"), func(s string) bool { return s == "bootcount=1" })
		slices.Sort(v.Vars)
	},
	"write/flags-bad-type": func(v *vector) {
		v.Refused, v.Wrote, v.Flags = true, "", 0
		v.Vars = slices.DeleteFunc(append(v.Vars, "upgrade_available=0"), func(s string) bool { return s == "upgrade_available=yes" })
		slices.Sort(v.Vars)
	},
}

// add keeps a file's content and returns how to make the file.
func (s *vectorSet) add(t *testing.T, packed string) vectorFileSpec {
	t.Helper()
	var raw []byte
	if err := json.Unmarshal([]byte(`"`+packed+`"`), &raw); err != nil {
		t.Fatal(err)
	}
	z, err := zlib.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var spec vectorFileSpec
	if len(content) > 4 {
		spec.Byte4, content[4] = content[4], 0
	}
	spec.Content = fmt.Sprintf("%x", sha256.Sum256(content))[:8]
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	s.Contents[spec.Content] = b.Bytes()
	return spec
}

// fold keeps of printed lines what has a meaning: the last of several, nothing
// without a name or a value.
func fold(printed []string) []string {
	vars := map[string]string{}
	var l []string
	for _, line := range printed {
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !ok && line != "":
			l = append(l, name) // the rest of a value
		case name != "" && value != "":
			vars[name] = value
		}
	}
	for name, value := range vars {
		l = append(l, name+"="+value)
	}
	slices.Sort(l)
	return l
}

// script splits the input of fw_setenv.
func scriptLines(text string) (set []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.Trim(line, "\r"); line != "" && line[0] != '#' {
			set = append(set, line)
		}
	}
	return set
}

// encode returns the set with a line for each vector.
func (s vectorSet) encode(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	contents, err := json.MarshalIndent(s.Contents, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "{\"Contents\": %s,\n\"Vectors\": [", contents)
	for i, v := range s.Vectors {
		line, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%s", line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}
