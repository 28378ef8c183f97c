package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of the process that inspects a stick.
const (
	inspectorFiles = 64  // open files
	inspectorCPU   = 120 // seconds of CPU time: more than the scan may last
)

// errNotConfined means that this build cannot confine all of its threads.
var errNotConfined = errors.New("not in a build with cgo")

// confine takes from this process, for good, what reading the directory dir
// does not need: every other file, all writing, programs, TCP, privileges. It
// must run before the first byte of a stick is read.
//
// What the kernel is too old for is left out, and the words that are returned
// say so: the sandbox of the unit is around it in any case. An error means that
// the kernel refused what it has.
func confine(dir *os.File) (string, error) {
	for what, limit := range map[int]uint64{
		unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: inspectorFiles, unix.RLIMIT_CPU: inspectorCPU,
	} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return "", fmt.Errorf("confine: set limit %d: %w", what, err)
		}
	}
	err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errors.Is(err, syscall.ENOTSUP) {
		return errNotConfined.Error(), nil // the race detector; what ships is built without cgo
	}
	if err != nil {
		return "", fmt.Errorf("confine: no new privileges: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return "", fmt.Errorf("confine: drop capabilities: %w", err)
	}
	version, err := landlock(dir)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return "without landlock, which this kernel lacks", nil
	}
	if err != nil {
		return "", fmt.Errorf("confine: landlock: %w", err)
	}
	return fmt.Sprintf("landlock version %d", version), nil
}

// onAllThreads makes a system call on each thread: privileges and Landlock
// belong to threads, and a Go program does not choose its own.
func onAllThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3); errno != 0 {
		return errno
	}
	return nil
}

// dropCapabilities leaves none, not even to a process of root's.
// (source: capabilities(7))
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	return err
}

// landlock restricts the process to reading beneath dir, and returns the
// version of the kernel's interface. (source: landlock(7), and Linux,
// Documentation/userspace-api/landlock.rst)
func landlock(dir *os.File) (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	version := int(abi)
	rules, size := rulesOf(version)
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), size, 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(ruleset))
	beneath := unix.LandlockPathBeneathAttr{
		Allowed_access: unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR,
		Parent_fd:      int32(dir.Fd()),
	}
	_, _, errno = unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return version, onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0)
}

// rulesOf is everything that a version can forbid, and the size in bytes of the
// structure that it knows.
func rulesOf(version int) (unix.LandlockRulesetAttr, uintptr) {
	const untilVersion1 = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	rules := unix.LandlockRulesetAttr{Handled_access_fs: untilVersion1}
	size := unsafe.Sizeof(rules.Handled_access_fs)
	if version >= 2 {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 {
		rules.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(rules.Handled_access_net)
	}
	if version >= 5 {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		rules.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		size += unsafe.Sizeof(rules.Scoped)
	}
	return rules, size
}
