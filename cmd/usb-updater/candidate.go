package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/policy"
	"github.com/usb-updater/usb-updater/internal/report"
)

// profile is what the device knows of itself when it looks at a stick.
type profile struct {
	device     *device.Device
	slots      install.Slots
	keys       []*artifact.Key
	deviceType string
	name       string // of the running system, by its record or by itself
	record     state.Record
	stall      time.Duration // how long one read of a stick may take
	pluggedIn  bool          // a person has just plugged the stick in
}

func (a *agent) profile(d *device.Device, slots install.Slots) (profile, error) {
	p := profile{device: d, slots: slots, stall: cmp.Or(a.stallLimit, stallLimit)}
	var err error
	if p.keys, err = d.Keys(); err != nil {
		return p, err
	}
	if p.deviceType, err = d.Type(); err != nil {
		return p, err
	}
	if p.record, err = state.Read(d.DataDir()); err != nil {
		return p, err
	}
	if p.name = p.record.ArtifactName; p.name == "" {
		p.name, err = d.RunningName()
	}
	return p, err
}

// reader ends the reading of a file when its context does.
type reader struct {
	ctx  context.Context
	file io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.file.Read(p)
}

// candidate is an artifact on the stick whose header was read.
type candidate struct {
	entry  mount.Entry
	header *artifact.Header // nil if it could not be read
	size   int64            // of the payload, bytes
	err    error            // why it is not for this device
}

// scanLimit bounds the time in which a stick must show what it holds.
const scanLimit = 60 * time.Second

// scanContext ends when the stick has taken too long.
func (a *agent) scanContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := cmp.Or(a.scanLimit, scanLimit)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the stick did not show what it holds within %v", limit))
}

// candidates has the header of each artifact on the stick read and asks whether
// it is for this device.
func (a *agent) candidates(ctx context.Context, p profile, stick *mount.Stick) ([]candidate, error) {
	ctx, cancel := a.scanContext(ctx)
	defer cancel()
	seen, err := a.sight(ctx, stick)
	if err != nil {
		return nil, err
	}
	if a.tell != nil {
		a.tell.told = string(seen.Report)
	}
	a.log.Debug().Str("confined", seen.Confined).Int("files", len(seen.Files)).Msg("stick inspected")
	if seen.LeftOut > 0 || seen.Truncated {
		a.log.Warn().Int("left_out", seen.LeftOut).Bool("truncated", seen.Truncated).Msg("the stick holds more than is looked at")
	}
	provides, modules := install.Provides(p.record, p.name), p.device.Modules()
	var found []candidate
	for _, file := range seen.Files {
		c, err := file.candidate()
		if err != nil {
			return nil, fmt.Errorf("inspect stick %.64q: %w", stick.Name, err)
		}
		if c.err == nil {
			c.err = install.CheckPayloadType(c.header, modules.Find)
		}
		if c.err == nil {
			c.err = install.Compatible(c.header, p.deviceType, provides)
		}
		found = append(found, c)
	}
	return found, nil
}

// inspect reads an artifact up to its payload.
func inspect(ctx context.Context, stick *mount.Stick, entry mount.Entry, keys []*artifact.Key) candidate {
	c := candidate{entry: entry}
	file, err := stick.Open(entry)
	if err != nil {
		c.err = err
		return c
	}
	defer file.Close() // read only
	art, err := artifact.Open(reader{ctx, file}, artifact.Options{Keys: keys})
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
func decide(p profile, found []candidate) policy.Decision {
	r := p.record
	dev := policy.Device{
		InstalledName:     p.name,
		InstalledVersion:  r.Provides["rootfs-image.version"],
		InstalledChecksum: r.Provides["rootfs-image.checksum"],
		InstalledDigest:   r.Installed,
		FailedAttempts:    map[string]int{},
		Known:             map[string]policy.Known{},
		PluggedIn:         p.pluggedIn,
		MaxAttempts:       p.device.Agent.MaxAttempts,
		AllowUnsigned:     p.device.Agent.AllowUnsigned,
		AllowDowngrade:    p.device.Agent.AllowDowngrade,
		MinVersion:        p.device.Agent.MinVersion,
		SlotSize:          p.slots.Partition(p.slots.Inactive()).Size,
	}
	for digest, f := range r.Failed {
		dev.FailedAttempts[digest] = f.Attempts
	}
	for digest, k := range r.Known {
		dev.Known[digest] = policy.Known{Starts: k.Starts, Broken: k.Broken, Replaced: k.Replaced, Reason: k.Reason}
	}
	in := make([]policy.Candidate, len(found))
	for i, c := range found {
		in[i] = policy.Candidate{File: c.entry.Path, Err: c.err, Broken: broken(c.err), Size: c.size}
		if h := c.header; h != nil {
			in[i].Name, in[i].Version = h.Name, h.Provides["rootfs-image.version"]
			in[i].Digest, in[i].Verified = fmt.Sprintf("%x", h.ManifestDigest), h.VerifiedBy != ""
			if in[i].Module = h.PayloadType != artifact.RootfsImage; in[i].Module {
				// Where mender-artifact puts the version of such a payload.
				key := "rootfs-image." + h.PayloadType + ".version"
				in[i].Version, in[i].Replaces = h.Provides[key], r.Provides[key]
			}
			if len(h.Files) == 1 && !in[i].Module {
				in[i].Checksum = fmt.Sprintf("%x", h.Files[0].SHA256)
			}
		}
	}
	return policy.Decide(dev, in)
}

// broken is the rule that an error tells of.
func broken(err error) policy.Rule {
	if ae, ok := errors.AsType[*artifact.Error](err); ok && ae.Kind == artifact.Signature {
		return policy.RuleSigned
	}
	if codeOf(err, report.Refused) == report.NotForDevice {
		return policy.RuleDevice
	}
	return policy.RuleReadable
}

// explain logs the verdict about each candidate.
func (a *agent) explain(decision policy.Decision, found []candidate) {
	for i, v := range decision.Verdicts {
		word := "not chosen"
		if i == decision.Chosen {
			word = "chosen"
		}
		a.log.Info().Str("file", found[i].entry.Path).Str("rule", string(v.Rule)).Msgf("%s: %s", word, v.Reason)
		a.note(fmt.Sprintf("%.64q: %s: %s", found[i].entry.Path, word, v.Reason))
	}
}

// refusal picks the code for a stick from which nothing is installed. Where one
// thing is wrong with all that is on it, the code says which.
func refusal(decision policy.Decision, found []candidate) (report.Code, error) {
	if len(decision.Verdicts) == 0 {
		return report.NoArtifact, errors.New("no *.mender file on the stick")
	}
	for _, v := range decision.Verdicts {
		if v.Rule == policy.RuleInstalled {
			return report.UpToDate, errors.New("the device runs what the stick holds")
		}
	}
	code := codeOf(found[0].err, report.Refused)
	for _, c := range found[1:] {
		if codeOf(c.err, report.Refused) != code {
			code = report.Refused
		}
	}
	first := decision.Verdicts[0]
	return code, fmt.Errorf("no artifact on the stick may be installed: %s", first.Reason)
}

// reopen reads the chosen artifact's header again, now to go on with its
// payload. The stick may be a device that lies: what it returns must be what
// the decision rests on, byte for byte.
func reopen(ctx context.Context, p profile, stick *mount.Stick, c candidate) (*artifact.Artifact, io.Closer, error) {
	limited, cancel := context.WithTimeoutCause(ctx, p.stall, errStalled(p.stall))
	defer cancel()
	file, err := leaveBehind(limited, 0, func() (*os.File, error) { return stick.Open(c.entry) })
	if err != nil {
		return nil, nil, err
	}
	art, err := readAgain(&patientReader{ctx: ctx, file: artifact.Prefetch(file), limit: p.stall}, c.header, p.keys)
	if errors.Is(err, errStickChanged) {
		err = fmt.Errorf("artifact %.64q: %w", c.entry.Path, err)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return art, file, nil
}

// readAgain opens the artifact in r if it is the one that the inspector told
// of. This process is not confined as the inspector is. So the bytes before the
// payload are compared first, and none is parsed that the inspector has not
// parsed before.
func readAgain(r io.Reader, told *artifact.Header, keys []*artifact.Key) (*artifact.Artifact, error) {
	if told.RawSize < 1 || told.RawSize > artifact.MaxRawSize {
		return nil, errStickChanged // no artifact is like that
	}
	head := make([]byte, told.RawSize)
	switch n, err := io.ReadFull(r, head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errStickChanged
	case err != nil:
		return nil, &artifact.Error{Kind: artifact.Media, Offset: int64(n), Err: err}
	case sha256.Sum256(head) != told.RawDigest:
		return nil, errStickChanged
	}
	art, err := artifact.Open(io.MultiReader(bytes.NewReader(head), r), artifact.Options{Keys: keys})
	if err == nil && !sameHeader(told, art.Header()) {
		err = errStickChanged
	}
	return art, err
}
