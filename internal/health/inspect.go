package health

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// Inspect tells which executables of a directory a run would start, and why
// others would fail before they start, one phrase each. It runs nothing. The
// error means that the directory cannot be read.
func Inspect(dir string) (names, problems []string, err error) {
	names, err = list(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("health check: %w", err)
	}
	if len(names) == 0 {
		return nil, nil, nil
	}
	for _, name := range append([]string{"."}, names...) {
		path := filepath.Join(dir, name)
		reason := distrust(path)
		if reason == "" && name != "." {
			reason = unfit(path)
		}
		if reason != "" {
			problems = append(problems, runner.Printable(name)+" "+reason)
		}
	}
	return names, problems, nil
}

// unfit says why a check cannot be started, or "".
func unfit(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "cannot be looked at"
	case !info.Mode().IsRegular():
		return runner.ErrNotRegular.Error()
	case info.Mode()&0o111 == 0:
		return runner.ErrNotExecutable.Error()
	default:
		return ""
	}
}
