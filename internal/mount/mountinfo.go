package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMountLine is the longest line of mountinfo that is read, in bytes: three
// paths of 4 KiB, each byte escaped as four, and room for options.
const maxMountLine = 64 << 10

// IsMounted reports whether a file system on the block device with number dev
// (as in stat's st_rdev) is mounted, and where first. ok is meaningless after an error.
//
// It sees the mounts of this process's mount namespace only. And btrfs shows
// numbers that are no block device. To be sure that nobody anywhere has a device
// mounted, open it with O_EXCL as well.
//
// (source: proc_pid_mountinfo(5))
func IsMounted(dev uint64) (where string, ok bool, err error) {
	return isMounted("/proc/self/mountinfo", dev)
}

func isMounted(file string, dev uint64) (string, bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	where, ok, err := findMount(f, dev)
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", file, err)
	}
	return where, ok, nil
}

// findMount returns the mount point of the first mount of dev in r, which is
// in the format of mountinfo. A malformed line is an error, for it might be the one.
func findMount(r io.Reader, dev uint64) (where string, ok bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMountLine)
	for n := 1; lines.Scan(); n++ {
		// mount ID, parent ID, major:minor, root, mount point, options, …
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			return "", false, fmt.Errorf("line %d: too few fields", n)
		}
		number, err := parseNumber(fields[2])
		if err != nil {
			return "", false, fmt.Errorf("line %d: %w", n, err)
		}
		if number == dev {
			return unescape(fields[4]), true, nil
		}
	}
	return "", false, lines.Err()
}

// unescape decodes the three octal digits after a backslash, which is how the
// kernel writes spaces, tabs, newlines and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		size := 1
		c := s[0]
		if len(s) >= 4 {
			if v, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				c, size = byte(v), 4
			}
		}
		b.WriteByte(c)
		s = s[size:]
	}
}

// parseNumber decodes "major:minor" in decimal.
func parseNumber(s string) (uint64, error) {
	ma, mi, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(ma, 10, 32)
	minor, err2 := strconv.ParseUint(mi, 10, 32)
	if !ok || errors.Join(err1, err2) != nil {
		return 0, fmt.Errorf("device number %.64q: want major:minor", s)
	}
	return unix.Mkdev(uint32(major), uint32(minor)), nil
}

// numberString encodes a device number as "major:minor" in decimal.
func numberString(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}
