package install

import (
	"context"
	"io"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/install/slot"
)

// progressEvery is the least time between two events of a step, but for the
// first and the last.
const progressEvery = 250 * time.Millisecond

// progress stands between the artifact and the slot, and tells how much of the
// image has been decoded. It is an [artifact.Lender] that passes on what the
// target lends.
type progress struct {
	artifact.Lender
	engine  *Engine
	art     *artifact.Artifact
	event   Event
	target  Target
	began   time.Time
	told    time.Time
	decoded int64 // bytes, with the buffer that is being filled
	filling int64 // bytes of that buffer
}

// newProgress returns the destination for Copy, and what tells of it.
func newProgress(e *Engine, t Target, p *Plan) (*progress, io.Writer) {
	lender, ok := t.(artifact.Lender)
	s := &progress{
		Lender: lender, engine: e, art: p.art, target: t, began: time.Now(),
		event: Event{Step: StepWrite, Artifact: p.Header().Name, Slot: p.Target, Total: p.File.Size},
	}
	if !ok {
		return s, t
	}
	return s, lending{s, t}
}

// lending is a progress with the target's Write, which Copy does not use.
type lending struct {
	*progress
	io.Writer
}

// Next is called by the goroutine that decodes, when it has filled the buffer
// before.
func (p *progress) Next(ctx context.Context) ([]byte, error) {
	b, err := p.Lender.Next(ctx)
	if err == nil {
		p.decoded += p.filling
		p.filling = int64(len(b))
		p.tell(false)
	}
	return b, err
}

// tell reports how far the decoding is, if it is time to.
func (p *progress) tell(always bool) {
	now := time.Now()
	if !always && !p.told.IsZero() && now.Sub(p.told) < progressEvery {
		return
	}
	p.told = now
	p.event.Bytes = p.decoded
	p.event.Read, p.event.ReadTotal = p.art.Position()
	p.event.Elapsed = now.Sub(p.began)
	p.engine.report(p.event)
}

// finish reports the end, when the medium has it all.
func (p *progress) finish() {
	p.decoded = p.event.Total
	if t, ok := p.target.(interface{ Stats() slot.Stats }); ok {
		stats := t.Stats()
		p.event.Medium = &stats
	}
	p.tell(true)
}

// passing is a progress for a payload that is written by calls of Write, file by
// file.
type passing struct {
	*progress
	w io.Writer
}

// newPassing returns the progress of a module's payload. begin is called for
// each of its files.
func newPassing(e *Engine, p *Plan, payloadType string) *passing {
	return &passing{progress: &progress{
		engine: e, art: p.art, began: time.Now(), event: Event{Step: StepWrite, Artifact: p.Header().Name, Module: payloadType},
	}}
}

func (p *passing) begin(w io.Writer, size int64) io.Writer {
	p.event.Before += p.decoded
	p.w, p.decoded, p.event.Total = w, 0, size
	return fileWriter{p}
}

// fileWriter hides what a passing has of a lender.
type fileWriter struct{ p *passing }

func (f fileWriter) Write(b []byte) (int, error) {
	n, err := f.p.w.Write(b)
	f.p.decoded += int64(n)
	f.p.tell(f.p.decoded == f.p.event.Total)
	return n, err
}
