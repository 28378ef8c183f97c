package script

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/usb-updater/usb-updater/internal/artifact"
)

// versionFile holds the format version of the artifact that brought the
// scripts, as a decimal number without a line end.
const versionFile = "version"

// Install makes dir hold these scripts, mode 0755, and nothing else. The parent
// of dir must exist. version is the artifact's format version, 2 or 3; without
// scripts it is not kept.
//
// The order of what reaches the medium: the old content goes, then the scripts
// come one by one, then the version file. A power cut leaves a part of the old
// or of the new scripts, and a client of the 3.x series refuses the latter for
// the missing version file. Nothing runs either of them, if the caller does as
// it should: it calls Install while no update is pending, and records the
// update as pending afterwards.
//
// A script whose name breaks the rule, or comes twice, is refused before dir
// changes. After any other error dir holds a part of the old or new scripts.
func Install(dir string, version int, scripts []artifact.Script) error {
	if err := validate(version, scripts); err != nil {
		return fmt.Errorf("install state scripts: %w", err)
	}
	if err := install(dir, version, scripts); err != nil {
		return fmt.Errorf("install state scripts: %w", err)
	}
	return nil
}

func validate(version int, scripts []artifact.Script) error {
	if len(scripts) > 0 && !supported(version) {
		return fmt.Errorf("artifact format version %d, want 2 or 3", version)
	}
	seen := make(map[string]bool, len(scripts))
	for _, s := range scripts {
		switch {
		case !artifact.IsScriptName(s.Name):
			return fmt.Errorf("%s is not the name of a state script", quote(s.Name))
		case seen[s.Name]:
			return fmt.Errorf("%s occurs twice", quote(s.Name))
		}
		seen[s.Name] = true
	}
	return nil
}

func install(dir string, version int, scripts []artifact.Script) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := empty(dir); err != nil {
		return err
	}
	if len(scripts) == 0 {
		return nil
	}
	for _, s := range scripts {
		if err := writeFile(filepath.Join(dir, s.Name), s.Data, 0o755); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, versionFile), []byte(strconv.Itoa(version)), 0o644); err != nil {
		return err
	}
	return syncDir(dir)
}

// Clear empties dir. A missing one is left missing, and what is no directory as it
// is.
func Clear(dir string) error {
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return nil
	}
	if err := empty(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state scripts: %w", err)
	}
	return nil
}

// makeDir does not make the parent: a data directory that is missing is most
// often one that is not mounted. What has its place and is no directory goes, a link
// among it: nobody wants what is behind it emptied.
func makeDir(dir string) error {
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return err
	}
	for _, e := range entries {
		// It removes a link, not what the link points to.
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// writeFile creates a file that must not exist yet, and brings it to the
// medium. It does not depend on the umask.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
