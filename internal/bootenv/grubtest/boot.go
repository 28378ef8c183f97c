// Package grubtest is a small model of GRUB for tests and the demo: its
// environment blocks and what Mender's script does with them when the device
// starts. It shares no code with package bootenv, so that one can be tested
// with the other (sources: GRUB, lib/envblk.c and commands/loadenv.c;
// grub-mender-grubenv, 04_mender_setup_env_functions_grub.cfg).
package grubtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const signature = "# GRUB Environment Block\n"

// Block returns a block of size bytes with the lines, "name=value" each. Values
// must not need escapes.
func Block(size int, lines ...string) []byte {
	b := []byte(signature)
	for _, l := range lines {
		b = append(b, l+"\n"...)
	}
	return append(b, bytes.Repeat([]byte{'#'}, max(0, size-len(b)))...)
}

// Vars returns what GRUB reads of a block: up to the first bad line, and the
// last of several of one name. Without a signature there is nothing to read.
func Vars(b []byte) map[string]string {
	vars := map[string]string{}
	if !bytes.HasPrefix(b, []byte(signature)) {
		return vars
	}
	p := len(signature)
	for p < len(b) {
		if b[p] != '#' {
			eq := bytes.IndexByte(b[p:], '=')
			if eq < 0 {
				return vars
			}
			name := string(b[p : p+eq])
			p += eq + 1
			var value []byte
			for p < len(b) && b[p] != '\n' {
				if b[p] == '\\' {
					p++
				}
				if p < len(b) {
					value = append(value, b[p])
				}
				p++
			}
			if p >= len(b) {
				return vars
			}
			vars[name] = string(value)
		}
		p = skipLine(b, p)
	}
	return vars
}

func skipLine(b []byte, p int) int {
	for p < len(b) && b[p] != '\n' {
		if b[p] == '\\' {
			p++
		}
		p++
	}
	return p + 1
}

// Set changes a variable in a block, as GRUB's save_env does: the first of that
// name, or after the last line. It returns false where GRUB could not.
func Set(b []byte, name, value string) ([]byte, bool) {
	if !bytes.HasPrefix(b, []byte(signature)) {
		return b, false
	}
	used := bytes.TrimRight(b, "#")
	if used[len(used)-1] != '\n' {
		return b, false
	}
	line := name + "=" + strings.NewReplacer(`\`, `\\`, "\n", "\\\n").Replace(value) + "\n"
	at, end := len(used), len(used)
	for p := len(signature); p < len(used); p = skipLine(used, p) {
		if bytes.HasPrefix(used[p:], []byte(name+"=")) {
			at, end = p, min(skipLine(used, p), len(used))
			break
		}
	}
	out := append(append(append([]byte(nil), used[:at]...), line...), used[end:]...)
	if len(out) > len(b) {
		return b, false
	}
	return append(out, bytes.Repeat([]byte{'#'}, len(b)-len(out))...), true
}

// remove takes the first variable of that name out of a block, as GRUB's
// save_env does with one that is not set.
func remove(b []byte, name string) []byte {
	if !bytes.HasPrefix(b, []byte(signature)) {
		return b
	}
	used := bytes.TrimRight(b, "#")
	for p := len(signature); p < len(used); p = skipLine(used, p) {
		if bytes.HasPrefix(used[p:], []byte(name+"=")) {
			out := append(append([]byte(nil), used[:p]...), used[min(skipLine(used, p), len(used)):]...)
			return append(out, bytes.Repeat([]byte{'#'}, len(b)-len(out))...)
		}
	}
	return b
}

// Files are the files of the boot partition. Rewrite changes the blocks of a
// file and not its size, and is durable when it returns.
type Files interface {
	Read(name string) []byte // nil if there is none
	Rewrite(name string, b []byte)
}

// Dir is a directory of files.
type Dir string

// Read implements [Files].
func (d Dir) Read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil
	}
	return b
}

// Rewrite implements [Files]. An error shows in what is read later.
func (d Dir) Rewrite(name string, b []byte) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteAt(b, 0)
	_ = f.Close()
}

// Names of the files, below the directory of the environment.
const (
	Env1  = "mender_grubenv1/env"
	Lock1 = "mender_grubenv1/lock"
	Sum1  = "mender_grubenv1/lock.sha256sum"
	Env2  = "mender_grubenv2/env"
	Lock2 = "mender_grubenv2/lock"
	Sum2  = "mender_grubenv2/lock.sha256sum"
)

// grub is a run of GRUB: its variables, which outlive a failed load.
type grub struct {
	files Files
	vars  map[string]string
}

// saved are the variables that Mender's script keeps.
var saved = [...]string{"bootcount", "mender_boot_part", "upgrade_available", "mender_systemd_machine_id"}

func (g *grub) load(file string, names ...string) {
	found := Vars(g.files.Read(file))
	for _, n := range names {
		if v, ok := found[n]; ok {
			g.vars[n] = v
		}
	}
}

// save writes the variables that are set and removes the others. What fails
// before the end is not written at all.
func (g *grub) save(file string, names ...string) {
	b := g.files.Read(file)
	if !bytes.HasPrefix(b, []byte(signature)) {
		return
	}
	for _, n := range names {
		v, ok := g.vars[n]
		if !ok {
			b = remove(b, n)
			continue
		}
		if b, ok = Set(b, n, v); !ok {
			return
		}
	}
	g.files.Rewrite(file, b)
}

func (g *grub) lock(file, value string) {
	g.vars["editing"] = value
	g.save(file, "editing")
}

func (g *grub) locked(file string) bool {
	g.vars["editing"] = "invalid"
	g.load(file, "editing")
	return g.vars["editing"] != "0"
}

// Boot does what Mender's script does in GRUB when the device starts. It
// returns the partition number that it starts; an error means that GRUB calls
// the environment corrupt, waits, and starts that partition all the same.
func Boot(files Files, a, b int) (part int, err error) {
	g := &grub{files, map[string]string{}}
	switch {
	case g.locked(Lock2):
		g.load(Env1, saved[:]...)
		g.save(Env2, saved[:]...)
		g.lock(Lock2, "0")
	case g.locked(Lock1):
		g.load(Env2, saved[:]...)
		g.save(Env1, saved[:]...)
		g.lock(Lock1, "0")
	}
	g.load(Env1, saved[:]...)
	flag := func(s string) bool { return s == "0" || s == "1" }
	part, bad := strconv.Atoi(g.vars["mender_boot_part"])
	if bad != nil || part != a && part != b {
		part, err = a, fmt.Errorf("boot: mender_boot_part is %q", g.vars["mender_boot_part"])
	}
	if !flag(g.vars["bootcount"]) || !flag(g.vars["upgrade_available"]) {
		err = fmt.Errorf("boot: bootcount is %q, upgrade_available is %q", g.vars["bootcount"], g.vars["upgrade_available"])
	}
	if g.vars["upgrade_available"] != "1" {
		return part, err
	}
	if g.vars["bootcount"] == "0" {
		g.vars["bootcount"] = "1"
	} else {
		part = a + b - part
		g.vars["upgrade_available"], g.vars["bootcount"] = "0", "0"
	}
	g.vars["mender_boot_part"] = strconv.Itoa(part)
	g.lock(Lock2, "1")
	g.save(Env2, saved[:]...)
	g.lock(Lock2, "0")
	g.lock(Lock1, "1")
	g.save(Env1, saved[:]...)
	g.lock(Lock1, "0")
	return part, err
}
