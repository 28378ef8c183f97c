package vm

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// Artifact writes a signed artifact with the image of a root file system.
func (p *Parts) Artifact(path, name, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	return p.artifact(path, artifacttest.Spec{
		Name: name, DeviceTypes: []string{DeviceType}, Compression: "gzip",
		Provides: map[string]string{"rootfs-image.version": strings.TrimPrefix(name, "release-")},
		Files:    []artifacttest.File{{Name: "rootfs.ext4", Size: info.Size(), Open: func() (io.Reader, error) { return os.Open(image) }}},
	})
}

// artifact writes an artifact, signed with the device's key.
func (p *Parts) artifact(path string, spec artifacttest.Spec) error {
	spec.Signer = p.key
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(artifacttest.Write(f, spec), f.Close())
}
