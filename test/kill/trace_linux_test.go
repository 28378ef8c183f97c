//go:build device

package kill

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// point is a system call that writes, seen before the kernel carries it out.
type point struct {
	call string
	on   string // the file or device, for a call on a descriptor
}

func (p point) String() string { return strings.TrimSpace(p.call + " " + p.on) }

// run is what a traced run came to.
type run struct {
	points []point // those that were reached, the last one not carried out if killed
	killed bool
	code   int
	output string // of both streams
}

// byDescriptor are the calls whose first argument says what they write to.
func byDescriptor() map[uint64]string {
	return map[uint64]string{
		unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITEV: "writev", unix.SYS_PWRITEV: "pwritev",
		unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SYNC_FILE_RANGE: "sync_file_range",
		unix.SYS_SYNCFS: "syncfs", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
		unix.SYS_FCHMOD: "fchmod", unix.SYS_IOCTL: "ioctl", unix.SYS_COPY_FILE_RANGE: "copy_file_range",
	}
}

// byName are the calls that change a directory.
func byName() map[uint64]string {
	return map[uint64]string{
		unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
		unix.SYS_LINKAT: "linkat", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_MKNODAT: "mknodat", unix.SYS_FCHMODAT: "fchmodat",
		unix.SYS_UMOUNT2: "umount2",
	}
}

// tracer follows all threads of one process, not the processes it starts.
type tracer struct {
	pid     int
	dir     string       // what is below it counts
	killAt  int          // the number of a point
	inside  map[int]bool // threads that are between a call's entry and its exit
	result  run
	writers map[uint64]string
	namers  map[uint64]string
}

// trace runs a program and kills it right before the given point. Only calls on
// files and devices below dir are points.
func trace(t *testing.T, dir string, killAt int, name string, args ...string) run {
	t.Helper()
	runtime.LockOSThread() // the kernel knows one thread as the tracer
	defer runtime.UnlockOSThread()
	log, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tr := &tracer{
		pid: cmd.Process.Pid, dir: dir, killAt: killAt, inside: map[int]bool{},
		writers: byDescriptor(), namers: byName(),
	}
	err = tr.follow()
	err = errors.Join(err, cmd.Process.Release())
	if err != nil {
		t.Fatalf("trace %s %v: %v", name, args, err)
	}
	out, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	tr.result.output = string(out)
	return tr.result
}

// follow serves the stops of all threads until the process is gone.
func (tr *tracer) follow() error {
	var ws unix.WaitStatus
	if _, err := wait(tr.pid, &ws); err != nil || !ws.Stopped() {
		return errors.Join(err, fmt.Errorf("first stop: status %#x", ws))
	}
	// Threads are followed; processes, which begin as vfork, are not.
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	if err := unix.PtraceSyscall(tr.pid, 0); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for {
		// Its process group are its threads. Other children are those of tests
		// beside this one.
		tid, err := wait(-tr.pid, &ws)
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if ws.Exited() || ws.Signaled() {
			if tid != tr.pid {
				continue // a thread
			}
			tr.result.code = ws.ExitStatus()
			if tr.result.killed != (ws.Signaled() && ws.Signal() == unix.SIGKILL) {
				return fmt.Errorf("ended with status %#x, killed: %v", ws, tr.result.killed)
			}
			return nil
		}
		signal, err := tr.stopped(tid, ws)
		if err != nil {
			return err
		}
		// A thread that is gone was killed with the others.
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("continue: %w", err)
		}
	}
}

func wait(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, ws, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// stopped handles one stop and returns the signal to pass on.
func (tr *tracer) stopped(tid int, ws unix.WaitStatus) (int, error) {
	switch {
	case ws.StopSignal() == unix.SIGTRAP|0x80:
		tr.inside[tid] = !tr.inside[tid]
		if tr.inside[tid] && !tr.result.killed {
			return 0, tr.entry(tid)
		}
		return 0, nil
	case ws.StopSignal() == unix.SIGTRAP && ws.TrapCause() > 0: // a new thread was made
		return 0, nil
	case ws.StopSignal() == unix.SIGSTOP: // a new thread begins
		return 0, nil
	default:
		return int(ws.StopSignal()), nil
	}
}

// syscallInfo is the head of struct ptrace_syscall_info at a call's entry
// (source: Linux, ptrace(2)).
type syscallInfo struct {
	Op     uint8
	_      [3]byte
	Arch   uint32
	IP, SP uint64
	Nr     uint64
	Args   [6]uint64
}

const syscallInfoEntry = 1

// entry looks at a call that begins, and kills the process if its time has
// come. A call that is killed at its entry is not carried out.
func (tr *tracer) entry(tid int) error {
	var raw [128]byte
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), uintptr(len(raw)), uintptr(unsafe.Pointer(&raw)), 0, 0)
	if errors.Is(errno, unix.ESRCH) {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("system call of thread %d: %w", tid, errno)
	}
	var info syscallInfo
	if _, err := binary.Decode(raw[:], binary.NativeEndian, &info); err != nil {
		return err
	}
	if info.Op != syscallInfoEntry {
		return fmt.Errorf("thread %d is not at the entry of a system call: %d", tid, info.Op)
	}
	p, ok := tr.classify(info)
	if !ok {
		return nil
	}
	tr.result.points = append(tr.result.points, p)
	if len(tr.result.points)-1 != tr.killAt {
		return nil
	}
	tr.result.killed = true
	return unix.Kill(tr.pid, unix.SIGKILL)
}

// classify tells whether a call is a point.
func (tr *tracer) classify(info syscallInfo) (point, bool) {
	if call, ok := tr.namers[info.Nr]; ok {
		return point{call: call}, true
	}
	if info.Nr == unix.SYS_OPENAT {
		const makes = unix.O_CREAT | unix.O_TRUNC
		return point{call: "openat"}, info.Args[2]&makes != 0
	}
	call, ok := tr.writers[info.Nr]
	if !ok || info.Nr == unix.SYS_IOCTL && !slices.Contains([]uint64{unix.BLKFLSBUF, blkDiscard, blkZeroOut}, info.Args[1]) {
		return point{}, false
	}
	on, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.pid, int32(info.Args[0])))
	if err != nil {
		return point{}, false
	}
	rel, ok := strings.CutPrefix(on, tr.dir+"/")
	return point{call, rel}, ok
}

// Requests that change a block device (source: Linux, include/uapi/linux/fs.h).
const (
	blkDiscard = 0x1277
	blkZeroOut = 0x127F
)
