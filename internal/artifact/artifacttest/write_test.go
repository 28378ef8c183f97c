package artifacttest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// TestMenderArtifact asks the real tool whether it takes what Write writes.
func TestMenderArtifact(t *testing.T) {
	tool, err := exec.LookPath("mender-artifact")
	if err != nil {
		t.Skip("mender-artifact is not installed")
	}
	for _, comp := range []string{"none", "gzip", "xz"} {
		for _, signer := range []string{"unsigned", "rsa", "ecdsa"} {
			for _, version := range []int{2, 3} {
				t.Run(fmt.Sprintf("v%d/%s/%s", version, comp, signer), func(t *testing.T) {
					spec := artifacttest.Spec{
						Version:     version,
						Name:        "release-1",
						DeviceTypes: []string{"box", "box-2"},
						Compression: comp,
						Signer:      newSigner(t, signer),
						Files:       []artifacttest.File{artifacttest.Bytes("rootfs.ext4", bytes.Repeat([]byte("root"), 50000))},
						Scripts:     []artifacttest.Script{{Name: "ArtifactInstall_Enter_00", Data: []byte("#!/bin/sh\n")}},
					}
					if version == 3 {
						spec.Group = "production"
						spec.DependsNames = []string{"release-0"}
						spec.Depends = map[string][]string{"rootfs-image.version": {"release-0"}}
					}
					checkWithTool(t, tool, spec)
				})
			}
		}
	}
	t.Run("module", func(t *testing.T) {
		checkWithTool(t, tool, artifacttest.Spec{
			Name:        "app-1",
			PayloadType: "single-file",
			MetaData:    []byte(`{"mode":"644"}`),
			Provides:    map[string]string{"app.version": "1"},
			Clears:      []string{"app.*"},
			Files: []artifacttest.File{
				artifacttest.Bytes("dest_dir", []byte("/opt\n")),
				artifacttest.Bytes("empty", nil),
			},
		})
	})
	t.Run("empty", func(t *testing.T) {
		checkWithTool(t, tool, artifacttest.Spec{Name: "bootstrap", Empty: true, Provides: map[string]string{"a": "b"}})
	})
}

// newSigner returns nil for "unsigned".
func newSigner(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func checkWithTool(t *testing.T, tool string, spec artifacttest.Spec) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.mender")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := artifacttest.Write(f, spec); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var key []string
	if spec.Signer != nil {
		der, err := x509.MarshalPKIXPublicKey(spec.Signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		public := filepath.Join(dir, "key.pub")
		if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		key = []string{"-k", public}
	}
	for _, verb := range []string{"validate", "read"} {
		args := append(append([]string{verb}, key...), path)
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("mender-artifact %s: %v\n%s", verb, err, out)
		}
		if verb == "read" && !strings.Contains(string(out), spec.Name) {
			t.Errorf("mender-artifact read does not show the name:\n%s", out)
		}
		if verb == "read" && spec.Signer != nil && !strings.Contains(string(out), "signed and verified correctly") {
			t.Errorf("mender-artifact read does not show the signature:\n%s", out)
		}
	}
}

// TestXZ checks the stored xz stream with the real decoder.
func TestXZ(t *testing.T) {
	tool, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("xz is not installed")
	}
	var b bytes.Buffer
	spec := artifacttest.Spec{Name: "a", Compression: "xz", Files: []artifacttest.File{artifacttest.Bytes("f", make([]byte, 200001))}}
	if err := artifacttest.Write(&b, spec); err != nil {
		t.Fatal(err)
	}
	// The data entry is the last one: its stream ends before the zero blocks.
	start := bytes.LastIndex(b.Bytes(), []byte("\xfd7zXZ\x00"))
	cmd := exec.CommandContext(t.Context(), tool, "-t", "--single-stream")
	cmd.Stdin = bytes.NewReader(bytes.TrimRight(b.Bytes()[start:], "\x00"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("xz -t: %v\n%s", err, out)
	}
}

func TestWriteRefusesChangedFile(t *testing.T) {
	f := artifacttest.Bytes("f", []byte("four"))
	f.Size = 5
	err := artifacttest.Write(&bytes.Buffer{}, artifacttest.Spec{Name: "a", Files: []artifacttest.File{f}})
	if err == nil {
		t.Error("Write took a file that is shorter than its size")
	}
}
