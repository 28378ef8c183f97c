package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// codec is how an image is compressed, with the settings of mender-artifact,
// and what the other programs call it.
type codec struct {
	name, suffix, pack, unpack string
	squash                     string // mksquashfs's compression, "" for none that would be alike
	swu                        string // SWUpdate's property, "-" if it cannot
}

func findCodec(name string) (codec, error) {
	for _, c := range []codec{
		{"none", "", "", "cat", "", ""},
		{"gzip", ".gz", "gzip -9 -c", "zcat", "-comp gzip -b 131072", `compressed = "zlib";`},
		{"zstd", ".zst", "zstd -q -12 --zstd=wlog=23 -T2 -c", "zstd -q -dc", "-comp zstd -Xcompression-level 12 -b 1M", `compressed = "zstd";`},
		{"xz", ".xz", "xz -9 -T2 --block-size=192MiB -c", "xz -dc", "-comp xz -b 1M", "-"},
	} {
		if c.name == name {
			return c, nil
		}
	}
	return codec{}, fmt.Errorf("compression %q: want gzip, none, zstd or xz", name)
}

// writePlain writes an artifact whose data entry is not compressed.
func writePlain(path, deviceType string, image artifacttest.File) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	spec := artifacttest.Spec{Name: "release-2", DeviceTypes: []string{deviceType}, Compression: "none", Files: []artifacttest.File{image}}
	return errors.Join(artifacttest.Write(f, spec), f.Close())
}

// repack copies an artifact with its data entry, which must be a plain archive,
// compressed by a command. The compressed archive stays in data.
func repack(ctx context.Context, plain, artifact, data, suffix, command string) error {
	in, err := os.Open(plain)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(artifact)
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(w.Close(), out.Close())
		}
		if err == nil {
			err = copyEntry(ctx, w, h, r, data, suffix, command)
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
}

func copyEntry(ctx context.Context, w *tar.Writer, h *tar.Header, content io.Reader, data, suffix, command string) error {
	if strings.HasPrefix(h.Name, "data/") {
		if err := compress(ctx, data, content, command); err != nil {
			return err
		}
		f, err := os.Open(data)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		h.Name += suffix
		h.Size = st.Size()
		content = f
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

// compress has a command compress content into a file, "" for not at all.
func compress(ctx context.Context, path string, content io.Reader, command string) error {
	if command == "" {
		command = "cat"
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	args := strings.Fields(command)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = content, f, os.Stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", args[0], err), f.Close())
	}
	return f.Close()
}

// cache keeps what takes long to make. A file there is whole.
type cache struct{ dir string }

// file returns the path of a file, which build makes if it is not there.
func (c cache) file(name string, build func(path string) error) (string, error) {
	path := filepath.Join(c.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	part := path + ".part"
	if err := build(part); err != nil {
		return "", fmt.Errorf("make %s: %w", name, errors.Join(err, os.RemoveAll(part)))
	}
	return path, os.Rename(part, path)
}

// menderArtifact returns the artifact of an image.
func (c cache) menderArtifact(ctx context.Context, image string, how codec) (string, error) {
	return c.file(how.name+".mender", func(path string) error {
		st, err := os.Stat(image)
		if err != nil {
			return err
		}
		plain := filepath.Join(c.dir, "plain")
		defer os.Remove(plain) //nolint:errcheck // scratch
		open := func() (io.Reader, error) { return os.Open(image) }
		if err := writePlain(plain, deviceType, artifacttest.File{Name: "rootfs.ext4", Size: st.Size(), Open: open}); err != nil {
			return err
		}
		data := filepath.Join(c.dir, "data")
		return errors.Join(repack(ctx, plain, path, data, how.suffix, how.pack), os.Remove(data))
	})
}

// compressed returns the image alone, for tools that know no artifacts.
func (c cache) compressed(ctx context.Context, image string, how codec) (string, error) {
	return c.file(how.name+".image", func(path string) error {
		f, err := os.Open(image)
		if err != nil {
			return err
		}
		defer f.Close()
		return compress(ctx, path, f, how.pack)
	})
}

// key returns the directory of a key and its certificate, which signs code and
// mail: what RAUC and SWUpdate ask for.
func (c cache) key(ctx context.Context) (string, error) {
	return c.file("keys", func(path string) error {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		return command(ctx, path, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
			"-days", "36500", "-subj", "/CN=bench", "-addext", "keyUsage=digitalSignature", "-addext", "extendedKeyUsage=emailProtection")
	})
}

// raucBundle returns a signed bundle of the format "plain".
func (c cache) raucBundle(ctx context.Context, image string, how codec) (string, error) {
	keys, err := c.key(ctx)
	if err != nil {
		return "", err
	}
	return c.file(how.name+".raucb", func(path string) error {
		dir, err := os.MkdirTemp(c.dir, "rauc")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		manifest := "[update]\ncompatible=" + deviceType + "\nversion=2\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n"
		if err := os.WriteFile(filepath.Join(dir, "manifest.raucm"), []byte(manifest), 0o600); err != nil {
			return err
		}
		if err := os.Link(image, filepath.Join(dir, "rootfs.img")); err != nil {
			return err
		}
		return command(ctx, "", "rauc", "--cert", filepath.Join(keys, "cert.pem"), "--key", filepath.Join(keys, "key.pem"),
			"bundle", "--mksquashfs-args="+how.squash, dir, path)
	})
}

// swu returns an archive for SWUpdate: the image is streamed to the slot, its
// description is signed, as Debian's build demands.
func (c cache) swu(ctx context.Context, image string, how codec) (string, error) {
	keys, err := c.key(ctx)
	if err != nil {
		return "", err
	}
	packed, err := c.compressed(ctx, image, how)
	if err != nil {
		return "", err
	}
	return c.file(how.name+".swu", func(path string) error {
		sum, err := sumFile(packed)
		if err != nil {
			return err
		}
		dir, err := os.MkdirTemp(c.dir, "swu")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		description := fmt.Sprintf(`software = {
	version = "2";
	hardware-compatibility: [ "1.0" ];
	stable = { slotB: {
		images: ( { filename = "rootfs"; device = "/slot-b"; type = "raw"; installed-directly = true; %s sha256 = "%s"; } );
		bootenv: ( { name = "mender_boot_part"; value = "3"; }, { name = "upgrade_available"; value = "1"; } );
	}; };
}
`, how.swu, hex.EncodeToString(sum[:]))
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, "sw-description"), []byte(description), 0o600),
			os.Link(packed, filepath.Join(dir, "rootfs")),
			command(ctx, dir, "openssl", "cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig", "-outform", "DER", "-nosmimecap", "-binary",
				"-signer", filepath.Join(keys, "cert.pem"), "-inkey", filepath.Join(keys, "key.pem")),
		); err != nil {
			return err
		}
		return command(ctx, dir, "sh", "-c", `printf '%s\n' sw-description sw-description.sig rootfs | cpio -o -H crc --quiet >"$0"`, path)
	})
}

// command runs a program in a directory; its output is in the error.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(out))
	}
	return nil
}

func sumFile(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// tail is the end of what a program said, on one line.
func tail(out []byte) string {
	const most = 300
	return strings.Join(strings.Fields(string(out[max(0, len(out)-most):])), " ")
}
