package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Config is what a machine is made of.
type Config struct {
	Dir      string   // for its sockets and its log; must be short
	Disk     string   // image file
	Firmware string   // for -bios; "" is the PC BIOS of QEMU
	State    string   // what Suspend has kept of a machine that is made of the same, to go on from; or ""
	Cache    string   // of the disk, in QEMU's words; "" is "unsafe", for runs without power cuts
	Extra    []string // more arguments of QEMU
}

// Machine is a device that is switched on. It is not safe for concurrent use.
type Machine struct {
	cmd     *exec.Cmd
	serial  net.Conn
	monitor *monitor
	log     *os.File
	began   time.Time
	ended   chan struct{} // closed when QEMU has ended

	mu      sync.Mutex
	output  []byte        // of the serial console, from the beginning
	more    chan struct{} // closed and replaced when output grows
	seen    int           // bytes of output that Expect has consumed
	counter int           // of commands
}

// errOff means that the machine is off.
var errOff = errors.New("the machine is off")

// Start switches a machine on.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	serialPath, qmpPath := filepath.Join(cfg.Dir, "serial"), filepath.Join(cfg.Dir, "qmp")
	for _, path := range []string{serialPath, qmpPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if cfg.Cache == "" {
		cfg.Cache = "unsafe"
	}
	args := []string{
		"-machine", "pc", "-accel", "tcg,thread=single", "-cpu", "max", "-m", "512", // one processor: two take a sixth more in all
		"-display", "none", "-nic", "none", "-vga", "none",
		"-chardev", "socket,id=console,path=" + serialPath + ",server=on,wait=on", "-serial", "chardev:console",
		"-qmp", "unix:" + qmpPath + ",server=on,wait=off",
		"-drive", "if=none,id=disk,file=" + cfg.Disk + ",format=raw,cache=" + cfg.Cache,
		"-device", "virtio-blk-pci,drive=disk", "-device", "qemu-xhci,id=xhci",
	}
	if cfg.Firmware != "" {
		args = append(args, "-bios", cfg.Firmware)
	}
	if cfg.State != "" {
		args = append(args, "-incoming", "exec:exec cat "+cfg.State)
	}
	logFile, err := os.OpenFile(filepath.Join(cfg.Dir, "console.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	m := &Machine{log: logFile, began: time.Now(), ended: make(chan struct{}), more: make(chan struct{})}
	m.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", append(args, cfg.Extra...)...)
	m.cmd.Stdout, m.cmd.Stderr = logFile, logFile
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a killed test leaves no machine behind
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(err, logFile.Close())
	}
	go func() {
		_ = m.cmd.Wait() // a machine that is cut off ends with a signal
		close(m.ended)
	}()
	if m.serial, err = m.dial(ctx, serialPath); err == nil {
		go m.collect()
		m.monitor, err = m.openMonitor(ctx, qmpPath)
	}
	if err == nil && cfg.State != "" {
		err = m.monitor.resumed() // what comes to the serial port before is lost
	}
	if err != nil {
		return nil, errors.Join(err, m.PowerOff())
	}
	return m, nil
}

// dial connects to a socket of QEMU's, which it makes in its own time.
func (m *Machine) dial(ctx context.Context, path string) (net.Conn, error) {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("qemu: %w: %w", errOff, err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond): // there is nothing to wait for but the file
		}
	}
}

func (m *Machine) openMonitor(ctx context.Context, path string) (*monitor, error) {
	c, err := m.dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return newMonitor(c)
}

// collect keeps what the serial console prints.
func (m *Machine) collect() {
	buf := make([]byte, 16<<10)
	for {
		n, err := m.serial.Read(buf)
		if n > 0 {
			text := bytes.ReplaceAll(buf[:n], []byte("\r"), nil)
			_, _ = m.log.Write(m.stamped(text)) // a log is a courtesy
			m.mu.Lock()
			m.output = append(m.output, text...)
			close(m.more)
			m.more = make(chan struct{})
			m.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// stamped puts the seconds since the start in front of each line that begins in
// the text.
func (m *Machine) stamped(text []byte) []byte {
	mark := fmt.Appendf(nil, "\n%7.2f  ", time.Since(m.began).Seconds())
	return bytes.ReplaceAll(text, []byte("\n"), mark)
}

// Expect waits for the pattern in what the console prints from where the last
// Expect found its own, and returns the submatches.
func (m *Machine) Expect(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for {
		m.mu.Lock()
		rest, more := m.output[m.seen:], m.more
		at := re.FindSubmatchIndex(rest)
		var found []string
		if at != nil {
			for i := 0; i < len(at); i += 2 {
				text := "" // of a group that has no part in the match
				if at[i] >= 0 {
					text = string(rest[at[i]:at[i+1]])
				}
				found = append(found, text)
			}
			m.seen += at[1]
		}
		m.mu.Unlock()
		if at != nil {
			return found, nil
		}
		select {
		case <-more:
		case <-m.ended:
			return nil, fmt.Errorf("expect %q: %w; the console ends with:\n%s", pattern, errOff, m.tail())
		case <-ctx.Done():
			return nil, fmt.Errorf("expect %q: %w; the console ends with:\n%s", pattern, ctx.Err(), m.tail())
		}
	}
}

// tail is the end of what the console printed.
func (m *Machine) tail() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	const enough = 3000
	return string(m.output[max(0, len(m.output)-enough):])
}

// Login waits for the shell of the boot that Expect has seen last, if it has seen
// one, and makes it quiet. The shell may have come before words that Expect has
// found already.
func (m *Machine) Login(ctx context.Context) error {
	if m.serial == nil {
		return errOff
	}
	m.mu.Lock()
	if boot := bytes.LastIndex(m.output[:m.seen], []byte("MENDER boots slot")); boot >= 0 {
		m.seen = boot
	}
	m.mu.Unlock()
	if _, err := m.Expect(ctx, `\n# `); err != nil {
		return err
	}
	// The first line is still echoed; the marker is not in it as a whole.
	if _, err := io.WriteString(m.serial, "stty -echo cols 1000; PS1=; PS2=; echo re''ady\n"); err != nil {
		return err
	}
	_, err := m.Expect(ctx, "ready\n")
	return err
}

// Run runs a shell command and returns its output and exit status.
func (m *Machine) Run(ctx context.Context, command string) (output string, status int, err error) {
	m.counter++
	if _, err := fmt.Fprintf(m.serial, "{ %s\n} 2>&1; echo \"<end:%d:$?>\"\n", command, m.counter); err != nil {
		return "", 0, err
	}
	found, err := m.Expect(ctx, fmt.Sprintf(`(?s)(.*?)<end:%d:(\d+)>\n`, m.counter))
	if err != nil {
		return "", 0, fmt.Errorf("run %q: %w", command, err)
	}
	status, err = strconv.Atoi(found[2])
	return found[1], status, err
}

// Plug puts a stick with the image file into the machine, as one with its write
// protect switch on.
func (m *Machine) Plug(id, image string) error { return m.plug(id, image, true) }

// PlugWritable puts a stick with the image file into the machine, which may
// write to it.
func (m *Machine) PlugWritable(id, image string) error { return m.plug(id, image, false) }

func (m *Machine) plug(id, image string, readOnly bool) error {
	if err := m.monitor.add(id, image, readOnly); err != nil {
		return err
	}
	return m.monitor.do("device_add", map[string]any{"driver": "usb-storage", "id": id, "drive": id, "bus": "xhci.0", "removable": true})
}

// Pull takes a stick out, whatever is being read from it.
func (m *Machine) Pull(id string) error {
	if err := m.monitor.do("device_del", map[string]any{"id": id}); err != nil {
		return err
	}
	if err := m.monitor.deleted(id); err != nil {
		return err
	}
	return m.monitor.do("blockdev-del", map[string]any{"node-name": id})
}

// Console returns what the serial console has printed since the machine was
// switched on.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.output)
}

// PlugDisk puts another disk into the machine that cannot be written, and that is
// on no bus that a stick may be on.
func (m *Machine) PlugDisk(id, image string) error {
	if err := m.monitor.add(id, image, true); err != nil {
		return err
	}
	return m.monitor.do("device_add", map[string]any{"driver": "virtio-blk-pci", "id": id, "drive": id})
}

// Suspend stops the machine for good and keeps its state in a file, whose path must
// be plain words for a shell. With it, and with the disk as it is then, machines can
// go on from there.
func (m *Machine) Suspend(path string) error {
	err := m.monitor.do("migrate-set-capabilities", map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}})
	if err == nil {
		err = m.monitor.do("migrate", map[string]any{"uri": "exec:exec cat >" + path})
	}
	if err == nil {
		err = m.monitor.migrated()
	}
	return errors.Join(err, m.PowerOff())
}

// PowerOff cuts the power. It may be called again.
func (m *Machine) PowerOff() error {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.ended
	var err error
	if m.serial != nil {
		err = m.serial.Close()
	}
	if m.monitor != nil {
		err = errors.Join(err, m.monitor.conn.Close())
	}
	m.serial, m.monitor = nil, nil
	if m.log != nil {
		err = errors.Join(err, m.log.Close())
		m.log = nil
	}
	return err
}
