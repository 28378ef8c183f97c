package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
	"github.com/usb-updater/usb-updater/test/vm"
)

// host is a device that is switched on.
type host struct {
	lab     *lab
	dir     string
	server  *medium.Server
	machine *vm.Machine
	life    *life
	command int // number of the last one that was typed
	sticks  int // that update has plugged in
	unlock  func()
	began   time.Time
	plugged time.Time
}

// powerOn starts a device with the image as its disk, which belongs to it.
func (l *lab) powerOn(ctx context.Context, image *medium.Image, own [2]blockSet, names []string) (*host, error) {
	unlock, err := l.hold()
	if err != nil {
		return nil, err
	}
	h := &host{lab: l, unlock: unlock, began: time.Now()}
	if h.dir, err = os.MkdirTemp("", "power"); err != nil { // a socket's path must be short
		unlock()
		return nil, err
	}
	if h.server, err = medium.Serve(filepath.Join(h.dir, "disk"), image, l.lay.unit); err != nil {
		return nil, errors.Join(err, h.cut())
	}
	h.life = &life{trace: h.server.Trace(), own: cloneOwn(own), plug: -1, names: names}
	h.machine, err = vm.Start(ctx, vm.Config{
		Dir: h.dir, Disk: h.server.URL(), Firmware: l.parts.Firmware(vm.UBoot), Cache: "writeback", Extra: []string{"-m", "256", "-cpu", "max,avx=off,avx2=off"},
	})
	if err != nil {
		return nil, errors.Join(err, h.cut())
	}
	return h, nil
}

// yield lets go of the lock for a moment: whoever waits for it gets it now.
func (h *host) yield() error {
	h.unlock()
	unlock, err := h.lab.hold()
	if err != nil {
		unlock = func() {}
	}
	h.unlock = unlock
	return err
}

// cut cuts the power, and removes what the host left behind.
func (h *host) cut() error {
	var err error
	if h.machine != nil {
		err = h.machine.PowerOff()
		h.machine = nil
	}
	if h.server != nil {
		err = errors.Join(err, h.server.Close())
		h.server = nil
	}
	h.unlock()
	return errors.Join(err, os.RemoveAll(h.dir))
}

// status is what the device says of itself (source: docs/reporting.md).
type status struct {
	Artifact string `json:"artifact_name"`
	Slot     string `json:"booted_slot"`
	Pending  string `json:"pending_artifact"`
	Boot     struct {
		Phase string `json:"phase"`
		Next  string `json:"next_slot"`
		Error string `json:"error"`
	} `json:"boot"`
	Result *struct {
		Name string `json:"result"`
	} `json:"last_result"`
}

const bootPattern = `MENDER boots slot (\d) trial (\d)`

// expect waits for a pattern, or for the boot loader, of which it takes note. It
// returns nil for that.
//
// What is typed while the device reboots stops the boot loader, as a key does.
// It is told to go on.
func (h *host) expect(ctx context.Context, pattern string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, h.lab.timeout)
	defer cancel()
	var found []string
	for {
		var err error
		found, err = h.machine.Expect(ctx, bootPattern+`|(\n=> )|`+pattern)
		if err != nil {
			return nil, err
		}
		if found[3] == "" {
			break
		}
		if err := h.machine.Send("boot"); err != nil {
			return nil, err
		}
	}
	if found[1] == "" {
		return found[4:], nil
	}
	b := boot{index: h.life.trace.Len(), trial: found[2] == "1", at: time.Now()}
	if found[1] == fmt.Sprint(judge.Parts.B) {
		b.slot = 1
	}
	h.life.boots = append(h.life.boots, b)
	if len(h.life.boots) > 2*judge.MaxBoots {
		return nil, judge.Violation("it boots and boots")
	}
	return nil, nil
}

// settle waits until the device is at rest, over all reboots that it makes on
// the way, and returns its status. The device has just been started.
func (h *host) settle(ctx context.Context) (status, error) {
	for {
		found, err := h.expect(ctx, `(\n# )`)
		if err != nil {
			return status{}, err
		}
		if found == nil { // the boot loader; the shell is to come
			continue
		}
		st, ok, err := h.ask(ctx, "systemctl is-system-running --wait >/dev/null")
		if err != nil || ok {
			return st, err
		}
	}
}

// ask runs a command and then asks for the status. ok is false if the device
// rebooted instead.
func (h *host) ask(ctx context.Context, command string) (st status, ok bool, err error) {
	h.command++
	line := fmt.Sprintf(`stty -echo; PS1=; PS2=; %s; echo "<status %d>"; usb-updater status --json | tr -d '\n'; echo "<e""nd %d>"`, command, h.command, h.command)
	if err := h.machine.Send(line); err != nil {
		return st, false, err
	}
	found, err := h.expect(ctx, fmt.Sprintf(`(?s)<status %d>\n\s*(\{.*?\})\s*<end %d>`, h.command, h.command))
	if err != nil || found == nil {
		return st, false, err
	}
	if err := json.Unmarshal([]byte(found[0]), &st); err != nil {
		return st, false, fmt.Errorf("status: %w: %s", err, found[0])
	}
	return st, true, nil
}

// plug plugs a stick in.
func (h *host) plug(id, stick string) error {
	h.life.plug, h.plugged = h.life.trace.Len(), time.Now()
	return h.machine.Plug(id, stick)
}

// stick is the name of the last stick that update has plugged in.
func (h *host) stick() string { return fmt.Sprintf("stick%d", h.sticks) }

// update plugs a stick in and waits until the device is at rest again. The shell is
// waiting for a command.
func (h *host) update(ctx context.Context, stick string) (status, error) {
	h.sticks++
	if err := h.plug(h.stick(), stick); err != nil {
		return status{}, err
	}
	boots := len(h.life.boots)
	if _, err := h.expect(ctx, `(never)`); err != nil {
		return status{}, fmt.Errorf("no reboot after the stick was plugged in: %w\n%s", err, h.journal(ctx))
	}
	if b := h.life.boots[boots]; !b.trial {
		return status{}, judge.Violation("the reboot after the installation is no trial")
	}
	return h.settle(ctx)
}

// journal returns what the runs of this boot have logged, for people.
func (h *host) journal(ctx context.Context) string {
	h.command++
	line := fmt.Sprintf(`stty -echo; PS1=; echo "<log"">"; journalctl -b -o short-monotonic --no-pager | tail -n 40; echo "<e""nd %d>"`, h.command)
	if err := h.machine.Send(line); err != nil {
		return err.Error()
	}
	found, err := h.expect(ctx, fmt.Sprintf(`(?s)<log>(.*?)<end %d>`, h.command))
	if err != nil || found == nil {
		return fmt.Sprintf("no journal: %v", err)
	}
	return found[0]
}
