// Command flash does in the virtual device what the tools of mtd-utils do, so
// that they need not be in its image:
//
//	flash attach MTD                          /dev/ubi0 on an MTD device
//	flash volume UBI NAME MIB static|dynamic  a volume, with the next number
//	flash write VOLUME FILE                   a volume update
//	flash block VOLUME                        a block device over a volume
//
// (source: Linux, include/uapi/mtd/ubi-user.h)
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flash:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "attach":
		return attach(args[1])
	case len(args) == 5 && args[0] == "volume":
		return volume(args[1], args[2], args[3], args[4])
	case len(args) == 3 && args[0] == "write":
		return write(args[1], args[2])
	case len(args) == 2 && args[0] == "block":
		return control(args[1], unix.UBI_IOCVOLCRBLK, make([]byte, 128))
	default:
		return errors.New("see the package comment")
	}
}

func attach(mtd string) error {
	n, err := strconv.ParseUint(mtd, 10, 31)
	if err != nil {
		return err
	}
	request := make([]byte, 24) // struct ubi_attach_req
	binary.NativeEndian.PutUint32(request[4:], uint32(n))
	// As on a NAND that cannot write less than a page: eraseblocks of 124 KiB are left of 128.
	binary.NativeEndian.PutUint32(request[8:], 2048)
	return control("/dev/ubi_ctrl", unix.UBI_IOCATT, request)
}

func volume(device, name, size, kind string) error {
	mib, err := strconv.ParseUint(size, 10, 31)
	if err != nil {
		return err
	}
	types := map[string]byte{"dynamic": 3, "static": 4}
	if types[kind] == 0 || len(name) > 127 {
		return errors.New("volume: bad name or type")
	}
	request := make([]byte, 152)                        // struct ubi_mkvol_req
	binary.NativeEndian.PutUint32(request, ^uint32(0))  // any number
	binary.NativeEndian.PutUint32(request[4:], 1)       // alignment
	binary.NativeEndian.PutUint64(request[8:], mib<<20) // size
	request[16] = types[kind]
	binary.NativeEndian.PutUint16(request[18:], uint16(len(name)))
	copy(request[24:], name)
	return control(device, unix.UBI_IOCMKVOL, request)
}

func write(path, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var size [8]byte
	binary.NativeEndian.PutUint64(size[:], uint64(info.Size()))
	if err := ioctl(out, unix.UBI_IOCVOLUP, size[:]); err != nil {
		return errors.Join(err, out.Close())
	}
	_, err = io.Copy(struct{ io.Writer }{out}, in) // no copy_file_range
	return errors.Join(err, out.Close())
}

func control(path string, request uint, arg []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(ioctl(f, request, arg), f.Close())
}

func ioctl(f *os.File, request uint, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return &os.PathError{Op: "ioctl", Path: f.Name(), Err: errno}
	}
	return nil
}
