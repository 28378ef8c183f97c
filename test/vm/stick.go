package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Stick writes the image of a stick without a partition table that holds the
// files, in a file system of that type.
func Stick(ctx context.Context, path, fsType string, size int64, files ...string) error {
	if err := truncate(path, size*mib); err != nil {
		return err
	}
	switch fsType {
	case "vfat":
		if err := run(ctx, "mkfs.vfat", path); err != nil {
			return err
		}
		if len(files) == 0 {
			return nil
		}
		return run(ctx, "mcopy", slices.Concat([]string{"-i", path}, files, []string{"::/"})...)
	case "ext4":
		dir, err := os.MkdirTemp("", "stick")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if len(files) > 0 {
			if err := run(ctx, "cp", append(slices.Clone(files), dir)...); err != nil {
				return err
			}
		}
		return run(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, path)
	case "exfat": // nothing here can fill it; the device can
		if len(files) > 0 {
			return errors.New("stick: files for exfat")
		}
		return run(ctx, "mkfs.exfat", path)
	case "iso9660":
		return run(ctx, "xorriso", slices.Concat([]string{"-as", "mkisofs", "-quiet", "-J", "-r", "-o", path}, files)...)
	default:
		return fmt.Errorf("stick: no file system %q", fsType)
	}
}

// Partitioned writes the image of a stick with a GPT and a partition of size
// MiB for each of the images of file systems.
func Partitioned(ctx context.Context, path string, size int, images ...string) error {
	const first = 2048 // sectors
	if err := truncate(path, int64(2+size*len(images))*mib); err != nil {
		return err
	}
	args := []string{"-a", "2048"}
	start := func(i int) int { return first + i*size*mib/sectorSize }
	for i := range images {
		args = append(args, "-n", fmt.Sprintf("%d:%d:+%dM", i+1, start(i), size))
	}
	if err := run(ctx, "sgdisk", append(args, path)...); err != nil {
		return err
	}
	for i, image := range images {
		if err := insert(path, int64(start(i)), image); err != nil {
			return err
		}
	}
	return nil
}
