package sim

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
)

// Release is the root file system of one release.
type Release struct {
	Name string
	// Files are added below the root, by path: programs, keys, configuration.
	Files map[string]File
}

// File is a file of a release.
type File struct {
	Content string
	Mode    os.FileMode
}

// Image makes an ext4 image of size bytes at path. It holds what the programs
// need to know about the device.
func (r Release) Image(path string, size int64) error {
	files := map[string]File{
		"etc/mender/artifact_info": {"artifact_name=" + r.Name + "\n", 0o644},
		"etc/mender/mender.conf":   {`{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3"}` + "\n", 0o644},
		"etc/fw_env.config":        {FwEnvConfig, 0o644},
	}
	maps.Copy(files, r.Files)
	tree, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree) // scratch
	for name, f := range files {
		full := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(f.Content), f.Mode); err != nil {
			return err
		}
	}
	if err := makeFile(path, size); err != nil {
		return err
	}
	out, err := exec.Command(Tool("mke2fs"), "-q", "-F", "-t", "ext4", "-L", "rootfs", "-d", tree, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	return nil
}
