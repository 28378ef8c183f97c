package mountinfo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Self is the list of the mount namespace of this process.
const Self = "/proc/self/mountinfo"

// maxLine is the longest line that is read, in bytes: three paths of 4 KiB,
// each byte escaped as four, and room for options.
const maxLine = 64 << 10

// Entry is one mount.
type Entry struct {
	Dev    uint64 // device number of the file system, as in stat's st_dev
	Point  string // mount point, as seen from the root directory of this process
	FSType string // such as "ext4"
	Source string // what was mounted, as whoever mounted it wrote it
	// Shared: what is mounted below it appears in other places, too. Slave: what
	// is mounted below its master appears here. A shared slave passes on to
	// copies of itself, and not to its master.
	Shared, Slave bool
}

// At returns the mount in the list at file that holds path, which is absolute
// and clean and has no symbolic links.
func At(file, path string) (Entry, error) {
	var at Entry
	_, _, err := Find(file, func(e Entry) (bool, error) {
		below := e.Point == path || e.Point == "/" || strings.HasPrefix(path, e.Point+"/")
		if below && len(e.Point) >= len(at.Point) { // a later one covers an earlier one
			at = e
		}
		return false, nil
	})
	if err == nil && at.Point == "" {
		err = fmt.Errorf("read %s: no mount holds %.64q", file, path)
	}
	return at, err
}

// Find returns the first mount in the list at path for which match returns
// true. An error of match ends the search. found is meaningless after an error.
func Find(path string, match func(Entry) (bool, error)) (e Entry, found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Entry{}, false, err
	}
	defer f.Close()
	e, found, err = find(f, match)
	if err != nil {
		return Entry{}, false, fmt.Errorf("read %s: %w", path, err)
	}
	return e, found, nil
}

func find(r io.Reader, match func(Entry) (bool, error)) (Entry, bool, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		e, err := decode(lines.Text())
		ok := false
		if err == nil {
			ok, err = match(e)
		}
		if err != nil {
			return Entry{}, false, fmt.Errorf("line %d: %w", n, err)
		}
		if ok {
			return e, true, nil
		}
	}
	return Entry{}, false, lines.Err()
}

func decode(line string) (Entry, error) {
	const tags = 6 // the field where they begin
	fields := strings.Split(line, " ")
	dash := -1
	if len(fields) > tags {
		dash = slices.Index(fields[tags:], "-") + tags
	}
	if dash < tags || len(fields) < dash+4 {
		return Entry{}, errors.New("too few fields")
	}
	dev, err := ParseNumber(fields[2])
	if err != nil {
		return Entry{}, err
	}
	has := func(tag string) bool {
		return slices.ContainsFunc(fields[tags:dash], func(f string) bool { return strings.HasPrefix(f, tag+":") })
	}
	return Entry{
		Dev: dev, Point: unescape(fields[4]), FSType: unescape(fields[dash+1]), Source: unescape(fields[dash+2]),
		Shared: has("shared"), Slave: has("master"),
	}, nil
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

// ParseNumber decodes a device number that is written as "major:minor" in
// decimal, as the kernel does it here and in sysfs.
func ParseNumber(s string) (uint64, error) {
	ma, mi, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(ma, 10, 32)
	minor, err2 := strconv.ParseUint(mi, 10, 32)
	if !ok || errors.Join(err1, err2) != nil {
		return 0, fmt.Errorf("device number %.64q: want major:minor", s)
	}
	return unix.Mkdev(uint32(major), uint32(minor)), nil
}
