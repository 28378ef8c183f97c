package module

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// newRunner returns a runner whose only module, testmod, is a shell script.
func newRunner(t *testing.T, body string) *Runner {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\nSTATE=$1; FILES=$2\n" + body + "\nexit 0\n"
	if err := os.WriteFile(filepath.Join(dir, "testmod"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Runner{Dir: dir, DataDir: t.TempDir()}
}

func payload() Payload {
	return Payload{
		ArtifactName: "mod-2", ArtifactGroup: "new-group", PayloadType: "testmod",
		HeaderInfo: []byte(`{"h":1}`), TypeInfo: []byte(`{"t":1}`), MetaData: []byte(`{"m":1}`),
		CurrentName: "old", CurrentGroup: "old-group", DeviceType: "board",
	}
}

type file struct{ name, content string }

// stream sends files as an artifact does.
func stream(files ...file) func(context.Context, Open) error {
	return func(_ context.Context, open Open) error {
		for _, f := range files {
			w, err := open(f.name, int64(len(f.content)))
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, f.content); err != nil {
				return err
			}
		}
		return nil
	}
}

// list returns the names in the work tree, with a mark for what is no file.
func list(t *testing.T, r *Runner) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(r.tree(), func(path string, e os.DirEntry, err error) error {
		if err != nil || path == r.tree() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(r.tree(), path)
		want := os.FileMode(0o600)
		if e.IsDir() {
			name, want = name+"/", 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func read(t *testing.T, r *Runner, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.tree(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const readAll = `case $STATE in Download|DownloadWithFileSizes)
	echo "$STATE" >>tmp/log
	while true; do
		line=$(cat stream-next); [ -n "$line" ] || break
		echo "$line" >>tmp/log; set -- $line; cat "$1" >tmp/$(basename "$1")
	done;;
esac`

var header = []string{
	"current_artifact_group", "current_artifact_name", "current_device_type",
	"header/", "header/artifact_group", "header/artifact_name", "header/header-info", "header/meta-data",
	"header/payload_type", "header/type-info", "tmp/", "version",
}

func TestDownloadStoresWhatTheModuleLeaves(t *testing.T) {
	r := newRunner(t, `[ "$STATE" != Download ] || { find . | sort >tmp/seen; stat -c %F stream-next >>tmp/seen; [ "$PWD" = "$FILES" ] && echo same >>tmp/seen; }`)
	if err := r.Download(t.Context(), payload(), stream(file{"a.txt", "hello"}, file{"empty", ""})); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(append([]string{"files/", "files/a.txt", "files/empty", "tmp/seen"}, header...)))
	got := list2(t, r, "tmp/seen")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("work tree (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"version": "3", "current_artifact_name": "old", "current_artifact_group": "old-group", "current_device_type": "board",
		"header/artifact_name": "mod-2", "header/artifact_group": "new-group", "header/payload_type": "testmod",
		"header/header-info": "{\n  \"h\": 1\n}", "header/type-info": "{\n  \"t\": 1\n}", "header/meta-data": "{\n  \"m\": 1\n}",
		"files/a.txt": "hello", "files/empty": "",
	} {
		if got := read(t, r, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	seen := read(t, r, "tmp/seen")
	for _, want := range []string{"./streams\n", "fifo\n", "same\n"} {
		if !strings.Contains(seen, want) {
			t.Errorf("Download saw %q, want %q in it", seen, want)
		}
	}
}

// list2 is list without regard to the mode of what the module made.
func list2(t *testing.T, r *Runner, made string) []string {
	t.Helper()
	if err := os.Chmod(filepath.Join(r.tree(), made), 0o600); err != nil {
		t.Fatal(err)
	}
	return list(t, r)
}

func TestDownloadStreams(t *testing.T) {
	large := strings.Repeat("0123456789", 100_000) // more than a pipe holds
	files := []file{{"a.txt", "hello"}, {"large", large}, {"empty", ""}}
	for _, tt := range []struct{ name, body, log string }{
		{"plain", "", "Download\nstreams/a.txt\nstreams/large\nstreams/empty\n"},
		{"sizes", "[ $STATE != ProvidePayloadFileSizes ] || echo Yes\n", "DownloadWithFileSizes\nstreams/a.txt 5\nstreams/large 1000000\nstreams/empty 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t, tt.body+readAll)
			if err := r.Download(t.Context(), payload(), stream(files...)); err != nil {
				t.Fatal(err)
			}
			if got := read(t, r, "tmp/log"); got != tt.log {
				t.Errorf("the module saw %q, want %q", got, tt.log)
			}
			for _, f := range files {
				if got := read(t, r, "tmp/"+f.name); got != f.content {
					t.Errorf("%s: %d bytes, want %d", f.name, len(got), len(f.content))
				}
			}
			for _, name := range []string{"files", "streams", "stream-next"} {
				if _, err := os.Lstat(filepath.Join(r.tree(), name)); err == nil {
					t.Errorf("%s is still there", name)
				}
			}
		})
	}
}

// TestDownloadEndsEarly: a module that knows how much there is need not read
// the end of stream-next; a payload without files is one.
func TestDownloadEndsEarly(t *testing.T) {
	r := newRunner(t, `[ $STATE != Download ] || { f=$(cat stream-next); cat "$f" >tmp/got; }`)
	if err := r.Download(t.Context(), payload(), stream(file{"a", "hello"})); err != nil {
		t.Error(err)
	}
	if err := r.Download(t.Context(), payload(), stream()); err != nil {
		t.Errorf("without files: %v", err)
	}
}

func TestDownloadFails(t *testing.T) {
	large := file{"large", strings.Repeat("x", 1<<20)}
	failed := errors.New("the artifact is damaged")
	broken := func(ctx context.Context, open Open) error {
		w, err := open("a", 10)
		if err != nil {
			return err
		}
		_, _ = w.Write([]byte("12345"))
		return failed
	}
	for _, tt := range []struct {
		name, body string
		stream     func(context.Context, Open) error
		want       string
		is         error
	}{
		{"at once", "[ $STATE != Download ] || exit 7", stream(large), `"testmod": Download: exit status 7`, nil},
		{"behind a line", "[ $STATE != Download ] || { cat stream-next >/dev/null; exit 7; }", stream(large), "exit status 7", nil},
		{"in the middle", `[ $STATE != Download ] || { f=$(cat stream-next); exec 5<"$f"; exit 7; }`, stream(large), "Download", nil},
		{"success in the middle", `[ $STATE != Download ] || { f=$(cat stream-next); head -c 9 "$f" >/dev/null; exit 0; }`, stream(large), "ended in the middle", nil},
		{"success before the second", `[ $STATE != Download ] || { f=$(cat stream-next); cat "$f" >/dev/null; exit 0; }`, stream(file{"a", "b"}, file{"c", "d"}), "ended in the middle", nil},
		{"behind the end", readAll + "\n[ $STATE != Download ] || exit 3", stream(file{"a", "b"}), "exit status 3", nil},
		{"a child holds the stream", `[ $STATE != Download ] || { f=$(cat stream-next); sleep 1000 <"$f" >/dev/null 2>&1 & echo $! >tmp/pid; exit 0; }`, stream(large), "ended in the middle", nil},
		{"the artifact, module waits for files", readAll, broken, "damaged", failed},
		{"the artifact, module ignores it", "[ $STATE != Download ] || exec sleep 1000", broken, "", nil},
		{"no plain name", readAll, stream(file{"../x", ""}), "not a plain file name", nil},
		{"two lines", readAll, stream(file{"x\ny", ""}), "not a plain file name", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t, tt.body)
			r.Grace = 100 * time.Millisecond
			if tt.want == "" { // nobody opens the stream: the limit of time ends it
				r.Timeout, tt.want = 300*time.Millisecond, "timed out"
			}
			err := r.Download(t.Context(), payload(), tt.stream)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Download: %v, want %q", err, tt.want)
			}
			if b, readErr := os.ReadFile(filepath.Join(r.tree(), "tmp/pid")); readErr == nil {
				pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
				if killErr := unix.Kill(pid, unix.SIGKILL); killErr != nil { // it was left behind on purpose
					t.Errorf("kill %d: %v", pid, killErr)
				}
			}
			if err := r.Cleanup(t.Context(), "testmod"); err != nil {
				t.Errorf("Cleanup: %v", err)
			}
		})
	}
}

// TestDownloadOfOldModules: a module that does not know the question about sizes may
// answer it with anything.
func TestDownloadOfOldModules(t *testing.T) {
	for _, answer := range []string{"echo Perhaps", "echo unknown state >&2; exit 1"} {
		r := newRunner(t, `[ "$STATE" != ProvidePayloadFileSizes ] || { `+answer+`; exit; }; [ "$STATE" != Download ] || { read N <stream-next; echo $N >tmp/first; cat $N; cat stream-next; }`)
		var log []string
		r.Log = func(line string) { log = append(log, line) }
		if err := r.Download(t.Context(), payload(), stream(file{"a", ""})); err != nil {
			t.Errorf("%s: %v", answer, err)
		}
		if got := read(t, r, "tmp/first"); got != "streams/a\n" {
			t.Errorf("%s: the module read %q", answer, got)
		}
		if !strings.Contains(strings.Join(log, "\n"), "taken for No") {
			t.Errorf("%s: the log does not say so: %q", answer, log)
		}
	}
}

// TestIndented: what is small is laid out for modules that look at lines; what is
// large stays as it is.
func TestIndented(t *testing.T) {
	large := `["` + strings.Repeat("x", maxIndented) + `"]`
	for raw, want := range map[string]string{`{"a":["b"]}`: "{\n  \"a\": [\n    \"b\"\n  ]\n}", "null": "null", "no JSON": "no JSON", large: large} {
		if got := string(indented([]byte(raw))); got != want {
			t.Errorf("indented(%.20q) = %.40q, want %.40q", raw, got, want)
		}
	}
}

func TestDownloadIsCanceled(t *testing.T) {
	r := newRunner(t, "[ $STATE != Download ] || { echo $$ >tmp/pid; exec sleep 1000; }")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the stick is gone")
	err := r.Download(ctx, payload(), func(_ context.Context, open Open) error {
		cancel(cause)
		_, err := open("a", 1)
		return err
	})
	if !errors.Is(err, cause) {
		t.Errorf("Download: %v, want %v", err, cause)
	}
}

// TestNoDescriptorLeaks: neither the module nor this process keeps a file of the
// download open.
func TestNoDescriptorLeaks(t *testing.T) {
	r := newRunner(t, "[ $STATE != ArtifactInstall ] || ls /proc/self/fd | wc -l >tmp/count\n"+readAll)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	run := func() {
		if err := r.Download(t.Context(), payload(), stream(file{"a", "b"}, file{"c", "d"})); err != nil {
			t.Fatal(err)
		}
	}
	run()
	before := count()
	for range 5 {
		run()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d after five downloads", before, after)
	}
	if err := r.Run(t.Context(), "testmod", ArtifactInstall); err != nil {
		t.Fatal(err)
	}
	// What this process has inherited itself is not ours to close.
	want, err := exec.Command("/bin/sh", "-c", "ls /proc/self/fd | wc -l").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, r, "tmp/count"); got != string(want) {
		t.Errorf("ls in the module sees %q descriptors, without us %q", got, want)
	}
}

func TestAsk(t *testing.T) {
	for _, tt := range []struct {
		answer string
		q      Question
		want   bool
		err    string
	}{
		{"echo Yes", SupportsRollback, true, ""},
		{"printf Yes", SupportsRollback, true, ""},
		{"echo No", SupportsRollback, false, ""},
		{"", SupportsRollback, false, ""},
		{"echo", SupportsRollback, false, ""},
		{"echo Automatic", NeedsArtifactReboot, true, ""},
		{"echo Yes", NeedsArtifactReboot, true, ""},
		{"echo Automatic", SupportsRollback, false, `unexpected answer "Automatic"`},
		{"echo Perhaps", SupportsRollback, false, `unexpected answer "Perhaps"`},
		{"echo yes", SupportsRollback, false, `unexpected answer "yes"`},
		{"echo Yes; echo Yes", SupportsRollback, false, "unexpected answer"},
		{"yes Yes | head -c 100000", SupportsRollback, false, "unexpected answer"},
		{"echo Yes; exit 1", SupportsRollback, false, "exit status 1"},
	} {
		r := newRunner(t, tt.answer)
		if err := os.MkdirAll(r.tree(), 0o700); err != nil {
			t.Fatal(err)
		}
		got, err := r.Ask(t.Context(), "testmod", tt.q)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || tt.err == "" && err != nil || !strings.Contains(text, tt.err) {
			t.Errorf("Ask(%s) of %q = %v, %v, want %v, %q", tt.q, tt.answer, got, err, tt.want, tt.err)
		}
	}
}

func TestRunFails(t *testing.T) {
	r := newRunner(t, "[ $STATE != ArtifactCommit ] || exec sleep 1000\nexit 5")
	r.Timeout, r.Grace = 200*time.Millisecond, 100*time.Millisecond
	if err := os.MkdirAll(r.tree(), 0o700); err != nil {
		t.Fatal(err)
	}
	for state, want := range map[State]string{
		ArtifactInstall: `update module "testmod": ArtifactInstall: exit status 5`,
		ArtifactCommit:  `update module "testmod": ArtifactCommit: timed out`,
	} {
		err := r.Run(t.Context(), "testmod", state)
		if _, ok := errors.AsType[*Failure](err); !ok || err.Error() != want {
			t.Errorf("Run(%s): %v, want %s", state, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	r := newRunner(t, "")
	if err := os.WriteFile(filepath.Join(r.Dir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.Dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("testmod", filepath.Join(r.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"testmod": true, "link": true, "plain": false, "dir": false, "absent": false, "": false, ".": false, "..": false,
		".testmod": false, "../" + filepath.Base(r.Dir) + "/testmod": false, "testmod\n": false, strings.Repeat("x", 256): false,
	} {
		if err := r.Find(name); (err == nil) != want || !want && !errors.Is(err, ErrNotFound) {
			t.Errorf("Find(%q) = %v, want found %v", name, err, want)
		}
	}
}

func TestCleanup(t *testing.T) {
	r := newRunner(t, `[ $STATE != Cleanup ] || { echo x >>"$FILES/../cleaned"; exit $(wc -l <"$FILES/../cleaned"); }`)
	if err := r.Cleanup(t.Context(), "testmod"); err != nil {
		t.Errorf("without a work tree: %v", err)
	}
	if err := os.MkdirAll(r.tree(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Cleanup(t.Context(), "testmod"); err == nil {
		t.Error("a failing Cleanup gives no error")
	}
	if _, err := os.Lstat(r.tree()); err == nil {
		t.Error("the work tree is still there")
	}
}

// TestStaleTree: what an interruption left is no part of the next update, and
// a link in it is not followed.
func TestStaleTree(t *testing.T) {
	r := newRunner(t, "")
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.tree(), "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"files/link", "header"} {
		if err := os.Symlink(outside, filepath.Join(r.tree(), link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Download(t.Context(), payload(), stream()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(header, list(t, r)); diff != "" {
		t.Errorf("work tree (-want +got):\n%s", diff)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("behind the link: %v, %v", entries, err)
	}
}

func TestMissingDataDirectory(t *testing.T) {
	r := newRunner(t, "")
	r.DataDir = filepath.Join(r.DataDir, "absent")
	if err := r.Download(t.Context(), payload(), stream()); err == nil {
		t.Error("a data directory that is not there was made")
	}
}

func TestLog(t *testing.T) {
	r := newRunner(t, "echo out; printf 'err\\033[2J\\n' >&2")
	var lines []string
	r.Log = func(line string) { lines = append(lines, line) }
	if err := os.MkdirAll(r.tree(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), "testmod", ArtifactInstall); err != nil {
		t.Fatal(err)
	}
	want := []string{`update module "testmod" ArtifactInstall stdout: out`, "update module \"testmod\" ArtifactInstall stderr: err\ufffd[2J"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// TestFIFOIsPollable: a write to a FIFO must end with a deadline, which needs
// the runtime's poller.
func TestFIFOIsPollable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w, err := root.OpenFile("fifo", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
}
