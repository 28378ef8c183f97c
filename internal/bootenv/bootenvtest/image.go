package bootenvtest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// ImageSize is the size of the copies that WriteUBootFiles makes, in bytes.
const ImageSize = 16 << 10

// EncodeImage returns one copy of a U-Boot environment of size bytes. With
// flags it is one of two copies, with nil the only one. It shares no code with
// package bootenv, so that one can be tested with the other.
func EncodeImage(vars map[string]string, size int, flags *byte) ([]byte, error) {
	header := 4
	if flags != nil {
		header = 5
	}
	image := make([]byte, header, max(size, header))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		image = append(image, name+"="+vars[name]+"\x00"...)
	}
	if len(image) >= size {
		return nil, fmt.Errorf("encode environment: %d bytes needed, size is %d", len(image)+1, size)
	}
	image = append(image, make([]byte, size-len(image))...)
	binary.NativeEndian.PutUint32(image, crc32.ChecksumIEEE(image[header:]))
	if flags != nil {
		image[4] = *flags
	}
	return image, nil
}

// WriteUBootFiles writes a U-Boot environment into dir, as one file env0 or as
// two equal copies env0 and env1 the way images are shipped, with an
// fw_env.config that names them. It returns the path of the configuration.
func WriteUBootFiles(dir string, vars map[string]string, redundant bool) (config string, err error) {
	names, flags := []string{"env0"}, (*byte)(nil)
	if redundant {
		names, flags = append(names, "env1"), new(byte(1))
	}
	image, err := EncodeImage(vars, ImageSize, flags)
	if err != nil {
		return "", err
	}
	text := []byte("# device\toffset\tsize\n")
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, image, 0o644); err != nil {
			return "", err
		}
		text = fmt.Appendf(text, "%s\t0x0\t0x%x\n", path, ImageSize)
	}
	config = filepath.Join(dir, "fw_env.config")
	return config, os.WriteFile(config, text, 0o644)
}

// NewUBootFile is [WriteUBootFiles] for tests.
func NewUBootFile(tb testing.TB, dir string, vars map[string]string, redundant bool) (config string) {
	tb.Helper()
	config, err := WriteUBootFiles(dir, vars, redundant)
	if err != nil {
		tb.Fatal(err)
	}
	return config
}
