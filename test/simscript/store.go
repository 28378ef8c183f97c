package simscript

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usb-updater/usb-updater/internal/lmdb"
)

// readStore returns the raw store, empty if there is none.
func readStore(ts *testscript.TestScript) (map[string][]byte, string) {
	path := filepath.Join(of(ts).device.Data(), "mender-store")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string][]byte{}, path
	}
	ts.Check(err)
	kv, _, err := lmdb.Decode(b)
	ts.Check(err)
	return kv, path
}

func cmdStore(ts *testscript.TestScript, _ bool, args []string) {
	kv, path := readStore(ts)
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			kv[k] = []byte(v)
		} else {
			delete(kv, k)
		}
	}
	b, err := lmdb.Encode(kv, lmdb.Native())
	ts.Check(err)
	ts.Check(os.WriteFile(path, b, 0o600))
}

func cmdStored(ts *testscript.TestScript, neg bool, args []string) {
	kv, _ := readStore(ts)
	v, ok := kv[args[0]]
	switch {
	case neg && ok:
		ts.Fatalf("store: %s=%q, want none", args[0], v)
	case !neg && !regexp.MustCompile(args[1]).Match(v):
		ts.Fatalf("store: %s=%q, want %s", args[0], v, args[1])
	}
}

func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Check(err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s: exit status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}
