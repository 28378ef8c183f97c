package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/module"
	"github.com/usb-updater/usb-updater/internal/report"
)

// checkOptions describe the device that an artifact is checked for. What is
// not given is not checked.
type checkOptions struct {
	keys       []string
	deviceType string
	provides   string // file
	slotSize   int64
	modules    []string // payload types
}

// find tells whether the device that was described has the update module.
func (o checkOptions) find(payloadType string) error {
	if len(o.modules) == 0 || slices.Contains(o.modules, payloadType) {
		return nil
	}
	return module.ErrNotFound
}

// checked is what check prints, as JSON.
type checked struct {
	File         string              `json:"file"`
	Installable  bool                `json:"installable"`
	Reason       string              `json:"reason,omitempty"`
	Warnings     []string            `json:"warnings,omitempty"`
	Name         string              `json:"artifact_name,omitempty"`
	Group        string              `json:"artifact_group,omitempty"`
	Format       int                 `json:"format_version,omitempty"`
	DeviceTypes  []string            `json:"device_types,omitempty"`
	PayloadType  string              `json:"payload_type,omitempty"`
	Signed       bool                `json:"signed"`
	VerifiedBy   string              `json:"verified_by,omitempty"`
	Manifest     string              `json:"manifest_sha256,omitempty"`
	Files        []checkedFile       `json:"files,omitempty"`
	Provides     map[string]string   `json:"provides,omitempty"`
	Depends      map[string][]string `json:"depends,omitempty"`
	Clears       []string            `json:"clears_provides,omitempty"`
	StateScripts []string            `json:"state_scripts,omitempty"`
}

type checkedFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// check verifies an artifact to its last byte, as an install would, and says
// what it is. It needs no device.
func (a *agent) checkArtifact(ctx context.Context) (report.Code, error) {
	c := checked{File: a.args[0]}
	err := c.run(ctx, a.check)
	c.Installable = err == nil
	if err != nil {
		c.Reason = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if a.json {
		if err := a.printJSON(c); err != nil {
			return report.Failed, err
		}
	} else {
		a.printChecked(c)
	}
	if err != nil {
		return report.Failed, nil
	}
	return report.OK, nil
}

func (c *checked) run(ctx context.Context, opts checkOptions) error {
	var keys []*artifact.Key
	for _, name := range opts.keys {
		key, err := device.LoadKey(name)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	provides, err := readProvides(opts.provides)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	art, err := artifact.Open(reader{ctx, f}, artifact.Options{Keys: keys})
	if err != nil {
		return err
	}
	h := art.Header()
	c.describe(h)
	switch {
	case h.Signed && len(keys) == 0:
		c.Warnings = append(c.Warnings, "the signature was not verified: no --key was given")
	case !h.Signed:
		c.Warnings = append(c.Warnings, "the artifact is not signed")
	}
	if !h.Empty && h.PayloadType != artifact.RootfsImage && len(opts.modules) == 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("the device needs the update module %s", h.PayloadType))
	}
	fits := c.fits(h, opts, provides)
	if _, err := art.Copy(ctx, func(file artifact.File) (io.Writer, error) {
		c.addFile(h, file)
		if opts.slotSize > 0 && h.PayloadType == artifact.RootfsImage && file.Size > opts.slotSize {
			return nil, fmt.Errorf("%w: image %d bytes, slot %d bytes", install.ErrTooLarge, file.Size, opts.slotSize)
		}
		return io.Discard, nil
	}); err != nil {
		return errors.Join(fits, err)
	}
	return fits
}

// fits applies the rules for which the device was described.
func (c *checked) fits(h *artifact.Header, opts checkOptions, provides map[string]string) error {
	err := install.CheckPayloadType(h, opts.find)
	if opts.deviceType != "" {
		err = errors.Join(err, install.CheckDeviceType(h, opts.deviceType))
	}
	if opts.provides != "" {
		err = errors.Join(err, install.CheckDepends(h, provides))
	} else if len(h.Depends) > 0 {
		c.Warnings = append(c.Warnings, "what the artifact depends on was not checked: no --provides was given")
	}
	return err
}

func (c *checked) describe(h *artifact.Header) {
	c.Name, c.Group, c.Format, c.DeviceTypes = h.Name, h.Group, h.FormatVersion, h.DeviceTypes
	c.PayloadType, c.Signed, c.VerifiedBy = h.PayloadType, h.Signed, h.VerifiedBy
	c.Manifest = fmt.Sprintf("%x", h.ManifestDigest)
	c.Provides, c.Depends, c.Clears = h.Provides, h.Depends, h.ClearsProvides
	for _, s := range h.Scripts {
		c.StateScripts = append(c.StateScripts, s.Name)
	}
}

func (c *checked) addFile(h *artifact.Header, file artifact.File) {
	for _, m := range h.Files {
		if m.Name == file.Name {
			c.Files = append(c.Files, checkedFile{file.Name, file.Size, fmt.Sprintf("%x", m.SHA256)})
		}
	}
}

// maxProvides bounds the file that describes what a device provides, in bytes.
const maxProvides = 1 << 20

// readProvides reads a JSON object of strings, as show-provides has them.
func readProvides(name string) (map[string]string, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("provides: %w", err)
	}
	defer f.Close() // read only
	dec := json.NewDecoder(io.LimitReader(f, maxProvides))
	var provides map[string]string
	if err := dec.Decode(&provides); err != nil {
		return nil, fmt.Errorf("provides %s: %w", name, err)
	}
	return provides, nil
}

func (a *agent) printChecked(c checked) {
	line := func(label, format string, args ...any) {
		a.print("%-12s %s\n", label, report.Printable(fmt.Sprintf(format, args...)))
	}
	if c.Name != "" {
		line("artifact", "%s, format version %d", c.Name, c.Format)
		line("devices", "%s", strings.Join(c.DeviceTypes, ", "))
		line("payload", "%s", orNone(c.PayloadType))
		for _, f := range c.Files {
			line("", "%s, %d bytes, sha256 %s", f.Name, f.Size, f.SHA256)
		}
		switch {
		case c.VerifiedBy != "":
			line("signature", "verified by %s", c.VerifiedBy)
		case c.Signed:
			line("signature", "there is one")
		default:
			line("signature", "none")
		}
		for _, k := range slices.Sorted(maps.Keys(c.Provides)) {
			line("provides", "%s=%s", k, c.Provides[k])
		}
		for _, k := range slices.Sorted(maps.Keys(c.Depends)) {
			line("depends", "%s=%s", k, strings.Join(c.Depends[k], "|"))
		}
		if len(c.Clears) > 0 {
			line("clears", "%s", strings.Join(c.Clears, ", "))
		}
		if len(c.StateScripts) > 0 {
			line("scripts", "%s", strings.Join(c.StateScripts, ", "))
		}
		line("manifest", "sha256 %s", c.Manifest)
	}
	for _, w := range c.Warnings {
		line("warning", "%s", w)
	}
	if c.Installable {
		line("result", "would be installed")
		return
	}
	line("result", "would not be installed: %s", c.Reason)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
