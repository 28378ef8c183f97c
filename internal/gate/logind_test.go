package gate

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=PATH</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*" eavesdrop="true"/>
</policy></busconfig>`

// systemBus starts a bus of its own and returns its address.
func systemBus(t *testing.T) string {
	t.Helper()
	tier.Device.Need(t, "dbus-daemon")
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(busConfig, "PATH", filepath.Join(dir, "bus"))), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// logind answers as the real one does: with a descriptor that holds the lock.
type logind struct {
	asked chan [4]string
	ends  chan *os.File // of a pipe: the one that was sent, and the other one
}

// Inhibit takes a lock.
func (l *logind) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	l.asked <- [4]string{what, who, why, mode}
	far, near, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	fd := dbus.UnixFD(near.Fd())
	l.ends <- near
	l.ends <- far
	return fd, nil
}

func TestInhibit(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", systemBus(t))
	none, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if lock, err := inhibit(none, "testing"); err == nil {
		t.Errorf("inhibit without logind = %v, want an error", lock)
	}
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	service := &logind{asked: make(chan [4]string, 1), ends: make(chan *os.File, 2)}
	if err := conn.Export(service, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.login1", 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lock, err := inhibit(ctx, "testing")
	if err != nil {
		t.Fatal(err)
	}
	want := [4]string{"shutdown:sleep", "usb-updater", "testing", "block"}
	if got := <-service.asked; got != want {
		t.Errorf("logind was asked for %q, want %q", got, want)
	}
	file, ok := lock.(*os.File)
	if !ok {
		t.Fatalf("the lock is a %T, want a file", lock)
	}
	if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of the lock = %#x, %v: programs that an update runs would keep it", flags, err)
	}
	if err := errors.Join(lock.Close(), (<-service.ends).Close(), (<-service.ends).Close()); err != nil {
		t.Error(err)
	}
}

// TestInhibitHangs asks a bus that accepts and never answers.
func TestInhibitHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := inhibit(ctx, "testing"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("inhibit = %v, want %v", err, context.DeadlineExceeded)
	}
}
