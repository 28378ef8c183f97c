package runner

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary run one program and wait for it: the victim
// of TestProgramDiesWithCaller.
const helperEnv = "RUNNER_TEST_HELPER"

func TestMain(m *testing.M) {
	if path := os.Getenv(helperEnv); path != "" {
		_, _ = Run(context.Background(), Cmd{Path: path})
		return
	}
	m.Run()
}

// spin waits for a trapped signal. A shell that sleeps can miss one: it comes
// just before the sleep, and the trap runs after it.
const spin = "while :; do :; done"

// program writes a shell script and returns its path.
func program(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, c Cmd) Result {
	t.Helper()
	res, err := Run(t.Context(), c)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return res
}

// group is a running program whose processes hold a FIFO open: the FIFO ends
// when the last of them is gone.
type group struct {
	fifo *os.File
	res  Result
	err  error
	done chan struct{}
}

// startGroup runs a script with the FIFO as descriptor 3, and returns when the
// script has written a line to it.
func startGroup(ctx context.Context, t *testing.T, body string, c Cmd) *group {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Path = program(t, "exec 3>"+fifo+"\n"+body)
	g := &group{done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.res, g.err = Run(ctx, c)
	}()
	g.fifo = awaitLine(t, fifo)
	return g
}

func awaitLine(t *testing.T, fifo string) *os.File {
	t.Helper()
	f, err := os.Open(fifo) // waits for the writer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := bufio.NewReaderSize(f, 16).ReadString('\n'); err != nil {
		t.Fatalf("read from the program: %v", err)
	}
	return f
}

// awaitEnd returns when no process holds the FIFO any more.
func (g *group) awaitEnd(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, g.fifo); err != nil {
		t.Fatal(err)
	}
}

func TestRunResult(t *testing.T) {
	tests := []struct {
		name, body string
		want       Result
		ok         bool
		text       string
	}{
		{"success", "echo out; echo err >&2", Result{Stdout: "out\n", Stderr: "err\n"}, true, "exit status 0"},
		{"exit code", "exit 21", Result{ExitCode: 21}, false, "exit status 21"},
		{"signal", "kill -USR1 $$", Result{ExitCode: -1, Signal: unix.SIGUSR1}, false, "killed by SIGUSR1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, Cmd{Path: program(t, tt.body)})
			if got != tt.want {
				t.Errorf("Run = %+v, want %+v", got, tt.want)
			}
			if got.OK() != tt.ok || got.String() != tt.text {
				t.Errorf("OK = %v, String = %q, want %v, %q", got.OK(), got, tt.ok, tt.text)
			}
		})
	}
}

func TestRunSurroundings(t *testing.T) {
	t.Setenv("RUNNER_TEST_INHERITED", "yes")
	body := `read -r pid comm state ppid pgrp rest </proc/$$/stat
echo "$# $1 $(pwd -P) $(readlink /proc/$$/fd/0) own group: $((pgrp == $$)) inherited: $RUNNER_TEST_INHERITED"`
	got := run(t, Cmd{Path: program(t, body), Args: []string{"arg"}})
	if want := "1 arg / /dev/null own group: 1 inherited: yes\n"; got.Stdout != want {
		t.Errorf("the program sees %q, want %q", got.Stdout, want)
	}
	got = run(t, Cmd{Path: program(t, body), Dir: "/dev", Env: []string{"PATH=" + os.Getenv("PATH")}})
	if want := "0  /dev /dev/null own group: 1 inherited: \n"; got.Stdout != want {
		t.Errorf("the program sees %q, want %q", got.Stdout, want)
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		cmd  Cmd
		want error
	}{
		{"mode 0644", Cmd{Path: write("plain", "#!/bin/sh\n", 0o644)}, ErrNotExecutable},
		{"directory", Cmd{Path: dir}, ErrNotRegular},
		{"missing", Cmd{Path: filepath.Join(dir, "none")}, fs.ErrNotExist},
		{"no interpreter", Cmd{Path: write("crlf", "#!/bin/sh\r\n", 0o755)}, ErrNoInterpreter},
		{"no first line", Cmd{Path: write("text", "exit 0\n", 0o755)}, unix.ENOEXEC},
		{"no working directory", Cmd{Path: write("ok", "#!/bin/sh\n", 0o755), Dir: filepath.Join(dir, "none")}, fs.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Run(t.Context(), tt.cmd)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Run: error %v, want %v", err, tt.want)
			}
			if strings.Contains(err.Error(), tt.cmd.Path) {
				t.Errorf("Run: error %v names the program, which callers do", err)
			}
		})
	}
	if _, err := Run(t.Context(), Cmd{Path: "sh"}); err == nil {
		t.Error("Run took a relative path")
	}
}

// TestRunStdin: what fits is there to the last byte, and a program that does
// not read it is none the worse.
func TestRunStdin(t *testing.T) {
	full := strings.Repeat("x", MaxStdin)
	for _, tt := range []struct{ name, stdin, body, want string }{
		{"short", "a=1\nb=2\n", "cat", "a=1\nb=2\n"},
		{"as much as fits", full, "cat", full},
		{"not read", full, "echo done", "done\n"},
	} {
		got := run(t, Cmd{Path: program(t, tt.body), Stdin: tt.stdin})
		if got.Stdout != tt.want || got.StdoutCut {
			t.Errorf("%s: stdout %d bytes, cut %v, want %d bytes", tt.name, len(got.Stdout), got.StdoutCut, len(tt.want))
		}
	}
	if _, err := Run(t.Context(), Cmd{Path: program(t, "cat"), Stdin: full + "x"}); err == nil {
		t.Error("more than MaxStdin is accepted")
	}
	if got := run(t, Cmd{Path: program(t, "cat"), Stdin: full, Capture: MaxStdin - 1}); !got.StdoutCut {
		t.Error("StdoutCut = false for more than Capture")
	}
}

func TestRunKeepsTheEndOfTheOutput(t *testing.T) {
	// The pipe is full many times over: a reader that stops would hang here, a
	// pipe in non-blocking mode would lose what comes last.
	got := run(t, Cmd{Path: program(t, "seq 1 100000; echo last; seq 1 100000 >&2"), Capture: 100})
	mark, end, ok := strings.Cut(got.Stdout, "]\n")
	if !ok || !strings.HasPrefix(mark, "[") || len(end) != 100 || !strings.HasSuffix(end, "\n99999\n100000\nlast\n") {
		t.Errorf("Stdout = %q, want a mark and the last 100 bytes", got.Stdout)
	}
	if !strings.HasSuffix(got.Stderr, "\n100000\n") {
		t.Errorf("Stderr = %q, want the end of it", got.Stderr)
	}
}

func TestTail(t *testing.T) {
	tests := []struct {
		name   string
		writes []string
		want   string
	}{
		{"empty", nil, ""},
		{"fits", []string{"ab", "cd"}, "abcd"},
		{"slides", []string{"ab", "cd", "e"}, "[1 bytes cut]\nbcde"},
		{"one large write", []string{"ab", "cdefgh"}, "[4 bytes cut]\nefgh"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tail := tail{limit: 4}
			for _, s := range tt.writes {
				if n, err := io.WriteString(&tail, s); n != len(s) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			if got := tail.String(); got != tt.want {
				t.Errorf("String = %q, want %q", got, tt.want)
			}
		})
	}
}

// A program that starts a daemon and forgets its output must not hang us.
func TestRunLeavesTheBackgroundAlone(t *testing.T) {
	got := run(t, Cmd{Path: program(t, "sleep 1000 & echo $!")})
	pid, err := strconv.Atoi(strings.TrimSpace(got.Stdout))
	if err != nil {
		t.Fatalf("Stdout = %q, want a process ID", got.Stdout)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("the background process is gone: %v", err)
	}
}

// What was written right before the end must be there even if the output stays
// open.
func TestRunReadsAllThatTheProgramWrote(t *testing.T) {
	for range 20 {
		got := run(t, Cmd{Path: program(t, "sleep 1000 & seq 1 1000; echo $!")})
		lines := strings.Fields(got.Stdout)
		pid, err := strconv.Atoi(lines[len(lines)-1])
		if err != nil || len(lines) != 1001 {
			t.Fatalf("%d lines, want 1001", len(lines))
		}
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func TestRunTimeout(t *testing.T) {
	got := run(t, Cmd{Path: program(t, "exec sleep 1000"), Timeout: 20 * time.Millisecond, Grace: time.Hour})
	want := Result{ExitCode: -1, Signal: unix.SIGTERM, TimedOut: true}
	if got != want || got.OK() || got.String() != "timed out" {
		t.Errorf("Run = %+v (%v), want %+v", got, got, want)
	}
}

// A program that takes SIGTERM for success was still told to end.
func TestRunTimeoutBeatsExitCode(t *testing.T) {
	got := run(t, Cmd{
		Path:    program(t, "trap 'exit 0' TERM\n"+spin),
		Timeout: 100 * time.Millisecond,
		Grace:   time.Hour,
	})
	if !got.TimedOut || got.OK() {
		t.Errorf("Run = %+v, want timed out", got)
	}
}

func TestRunCanceled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stick was pulled")
	g := startGroup(ctx, t, "trap 'echo bye; exit 7' TERM\necho ready >&3\n"+spin, Cmd{Grace: time.Hour})
	cancel(cause)
	<-g.done
	if !errors.Is(g.err, cause) || g.res.ExitCode != 7 || g.res.Stdout != "bye\n" || g.res.TimedOut {
		t.Errorf("Run = %+v, %v, want exit code 7 and %v", g.res, g.err, cause)
	}
	if _, err := Run(ctx, Cmd{Path: program(t, "")}); !errors.Is(err, cause) {
		t.Errorf("Run with a canceled context: error %v, want %v", err, cause)
	}
}

func TestRunKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := startGroup(ctx, t, `trap "" TERM
sh -c 'echo ready >&3; while :; do sleep 1000; done' &
wait`, Cmd{Grace: 20 * time.Millisecond})
	cancel()
	<-g.done
	g.awaitEnd(t)
	if g.res.Signal != unix.SIGKILL {
		t.Errorf("Run = %+v, want killed by SIGKILL", g.res)
	}
}

// The shell dies of SIGTERM at once; the tool it runs has the time of grace. It
// counts for a while, so that a SIGKILL at the shell's end would be in time.
func TestRunGraceIsForTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := startGroup(ctx, t, `finish() {
	while read -r pid comm state rest </proc/$$/stat && [ "$state" != Z ]; do :; done
	i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done
	echo cleaned up; exit
}
(trap finish TERM; echo ready >&3; `+spin+`) &
wait`, Cmd{Grace: time.Hour})
	cancel()
	<-g.done
	g.awaitEnd(t)
	if g.res.Signal != unix.SIGTERM || g.res.Stdout != "cleaned up\n" {
		t.Errorf("Run = %+v, want SIGTERM and the child's last words", g.res)
	}
}

// A stopped process takes SIGTERM only once it goes on.
func TestRunEndsStoppedProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := startGroup(ctx, t, "echo ready >&3\nkill -STOP $$", Cmd{Grace: time.Hour})
	cancel()
	<-g.done
}

func TestRunReaps(t *testing.T) {
	run(t, Cmd{Path: program(t, "")})
	run(t, Cmd{Path: program(t, "exec sleep 1000"), Timeout: time.Millisecond})
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("wait4 = %d, %v, want no child", pid, err)
	}
}

func TestProgramDiesWithCaller(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperEnv+"="+program(t, "exec 3>"+fifo+"; echo ready >&3; exec sleep 1000"))
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	g := &group{fifo: awaitLine(t, fifo)}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait()
	g.awaitEnd(t)
}

func TestPrintable(t *testing.T) {
	in := "a\tb\r\nc\x1b[2Jd\x00e\xffé\u202e\n"
	if got, want := Printable(in), "a\tb\nc\ufffd[2Jd\ufffde\ufffdé\ufffd\n"; got != want {
		t.Errorf("Printable(%q) = %q, want %q", in, got, want)
	}
}
