package mount

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
)

// ErrUnknownType reports a medium without any file system or partition table
// that [ProbeType] knows. An empty or encrypted stick looks like that.
var ErrUnknownType = errors.New("no known file system")

// signature is a magic number at a fixed place.
type signature struct {
	typ    string
	offset int64 // bytes from the start of the medium
	magic  string
}

// bootSignatures are in the first sector, where what formats a stick always
// writes. So they win over remains of older file systems further back.
// (sources: Microsoft exFAT specification, "Main Boot Sector"; Linux,
// fs/ntfs3/ntfs.h; LUKS1 and LUKS2 on-disk format; Linux, fs/xfs, fs/squashfs; APFS
// reference, "nx_superblock_t")
func bootSignatures() []signature {
	return []signature{
		{"exfat", 3, "EXFAT   "},
		{"ntfs", 3, "NTFS    "},
		{"bitlocker", 3, "-FVE-FS-"},
		{"luks", 0, "LUKS\xba\xbe"},
		{"xfs", 0, "XFSB"},
		{"squashfs", 0, "hsqs"},
		{"apfs", 32, "NXSB"},
	}
}

// laterSignatures come after FAT and ext. Those of CD images are last of all:
// the image may have been copied over something.
// (sources: Linux, include/uapi/linux/magic.h, fs/f2fs, fs/erofs, fs/hfsplus,
// fs/btrfs/disk-io.h, include/linux/swap.h; lvm2, lib/format_text/layout.h;
// ECMA-119 and ECMA-167, volume recognition)
func laterSignatures() []signature {
	return []signature{
		{"f2fs", 1024, "\x10\x20\xf5\xf2"},
		{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
		{"hfsplus", 1024, "H+"},
		{"hfsplus", 1024, "HX"},
		{"lvm", 512, "LABELONE"},
		{"swap", 4096 - 10, "SWAPSPACE2"},
		{"swap", 16384 - 10, "SWAPSPACE2"},
		{"swap", 65536 - 10, "SWAPSPACE2"},
		{"btrfs", 65536 + 64, "_BHRfS_M"},
		{"iso9660", 32768 + 1, "CD001"},
		{"udf", 32768 + 1, "BEA01"},
	}
}

// ProbeType names what is on a medium by its magic numbers: a file system as the
// kernel spells it ("vfat" for every FAT), another thing that fills a medium
// ("swap", "luks", "lvm", "bitlocker"), or a partition table ("gpt", "mbr") with
// no file system beside it.
//
// It reads less than 128 KiB and allocates next to nothing. The error is
// [ErrUnknownType] or that of reading; a short medium is not an error.
func ProbeType(r io.ReaderAt) (string, error) {
	p := prober{r: r}
	sector := p.read(0, 512)
	super := p.read(1024, 0x68)
	typ := p.match(bootSignatures())
	switch {
	case typ != "":
	case isFAT(sector):
		typ = "vfat"
	case isExt(super):
		typ = extType(super)
	default:
		typ = p.match(laterSignatures())
	}
	if typ == "" {
		typ = p.partitionTable(sector)
	}
	switch {
	case p.err != nil:
		return "", p.err
	case typ == "":
		return "", ErrUnknownType
	}
	return typ, nil
}

// prober reads from r and keeps the first error. After it, nothing matches.
type prober struct {
	r   io.ReaderAt
	err error
}

// read returns n bytes at offset, or nil if the medium ends before.
func (p *prober) read(offset int64, n int) []byte {
	if p.err != nil {
		return nil
	}
	buf := make([]byte, n)
	got, err := p.r.ReadAt(buf, offset)
	if got == n {
		return buf // ReadAt may return io.EOF with all the bytes
	}
	if !errors.Is(err, io.EOF) {
		p.err = err
	}
	return nil
}

func (p *prober) match(list []signature) string {
	for _, s := range list {
		if string(p.read(s.offset, len(s.magic))) == s.magic {
			return s.typ
		}
	}
	return ""
}

// isFAT makes the checks that the kernel makes before it mounts, for FAT has no
// magic number. The jump instruction tells it from other boot sectors.
// (source: Microsoft FAT specification, "BPB"; Linux, fs/fat/inode.c, fat_read_bpb)
func isFAT(sector []byte) bool {
	if sector == nil || sector[0] != 0xeb && sector[0] != 0xe9 {
		return false
	}
	le := binary.LittleEndian
	var (
		bytesPerSector    = le.Uint16(sector[11:])
		sectorsPerCluster = sector[13]
		reserved          = le.Uint16(sector[14:])
		fats              = sector[16]
		total             = uint32(le.Uint16(sector[19:])) | le.Uint32(sector[32:])
		media             = sector[21]
		fatSize           = uint32(le.Uint16(sector[22:])) | le.Uint32(sector[36:])
	)
	return bits.OnesCount16(bytesPerSector) == 1 && bytesPerSector >= 512 && bytesPerSector <= 4096 &&
		bits.OnesCount8(sectorsPerCluster) == 1 &&
		reserved != 0 && (fats == 1 || fats == 2) &&
		total != 0 && fatSize != 0 && (media == 0xf0 || media >= 0xf8)
}

// isExt reports whether super, the 1024 bytes at 1024, is that of ext2, 3 or 4.
// (source: Linux, Documentation/filesystems/ext4/super.rst)
func isExt(super []byte) bool {
	return super != nil && binary.LittleEndian.Uint16(super[0x38:]) == 0xef53
}

// extType tells the three apart by features: ext4 has one that ext3 does not
// know, ext3 has a journal.
func extType(super []byte) string {
	const (
		hasJournal     = 0x4
		knownIncompat  = 0x2 | 0x4 | 0x10 // filetype, recover, meta_bg
		journalDevice  = 0x8
		knownROCompat  = 0x1 | 0x2 | 0x4 // sparse_super, large_file, btree_dir
		offsetCompat   = 0x5c
		offsetIncompat = 0x60
		offsetROCompat = 0x64
	)
	le := binary.LittleEndian
	incompat := le.Uint32(super[offsetIncompat:])
	switch {
	case incompat&journalDevice != 0:
		return "jbd"
	case incompat&^knownIncompat != 0, le.Uint32(super[offsetROCompat:])&^knownROCompat != 0:
		return "ext4"
	case le.Uint32(super[offsetCompat:])&hasJournal != 0:
		return "ext3"
	default:
		return "ext2"
	}
}

// partitionTable recognizes a GPT, with sectors of 512 or 4096 bytes, and an MBR
// with at least one partition.
// (source: UEFI specification, chapter 5)
func (p *prober) partitionTable(sector []byte) string {
	if typ := p.match([]signature{{"gpt", 512, "EFI PART"}, {"gpt", 4096, "EFI PART"}}); typ != "" {
		return typ
	}
	if sector == nil || sector[510] != 0x55 || sector[511] != 0xaa {
		return ""
	}
	used := false
	for entry := range 4 {
		e := sector[446+16*entry:]
		if e[0] != 0 && e[0] != 0x80 {
			return "" // neither inactive nor bootable: boot code, not a table
		}
		used = used || e[4] != 0
	}
	if !used {
		return ""
	}
	return "mbr"
}
