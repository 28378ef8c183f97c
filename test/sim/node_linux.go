package sim

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cloneNode makes another node for the block device at from.
func cloneNode(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return fmt.Errorf("stat %s: %w", from, err)
	}
	if err := unix.Mknod(to, unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
		return fmt.Errorf("mknod %s: %w", to, err)
	}
	return nil
}

// ChangeMedium puts a copy of the image into a read-only loop device that holds
// it: what is there has the same name, number and content, and is another
// medium, as when a card is swapped. The copy is made in the directory scratch,
// and must stay.
func ChangeMedium(loop, image, scratch string) error {
	b, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	path := filepath.Join(scratch, "medium-of-"+filepath.Base(loop))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	medium, err := os.Open(path)
	if err != nil {
		return err
	}
	defer medium.Close() // the loop device has its own hold on it
	device, err := os.Open(loop)
	if err != nil {
		return err
	}
	defer device.Close()        // read only
	const loopChangeFD = 0x4C06 // (source: Linux, include/uapi/linux/loop.h)
	if err := unix.IoctlSetInt(int(device.Fd()), loopChangeFD, int(medium.Fd())); err != nil {
		return fmt.Errorf("change the medium of %s: %w", loop, err)
	}
	return nil
}
