package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/atomicfile"
	"github.com/usb-updater/usb-updater/internal/lmdb"
)

// Names in the data directory.
const (
	storeName  = "mender-store"
	brokenName = "mender-store-broken"
	lockName   = "usb-updater.lock"
)

// Errors that callers decide by.
var (
	// ErrLocked means that another run of ours is at work.
	ErrLocked = errors.New("another update operation is running")
	// ErrCorrupt means that the store is no LMDB file, or damaged.
	ErrCorrupt = errors.New("the store is damaged")
)

// Store is the record of a device, locked for one writer.
type Store struct {
	dir  string
	lock *os.File
}

// Open locks the store in the data directory dir; the error is [ErrLocked] if
// another run holds it. A store that is not there yet is an empty record.
func Open(dir string) (*Store, error) {
	path := filepath.Join(dir, lockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("lock the store %s: %w", path, err), lock.Close())
	}
	return &Store{dir: dir, lock: lock}, nil
}

// Read returns the record without a lock. The store is replaced as a whole, so
// what is read is never half of something.
func Read(dir string) (Record, error) {
	r, _, err := read(dir)
	return r, err
}

// Load returns the record. A damaged store is [ErrCorrupt]; see [Store.Repair].
func (s *Store) Load() (Record, error) { return Read(s.dir) }

func read(dir string) (Record, lmdb.Layout, error) {
	path := filepath.Join(dir, storeName)
	b, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, lmdb.Native(), nil
	}
	if err != nil {
		return Record{}, lmdb.Layout{}, fmt.Errorf("read the store: %w", err)
	}
	kv, layout, err := lmdb.Decode(b)
	if err != nil {
		return Record{}, lmdb.Layout{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	r, err := decodeRecord(kv)
	return r, layout, err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, lmdb.MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > lmdb.MaxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, lmdb.MaxFile)
	}
	return b, nil
}

// Save replaces the record: after a power cut at any instant the store holds
// the old one or this one. Keys of the store that are not in a record are kept
// as they are.
func (s *Store) Save(r Record) error {
	old, layout, err := read(s.dir)
	switch {
	case errors.Is(err, ErrCorrupt):
		return err
	case err == nil:
		r.foreign = old.foreign
	}
	if layout.PageSize == 0 {
		layout = lmdb.Native()
	}
	layout.WordSize = lmdb.Native().WordSize // of the machine that runs, which may be the new one
	kv, err := encodeRecord(r)
	if err != nil {
		return err
	}
	b, err := lmdb.Encode(kv, layout)
	if err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(s.dir, storeName), b, 0o600); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}

// Repair sets a damaged store aside as mender-store-broken, so that the next
// record starts empty. It tells whether there was one to set aside. The boot
// environment still says whether a trial is running.
func (s *Store) Repair() (bool, error) {
	_, _, err := read(s.dir)
	if !errors.Is(err, ErrCorrupt) {
		return false, nil
	}
	if err := os.Rename(filepath.Join(s.dir, storeName), filepath.Join(s.dir, brokenName)); err != nil {
		return false, fmt.Errorf("set the damaged store aside: %w", err)
	}
	return true, atomicfile.SyncDir(s.dir)
}

// Close gives the lock back.
func (s *Store) Close() error { return s.lock.Close() }
