package vm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Parts are what devices and releases are made of, built once.
type Parts struct {
	Dir  string
	base string // root file system without anything of a release
	key  *ecdsa.PrivateKey
}

// Build makes the parts in a directory below cache, or finds them there: its
// name is the digest of what they are made of. Programs are taken from bin.
func Build(ctx context.Context, cache, bin string) (*Parts, error) {
	base, err := made(cache, "base", []string{"build-base", "initrd"}, func(dir string) error {
		return run(ctx, "./build-base", cache, dir)
	})
	if err != nil {
		return nil, err
	}
	sources := []string{
		base, filepath.Join(bin, "usb-updater"), filepath.Join(bin, "mender"), "build-image", "boot.cmd", "grub.cfg", "overlay",
		"parts.go", "image.go", "../../systemd", "../../udev",
	}
	p := &Parts{}
	p.Dir, err = made(cache, "parts", sources, func(dir string) error { return buildParts(ctx, base, dir) })
	if err != nil {
		return nil, err
	}
	p.base = filepath.Join(p.Dir, "slot.img")
	text, err := os.ReadFile(filepath.Join(p.Dir, "key"))
	if err != nil {
		return nil, err
	}
	p.key, err = x509.ParseECPrivateKey(text)
	return p, err
}

// made returns the directory of that name and of the digest of the sources, and
// has it built if it is not there.
func made(cache, name string, sources []string, build func(dir string) error) (string, error) {
	digest, err := digestOf(sources...)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+digest)
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return dir, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	if err := build(work); err != nil {
		return "", errors.Join(err, os.RemoveAll(work))
	}
	return dir, os.Rename(work, dir)
}

func buildParts(ctx context.Context, base, dir string) error {
	if err := run(ctx, "./build-image", base, dir); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`{"RootfsPartA": "/dev/vda%d", "RootfsPartB": "/dev/vda%d", "ArtifactVerifyKey": "/etc/mender/key.pem"}%s`, partA, partB, "\n")
	tree := filepath.Join(dir, "tree")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "key"), private, 0o600),
		os.WriteFile(filepath.Join(tree, "etc/mender/key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644),
		os.WriteFile(filepath.Join(tree, "etc/mender/mender.conf"), []byte(conf), 0o644),
	)
	if err != nil {
		return err
	}
	// U-Boot reads no checksums of metadata and no 64-bit block numbers.
	err = filesystem(ctx, filepath.Join(dir, "slot.img"), slotSize, tree, "-t", "ext4", "-m", "0", "-O", "^metadata_csum,^64bit,^resize_inode", "-J", "size=4")
	if err != nil {
		return err
	}
	return os.RemoveAll(tree)
}

// digestOf names content: files, and files below directories.
func digestOf(paths ...string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || entry.Type()&os.ModeSymlink != 0 {
				return err
			}
			b, err := os.ReadFile(name)
			fmt.Fprintf(sum, "%s %d\n", name, len(b))
			sum.Write(b)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, bytes.TrimSpace(out))
	}
	return nil
}
