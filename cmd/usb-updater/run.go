package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/policy"
	"github.com/usb-updater/usb-updater/internal/report"
)

// update is the whole job, from a block device to the reboot:
//
//	stick → candidates → decision → artifact → plan → slot → boot env → reboot
//
// Everything up to plan may refuse and has written nothing.
func (a *agent) update(ctx context.Context) (report.Code, error) {
	d, err := device.Open(a.opts)
	if err != nil {
		return report.ConfigFailed, err
	}
	return a.withEngine(d, func(e *install.Engine, store *state.Store) (report.Code, error) {
		if err := e.Ready(ctx); err != nil {
			return codeOf(err, report.BootEnvFailed), err
		}
		stick, err := a.openStick(ctx, d, e.Slots)
		if err != nil {
			return report.StickFailed, err
		}
		defer stick.Close() // its private mount ends with the process at the latest
		candidates, err := a.candidates(ctx, d, stick)
		if err != nil {
			return report.StickFailed, err
		}
		decision := decide(d, e.Slots, candidates.record, candidates.list)
		a.explain(decision, candidates.list)
		if decision.Chosen < 0 {
			return refusal(decision)
		}
		chosen := candidates.list[decision.Chosen]
		art, file, err := reopen(d, stick, chosen)
		if err != nil {
			return codeOf(err, report.StickFailed), err
		}
		defer file.Close() // read only
		plan, err := e.Plan(ctx, art)
		if err != nil {
			return codeOf(err, report.Refused), err
		}
		if a.dryRun {
			a.log.Info().Str("artifact", chosen.header.Name).Msg("dry run: this artifact would be installed")
			return report.OK, nil
		}
		code, err := a.install(ctx, e, plan)
		a.remember(d, store, result{code: code, artifact: chosen.header.Name, err: err})
		if err != nil {
			return code, err
		}
		return a.reboot(d, "try the new system")
	})
}

// install writes the slot and arms the boot loader for it.
func (a *agent) install(ctx context.Context, e *install.Engine, plan *install.Plan) (report.Code, error) {
	h := plan.Header()
	a.log.Info().Str("artifact", h.Name).Str("slot", plan.Target.String()).Int64("bytes", plan.File.Size).Msg("installing")
	e.Report = a.progress()
	written, err := e.Write(ctx, plan)
	if err != nil {
		return codeOf(err, report.SlotFailed), err
	}
	if err := e.Arm(ctx, written); err != nil {
		return codeOf(err, report.BootEnvFailed), err
	}
	a.log.Info().Str("artifact", h.Name).Str("slot", plan.Target.String()).Msg("installed; the next boot tries it")
	return report.OK, nil
}

// withEngine runs do under the device's lock.
func (a *agent) withEngine(d *device.Device, do func(*install.Engine, *state.Store) (report.Code, error)) (code report.Code, err error) {
	store, err := d.OpenStore()
	if errors.Is(err, state.ErrLocked) {
		return report.Busy, err
	}
	if err != nil {
		return report.StateFailed, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	e, err := d.Engine(store)
	if err != nil {
		return report.ConfigFailed, err
	}
	e.Report = a.progress()
	return do(e, store)
}

// openStick opens the block device for reading. The disks that hold the slots
// are never a stick.
func (a *agent) openStick(ctx context.Context, d *device.Device, slots install.Slots) (*mount.Stick, error) {
	opts := mount.Options{
		Types:          d.Agent.FileSystems,
		RunDir:         d.RunDir(),
		AllowDirectory: d.Simulated(),
	}
	if !d.Simulated() {
		opts.Protected = []uint64{slots.A.ID.Dev, slots.B.ID.Dev}
	}
	return mount.Open(ctx, stickName(a.args[0], opts), opts)
}

// stickName lets a person name a directory of the current one without a
// slash, where a directory may stand in for a stick. Otherwise such a word is
// the kernel's name of a block device.
func stickName(word string, opts mount.Options) string {
	if info, err := os.Stat(word); opts.AllowDirectory && err == nil && info.IsDir() {
		if path, err := filepath.Abs(word); err == nil {
			return path
		}
	}
	return word
}

// candidate is an artifact on the stick whose header was read.
type candidate struct {
	entry  mount.Entry
	header *artifact.Header // nil if it could not be read
	size   int64            // of the payload, bytes
	err    error            // why it is not for this device
}

type candidates struct {
	list   []candidate
	record state.Record
}

// candidates reads the header of each artifact on the stick and asks whether
// it is for this device.
func (a *agent) candidates(ctx context.Context, d *device.Device, stick *mount.Stick) (candidates, error) {
	keys, err := d.Keys()
	if err != nil {
		return candidates{}, err
	}
	deviceType, err := d.Type()
	if err != nil {
		return candidates{}, err
	}
	record, err := state.Read(d.DataDir())
	if err != nil {
		return candidates{}, err
	}
	name, err := d.RunningName()
	if err != nil {
		return candidates{}, err
	}
	listing, err := stick.Candidates(ctx)
	if err != nil {
		return candidates{}, err
	}
	if listing.LeftOut > 0 || listing.Truncated {
		a.log.Warn().Int("left_out", listing.LeftOut).Bool("truncated", listing.Truncated).Msg("the stick holds more than is looked at")
	}
	provides := install.Provides(record, name)
	found := candidates{record: record}
	for _, entry := range listing.Entries {
		if err := ctx.Err(); err != nil {
			return candidates{}, context.Cause(ctx)
		}
		c := inspect(stick, entry, keys)
		if c.err == nil {
			c.err = install.Compatible(c.header, deviceType, provides)
		}
		found.list = append(found.list, c)
	}
	return found, nil
}

// inspect reads an artifact up to its payload.
func inspect(stick *mount.Stick, entry mount.Entry, keys []*artifact.Key) candidate {
	c := candidate{entry: entry}
	file, err := stick.Open(entry)
	if err != nil {
		c.err = err
		return c
	}
	defer file.Close() // read only
	art, err := artifact.Open(file, artifact.Options{Keys: keys})
	if err != nil {
		c.err = err
		return c
	}
	c.header = art.Header()
	first, err := art.FirstFile()
	if err != nil && !errors.Is(err, artifact.ErrNoFiles) {
		c.err = err
		return c
	}
	c.size = first.Size
	return c
}

// decide turns what was found into the terms of the policy.
func decide(d *device.Device, slots install.Slots, r state.Record, list []candidate) policy.Decision {
	name := r.ArtifactName
	if name == "" {
		name, _ = d.RunningName() // candidates has read it before
	}
	dev := policy.Device{
		InstalledName:     name,
		InstalledVersion:  r.Provides["rootfs-image.version"],
		InstalledChecksum: r.Provides["rootfs-image.checksum"],
		InstalledDigest:   r.Installed,
		FailedAttempts:    map[string]int{},
		MaxAttempts:       d.Agent.MaxAttempts,
		AllowUnsigned:     d.Agent.AllowUnsigned,
		AllowDowngrade:    d.Agent.AllowDowngrade,
		SlotSize:          slots.Partition(slots.Inactive()).Size,
	}
	for digest, f := range r.Failed {
		dev.FailedAttempts[digest] = f.Attempts
	}
	in := make([]policy.Candidate, len(list))
	for i, c := range list {
		in[i] = policy.Candidate{File: c.entry.Path, Err: c.err, Size: c.size}
		if h := c.header; h != nil {
			in[i].Name, in[i].Version = h.Name, h.Provides["rootfs-image.version"]
			in[i].Digest, in[i].Verified = fmt.Sprintf("%x", h.ManifestDigest), h.VerifiedBy != ""
			if len(h.Files) == 1 {
				in[i].Checksum = fmt.Sprintf("%x", h.Files[0].SHA256)
			}
		}
	}
	return policy.Decide(dev, in)
}

// explain logs the verdict about each candidate.
func (a *agent) explain(decision policy.Decision, list []candidate) {
	for i, v := range decision.Verdicts {
		word := "not chosen"
		if i == decision.Chosen {
			word = "chosen"
		}
		a.log.Info().Str("file", list[i].entry.Path).Str("rule", string(v.Rule)).Msgf("%s: %s", word, v.Reason)
	}
}

// refusal picks the code for a stick from which nothing is installed.
func refusal(decision policy.Decision) (report.Code, error) {
	if len(decision.Verdicts) == 0 {
		return report.NoArtifact, errors.New("no *.mender file on the stick")
	}
	for _, v := range decision.Verdicts {
		if v.Rule == policy.RuleInstalled {
			return report.UpToDate, errors.New("the device runs what the stick holds")
		}
	}
	first := decision.Verdicts[0]
	return report.Refused, fmt.Errorf("no artifact on the stick may be installed: %s", first.Reason)
}

// errStickChanged means that two reads of a stick differ.
var errStickChanged = errors.New("the stick returned other data than a moment ago")

// reopen reads the chosen artifact's header again, now to go on with its
// payload. The stick may be a device that lies: what it returns must be what
// the decision rests on, byte for byte.
func reopen(d *device.Device, stick *mount.Stick, c candidate) (*artifact.Artifact, io.Closer, error) {
	keys, err := d.Keys()
	if err != nil {
		return nil, nil, err
	}
	file, err := stick.Open(c.entry)
	if err != nil {
		return nil, nil, err
	}
	art, err := artifact.Open(file, artifact.Options{Keys: keys})
	if err == nil && art.Header().RawDigest != c.header.RawDigest {
		err = fmt.Errorf("artifact %.64q: %w", c.entry.Path, errStickChanged)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return art, file, nil
}

// codeOf finds the result code of an error that came from anywhere in the
// flow; otherwise is the code of the place where it was noticed.
func codeOf(err error, otherwise report.Code) report.Code {
	switch {
	case errors.Is(err, install.ErrInProgress), errors.Is(err, install.ErrNotRebooted):
		return report.Pending
	case errors.Is(err, errStickChanged):
		return report.StickLied
	case errors.Is(err, install.ErrDeviceType), errors.Is(err, install.ErrDepends), errors.Is(err, install.ErrPayloadType):
		return report.NotForDevice
	case errors.Is(err, install.ErrTooLarge):
		return report.NotForDevice
	case errors.Is(err, install.ErrMounted):
		return report.SlotFailed
	case errors.Is(err, state.ErrLocked):
		return report.Busy
	}
	if ae, ok := errors.AsType[*artifact.Error](err); ok {
		if ae.Kind == artifact.Media {
			return report.StickFailed
		}
		return report.BadArtifact
	}
	return otherwise
}

// remember keeps how the run ended, for status and for the history. A failure
// to do so is told, but changes no outcome.
func (a *agent) remember(d *device.Device, store *state.Store, res result) {
	if err := res.save(d, store); err != nil {
		a.log.Warn().Err(err).Msg("the result could not be recorded")
	}
}

// reboot starts the reboot that the update needs, or leaves it to others.
func (a *agent) reboot(d *device.Device, why string) (report.Code, error) {
	switch {
	case d.Agent.Reboot == "never":
		a.log.Info().Msg("a reboot is required to " + why)
		return report.OK, nil
	case d.Simulated():
		a.log.Info().Msg("rebooting to " + why)
		return report.OK, simulateReboot(d)
	default:
		a.log.Info().Msg("rebooting to " + why)
		return report.OK, reboot()
	}
}

// rebootFile tells the driver of a simulated device that a reboot is wanted.
const rebootFile = "reboot-requested"

func simulateReboot(d *device.Device) error {
	if err := os.MkdirAll(d.RunDir(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(d.RunDir()+"/"+rebootFile, nil, 0o600)
}
