package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T) *Listener {
	t.Helper()
	l, err := Listen(t.Context())
	if err != nil {
		t.Skipf("no events here: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestFromKernel(t *testing.T) {
	cred := func(pid int32, uid uint32) []byte { return unix.UnixCredentials(&unix.Ucred{Pid: pid, Uid: uid}) }
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}
	tests := []struct {
		name string
		from unix.Sockaddr
		oob  []byte
		want bool
	}{
		{"kernel", kernel, cred(0, 0), true},
		{"port of a process", &unix.SockaddrNetlink{Pid: 42, Groups: kernelGroup}, cred(0, 0), false},
		{"group of udev", &unix.SockaddrNetlink{Groups: 2}, cred(0, 0), false},
		{"not sent to a group", &unix.SockaddrNetlink{}, cred(0, 0), false},
		{"process of root", kernel, cred(42, 0), false},
		{"process of a user", kernel, cred(42, 1000), false},
		{"user without a process", kernel, cred(0, 1000), false},
		{"no credentials", kernel, nil, false},
		{"credentials cut", kernel, cred(0, 0)[:20], false},
		{"credentials twice", kernel, slices.Concat(cred(0, 0), cred(0, 0)), false},
		{"no address", nil, cred(0, 0), false},
		{"another family", &unix.SockaddrUnix{}, cred(0, 0), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fromKernel(tt.from, tt.oob); got != tt.want {
				t.Errorf("fromKernel = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestNextCanceled checks that a listener that waits stops, and that it can be
// used again.
func TestNextCanceled(t *testing.T) {
	l := listen(t)
	why := errors.New("told to stop")
	for range 3 {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(why) })
		if d, err := l.Next(ctx); !errors.Is(err, why) {
			t.Fatalf("Next = %+v, %v, want %v", d, err, why)
		}
	}
	timeout, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := l.Next(timeout); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) < 15*time.Millisecond {
		t.Errorf("Next after %v: %v, want %v", time.Since(begin), err, context.DeadlineExceeded)
	}
}

func TestNextClosed(t *testing.T) {
	l, err := Listen(t.Context())
	if err != nil {
		t.Skipf("no events here: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err := l.Next(t.Context()); err == nil {
		t.Errorf("Next of a closed listener = %+v, want an error", d)
	}
}

// trigger has the kernel send an event about a loop device.
func trigger(t *testing.T) {
	t.Helper()
	err := os.WriteFile("/sys/class/block/loop0/uevent", []byte("change"), 0)
	if err == nil {
		return
	}
	tier.Device.Lack(t, "root and loop0: "+err.Error())
}

// TestForgedEvent sends an event in the kernel's name, and then has the kernel
// send one. Only that may arrive.
func TestForgedEvent(t *testing.T) {
	l := listen(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	forged := strings.ReplaceAll(event("add", usbPath), "sda1", "forged")
	if d, usb, err := decode([]byte(forged)); d.Name != "forged" || !usb || err != nil {
		t.Fatalf("the forged event is %+v, %v: it would be dropped anyway", d, err)
	}
	if err := unix.Sendto(fd, []byte(forged), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		t.Logf("send a forged event: %v", err) // only root may
	}
	trigger(t)
	if err := l.socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		message, err := l.receive()
		if err != nil {
			t.Fatal(err)
		}
		d, usb, err := decode(message)
		if d.Name == "forged" {
			t.Fatal("the forged event arrives")
		}
		if err == nil && d.Name == "loop0" && d.Action == Change {
			if usb || d.Major != 7 || d.Minor != 0 || d.Partition {
				t.Errorf("event is %+v, on USB %v", d, usb)
			}
			return
		}
	}
}

// TestLostEvents checks that a stick is not missed because its event was lost.
func TestLostEvents(t *testing.T) {
	l := listen(t)
	l.sysfs = fakeSysfs(t)
	conn, err := l.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := conn.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }); err != nil || set != nil {
		t.Fatal(err, set)
	}
	for range 50 {
		trigger(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, want := range []string{"sda1", "sdb"} {
		if d, err := l.Next(ctx); d.Name != want || d.Action != Add || err != nil {
			t.Errorf("Next = %+v, %v, want %s", d, err, want)
		}
	}
}

// TestNextIsScan: an event is about a stick where Scan finds one. A disk with
// partitions and a reader without a card are none.
func TestNextIsScan(t *testing.T) {
	l := listen(t)
	l.sysfs, l.dev = fakeSysfs(t), t.TempDir()
	of := func(action, name, devtype string) string {
		return strings.NewReplacer("DEVNAME=sda1", "DEVNAME="+name, "DEVTYPE=partition", "DEVTYPE="+devtype).Replace(event(action, usbPath))
	}
	messages := []string{
		of("add", "sda", "disk"), of("change", "sda", "disk"), // has a partition
		of("add", "sdd", "disk"), of("change", "sdd", "disk"), // no card
		of("add", "sdc", "disk"), // gone
		of("add", "sda1", "partition"),
		of("change", "sdb", "disk"),
		of("remove", "sda", "disk"),
	}
	l.message = func() ([]byte, error) {
		if len(messages) == 0 {
			return nil, errors.New("no more messages")
		}
		m := messages[0]
		messages = messages[1:]
		return []byte(m), nil
	}
	for _, want := range []Device{
		{Name: "sda1", Major: 8, Minor: 1, Action: Add, Partition: true, Disk: "sda"},
		{Name: "sdb", Major: 8, Minor: 16, Action: Change, Disk: "sdb"},
		{Name: "sda", Major: 8, Minor: 1, Action: Remove},
	} {
		if got, err := l.Next(t.Context()); got != want || err != nil {
			t.Errorf("Next = %+v, %v, want %+v", got, err, want)
		}
	}
}

// TestNextRousesDisk: the kernel looks at a medium that was changed when the
// disk is opened.
func TestNextRousesDisk(t *testing.T) {
	l := listen(t)
	l.sysfs, l.dev = fakeSysfs(t), t.TempDir()
	node := filepath.Join(l.dev, "sdb")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(opened)
	if _, err := unix.InotifyAddWatch(opened, node, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		action string
		want   bool
	}{{"add", false}, {"change", true}} {
		l.message = func() ([]byte, error) {
			return []byte(strings.NewReplacer("DEVNAME=sda1", "DEVNAME=sdb", "DEVTYPE=partition", "DEVTYPE=disk").Replace(event(tt.action, usbPath))), nil
		}
		if d, err := l.Next(t.Context()); d.Name != "sdb" || err != nil {
			t.Errorf("Next = %+v, %v, want sdb", d, err)
		}
		n, err := unix.Read(opened, make([]byte, 4096))
		if got := n > 0; got != tt.want {
			t.Errorf("%s: the disk was opened: %v (%v), want %v", tt.action, got, err, tt.want)
		}
	}
}
