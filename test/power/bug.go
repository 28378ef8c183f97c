package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// bug is a change of one source file of the product that breaks the order of
// writes. It is applied when the program is built, so the product needs no hook.
type bug struct {
	file     string // below the top directory
	old, new string // old is there exactly once
}

// bugs show that the checks can fail.
var bugs = map[string]bug{
	// The boot environment is armed before the slot is written and flushed.
	"arm-first": {
		"internal/install/write.go",
		"	h := p.Header()\n	progress, dst := newProgress(e, t, p)\n",
		"	if err := e.Loader.Arm(ctx, p.Target); err != nil {\n		return nil, err\n	}\n	h := p.Header()\n	progress, dst := newProgress(e, t, p)\n",
	},
	// The record of write 5 comes after write 6.
	"record-late": {
		"internal/install/write.go",
		"	if err := e.Store.Save(r); err != nil {\n		return Outcome{}, errors.Join(err, p.payload.cleanup(ctx))\n	}\n	if stop {",
		"	if err := e.Loader.Arm(ctx, p.Target); err != nil {\n		return Outcome{}, err\n	}\n" +
			"	if err := e.Store.Save(r); err != nil {\n		return Outcome{}, errors.Join(err, p.payload.cleanup(ctx))\n	}\n	if stop {",
	},
	// The directory of the store is not flushed after the rename. (Without the
	// flush of the file nothing is seen: ext4 writes out what a rename puts in
	// the place of another file.)
	"record-unflushed": {
		"internal/atomicfile/atomicfile.go",
		"	return d.syncDir(dir)\n",
		"	return nil\n",
	},
}

func bugNames() []string { return slices.Sorted(maps.Keys(bugs)) }

// buildBug builds the agent with the bug and returns its path.
func buildBug(ctx context.Context, name, dir string) (string, error) {
	b, ok := bugs[name]
	if !ok {
		return "", fmt.Errorf("no bug %q: there are %q", name, bugNames())
	}
	text, err := os.ReadFile(b.file)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(text, []byte(b.old)); n != 1 {
		return "", fmt.Errorf("bug %s: %s has the place to change %d times, not once: the bug must follow the source", name, b.file, n)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(b.old), []byte(b.new), 1), 0o600); err != nil {
		return "", err
	}
	path, err := filepath.Abs(b.file)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	config, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "usb-updater")
	if err := os.WriteFile(config, overlay, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", config, "-trimpath", "-ldflags", "-s -w -X main.version=bug-"+name, "-o", program, "./cmd/usb-updater")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with bug %s: %w\n%s", name, err, out)
	}
	return program, nil
}
