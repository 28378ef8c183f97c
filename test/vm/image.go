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
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// Layout of the device's disk: sizes in MiB, start sectors in sectors of 512
// bytes. The two copies of the boot environment lie before the first partition,
// where boot.cmd and overlay/etc/fw_env.config have them.
const (
	mib        = 1 << 20
	sectorSize = 512
	bootSize   = 4
	slotSize   = 160
	dataSize   = 64
	diskSize   = 400

	bootStart = 4096
	slotStart = 16384
)

// DeviceType is the device's type.
const DeviceType = "virtual-device"

// Parts are what devices and releases are made of, built once.
type Parts struct {
	Dir  string
	base string // root file system without anything of a release
	key  *ecdsa.PrivateKey
}

// Build makes the parts in a directory below cache, or finds them there: its
// name is the digest of what they are made of. Programs are taken from bin.
func Build(ctx context.Context, cache, bin string) (*Parts, error) {
	digest, err := digestOf(filepath.Join(bin, "usb-updater"), filepath.Join(bin, "mender"), "build-image", "boot.cmd", "overlay", "initrd", "image.go",
		"../../systemd", "../../udev")
	if err != nil {
		return nil, err
	}
	p := &Parts{Dir: filepath.Join(cache, digest)}
	p.base = filepath.Join(p.Dir, "slot.img")
	if _, err := os.Stat(p.base); errors.Is(err, os.ErrNotExist) {
		if err := p.build(ctx, cache); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(filepath.Join(p.Dir, "key"))
	if err != nil {
		return nil, err
	}
	p.key, err = x509.ParseECPrivateKey(text)
	return p, err
}

func (p *Parts) build(ctx context.Context, cache string) error {
	work := p.Dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := run(ctx, "./build-image", cache, work); err != nil {
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
	conf := fmt.Sprintf(`{"RootfsPartA": "/dev/vda2", "RootfsPartB": "/dev/vda3", "ArtifactVerifyKey": "/etc/mender/key.pem"}%s`, "\n")
	err = errors.Join(
		os.WriteFile(filepath.Join(work, "key"), private, 0o600),
		os.WriteFile(filepath.Join(work, "tree/etc/mender/key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644),
		os.WriteFile(filepath.Join(work, "tree/etc/mender/mender.conf"), []byte(conf), 0o644),
	)
	if err != nil {
		return err
	}
	// U-Boot reads no checksums of metadata and no 64-bit block numbers.
	slot := filepath.Join(work, "slot.img")
	err = filesystem(ctx, slot, slotSize, filepath.Join(work, "tree"), "-t", "ext4", "-O", "^metadata_csum,^64bit")
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(filepath.Join(work, "tree")), os.Rename(work, p.Dir))
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

// filesystem makes an image of size MiB with the content of a directory.
func filesystem(ctx context.Context, path string, size int64, dir string, options ...string) error {
	if err := truncate(path, size*mib); err != nil {
		return err
	}
	return run(ctx, "mke2fs", slices.Concat([]string{"-q", "-F"}, options, []string{"-d", dir, path})...)
}

func truncate(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// Release is a root file system: the common one and these files.
type Release struct {
	Name  string
	Files map[string]string // content of executable files, by absolute path
}

// Image writes the release's root file system.
func (p *Parts) Image(ctx context.Context, path string, r Release) error {
	if err := run(ctx, "cp", "--sparse=always", p.base, path); err != nil {
		return err
	}
	files := map[string]string{"/etc/mender/artifact_info": "artifact_name=" + r.Name + "\n"}
	maps.Copy(files, r.Files)
	scratch, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	var script strings.Builder
	n := 0
	for name, content := range files {
		n++
		source := filepath.Join(scratch, fmt.Sprint(n))
		if err := os.WriteFile(source, []byte(content), 0o755); err != nil {
			return err
		}
		fmt.Fprintf(&script, "cd %s\nrm %s\nwrite %s %s\nsif %s mode 0100755\nsif %s uid 0\nsif %s gid 0\n", filepath.Dir(name),
			filepath.Base(name), source, filepath.Base(name), filepath.Base(name), filepath.Base(name), filepath.Base(name))
	}
	commands := filepath.Join(scratch, "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o600); err != nil {
		return err
	}
	return run(ctx, "debugfs", "-w", "-f", commands, path)
}

// Disk writes the disk of a device that runs the release in slot A and has
// never been switched on.
func (p *Parts) Disk(ctx context.Context, path, image string) error {
	scratch, err := os.MkdirTemp("", "disk")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	bootDir, dataDir := filepath.Join(scratch, "boot.d"), filepath.Join(scratch, "data.d")
	err = errors.Join(os.Mkdir(bootDir, 0o755), os.MkdirAll(filepath.Join(dataDir, "mender"), 0o755),
		run(ctx, "cp", filepath.Join(p.Dir, "boot.scr"), bootDir),
		os.WriteFile(filepath.Join(dataDir, "mender/device_type"), []byte("device_type="+DeviceType+"\n"), 0o644))
	if err != nil {
		return err
	}
	bootImage, dataImage := filepath.Join(scratch, "boot"), filepath.Join(scratch, "data")
	if err := filesystem(ctx, bootImage, bootSize, bootDir, "-t", "ext2"); err != nil {
		return err
	}
	if err := filesystem(ctx, dataImage, dataSize, dataDir, "-t", "ext4"); err != nil {
		return err
	}
	if err := truncate(path, diskSize*mib); err != nil {
		return err
	}
	slotB, data := slotStart+slotSize*mib/sectorSize, slotStart+2*slotSize*mib/sectorSize
	err = run(ctx, "sgdisk", "-a", "2048", "-n", fmt.Sprintf("1:%d:+%dM", bootStart, bootSize), "-A", "1:set:2",
		"-n", fmt.Sprintf("2:%d:+%dM", slotStart, slotSize), "-n", fmt.Sprintf("3:%d:+%dM", slotB, slotSize),
		"-n", fmt.Sprintf("4:%d:+%dM", data, dataSize), path)
	if err != nil {
		return err
	}
	return errors.Join(insert(path, bootStart, bootImage), insert(path, slotStart, image), insert(path, int64(data), dataImage))
}

// insert copies a file to a sector of the disk.
func insert(disk string, sector int64, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(out, sector*sectorSize), in)
	return errors.Join(err, out.Close())
}

// Artifact writes a signed artifact with the image.
func (p *Parts) Artifact(path, name, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = artifacttest.Write(f, artifacttest.Spec{
		Name: name, DeviceTypes: []string{DeviceType}, Compression: "gzip", Signer: p.key,
		Provides: map[string]string{"rootfs-image.version": strings.TrimPrefix(name, "release-")},
		Files:    []artifacttest.File{{Name: "rootfs.ext4", Size: info.Size(), Open: func() (io.Reader, error) { return os.Open(image) }}},
	})
	return errors.Join(err, f.Close())
}

// Stick writes the image of a stick without a partition table that holds the
// files, in a file system of that type.
func Stick(ctx context.Context, path, fsType string, size int64, files ...string) error {
	if err := truncate(path, size*mib); err != nil {
		return err
	}
	switch fsType {
	case "vfat":
		if err := run(ctx, "mkfs.vfat", path); err != nil {
			return err
		}
		return run(ctx, "mcopy", slices.Concat([]string{"-i", path}, files, []string{"::/"})...)
	case "ext4":
		dir, err := os.MkdirTemp("", "stick")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := run(ctx, "cp", append(slices.Clone(files), dir)...); err != nil {
			return err
		}
		return run(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, path)
	default:
		return fmt.Errorf("stick: no file system %q", fsType)
	}
}
