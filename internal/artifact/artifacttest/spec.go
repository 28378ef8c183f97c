package artifacttest

import (
	"bytes"
	"crypto"
	"io"
)

// Spec describes an artifact. The zero value of a field means what
// mender-artifact writes when the option is not given.
type Spec struct {
	Version     int // 2 or 3; 0 means 3
	Name        string
	Group       string   // "": none
	DeviceTypes []string // nil: "test-device"

	PayloadType string // "": rootfs-image
	Empty       bool   // no payload at all, as in a bootstrap artifact
	Files       []File
	MetaData    []byte // JSON; nil: an empty file for rootfs-image, else none

	// Compression is "none", "gzip", "zstd" or "xz"; "" means gzip. An xz stream
	// is stored without being compressed.
	Compression string
	// Signer signs with an RSA or an ECDSA P-256 key; nil: not signed.
	Signer crypto.Signer

	// Provides is the artifact_provides of type-info. Nil means checksum and
	// version of the root file system, or nothing for another payload; an empty
	// map means none.
	Provides map[string]string
	// Depends is the artifact_depends of type-info. A single alternative is
	// written as a string, as all clients understand, several as a list.
	Depends map[string][]string
	// DependsNames and DependsGroups go into header-info.
	DependsNames, DependsGroups []string
	// Clears is clears_artifact_provides; nil means Mender's defaults for
	// rootfs-image and nothing for another payload.
	Clears []string
	// NoClears leaves clears_artifact_provides out.
	NoClears bool

	Scripts []Script
}

// File is a payload file. Open is called twice, and both readers must give the
// same Size bytes. A reader that is an io.Closer is closed.
type File struct {
	Name string
	Size int64
	Open func() (io.Reader, error)
}

// Script is a state script.
type Script struct {
	Name string // "ArtifactInstall_Enter_00"
	Data []byte
}

// Bytes returns a payload file with this content.
func Bytes(name string, data []byte) File {
	return File{
		Name: name,
		Size: int64(len(data)),
		Open: func() (io.Reader, error) { return bytes.NewReader(data), nil },
	}
}

const rootfsImage = "rootfs-image"

// withDefaults fills in what an absent option means.
func (s Spec) withDefaults() Spec {
	if s.Version == 0 {
		s.Version = 3
	}
	if s.DeviceTypes == nil {
		s.DeviceTypes = []string{"test-device"}
	}
	if s.PayloadType == "" && !s.Empty {
		s.PayloadType = rootfsImage
	}
	if s.PayloadType == rootfsImage {
		if s.Clears == nil {
			s.Clears = []string{"artifact_group", "rootfs_image_checksum", "rootfs-image.*"}
		}
		if s.MetaData == nil {
			s.MetaData = []byte{}
		}
	}
	return s
}
