package mount

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// at returns a medium of 128 KiB with the given bytes at each offset.
func at(parts map[int]string) []byte {
	image := make([]byte, 128<<10)
	for offset, s := range parts {
		copy(image[offset:], s)
	}
	return image
}

// fat returns a medium whose first sector is that of a FAT16.
func fat() []byte {
	image := at(map[int]string{0: "\xeb\x3c\x90MSDOS5.0", 510: "\x55\xaa"})
	le := binary.LittleEndian
	le.PutUint16(image[11:], 512)
	image[13] = 4
	le.PutUint16(image[14:], 1)
	image[16] = 2
	le.PutUint16(image[19:], 8192)
	image[21] = 0xf8
	le.PutUint16(image[22:], 8)
	return image
}

// ext returns a medium with an ext superblock of these feature sets.
func ext(compat, incompat, roCompat uint32) []byte {
	image := at(map[int]string{1024 + 0x38: "\x53\xef"})
	le := binary.LittleEndian
	le.PutUint32(image[1024+0x5c:], compat)
	le.PutUint32(image[1024+0x60:], incompat)
	le.PutUint32(image[1024+0x64:], roCompat)
	return image
}

// mbr returns a medium with a partition table of one entry.
func mbr(status, typ string) []byte {
	return at(map[int]string{446: status, 450: typ, 510: "\x55\xaa"})
}

func with(image []byte, offset int, s string) []byte {
	copy(image[offset:], s)
	return image
}

func TestProbeType(t *testing.T) {
	tests := []struct {
		name  string
		image []byte
		want  string // "": ErrUnknownType
	}{
		{"nothing", nil, ""},
		{"one byte", []byte{0xeb}, ""},
		{"zeros", at(nil), ""},
		{"fat16", fat(), "vfat"},
		{"fat cut after the first sector", fat()[:512], "vfat"},
		{"fat cut in the first sector", fat()[:511], ""},
		{"fat without a jump", with(fat(), 0, "\x00"), ""},
		{"fat, sector size no power of two", with(fat(), 11, "\x01\x02"), ""},
		{"fat, sector size 8192", with(fat(), 11, "\x00\x20"), ""},
		{"fat, no sectors in a cluster", with(fat(), 13, "\x00"), ""},
		{"fat, none reserved", with(fat(), 14, "\x00\x00"), ""},
		{"fat, three copies", with(fat(), 16, "\x03"), ""},
		{"fat, no table", with(fat(), 22, "\x00\x00"), ""},
		{"fat, no sectors", with(fat(), 19, "\x00\x00"), ""},
		{"fat, media", with(fat(), 21, "\xf1"), ""},
		{"fat over ext", with(fat(), 1024+0x38, "\x53\xef"), "vfat"},
		{"fat with partitions in its boot code", with(fat(), 446, "\x80\x00\x00\x00\x0c"), "vfat"},
		{"exfat", at(map[int]string{0: "\xeb\x76\x90EXFAT   ", 510: "\x55\xaa"}), "exfat"},
		{"ntfs", at(map[int]string{0: "\xeb\x52\x90NTFS    ", 510: "\x55\xaa"}), "ntfs"},
		{"bitlocker", at(map[int]string{0: "\xeb\x58\x90-FVE-FS-", 510: "\x55\xaa"}), "bitlocker"},
		{"ext2", ext(0, 0x2, 0x3), "ext2"},
		{"ext3", ext(0x4, 0x2, 0x3), "ext3"},
		{"ext3 to be recovered", ext(0x4, 0x6, 0x3), "ext3"},
		{"ext4, extents", ext(0x4, 0x42, 0x3), "ext4"},
		{"ext4, no journal", ext(0, 0x42, 0x3), "ext4"},
		{"ext4, checksums only", ext(0x4, 0x2, 0x403), "ext4"},
		{"journal of an ext", ext(0, 0x8, 0), "jbd"},
		{"ext, superblock cut", ext(0, 0x42, 0)[:1024+0x60], ""},
		{"luks", at(map[int]string{0: "LUKS\xba\xbe\x00\x02"}), "luks"},
		{"xfs", at(map[int]string{0: "XFSB"}), "xfs"},
		{"squashfs", at(map[int]string{0: "hsqs"}), "squashfs"},
		{"apfs", at(map[int]string{32: "NXSB"}), "apfs"},
		{"f2fs", at(map[int]string{1024: "\x10\x20\xf5\xf2"}), "f2fs"},
		{"erofs", at(map[int]string{1024: "\xe2\xe1\xf5\xe0"}), "erofs"},
		{"hfsplus", at(map[int]string{1024: "H+"}), "hfsplus"},
		{"lvm", at(map[int]string{512: "LABELONE"}), "lvm"},
		{"swap", at(map[int]string{4086: "SWAPSPACE2"}), "swap"},
		{"swap, pages of 64 KiB", at(map[int]string{65526: "SWAPSPACE2"}), "swap"},
		{"btrfs", at(map[int]string{65600: "_BHRfS_M"}), "btrfs"},
		{"btrfs remains under ext4", with(ext(0x4, 0x42, 0), 65600, "_BHRfS_M"), "ext4"},
		{"iso9660", at(map[int]string{32769: "CD001"}), "iso9660"},
		{"iso9660 that boots from a disk", with(mbr("\x80", "\x17"), 32769, "CD001"), "iso9660"},
		{"udf", at(map[int]string{32769: "BEA01"}), "udf"},
		{"gpt", with(mbr("\x00", "\xee"), 512, "EFI PART"), "gpt"},
		{"gpt, sectors of 4 KiB", with(mbr("\x00", "\xee"), 4096, "EFI PART"), "gpt"},
		{"mbr", mbr("\x80", "\x0c"), "mbr"},
		{"mbr without partitions", mbr("\x00", "\x00"), ""},
		{"boot code", mbr("\x12", "\x0c"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ProbeType(bytes.NewReader(tt.image))
			if got != tt.want || errors.Is(err, ErrUnknownType) != (tt.want == "") {
				t.Errorf("ProbeType = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestProbeTypeFailingMedium checks that a medium that cannot be read is not
// taken for an empty one, wherever it fails.
func TestProbeTypeFailingMedium(t *testing.T) {
	broken := errors.New("broken")
	for _, good := range []int64{0, 512, 1024, 4096, 32768, 65536} {
		if _, err := ProbeType(failing{good, broken}); !errors.Is(err, broken) {
			t.Errorf("ProbeType of a medium broken after %d bytes: %v, want %v", good, err, broken)
		}
	}
}

// failing is a medium of zeros that cannot be read after the first good bytes.
type failing struct {
	good int64
	err  error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.good {
		return 0, f.err
	}
	return len(p), nil
}

// TestProbeTypeMkfs checks that what the usual tools make is recognized.
func TestProbeTypeMkfs(t *testing.T) {
	tests := []struct {
		want string
		size int64
		cmd  []string
	}{
		{"vfat", 1 << 20, []string{"mkfs.vfat", "-F", "12"}},
		{"vfat", 16 << 20, []string{"mkfs.vfat", "-F", "16"}},
		{"vfat", 64 << 20, []string{"mkfs.vfat", "-F", "32"}},
		{"exfat", 16 << 20, []string{"mkfs.exfat"}},
		{"ext2", 4 << 20, []string{"mkfs.ext2", "-q", "-F"}},
		{"ext3", 8 << 20, []string{"mkfs.ext3", "-q", "-F"}},
		{"ext4", 8 << 20, []string{"mkfs.ext4", "-q", "-F"}},
		{"swap", 1 << 20, []string{"mkswap", "-q"}},
	}
	for _, tt := range tests {
		t.Run(filepath.Join(tt.cmd...), func(t *testing.T) {
			image := newImage(t, tt.size)
			mkfs(t, append(slices.Clone(tt.cmd), image)...)
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := ProbeType(f); got != tt.want || err != nil {
				t.Errorf("ProbeType = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// newImage makes an empty file of size bytes.
func newImage(t *testing.T, size int64) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	return image
}

// mkfs runs a tool of the system, and skips the test where it is missing.
func mkfs(t *testing.T, cmd ...string) {
	t.Helper()
	path, err := exec.LookPath(cmd[0])
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + cmd[0])
	}
	if err != nil {
		t.Skipf("%s is not installed", cmd[0])
	}
	if out, err := exec.CommandContext(t.Context(), path, cmd[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// FuzzProbeType checks that no input panics, and that a medium has a type or an
// error, never both and never none. The medium is head, and patch further back:
// whole media would be too large to be mutated well.
func FuzzProbeType(f *testing.F) {
	f.Add([]byte(nil), uint32(0), []byte(nil))
	f.Add(fat()[:512], uint32(1024+0x38), []byte("\x53\xef"))
	f.Add(ext(0x4, 0x42, 0)[:2048], uint32(65600), []byte("_BHRfS_M"))
	f.Add(mbr("\x80", "\x0c")[:512], uint32(32769), []byte("CD001"))
	f.Add(mbr("\x00", "\xee")[:512], uint32(4096), []byte("EFI PART"))
	f.Fuzz(func(t *testing.T, head []byte, offset uint32, patch []byte) {
		image := head
		if at := int(offset % (128 << 10)); at >= len(head) {
			image = append(make([]byte, 0, at+len(patch)), head...)
			image = append(image[:at], patch...)
		}
		typ, err := ProbeType(bytes.NewReader(image))
		if (typ == "") != errors.Is(err, ErrUnknownType) || typ != "" && err != nil {
			t.Fatalf("ProbeType = %q, %v", typ, err)
		}
	})
}

// TestFileSystems: each magic number is that of a file system that may be
// allowed, or of something that holds no files.
func TestFileSystems(t *testing.T) {
	for _, s := range slices.Concat(bootSignatures(), laterSignatures()) {
		if slices.Contains([]string{"bitlocker", "luks", "lvm", "swap"}, s.typ) == slices.Contains(FileSystems(), s.typ) {
			t.Errorf("%s is a file system and something else, or neither", s.typ)
		}
	}
	for _, typ := range DefaultTypes() {
		if !slices.Contains(FileSystems(), typ) {
			t.Errorf("%s is allowed unasked, and no file system", typ)
		}
	}
}
