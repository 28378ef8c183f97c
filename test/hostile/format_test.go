//go:build device

package hostile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// sector is the unit in which a medium lies, in bytes.
const sector = 512

// format is a file system as sticks have it.
type format struct {
	name string
	make func(t *testing.T, files map[string][]byte) []byte
	// places tells where in an image each part of the file system is, and the
	// file name, which has this content.
	places func(t *testing.T, image, content []byte) map[string][]region
	// again are parts that the kernel reads again when it has forgotten them.
	again []string
}

func formats() []format {
	return []format{
		{"ext4", ext4, ext4Places, []string{"superblock", "inode table", "directory", header, payload}},
		{"vfat", vfat, vfatPlaces, []string{"FAT", "directory", header, payload}},
		{"iso9660", iso9660, iso9660Places, []string{"directory", header, payload}},
	}
}

// Parts of a file that is an artifact.
const (
	header  = "file, header"
	payload = "file, payload"
)

// need skips where the kernel lacks the file system.
func (f format) need(t *testing.T) {
	t.Helper()
	fd, err := unix.Fsopen(f.name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("this kernel lacks %s: %v", f.name, err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

// packed is an artifact without blocks of zeros.
func (r *rig) packed(t *testing.T, release string) []byte {
	t.Helper()
	return r.artifact(t, release, func(s *artifacttest.Spec) { s.Compression = "gzip" })
}

// split takes the place of an artifact apart.
func split(t *testing.T, content []byte, whole []region) (head, data []region) {
	t.Helper()
	art, err := artifact.Open(bytes.NewReader(content), artifact.Options{})
	if err != nil {
		t.Fatal(err)
	}
	left := art.Header().RawSize
	for _, r := range whole {
		cut := min(r.from+left, r.to)
		if r.from < cut {
			head = append(head, region{r.from, cut})
		}
		if cut < r.to {
			data = append(data, region{cut, r.to})
		}
		left -= cut - r.from
	}
	return head, data
}

// contiguous finds a file by its content.
func contiguous(t *testing.T, image, content []byte) []region {
	t.Helper()
	at := int64(bytes.Index(image, content))
	if at < 0 || at%sector != 0 {
		t.Fatalf("the file is not in one piece: it is at %d", at)
	}
	return []region{{at, at + (int64(len(content))+sector-1)/sector*sector}}
}

// ext4 gives all its images the same UUID, and so the same seed of checksums: a
// block of one is valid in another.
func ext4(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	return fileSystem(t, files, "-b", "1024", "-U", "8f1d2a52-7c5e-4b6a-9c51-0a5d6c1e7b10")
}

// extent is how debugfs prints one: "(0-22):1075-1097", or "(0):19".
var extent = regexp.MustCompile(`\((\d+)(?:-(\d+))?\):(\d+)`)

// ext4Places takes an image of one group apart (source: Linux,
// Documentation/filesystems/ext4/globals.rst).
func ext4Places(t *testing.T, image, content []byte) map[string][]region {
	t.Helper()
	const block = 1024
	le := binary.LittleEndian
	super, group := image[block:], image[2*block:]
	table := int64(le.Uint32(group[8:])) * block
	inodes := int64(le.Uint32(super[40:])) * int64(le.Uint16(super[88:]))
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	blocks := func(file string) (all []region) {
		for _, m := range extent.FindAllStringSubmatch(command(t, "debugfs", "-R", "stat "+file, path), -1) {
			var n [3]int64 // first and last in the file, first on the disk
			for i, word := range []string{m[1], cmp.Or(m[2], m[1]), m[3]} {
				n[i], _ = strconv.ParseInt(word, 10, 64) // digits
			}
			all = append(all, region{n[2] * block, (n[2] + n[1] - n[0] + 1) * block})
		}
		return all
	}
	file := blocks(name)
	var found []byte
	for _, r := range file {
		found = append(found, image[r.from:r.to]...)
	}
	if !bytes.HasPrefix(found, bytes.TrimRight(content, "\x00")) { // no blocks are kept for zeros
		t.Fatalf("debugfs: the blocks %v do not hold the file", file)
	}
	head, data := split(t, content, file)
	return map[string][]region{
		"superblock":        {{block, 2 * block}},
		"group descriptors": {{2 * block, 3 * block}},
		"inode table":       {{table, table + inodes}},
		"directory":         blocks("/"),
		header:              head, payload: data,
	}
}

// vfat makes the smallest FAT32 that all tools take for one.
func vfat(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	command(t, "mkfs.vfat", "-C", "-F", "32", "-s", "1", "-i", "12345678", path, fmt.Sprint(36*kib))
	dir := writeStick(t, files)
	for _, file := range sorted(files) {
		command(t, "mcopy", "-i", path, filepath.Join(dir, file), "::"+file)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vfatPlaces takes an image with one sector in a cluster apart (source:
// Microsoft FAT specification, "BPB").
func vfatPlaces(t *testing.T, image, content []byte) map[string][]region {
	t.Helper()
	le := binary.LittleEndian
	reserved := int64(le.Uint16(image[14:])) * sector
	data := reserved + int64(image[16])*int64(le.Uint32(image[36:]))*sector
	root := data + (int64(le.Uint32(image[44:]))-2)*sector
	head, rest := split(t, content, contiguous(t, image, content))
	return map[string][]region{
		"boot sector": {{0, reserved}},
		"FAT":         {{reserved, data}},
		"directory":   {{root, root + sector}},
		header:        head, payload: rest,
	}
}

func iso9660(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	command(t, "xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", path, writeStick(t, files))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// iso9660Places takes an image apart (source: ECMA-119, sections 8.4 and 9.1).
func iso9660Places(t *testing.T, image, content []byte) map[string][]region {
	t.Helper()
	const block, descriptors = 2048, 16 * 2048
	le := binary.LittleEndian
	record := image[descriptors+156:] // of the root directory
	root, size := int64(le.Uint32(record[2:]))*block, int64(le.Uint32(record[10:]))
	end := int64(descriptors)
	for image[end] != 255 { // the terminator
		end += block
	}
	head, data := split(t, content, contiguous(t, image, content))
	return map[string][]region{
		"volume descriptors": {{descriptors, end + block}},
		"directory":          {{root, root + size}},
		header:               head, payload: data,
	}
}

// TestPlaces: the parts that a medium lies about are where the tests believe,
// also where the kernel cannot mount the file system.
func TestPlaces(t *testing.T) {
	need(t, "mkfs.vfat", "mcopy", "xorriso")
	r := newRig(t)
	content := r.packed(t, "release-2")
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			image := f.make(t, files{name: content, last: []byte("no artifact")})
			places := f.places(t, image, content)
			used := map[int64]string{}
			for _, part := range sorted(places) {
				if len(places[part]) == 0 {
					t.Errorf("%s is nowhere", part)
				}
				for _, r := range places[part] {
					if r.from%sector != 0 || r.to%sector != 0 || r.from >= r.to || r.to > int64(len(image)) {
						t.Fatalf("%s is at %d to %d of %d bytes", part, r.from, r.to, len(image))
					}
					for at := r.from; at < r.to; at += sector {
						if used[at] != "" {
							t.Fatalf("%d is in %s and in %s", at, used[at], part)
						}
						used[at] = part
					}
				}
			}
			dir := places["directory"][0]
			short := []byte("UPDATE") // as every format has it somewhere, in one case or the other
			if !bytes.Contains(bytes.ToUpper(image[dir.from:dir.to]), short) {
				t.Errorf("the directory is not at %d", dir.from)
			}
		})
	}
}
