package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write replaces the content of the file at path, or creates it. The file gets
// the permissions of mode whatever the umask is. A symbolic link at path is
// replaced, not followed.
//
// The order makes a cut safe at any instant:
//
//  1. Remove what an earlier cut left under the temporary name. The name is
//     fixed, so at most one such file is ever there.
//  2. Write the temporary file beside the old one. A cut leaves the old file.
//  3. Flush it. Without this the rename may reach the medium before the data.
//  4. Rename it. One step of the file system: old or new.
//  5. Flush the directory. Until then a cut may still show the old file;
//     after it, the new one is there for good.
//
// On error the old file is as it was, except that after an error of step 5 the
// file is the old one or the new one. Two calls for the same path must not run
// at once.
func Write(path string, data []byte, mode fs.FileMode) error {
	return replace(linux{}, path, data, mode)
}

// disk is what [Write] asks of a file system. A test puts one in its place
// that loses what was not flushed.
type disk interface {
	create(path string, mode fs.FileMode) (file, error) // fails if path is there
	remove(path string) error
	rename(from, to string) error
	syncDir(path string) error
}

type file interface {
	io.WriteCloser
	Chmod(fs.FileMode) error
	Sync() error
}

func replace(d disk, path string, data []byte, mode fs.FileMode) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	temp := filepath.Join(dir, "."+base+".tmp")
	if err := removeStale(d, temp); err != nil {
		return err
	}
	if err := writeNew(d, temp, data, mode); err != nil {
		return errors.Join(err, removeStale(d, temp))
	}
	if err := d.rename(temp, path); err != nil {
		return errors.Join(err, removeStale(d, temp))
	}
	return d.syncDir(dir)
}

func removeStale(d disk, path string) error {
	if err := d.remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func writeNew(d disk, path string, data []byte, mode fs.FileMode) error {
	f, err := d.create(path, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// linux is the disk that is there.
type linux struct{}

func (linux) create(path string, mode fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, err // not f: an interface that holds a nil file is not nil
	}
	return f, nil
}

func (linux) remove(path string) error     { return os.Remove(path) }
func (linux) rename(from, to string) error { return os.Rename(from, to) }
func (linux) syncDir(path string) error    { return SyncDir(path) }

// SyncDir makes the names in a directory durable: files that were created,
// renamed or removed there.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", path, err), d.Close())
	}
	return d.Close()
}
