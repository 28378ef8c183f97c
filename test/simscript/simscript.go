// Package simscript gives script tests a simulated device: commands that make
// one, make artifacts for it, boot it, and look at it with the boot loader's
// eyes.
//
//	device                      a new device in $WORK/device, running release-1 in slot A
//	artifact FILE NAME [OPT…]   an artifact; options: type=T device=T compression=C key=K version=N unfit empty
//	                            script=NAME:BODY provides=K:V file=NAME:CONTENT group=G depends=K:V needs=NAME needsgroup=G clears=GLOB
//	                            noclears; with file or empty it holds no image
//	module TYPE BODY            gives the device an update module: a shell script with STATE and FILES set
//	loader NAME                 replaces the boot loader: grub-mender, rauc-uboot or rauc-grub
//	boot N                      reboots; slot N must come up
//	env K=V…                    the boot environment must say so
//	setenv K=V…                 changes the boot environment as the boot loader does
//	spoilenv WHICH              damages a copy of the boot environment: active, other or both
//	fillenv N                   leaves N bytes of the boot environment free
//	slot N NAME                 slot N must hold the image of that release
//	untouched N [NAME]          slot N must be as it was when the device was made; with NAME, behind the image of that release
//	flip FILE OFFSET            changes one byte; a negative offset counts from the end
//	cut FILE BYTES              cuts the file's end off
//	process PID NAME ARG…       a process of the device; without a name it ends
//	store K=V…                  sets raw values in Mender's store; one without = is removed
//	stored K REGEXP             the raw value must match; with ! the key must be absent
//	code N PROGRAM ARG…         runs a program that must end with that exit status
//	serve [OPT…]                serves the files in $WORK at $URL; options: tls redirect chunked cut=BYTES swap=FILE; see server
package simscript

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	slotSize   = 6 << 20
	imageSize  = 4 << 20
	deviceType = "test-board"
)

// Run runs the scripts in dir.
func Run(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:           dir,
		Setup:         setup,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"loader": cmdLoader, "spoilenv": cmdSpoilEnv, "fillenv": cmdFillEnv,
			"device": cmdDevice, "module": cmdModule, "artifact": cmdArtifact, "boot": cmdBoot, "env": cmdEnv, "setenv": cmdSetEnv,
			"slot": cmdSlot, "untouched": cmdUntouched, "flip": cmdFlip, "cut": cmdCut,
			"serve": cmdServe, "process": cmdProcess, "store": cmdStore, "stored": cmdStored, "code": cmdCode,
		},
	})
}

// bench is what belongs to one script.
type bench struct {
	device *sim.Device
	keys   map[string]*ecdsa.PrivateKey
	blank  []byte // what a slot holds before anything is written
}

type benchKey struct{}

func setup(env *testscript.Env) error {
	env.Values[benchKey{}] = &bench{keys: map[string]*ecdsa.PrivateKey{}}
	env.Setenv("ROOT", filepath.Join(env.WorkDir, "device"))
	// Built with the race detector, each program would sleep for a second at its
	// end. What it has found by then it tells all the same.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	return nil
}

func of(ts *testscript.TestScript) *bench {
	b, ok := ts.Value(benchKey{}).(*bench)
	if !ok {
		ts.Fatalf("no bench")
	}
	return b
}

func cmdDevice(ts *testscript.TestScript, _ bool, args []string) {
	b := of(ts)
	d, err := sim.New(ts.MkAbs("device"), sim.Options{SlotSize: slotSize, DeviceType: deviceType})
	ts.Check(err)
	b.device = d
	b.blank = bytes.Repeat([]byte{0xA5}, slotSize)
	ts.Check(os.WriteFile(d.Slot(3), b.blank, 0o600))
	ts.Check(d.Flash(2, b.image(ts, "release-1", args)))
	cmdBoot(ts, false, []string{"2"})
}

// image makes the image of a release, once. Options of the form PATH=CONTENT
// add files to it.
func (b *bench) image(ts *testscript.TestScript, name string, files []string) string {
	path := ts.MkAbs(name + ".ext4")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	r := sim.Release{Name: name, Files: map[string]sim.File{}}
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		r.Files[name] = sim.File{Content: strings.ReplaceAll(content, `\n`, "\n"), Mode: 0o755}
	}
	for name, key := range b.keys {
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		ts.Check(err)
		r.Files["etc/mender/"+name+".pem"] = sim.File{Content: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), Mode: 0o644}
	}
	ts.Check(r.Image(path, imageSize))
	return path
}

// key returns the key of that name, which every image made later knows.
func (b *bench) key(ts *testscript.TestScript, name string) *ecdsa.PrivateKey {
	if k := b.keys[name]; k != nil {
		return k
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	b.keys[name] = k
	return k
}

func cmdArtifact(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: artifact FILE NAME [OPTION…]")
	}
	b := of(ts)
	spec := artifacttest.Spec{Name: args[1], DeviceTypes: []string{deviceType}}
	files, unfit := b.describe(ts, &spec, args[2:])
	if len(spec.Files) == 0 && !spec.Empty {
		image := b.image(ts, spec.Name, files)
		if unfit {
			ts.Check(os.Truncate(image, slotSize+1<<20))
		}
		info, err := os.Stat(image)
		ts.Check(err)
		spec.Files = []artifacttest.File{{Name: filepath.Base(image), Size: info.Size(), Open: func() (io.Reader, error) { return os.Open(image) }}}
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	ts.Check(err)
	ts.Check(artifacttest.Write(f, spec))
	ts.Check(f.Close())
}

// describe turns options into an artifact's description. It returns the files
// of its image, and whether that is too large for a slot.
func (b *bench) describe(ts *testscript.TestScript, spec *artifacttest.Spec, options []string) (files []string, unfit bool) {
	for _, option := range options {
		k, v, _ := strings.Cut(option, "=")
		name, value, _ := strings.Cut(v, ":")
		switch k {
		case "type":
			spec.PayloadType = v
		case "device":
			spec.DeviceTypes = []string{v}
		case "compression":
			spec.Compression = v
		case "key":
			spec.Signer = b.key(ts, v)
		case "version":
			n, err := strconv.Atoi(v)
			ts.Check(err)
			spec.Version = n
		case "script":
			spec.Scripts = append(spec.Scripts, artifacttest.Script{Name: name, Data: []byte("#!/bin/sh\n" + value + "\n")})
		case "provides":
			if spec.Provides == nil {
				spec.Provides = map[string]string{}
			}
			spec.Provides[name] = value
		case "depends":
			if spec.Depends == nil {
				spec.Depends = map[string][]string{}
			}
			spec.Depends[name] = append(spec.Depends[name], value)
		case "needs":
			spec.DependsNames = append(spec.DependsNames, v)
		case "needsgroup":
			spec.DependsGroups = append(spec.DependsGroups, v)
		case "group":
			spec.Group = v
		case "clears":
			spec.Clears = append(spec.Clears, v)
		case "noclears":
			spec.NoClears = true
		case "file":
			spec.Files = append(spec.Files, artifacttest.Bytes(name, []byte(value)))
		case "empty":
			spec.Empty = true
		case "unfit":
			unfit = true
		default:
			files = append(files, option)
		}
	}
	return files, unfit
}

func cmdLoader(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(of(ts).device.SetLoader(args[0]))
}

func cmdModule(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: module TYPE BODY")
	}
	path := filepath.Join(of(ts).device.Dir, "usr/share/mender/modules/v3", args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte("#!/bin/sh\nSTATE=$1; FILES=$2\n"+args[1]+"\nexit 0\n"), 0o755))
}

func cmdBoot(ts *testscript.TestScript, _ bool, args []string) {
	n, err := of(ts).device.Boot()
	ts.Check(err)
	if want := args[0]; strconv.Itoa(n) != want {
		ts.Fatalf("slot %d came up, want %s", n, want)
	}
}

func cmdEnv(ts *testscript.TestScript, neg bool, args []string) {
	env, err := of(ts).device.Env()
	ts.Check(err)
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		if (env[k] == v) == neg {
			ts.Fatalf("boot environment: %s=%s, want %s (negated: %v)", k, env[k], a, neg)
		}
	}
}

func cmdSetEnv(ts *testscript.TestScript, _ bool, args []string) {
	change := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		change[k] = v
	}
	ts.Check(of(ts).device.SetEnv(change))
}

func cmdSlot(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	want, err := os.ReadFile(ts.MkAbs(args[1] + ".ext4"))
	ts.Check(err)
	got, err := os.ReadFile(of(ts).device.Slot(n))
	ts.Check(err)
	if bytes.HasPrefix(got, want) == neg {
		ts.Fatalf("slot %d holds %s: %v", n, args[1], neg)
	}
}

func cmdUntouched(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, err := os.ReadFile(of(ts).device.Slot(n))
	ts.Check(err)
	from := int64(0)
	if len(args) > 1 {
		info, err := os.Stat(ts.MkAbs(args[1] + ".ext4"))
		ts.Check(err)
		from = info.Size()
	}
	if bytes.Equal(got[from:], of(ts).blank[from:]) == neg {
		ts.Fatalf("slot %d untouched: %v", n, neg)
	}
}

func cmdProcess(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(of(ts).device.Dir, "proc", args[0])
	if len(args) == 1 {
		ts.Check(os.RemoveAll(dir))
		return
	}
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "comm"), []byte(args[1]+"\n"), 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "cmdline"), []byte(strings.Join(args[1:], "\x00")+"\x00"), 0o600))
}

func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	if n >= info.Size() {
		ts.Fatalf("%s has only %d bytes", args[0], info.Size())
	}
	ts.Check(os.Truncate(path, info.Size()-n))
}
