package grubtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// BlockSize is the size of the blocks that WriteDir makes, in bytes.
const BlockSize = 1024

// Image returns the files of an environment as an image builder makes them,
// with the variables given as "name=value".
func Image(lines ...string) map[string][]byte {
	env, lock := Block(BlockSize, lines...), Block(BlockSize, "editing=0")
	sum := fmt.Appendf(nil, "%x  lock\n", sha256.Sum256(lock))
	return map[string][]byte{Env1: env, Lock1: lock, Sum1: sum, Env2: env, Lock2: lock, Sum2: sum}
}

// WriteDir writes the files of an [Image] into a directory.
func WriteDir(dir string, lines ...string) error {
	var errs []error
	for name, b := range Image(lines...) {
		path := filepath.Join(dir, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
	}
	return errors.Join(errs...)
}
