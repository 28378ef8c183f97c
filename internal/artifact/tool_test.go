package artifact

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestToolArtifacts reads what the real mender-artifact and openssl make.
func TestToolArtifacts(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"mender-artifact", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	run := func(t *testing.T, name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run(t, "openssl", "genrsa", "-traditional", "-out", path("rsa.key"), "2048")
	run(t, "openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", path("ec.key"))
	script := path("ArtifactInstall_Enter_10_tool")
	image := bytes.Repeat(noise, 20)
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("rootfs.ext4"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "rsa", "ec"} {
		var opts Options
		if key != "" {
			run(t, "openssl", "pkey", "-in", path(key+".key"), "-pubout", "-out", path(key+".pub"))
			text, err := os.ReadFile(path(key + ".pub"))
			if err != nil {
				t.Fatal(err)
			}
			k, err := ParseKey(key, text)
			if err != nil {
				t.Fatal(err)
			}
			opts.Keys = []*Key{k}
		}
		for _, comp := range []string{"none", "gzip", "lzma"} {
			t.Run(fmt.Sprintf("%s/%s", comp, key), func(t *testing.T) {
				args := []string{
					"write", "rootfs-image", "-n", "tool-1", "-t", "box", "-f", path("rootfs.ext4"),
					"-o", path("a.mender"), "--compression", comp, "-s", script, "-g", "production",
					"--depends", "artifact_name:tool-0",
				}
				if key != "" {
					args = append(args, "-k", path(key+".key"))
				}
				run(t, "mender-artifact", args...)
				b, err := os.ReadFile(path("a.mender"))
				if err != nil {
					t.Fatal(err)
				}
				res := mustRead(t, b, opts)
				h := res.header
				if h.Name != "tool-1" || h.Group != "production" || h.VerifiedBy != key ||
					!h.MatchesDevice("box") || len(h.Scripts) != 1 || !h.HasClears ||
					!slices.Equal(h.Depends["artifact_name"], []string{"tool-0"}) ||
					h.Provides["rootfs-image.version"] != "tool-1" {
					t.Errorf("header = %+v", h)
				}
				if !bytes.Equal(res.files["rootfs.ext4"], image) {
					t.Error("payload differs")
				}
			})
		}
	}
}
