package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
)

const slotSize = 64 << 10

var (
	oldImage = bytes.Repeat([]byte("release-1 "), 3000)
	newImage = bytes.Repeat([]byte("release-2 "), 4000)
)

var errPowerCut = errors.New("the power is off")

// machine is a device made of memory. Its medium loses what was not synced
// when the power is cut, which happens after a number of writes.
type machine struct {
	slots  [2][]byte         // on the medium
	dirty  [2][]byte         // with what is still in the cache; nil if nothing is
	env    map[string]string // the boot environment
	record state.Record
	boots  int
	booted bootenv.Slot
	// tryboot makes it a device whose boot loader tries a slot only if the
	// reboot asks for it; argument is what the next reboot passes.
	tryboot, trying bool
	argument        string

	off       bool
	writes    int      // so far, in this life
	cutAfter  int      // this many writes; -1: never
	flushLies bool     // the medium keeps nothing when told to
	keep      bool     // the cut keeps what is in the cache, as a drive may
	written   []string // what each write was
	ran       []string
	fail      map[string]error // what state scripts return
	failEnv   error            // what the boot environment's next write returns
	onSave    func(state.Record) error
	app       app
}

func newMachine() *machine {
	m := &machine{
		env: map[string]string{
			"mender_boot_part": "2", "mender_boot_part_hex": "2", "upgrade_available": "0", "bootcount": "0", "bootlimit": "1",
		},
		record:   state.Record{ArtifactName: "release-1"},
		cutAfter: -1,
		app:      app{content: "old", rollback: "Yes"},
	}
	for i := range m.slots {
		m.slots[i] = make([]byte, slotSize)
	}
	copy(m.slots[0], oldImage)
	m.powerOn()
	return m
}

// write lets one write happen, or not. what names it.
func (m *machine) write(what string) error {
	if m.off {
		return errPowerCut
	}
	if m.writes == m.cutAfter {
		m.cut()
		return errPowerCut
	}
	m.writes++
	m.written = append(m.written, what)
	return nil
}

func (m *machine) cut() {
	m.off, m.argument = true, ""
	for i, d := range m.dirty {
		if d != nil && m.keep {
			m.slots[i] = d
		}
		m.dirty[i] = nil
	}
}

// powerOn is the boot loader of meta-mender: it counts trial boots and goes
// back.
func (m *machine) powerOn() {
	m.off, m.writes, m.cutAfter = false, 0, -1
	m.dirty = [2][]byte{}
	m.boots++
	if m.tryboot {
		m.startTryboot()
		return
	}
	if m.env["upgrade_available"] == "1" {
		count, _ := strconv.Atoi(m.env["bootcount"])
		m.env["bootcount"] = strconv.Itoa(count + 1)
		if count+1 > 1 {
			back := "2"
			if m.env["mender_boot_part"] == "2" {
				back = "3"
			}
			m.env["mender_boot_part"], m.env["mender_boot_part_hex"], m.env["upgrade_available"] = back, back, "0"
		}
	}
	m.booted = bootenv.A
	if m.env["mender_boot_part"] == "3" {
		m.booted = bootenv.B
	}
}

func slotIndex(s bootenv.Slot) int {
	if s == bootenv.B {
		return 1
	}
	return 0
}

// running names the system in the booted slot, or fails if that is no whole
// one: the one thing that must never happen.
func (m *machine) running(t *testing.T) string {
	t.Helper()
	content := m.slots[slotIndex(m.booted)]
	switch {
	case bytes.HasPrefix(content, oldImage):
		return "release-1"
	case bytes.HasPrefix(content, newImage):
		return "release-2"
	}
	t.Fatalf("slot %s boots and holds no whole image: BRICK", m.booted)
	return ""
}

// whole tells whether the slot that boots holds a whole image.
func (m *machine) whole() bool {
	content := m.slots[slotIndex(m.booted)]
	return bytes.HasPrefix(content, oldImage) || bytes.HasPrefix(content, newImage)
}

// engine is what a program run on the machine would use.
func (m *machine) engine(t *testing.T) *Engine {
	t.Helper()
	part := func(i int) slot.Partition {
		return slot.Partition{Path: fmt.Sprintf("/dev/p%d", i+2), Number: i + 2, ID: slot.ID{Inode: uint64(i + 1)}, Size: slotSize}
	}
	return &Engine{
		DeviceType:  "test-device",
		Slots:       Slots{A: part(0), B: part(1), Booted: m.booted},
		Loader:      m.loader(),
		Store:       recordStore{m},
		Scripts:     scriptLog{m},
		Modules:     fakeModules{m},
		OpenTarget:  func(p slot.Partition, _ int64) (Target, error) { return &target{m: m, i: p.Number - 2}, nil },
		Mounted:     func(slot.Partition) (string, error) { return "", nil },
		BootID:      fmt.Sprintf("boot-%d", m.boots),
		Now:         func() time.Time { return time.Unix(0, 0) },
		RunningName: m.running(t),
	}
}

func (m *machine) loader() bootenv.Loader {
	if m.tryboot {
		return trybootLoader{m}
	}
	return bootenv.NewMender(envStore{m}, bootenv.Parts{A: 2, B: 3}, m.booted)
}

// envStore is a boot environment whose Update is one write.
type envStore struct{ m *machine }

func (s envStore) Get(_ context.Context, names ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, n := range names {
		if v, ok := s.m.env[n]; ok {
			out[n] = v
		}
	}
	return out, nil
}

func (s envStore) Update(_ context.Context, vars ...bootenv.Var) error {
	if err := s.m.failEnv; err != nil {
		return err
	}
	next := maps.Clone(s.m.env)
	for _, v := range vars {
		next[v.Name] = v.Value
	}
	if maps.Equal(next, s.m.env) {
		return nil
	}
	if err := s.m.write("env"); err != nil {
		return err
	}
	s.m.env = next
	return nil
}

func (s envStore) Check(context.Context, ...bootenv.Var) (bootenv.Health, error) {
	return bootenv.Health{}, nil
}

// recordStore is a store whose Save is one write.
type recordStore struct{ m *machine }

func (s recordStore) Load() (state.Record, error) {
	r := s.m.record
	r.Failed = maps.Clone(r.Failed)
	r.Provides = maps.Clone(r.Provides)
	r.Known = maps.Clone(r.Known)
	return r, nil
}

func (s recordStore) Save(r state.Record) error {
	if s.m.onSave != nil {
		if err := s.m.onSave(r); err != nil {
			return err
		}
	}
	if err := s.m.write("store"); err != nil {
		return err
	}
	s.m.record = r
	return nil
}

// target is a slot with a write cache.
type target struct {
	m   *machine
	i   int
	off int
}

// Write takes 8 KiB at a time, so that a cut can leave half an image.
func (w *target) Write(p []byte) (int, error) {
	for piece := range slices.Chunk(p, 8<<10) {
		if err := w.m.write("slot"); err != nil {
			return 0, err
		}
		if w.m.dirty[w.i] == nil {
			w.m.dirty[w.i] = slices.Clone(w.m.slots[w.i])
		}
		w.off += copy(w.m.dirty[w.i][w.off:], piece)
	}
	return len(p), nil
}

func (w *target) Sync(context.Context) error {
	if err := w.m.write("sync"); err != nil {
		return err
	}
	if d := w.m.dirty[w.i]; d != nil && !w.m.flushLies {
		w.m.slots[w.i], w.m.dirty[w.i] = d, nil
	}
	return nil
}

func (w *target) Verify(_ context.Context, want [sha256.Size]byte) error {
	if sha256.Sum256(w.m.slots[w.i][:w.off]) != want {
		return slot.ErrMismatch
	}
	return nil
}

func (w *target) Close() error { return nil }

// scriptLog notes which states ran.
type scriptLog struct{ m *machine }

func (s scriptLog) Install(int, []artifact.Script) error { return nil }

func (s scriptLog) Run(_ context.Context, state, action string) error {
	if s.m.off {
		return errPowerCut
	}
	name := state + "_" + action
	s.m.ran = append(s.m.ran, name)
	return s.m.fail[name]
}

func (m *machine) ranScripts() string {
	s := strings.Join(m.ran, " ")
	m.ran = nil
	return s
}

func newArtifact(t *testing.T, change func(*artifacttest.Spec)) *artifact.Artifact {
	t.Helper()
	spec := artifacttest.Spec{Name: "release-2", Files: []artifacttest.File{artifacttest.Bytes("root.img", newImage)}, Compression: "none"}
	if change != nil {
		change(&spec)
	}
	var b bytes.Buffer
	if err := artifacttest.Write(&b, spec); err != nil {
		t.Fatal(err)
	}
	a, err := artifact.Open(&b, artifact.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// installRun is what both programs do with an artifact.
func installRun(t *testing.T, e *Engine, a *artifact.Artifact) error {
	t.Helper()
	plan, err := e.Plan(t.Context(), a)
	if err != nil {
		return err
	}
	w, err := e.Write(t.Context(), plan)
	if err != nil {
		return err
	}
	_, err = e.Arm(t.Context(), w)
	return err
}

// bootCheck is what the agent does after a boot, with a health check that
// passes. It tells whether it wants a reboot.
func bootCheck(t *testing.T, e *Engine) (reboot bool, err error) {
	t.Helper()
	action, err := e.Recover(t.Context())
	switch action {
	case ActionDecide:
		return false, e.Commit(t.Context())
	case ActionRollback:
		return true, err
	case ActionReboot:
		return true, nil
	case ActionFail: // the error says that the trial failed: no error of the run
		return false, nil
	default:
		return false, err
	}
}
