package runner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: nobody else is kept from running anything")
	}
	tests := []struct {
		name string
		mode fs.FileMode
		uid  int
		dir  bool
		want error
	}{
		{"root's", 0o755, 0, false, nil},
		{"written by a group", 0o775, 0, false, nil},
		{"written by everybody", 0o757, 0, false, ErrWorldWritable},
		{"somebody's", 0o755, 1000, false, ErrNotRoots},
		{"root's directory", 0o755, 0, true, nil},
		{"open directory", 0o777, 0, true, ErrWorldWritable},
		{"open directory, sticky", 0o777 | fs.ModeSticky, 0, true, ErrWorldWritable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			make := func() error { return os.WriteFile(path, nil, 0o600) }
			if tt.dir {
				make = func() error { return os.Mkdir(path, 0o700) }
			}
			if err := errors.Join(make(), os.Chown(path, tt.uid, 0), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			link := path + ".link"
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{path, link} {
				if err := CheckOwner(name); !errors.Is(err, tt.want) {
					t.Errorf("CheckOwner(%s) = %v, want %v", filepath.Base(name), err, tt.want)
				}
			}
		})
	}
	if err := CheckOwner(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CheckOwner of nothing = %v, want fs.ErrNotExist", err)
	}
}
