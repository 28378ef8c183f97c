package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

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

const maxName = 255 // bytes of a name in a damaged store that is believed

// Errors that callers decide by.
var (
	// ErrLocked means that another run of ours is at work.
	ErrLocked = errors.New("another update operation is running")
	// ErrCorrupt means that the store is no LMDB file, or that it or a value of
	// Mender's in it is damaged.
	ErrCorrupt = errors.New("the store is damaged")
	// ErrIO means that the medium of the store failed, or is full or read-only.
	ErrIO = errors.New("the store cannot be read or written")
)

// Store is the record of a device, locked for one writer.
type Store struct {
	dir  string
	lock *os.File
}

// Open locks the store in the data directory dir, and creates nothing but the
// lock's own file. The error is [ErrLocked] if another run holds the lock. It
// is released by Close and by the end of the program, however that comes.
func Open(dir string) (*Store, error) {
	path := filepath.Join(dir, lockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: lock it: %w", ErrIO, err)
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
// what is read is never half of something. Errors are those of [Store.Load].
func Read(dir string) (Record, error) {
	r, _, err := read(dir)
	return r, err
}

// Load returns the record; that of a store that is not there is empty. The
// error is [ErrCorrupt], with what could be read, for a damaged store, see
// [Store.Repair]; [ErrIO] for one that cannot be read; and [ErrStateVersion],
// with a record, for a pending update of an unknown form.
func (s *Store) Load() (Record, error) { return Read(s.dir) }

func read(dir string) (Record, lmdb.Layout, error) {
	path := filepath.Join(dir, storeName)
	b, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, lmdb.Native(), nil
	}
	if err != nil {
		return Record{}, lmdb.Layout{}, fmt.Errorf("%w: %w", ErrIO, err)
	}
	kv, layout, damage := lmdb.Decode(b)
	r, err := decodeRecord(kv)
	if damage != nil {
		if layout.WordSize == 0 { // not even that can be seen
			layout = lmdb.Native()
		}
		err = fmt.Errorf("%w: %w", ErrCorrupt, damage)
	}
	if errors.Is(err, ErrCorrupt) {
		r.dropImplausible()
	}
	if err != nil {
		return r, layout, fmt.Errorf("read the store %s: %w", path, err)
	}
	return r, layout, nil
}

// openRegular opens a file to read it. What is none, such as a pipe that nobody
// writes, is refused: to open or to read it could hang.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is no regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := openRegular(path)
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
// byte for byte. On error, mostly [ErrIO], the store is as it was, or holds this
// record already.
//
// So is the layout of the file, with the word size of whoever made it. An update
// may have brought a system of another word size; if it does not last, the
// Mender client of the old one reads no other layout.
//
// A damaged store is [ErrCorrupt] and stays as it is: see [Store.Repair].
func (s *Store) Save(r Record) error {
	old, layout, err := read(s.dir)
	if err != nil && !errors.Is(err, ErrStateVersion) {
		return err
	}
	r.foreign = old.foreign
	return s.write(r, layout)
}

func (s *Store) write(r Record, layout lmdb.Layout) error {
	kv, err := encodeRecord(r)
	if err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	b, err := lmdb.Encode(kv, layout)
	if err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(s.dir, storeName), b, 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	return nil
}

// Repair sets a damaged store aside as mender-store-broken, and starts a new
// one that has everything of it that can still be read. It tells whether the
// store was damaged; a sound one it leaves alone. Where the pending update is
// lost, the boot environment alone knows whether a trial is running.
//
// The damaged store is copied, then replaced: a power cut between the two
// leaves it in place, for the next Repair.
func (s *Store) Repair() (bool, error) {
	r, layout, err := read(s.dir)
	if !errors.Is(err, ErrCorrupt) {
		return false, nil
	}
	b, err := readBounded(filepath.Join(s.dir, storeName))
	if err != nil {
		return true, fmt.Errorf("repair the store: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(s.dir, brokenName), b, 0o600); err != nil {
		return true, fmt.Errorf("set the damaged store aside: %w", err)
	}
	return true, s.write(r, layout)
}

// dropImplausible forgets what any bytes would pass for, and these are no text.
func (r *Record) dropImplausible() {
	for _, name := range []*string{&r.ArtifactName, &r.ArtifactGroup} {
		if !plausible(*name) {
			*name = ""
		}
	}
}

// plausible tells whether a name from a damaged store is not itself damage.
func plausible(name string) bool {
	return len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// Close gives the lock back.
func (s *Store) Close() error { return s.lock.Close() }
