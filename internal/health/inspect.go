package health

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
		return unfitInterpreter(path)
	}
}

// maxFirstLine is how much of a script the kernel looks at (source: Linux,
// include/uapi/linux/binfmts.h, BINPRM_BUF_SIZE).
const maxFirstLine = 256

// unfitInterpreter says why the kernel cannot start a script, or "" for one that
// it can and for what is no script. A simulated device has the interpreters of
// this machine: that is where its checks run.
func unfitInterpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "" // who looks is not root
	}
	defer f.Close() // read only
	b, _ := io.ReadAll(io.LimitReader(f, maxFirstLine))
	line, _, _ := strings.Cut(string(b), "\n")
	line, script := strings.CutPrefix(line, "#!")
	if !script {
		return ""
	}
	if strings.HasSuffix(line, "\r") {
		return "has a first line that ends with a carriage return, as editors on Windows write it"
	}
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) == 0 {
		return "wants no interpreter behind its #!"
	}
	name := words[0]
	why := ""
	switch info, err := os.Stat(name); {
	case !filepath.IsAbs(name):
		why = "is no absolute path"
	case errors.Is(err, fs.ErrNotExist):
		why = "is not there"
	case err == nil && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0):
		why = "is not executable"
	default:
		return ""
	}
	return fmt.Sprintf("wants the interpreter %s, which %s", runner.Printable(name), why)
}
