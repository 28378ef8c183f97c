package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile is how much of a file is searched, in bytes.
const maxFile = 256 << 10

func fileChecks(files []File) ([]check, error) {
	var checks []check
	for _, f := range files {
		if !filepath.IsAbs(f.Path) {
			return nil, fmt.Errorf("\"Health.Files\" has %s: want an absolute path", quote(f.Path))
		}
		checks = append(checks, fileCheck(f))
	}
	return checks, nil
}

// fileCheck is one file that must be there.
type fileCheck File

func (f fileCheck) name() string { return "file " + f.Path }

func (f fileCheck) run(context.Context) verdict {
	if f.Contains == "" {
		if _, err := os.Stat(f.Path); err != nil {
			return wrong("%v", cause(err))
		}
		return verdict{}
	}
	// A FIFO that nobody writes must not hold the check up.
	file, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return wrong("%v", cause(err))
	}
	defer file.Close() // read only
	info, err := file.Stat()
	if err != nil {
		return wrong("%v", cause(err))
	}
	if !info.Mode().IsRegular() {
		return wrong("is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return wrong("%v", cause(err))
	}
	if !bytes.Contains(b, []byte(f.Contains)) {
		v := wrong("does not contain %s", quote(f.Contains))
		v.output = string(b[:min(len(b), maxOutput)])
		return v
	}
	return verdict{}
}

// cause leaves out the path, which is the check's name.
func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// quote makes foreign text fit for an error.
func quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
