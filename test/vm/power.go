package vm

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// PlainArtifact is [Parts.Artifact] without compression, which takes the longest
// where many releases are made.
func (p *Parts) PlainArtifact(path, name, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = artifacttest.Write(f, artifacttest.Spec{
		Name: name, DeviceTypes: []string{DeviceType}, Compression: "none", Signer: p.key,
		Provides: map[string]string{"rootfs-image.version": strings.TrimPrefix(name, "release-")},
		Files:    []artifacttest.File{{Name: "rootfs.ext4", Size: info.Size(), Open: func() (io.Reader, error) { return os.Open(image) }}},
	})
	return errors.Join(err, f.Close())
}

// Send types a line on the serial console.
func (m *Machine) Send(line string) error {
	_, err := io.WriteString(m.serial, line+"\n")
	return err
}
