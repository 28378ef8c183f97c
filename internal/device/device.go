// Package device puts an [install.Engine] together from what is configured on
// a device: slots, boot environment, store, keys, scripts. Commands import it,
// nothing else does.
//
// It has one view of where things are: below a root directory. That is "/", or
// the directory of a simulated device, in which slots and the boot environment
// may be regular files, the kernel command line names the running slot, and no
// reboot is real.
package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/install/script"
	"github.com/usb-updater/usb-updater/internal/install/slot"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/policy"
)

// Options says where the device is. Zero values stand for the usual places.
// Paths given here are taken as they are; paths that a configuration file
// names, and the usual places, are below Root.
type Options struct {
	Root         string // "" for the real device
	ConfigFile   string // mender.conf
	FallbackFile string // mender.conf in the data directory
	ConfigDir    string // of Mender: state scripts, mender.conf, artifact_info
	DataDir      string // of Mender: store, device_type, scripts of the artifact
	ShareDir     string // of Mender: update modules
	AgentFile    string // usb-updater.conf
	// ToolDirs are where programs that mender.conf names are looked up behind the
	// usual places: a PATH. They are places of the device.
	ToolDirs []string
	// UnmountTarget takes the slot to write out of use if somebody has mounted
	// it. Unattended, it may be mounted for a reason.
	UnmountTarget bool
	// Log hears what state scripts and update modules print. Optional.
	Log func(line string)
	// Warn hears of what somebody should look at, though nothing ends because of
	// it: repairs, and what was not as it should be. Optional.
	Warn func(line string)
}

// Device is a device whose configuration has been read.
type Device struct {
	Mender config.Mender
	Agent  config.Agent
	opts   Options
}

// Open reads the configuration. It locks and writes nothing.
func Open(opts Options) (*Device, error) {
	d, err := openMender(opts)
	if err != nil {
		return nil, err
	}
	if d.Agent, err = config.LoadAgent(d.AgentFile(), opts.AgentFile != ""); err != nil {
		return nil, err
	}
	if err := checkAgent(d.Agent); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", d.AgentFile(), err)
	}
	return d, nil
}

// checkAgent refuses what would be accepted and never work, where that is known
// to the packages that use it.
func checkAgent(a config.Agent) error {
	for _, typ := range a.FileSystems {
		if !slices.Contains(mount.FileSystems(), typ) {
			return fmt.Errorf("\"FileSystems\" has %.64q, want some of %q", typ, mount.FileSystems())
		}
	}
	if a.MinVersion != "" && !policy.IsVersion(a.MinVersion) {
		return fmt.Errorf("\"MinVersion\" is %.64q, want a version, as in \"1.4.2\"", a.MinVersion)
	}
	return nil
}

// AgentFile is where the agent's configuration is.
func (d *Device) AgentFile() string {
	if d.opts.AgentFile != "" {
		return d.opts.AgentFile
	}
	return d.Path(config.DefaultAgentFile)
}

// openMender is Open without the agent's own configuration, in place of which
// it has the default one.
func openMender(opts Options) (*Device, error) {
	for _, path := range []*string{&opts.Root, &opts.DataDir, &opts.ConfigDir, &opts.ShareDir} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path) // programs run from elsewhere
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	d := &Device{Agent: config.DefaultAgent(), opts: opts}
	files := config.Files{
		Main: opts.ConfigFile, MainRequired: opts.ConfigFile != "",
		Fallback: opts.FallbackFile, FallbackRequired: opts.FallbackFile != "",
	}
	if files.Main == "" {
		files.Main = filepath.Join(d.ConfigDir(), "mender.conf")
	}
	if files.Fallback == "" {
		files.Fallback = filepath.Join(d.DataDir(), "mender.conf")
	}
	var err error
	if d.Mender, err = config.LoadMender(files); err != nil {
		return nil, err
	}
	return d, nil
}

// Simulated tells whether the device is a directory on another machine.
func (d *Device) Simulated() bool { return d.opts.Root != "" && filepath.Clean(d.opts.Root) != "/" }

// Path returns where the device's path is on the machine that runs this.
func (d *Device) Path(path string) string {
	if !d.Simulated() {
		return path
	}
	return filepath.Join(d.opts.Root, path)
}

// DataDir is Mender's data directory.
func (d *Device) DataDir() string {
	if d.opts.DataDir != "" {
		return d.opts.DataDir
	}
	return d.Path(config.DefaultDataDir)
}

// ConfigDir is Mender's configuration directory.
func (d *Device) ConfigDir() string {
	if d.opts.ConfigDir != "" {
		return d.opts.ConfigDir
	}
	return d.Path(config.DefaultConfigDir)
}

// RunDir is where runs of the agent keep what must not outlive the boot.
func (d *Device) RunDir() string { return d.Path("/run/usb-updater") }

// RunningName is the artifact name that the running root file system gives
// itself, "" if it does not.
func (d *Device) RunningName() (string, error) {
	return config.ArtifactInfo(filepath.Join(d.ConfigDir(), "artifact_info"))
}

// Type reads the device type.
func (d *Device) Type() (string, error) {
	path := d.Mender.DeviceTypePath(d.DataDir())
	if d.Mender.DeviceTypeFile != "" {
		path = d.Path(path)
	}
	return config.DeviceType(path)
}

// Keys loads the verification keys. One that cannot be read is an error: it
// must not turn into "no verification".
func (d *Device) Keys() ([]*artifact.Key, error) {
	names := d.Mender.KeyFiles()
	keys := make([]*artifact.Key, 0, len(names))
	for _, name := range names {
		key, err := LoadKey(d.Path(name))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 64 << 10

// LoadKey reads one public key.
func LoadKey(path string) (*artifact.Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("verification key: %w", err)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("verification key %s: larger than %d bytes", path, maxKeyFile)
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("verification key: %w", err)
	}
	key, err := artifact.ParseKey(path, pem)
	if err != nil {
		return nil, fmt.Errorf("verification key %s: %w", path, err)
	}
	return key, nil
}

// Slots finds both slots and which one runs.
func (d *Device) Slots() (install.Slots, error) {
	nameA, nameB, err := d.Mender.Slots()
	if err != nil {
		return install.Slots{}, err
	}
	opts := slot.Options{AllowFile: d.Simulated()}
	a, err := slot.Find(d.Path(nameA), opts)
	if err != nil {
		return install.Slots{}, fmt.Errorf("RootfsPartA: %w", err)
	}
	b, err := slot.Find(d.Path(nameB), opts)
	if err != nil {
		return install.Slots{}, fmt.Errorf("RootfsPartB: %w", err)
	}
	booted, err := slot.Booted([2]slot.Partition{a, b}, d.root())
	if err != nil {
		return install.Slots{}, err
	}
	return install.Slots{A: a, B: b, Booted: [2]bootenv.Slot{bootenv.A, bootenv.B}[booted]}, nil
}

func (d *Device) root() slot.Root { return slot.Root{Dir: d.Path("/"), Simulated: d.Simulated()} }

// BootedBy says in words what tells which slot runs.
func (d *Device) BootedBy() (string, error) { return d.root().Evidence() }

// Engine puts the engine together over an open store. A device without root slots,
// or whose slots or boot loader cannot be used, gets one that says so, and that
// installs by update modules only.
func (d *Device) Engine(store install.Store) *install.Engine {
	deviceType, typeErr := d.Type()
	name, nameErr := d.RunningName()
	if nameErr != nil {
		d.warn(nameErr.Error())
	}
	e := &install.Engine{
		DeviceType: deviceType,
		NoType:     typeErr,
		NoName:     nameErr,
		Store:      store,
		Scripts:    d.scriptRunner(),
		Modules:    d.Modules(),
		OpenTarget: func(p slot.Partition, size int64) (install.Target, error) {
			return slot.OpenWriter(p, size, readBack(d.Agent.VerifyWritten))
		},
		Mounted:     mounted,
		RunningName: name,
		BootID:      d.bootID(),
		SkipVerify:  d.Agent.VerifyWritten == config.VerifyNothing,
		BlackBox:    blackBox{d},
		Now:         time.Now,
	}
	if d.opts.UnmountTarget {
		e.Unmount = d.unmount
	}
	var err error
	e.Slots, err = d.Slots()
	if errors.Is(err, config.ErrNoSlots) {
		e.NoSlots = err
		return e
	}
	if err == nil {
		var boot Boot
		boot, err = d.Boot(e.Slots)
		e.Loader = boot.Loader
	}
	e.NoLoader = err
	return e
}

// readBack is what the slot writer calls it.
func readBack(v config.Verify) slot.ReadBack {
	switch v {
	case config.VerifyAll:
		return slot.ReadAll
	case config.VerifyNothing:
		return slot.ReadNothing
	default:
		return slot.ReadChanged
	}
}

// OpenStore locks the device's store. A damaged one is set aside, which is
// told through Options.Warn: the boot environment still knows of a trial. The
// caller closes it.
func (d *Device) OpenStore() (*state.Store, error) {
	store, err := state.Open(d.DataDir())
	if err != nil {
		return nil, err
	}
	repaired, err := store.Repair()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if repaired {
		d.warn("the store in " + d.DataDir() + " was damaged: it is kept as mender-store-broken, and a new one holds what could be read")
	}
	return store, nil
}

func (d *Device) log(line string) {
	if d.opts.Log != nil {
		d.opts.Log(line)
	}
}

func (d *Device) warn(line string) {
	if d.opts.Warn != nil {
		d.opts.Warn(line)
	}
}

// OwnStorage returns the device numbers of what the device lives on: slots,
// data, boot environment. A stick is none of them. It is empty for a simulated
// device.
func (d *Device) OwnStorage(slots install.Slots) ([]uint64, error) {
	if d.Simulated() {
		return nil, nil
	}
	var own []uint64
	for _, p := range []slot.Partition{slots.A, slots.B} {
		if p.ID.Block { // the number of a UBI volume is not one of a block device
			own = append(own, p.ID.Dev)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(d.DataDir(), &st); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", d.DataDir(), err)
	}
	if unix.Major(st.Dev) != 0 { // not on an overlay or in memory
		own = append(own, st.Dev)
	}
	boot, err := d.bootStorage()
	if err != nil {
		return nil, err
	}
	return append(own, boot...), nil
}

// bootID tells boots apart; "" where the kernel does not say.
func (d *Device) bootID() string {
	b, err := os.ReadFile(d.Path("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (d *Device) scriptRunner() *script.Runner {
	return &script.Runner{
		RootfsDir:     filepath.Join(d.ConfigDir(), "scripts"),
		ArtifactDir:   filepath.Join(d.DataDir(), "scripts"),
		Timeout:       d.Mender.ScriptTimeout(),
		RetryInterval: d.Mender.ScriptRetryInterval(),
		RetryTimeout:  d.Mender.ScriptRetryTimeout(),
		Log:           d.log,
		Warn:          d.warn,
	}
}

// Modules runs the device's update modules.
func (d *Device) Modules() *module.Runner {
	share := d.opts.ShareDir
	if share == "" {
		share = d.Path(config.DefaultShareDir)
	}
	return &module.Runner{
		Dir:     filepath.Join(share, "modules", "v3"),
		DataDir: d.DataDir(),
		Timeout: d.Mender.ModuleTimeout(),
		Log:     d.log,
	}
}

// maxUnmounts bounds how often one partition is unmounted: it may be mounted in
// several places.
const maxUnmounts = 8

// unmount takes a partition out of use, wherever it is mounted. A file system
// in which somebody works is left alone, and the error says so.
func (d *Device) unmount(p slot.Partition) error {
	for range maxUnmounts {
		where, err := mounted(p)
		if err != nil || where == "" {
			return err
		}
		d.warn(fmt.Sprintf("the inactive slot %s is mounted on %q: umount, to write it", p.Path, where))
		if err := unix.Unmount(where, unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
	}
	return errors.New("it is mounted in too many places")
}

// mounted returns where a partition is mounted; a file is nowhere.
func mounted(p slot.Partition) (string, error) {
	if p.ID.UBI {
		return slot.VolumeMounted(p)
	}
	if !p.ID.Block {
		return "", nil
	}
	where, ok, err := mount.IsMounted(p.ID.Dev)
	if err != nil || !ok {
		return "", err
	}
	if where == "" {
		return "", errors.New("mounted, but the kernel does not say where")
	}
	return where, nil
}
