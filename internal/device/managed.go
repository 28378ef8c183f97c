package device

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrManaged means that a Mender client in managed mode runs on the device. It
// writes the same slot, boot environment and store whenever its server says so.
var ErrManaged = errors.New("a managed Mender client is running")

// Limits of what is read of a process, in bytes, and of how many processes are
// listed at once.
const (
	maxProcName     = 64
	maxProcArgs     = 4096
	processesAtOnce = 256
)

// managedNames are the programs that are a managed client if their argument is
// "daemon" (source: units mender-client.service and mender-updated.service of
// Mender's clients).
func managedNames() []string {
	return []string{"mender", "mender-client", "mender-update", "mender-updated"}
}

// managedUnits returns the services of such clients.
func managedUnits() []string {
	return []string{"mender.service", "mender-client.service", "mender-updated.service"}
}

// CheckManaged returns an error with [ErrManaged] if such a client runs. A
// process that cannot be looked at, because it has ended or belongs to somebody
// else, is none. In the sandbox of a unit other processes cannot be seen, but
// the control groups of services can.
func (d *Device) CheckManaged() error {
	if err := checkManagedUnits(d.Path("/sys/fs/cgroup")); err != nil {
		return err
	}
	return checkManaged(d.Path("/proc"))
}

// cgroupDepth is how deep the control group of a service may be: below its
// slice, which may be below another, and below the hierarchy of systemd.
const cgroupDepth = 4

// checkManagedUnits looks for the control group of a client's service, below
// the directory where control groups are mounted. That of a service that does
// not run is gone, or empty.
func checkManagedUnits(cgroup string) error {
	for _, unit := range managedUnits() {
		for depth := 1; depth <= cgroupDepth; depth++ {
			groups, err := filepath.Glob(cgroup + strings.Repeat("/*", depth) + "/" + unit + "/cgroup.procs")
			if err != nil {
				return err
			}
			for _, group := range groups {
				if procs, err := readHead(group, maxProcName); err == nil && len(procs) > 0 {
					pid, _, _ := strings.Cut(string(procs), "\n")
					return fmt.Errorf("%w: %s, process %s", ErrManaged, unit, pid)
				}
			}
		}
	}
	return nil
}

// checkManaged looks at the processes below a proc file system; a missing one
// has none.
func checkManaged(proc string) error {
	dir, err := os.Open(proc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close() // read only
	for {
		names, err := dir.Readdirnames(processesAtOnce)
		for _, name := range names {
			pid, notNumber := strconv.Atoi(name)
			if notNumber != nil || pid == os.Getpid() {
				continue
			}
			if args := managedArgs(filepath.Join(proc, name)); args != nil {
				return fmt.Errorf("%w: process %d, %.64q", ErrManaged, pid, bytes.Join(args, []byte(" ")))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// managedArgs returns the command line of a process if it is a managed client.
func managedArgs(process string) [][]byte {
	comm, err := readHead(filepath.Join(process, "comm"), maxProcName)
	if err != nil {
		return nil
	}
	name := strings.TrimSuffix(string(comm), "\n")
	if !slices.Contains(managedNames(), name) { // a process may rename itself
		exe, err := os.Readlink(filepath.Join(process, "exe"))
		if err != nil || !slices.Contains(managedNames(), filepath.Base(strings.TrimSuffix(exe, " (deleted)"))) {
			return nil
		}
	}
	line, err := readHead(filepath.Join(process, "cmdline"), maxProcArgs)
	if err != nil {
		return nil
	}
	args := bytes.Split(bytes.TrimRight(line, "\x00"), []byte{0})
	for _, arg := range args[1:] {
		if string(bytes.TrimLeft(arg, "-")) == "daemon" {
			return args
		}
	}
	return nil
}

// readHead returns the first bytes of a file.
func readHead(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	return io.ReadAll(io.LimitReader(f, limit))
}
