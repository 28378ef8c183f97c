package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// span is a part of the disk, in bytes.
type span struct{ off, size int64 }

func (s span) has(off int64) bool { return off >= s.off && off < s.off+s.size }

// layout is where things are on the device's disk.
type layout struct {
	env   [2]span // the two copies of the boot environment
	slots [2]span
	data  span
}

// partData is the number of the data partition.
const partData = 4

// readLayout reads the partition table, and the configuration that says where
// the boot environment is.
func readLayout(disk io.ReaderAt, envConfig string) (layout, error) {
	var l layout
	// Entries of 128 bytes from sector 2; first and last sector at 32 and 40
	// (source: UEFI specification, GUID partition table).
	for number, part := range map[int]*span{judge.Parts.A: &l.slots[0], judge.Parts.B: &l.slots[1], partData: &l.data} {
		entry := make([]byte, 128)
		if _, err := disk.ReadAt(entry, 1024+int64(number-1)*128); err != nil {
			return l, fmt.Errorf("partition table: %w", err)
		}
		first, last := binary.LittleEndian.Uint64(entry[32:]), binary.LittleEndian.Uint64(entry[40:])
		if first == 0 || last < first || last > 1<<31 {
			return l, fmt.Errorf("partition table: partition %d from sector %d to %d", number, first, last)
		}
		*part = span{int64(first) * 512, int64(last-first+1) * 512} //nolint:gosec // bounded above
	}
	text, err := os.ReadFile(envConfig)
	if err != nil {
		return l, err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var device string
		if count, _ := fmt.Sscanf(line, "%s 0x%x 0x%x", &device, &l.env[min(n, 1)].off, &l.env[min(n, 1)].size); count == 3 {
			n++
		}
	}
	if n != 2 || l.env[0].size != l.env[1].size {
		return l, fmt.Errorf("%s: %d copies of the boot environment", envConfig, n)
	}
	return l, nil
}

// slotOf returns which slot holds the offset, -1 if none.
func (l layout) slotOf(off int64) int {
	for i, s := range l.slots {
		if s.has(off) {
			return i
		}
	}
	return -1
}

func (l layout) inEnv(off int64) bool { return l.env[0].has(off) || l.env[1].has(off) }

// unit is what the disk writes as one: sectors, but blocks in the data partition
// and in the slots, whose file systems do not bear less. A superblock of ext4 that
// is torn in its middle has a wrong checksum, and no kernel mounts it.
func (l layout) unit(off int64) int64 {
	if l.data.has(off) || l.slotOf(off) >= 0 {
		return medium.BlockSize
	}
	return medium.SectorSize
}
