package sim

import (
	"fmt"

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
