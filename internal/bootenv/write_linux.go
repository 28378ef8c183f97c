package bootenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// headSize is the part that the second phase writes: the sector with the
// header, which storage writes as one.
const headSize = 512

// write puts the list on the medium. What was read is on it already.
func (u *UBoot) write(now snapshot, list stringList) error {
	target := now.copies[now.target()]
	image := u.layout.encode(list, now.copies[now.active].flags+1, target.at.Size)
	var err error
	switch {
	case u.layout.redundant:
		err = u.overwrite(target.at, func(m medium) error { return writeTwoPhase(m, image, target.flags) })
	case target.place.replace:
		err = replaceFile(target.place, image)
	default: // allowed by the configuration
		err = u.overwrite(target.at, func(m medium) error { return writeOnce(m, image) })
	}
	if err == nil {
		err = u.verify(target.at, image)
	}
	if err != nil {
		return fmt.Errorf("write boot environment %s: %w", target.at, err)
	}
	return nil
}

func (u *UBoot) overwrite(c Copy, write func(medium) error) (err error) {
	m, err := u.open(c, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return write(m)
}

// writeTwoPhase overwrites the copy that is not in force. The other copy holds
// the old values and is not touched, so what counts is that this one is never
// valid with anything but the new values.
//
// A single write is not enough. The flag byte is outside the CRC: if the sector
// with the header tears so that the new flag is there but the old CRC and data
// still are too, then the environment of two updates ago is the newest valid
// one. So the header is made wrong before the flag may change.
//
//	phase 1  everything, with the complement of the right CRC and with the flag
//	         byte that is there. Power cut: the old CRC over old data is the
//	         copy as it was, which loses to the other one; any other mixture
//	         has a wrong CRC. Old values.
//	flush    wrong CRC over new data. Old values.
//	phase 2  the sector of the header, of which CRC and flag change. Power cut:
//	         part of the CRC is as good as none, old values; all of it with the
//	         old flag is valid but holds the new values, so old or new, never a
//	         mixture; with the new flag, new values.
//	flush    new values.
//
// A fixed flag such as 0 or 0xff in phase 1 would be wrong: 0 is newer than
// 0xff. The first error ends it; after a failed flush more writes would be
// built on sand.
func writeTwoPhase(m medium, image []byte, oldFlag byte) error {
	invalid := bytes.Clone(image)
	for i := range 4 {
		invalid[i] = ^image[i]
	}
	invalid[4] = oldFlag
	if err := writeOnce(m, invalid); err != nil {
		return err
	}
	return writeOnce(m, image[:min(headSize, len(image))])
}

// writeOnce writes at the start of the copy and flushes.
func writeOnce(m medium, b []byte) error {
	if _, err := m.WriteAt(b, 0); err != nil {
		return err
	}
	if err := m.Sync(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// verify compares the medium with the image.
func (u *UBoot) verify(c Copy, image []byte) (err error) {
	m, err := u.open(c, false)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	got := make([]byte, len(image))
	if _, err := m.ReadAt(got, 0); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, image) {
		return ErrVerify
	}
	return nil
}

// maxReplace bounds the file that is copied to change an environment in it.
// A larger one, such as an image of a whole disk, is written in place.
const maxReplace = 16 << 20

// replaceFile writes a new file with the image in its place and renames it
// over the old one.
//
//	write new file, flush   power cut: old values; the next update removes it
//	rename                  old or new values, by the file system's promise
//	flush directory         new values
func replaceFile(p place, image []byte) (err error) {
	content, st, err := readAll(p.path)
	if err != nil {
		return err
	}
	if need := p.offset + int64(len(image)); need > int64(len(content)) {
		content = append(content, make([]byte, need-int64(len(content)))...)
	}
	copy(content[p.offset:], image)
	dir, base := filepath.Split(p.path)
	// One name, not a random one: leftovers of power cuts do not pile up. The
	// lock keeps other writers of ours away.
	tmp := filepath.Join(dir, "."+base+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = writeNew(tmp, content, st)
	if err == nil {
		err = os.Rename(tmp, p.path)
	}
	if err != nil {
		_ = os.Remove(tmp) // nothing refers to it, and the next update removes it, too
		return err
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readAll returns content, mode and owner of a file of bounded size.
func readAll(path string) (_ []byte, st unix.Stat_t, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, st, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, st, err
	}
	if st.Size > maxReplace {
		return nil, st, fmt.Errorf("file is larger than %d bytes: %w", maxReplace, ErrNotAtomic)
	}
	content := make([]byte, st.Size)
	_, err = io.ReadFull(f, content)
	return content, st, err
}

// writeNew creates path durably with mode and owner of another file.
func writeNew(path string, content []byte, like unix.Stat_t) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := giveTo(f, like); err != nil {
		return err
	}
	if err := unix.Fchmod(int(f.Fd()), like.Mode&0o7777); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// giveTo makes f belong to who owns another file. A file that does already is
// left alone: a sandbox may forbid the call as such.
func giveTo(f *os.File, like unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Uid == like.Uid && st.Gid == like.Gid {
		return nil
	}
	return unix.Fchown(int(f.Fd()), int(like.Uid), int(like.Gid))
}
