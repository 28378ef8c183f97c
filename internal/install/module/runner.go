package module

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// Defaults of [Runner] (source: Mender client configuration,
// ModuleTimeoutSeconds; the time of grace is that of the 3.x client).
const (
	DefaultTimeout = 4 * time.Hour
	DefaultGrace   = time.Minute
)

// Limits, in bytes.
const (
	maxTypeName = 255
	maxQuoted   = 64 // of a foreign string in an error text
)

// ErrNotFound means that the device has no update module for a payload type.
var ErrNotFound = errors.New("no update module for this payload type")

// State is what a module is called to do.
type State string

// The states that [Runner.Run] takes. The others have functions of their own.
const (
	ArtifactInstall  State = "ArtifactInstall"
	ArtifactCommit   State = "ArtifactCommit"
	ArtifactRollback State = "ArtifactRollback"
	ArtifactFailure  State = "ArtifactFailure"
)

const (
	stateDownload      State = "Download"
	stateDownloadSizes State = "DownloadWithFileSizes"
	stateCleanup       State = "Cleanup"
)

// Question is a state that a module answers on its standard output.
type Question string

// The questions.
const (
	SupportsRollback        Question = "SupportsRollback"
	NeedsArtifactReboot     Question = "NeedsArtifactReboot"
	providePayloadFileSizes Question = "ProvidePayloadFileSizes"
)

// Runner runs the update modules of a device, one at a time. A zero duration
// stands for its default.
type Runner struct {
	Dir     string        // of the modules: /usr/share/mender/modules/v3
	DataDir string        // Mender's data directory, which must exist
	Timeout time.Duration // of one call
	Grace   time.Duration // from SIGTERM to SIGKILL after that
	// Log hears what modules write. Lines are safe to print. Optional.
	Log func(line string)
}

// Failure says that an update module did not do what it was called for.
type Failure struct {
	Module   string // payload type
	State    string
	ExitCode int    // -1 if it did not run, timed out or a signal ended it
	Reason   string // one line: "exit status 3", "timed out"
	Err      error  // why it did not run, or nil
}

// Error names the module, the state and the reason.
func (f *Failure) Error() string {
	return fmt.Sprintf("update module %s: %s: %s", quote(f.Module), f.State, f.Reason)
}

// Unwrap returns why the module did not run, or nil.
func (f *Failure) Unwrap() error { return f.Err }

// Find tells whether the device has a module for the payload type. The error is
// [ErrNotFound] if it has none, or has one that cannot be executed.
func (r *Runner) Find(payloadType string) error {
	_, err := r.find(payloadType)
	return err
}

// find returns the path of a module. The type may come from the store, which
// another client wrote: it must be a plain name here, too.
func (r *Runner) find(payloadType string) (string, error) {
	if !isTypeName(payloadType) {
		return "", fmt.Errorf("payload type %s: not a plain name: %w", quote(payloadType), ErrNotFound)
	}
	path := filepath.Join(r.Dir, payloadType)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("payload type %s: %w: there is no %s", quote(payloadType), ErrNotFound, path)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("payload type %s: %w: %s is not a regular file", quote(payloadType), ErrNotFound, path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return "", fmt.Errorf("payload type %s: %w: %s is not executable", quote(payloadType), ErrNotFound, path)
	}
	return path, nil
}

// isTypeName reports whether s is one path component that is neither hidden
// nor steers a terminal.
func isTypeName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxTypeName && s[0] != '.' && s[0] != '-'
}

// Run calls the module for a state. The error is a [*Failure], or that of
// [Runner.Find]. On nil, what the module wrote on the file system of the work
// tree is on the medium: a record may build on it. On others that is up to the
// module.
func (r *Runner) Run(ctx context.Context, payloadType string, state State) error {
	if _, err := r.call(ctx, payloadType, string(state), true); err != nil {
		return err
	}
	switch state {
	case ArtifactInstall, ArtifactCommit, ArtifactRollback:
		return r.Flush()
	default:
		return nil
	}
}

// Ask asks the module a question and returns whether the answer is yes. No
// answer is no. Any other answer than the protocol has is a [*Failure], so that
// nothing rests on what was not understood.
func (r *Runner) Ask(ctx context.Context, payloadType string, q Question) (bool, error) {
	out, err := r.call(ctx, payloadType, string(q), false)
	if err != nil {
		return false, err
	}
	switch answer := strings.TrimSuffix(out, "\n"); {
	case answer == "Yes", answer == "Automatic" && q == NeedsArtifactReboot:
		return true, nil
	case answer == "No", answer == "":
		return false, nil
	default:
		return false, &Failure{Module: payloadType, State: string(q), Reason: "unexpected answer " + quote(answer)}
	}
}

// call runs the module to its end and returns the end of its standard output.
func (r *Runner) call(ctx context.Context, payloadType, state string, logOut bool) (string, error) {
	path, err := r.find(payloadType)
	if err != nil {
		return "", err
	}
	res, err := runner.Run(ctx, runner.Cmd{
		Path:    path,
		Args:    []string{state, r.tree()},
		Dir:     r.tree(),
		Timeout: cmp.Or(r.Timeout, DefaultTimeout),
		Grace:   cmp.Or(r.Grace, DefaultGrace),
	})
	if logOut {
		r.logOutput(payloadType, state, "stdout", res.Stdout)
	}
	r.logOutput(payloadType, state, "stderr", res.Stderr)
	switch {
	case err != nil:
		return "", &Failure{Module: payloadType, State: state, ExitCode: -1, Reason: err.Error(), Err: err}
	case res.TimedOut: // whatever its exit code says
		return "", &Failure{Module: payloadType, State: state, ExitCode: -1, Reason: res.String()}
	case !res.OK():
		return "", &Failure{Module: payloadType, State: state, ExitCode: res.ExitCode, Reason: res.String()}
	}
	return res.Stdout, nil
}

// Cleanup calls the module for the last time and removes the work tree, in this
// order: a power cut in between makes the next run call it again. Without a
// work tree there is nothing to do. The tree goes, also if the module fails.
func (r *Runner) Cleanup(ctx context.Context, payloadType string) error {
	if _, err := os.Lstat(r.tree()); err != nil {
		return ignoreAbsent(err)
	}
	_, err := r.call(ctx, payloadType, string(stateCleanup), true)
	return errors.Join(err, r.removeTree())
}

func (r *Runner) logOutput(payloadType, state, stream, text string) {
	text = strings.TrimRight(runner.Printable(text), "\n")
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		r.log(fmt.Sprintf("update module %s %s %s: %s", quote(payloadType), state, stream, line))
	}
}

func (r *Runner) log(line string) {
	if r.Log != nil {
		r.Log(line)
	}
}

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}
