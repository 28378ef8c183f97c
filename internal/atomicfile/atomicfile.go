// Package atomicfile replaces files so that a power cut leaves the old content
// or the new, and appends to logs so that at most the last line is torn.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write replaces the content of the file at path.
//
// The order makes a cut safe at any instant:
//
//  1. Write a temporary file beside it. A cut leaves that file, which the next
//     Write removes.
//  2. Flush it. Without this the rename may reach the medium before the data.
//  3. Rename it. One step of the file system: old or new.
//  4. Flush the directory. Until then a cut may still show the old file;
//     after it, Write has returned and the new one is there for good.
//
// On error the old file is as it was; an error of step 4 means old or new.
func Write(path string, data []byte, mode fs.FileMode) error {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	temp := filepath.Join(dir, "."+base+".tmp")
	if err := write(temp, data, mode); err != nil {
		return errors.Join(err, remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, remove(temp))
	}
	return SyncDir(dir)
}

func write(temp string, data []byte, mode fs.FileMode) error {
	if err := remove(temp); err != nil { // left by a cut
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask is
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory %s: %w", dir, err), d.Close())
	}
	return d.Close()
}
