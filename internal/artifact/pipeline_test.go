package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pool is a Lender with buffers of its own, which it checks to be handed over
// in order.
type pool struct {
	t     *testing.T
	size  int
	free  chan []byte
	lent  chan []byte
	got   []byte
	fails int // the Commit that fails, -1: none
	n     int
}

var errPool = errors.New("the pool is empty")

func newPool(t *testing.T, buffers, size int) *pool {
	t.Helper()
	p := &pool{t: t, size: size, free: make(chan []byte, buffers), lent: make(chan []byte, buffers), fails: -1}
	for range buffers {
		p.free <- make([]byte, size)
	}
	return p
}

func (p *pool) Write([]byte) (int, error) {
	p.t.Error("Write of a writer that lends")
	return 0, io.ErrShortWrite
}

func (p *pool) Next(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.free:
		p.lent <- b
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) Commit(n int) error {
	if p.n++; p.n > p.fails && p.fails >= 0 {
		return errPool
	}
	b := <-p.lent
	p.got = append(p.got, b[:n]...)
	p.free <- b
	return nil
}

// counting returns content of which no two chunks are the same.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i >> 7)
	}
	return b
}

func TestLender(t *testing.T) {
	for _, buffers := range []int{1, 2, 5} {
		for _, comp := range []string{"", ".gz"} {
			synctest.Test(t, func(t *testing.T) {
				p := rootfsParts()
				p.dataComp, p.files[0].data = comp, counting(10*1000+77)
				dst := newPool(t, buffers, 1000)
				a, err := Open(bytes.NewReader(p.build()), Options{})
				if err != nil {
					t.Fatal(err)
				}
				v, err := a.Copy(t.Context(), func(File) (io.Writer, error) { return dst, nil })
				if err != nil || !v.Valid() || !bytes.Equal(dst.got, p.files[0].data) {
					t.Errorf("%d buffers, %q: Copy: %v, %d bytes", buffers, comp, err, len(dst.got))
				}
			})
		}
	}
}

// TestPosition: it grows to the end and never goes back.
func TestPosition(t *testing.T) {
	p := rootfsParts()
	p.files[0].data = counting(300_000)
	a, err := Open(bytes.NewReader(p.build()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, total := a.Position()
	if before != 0 || total <= 0 {
		t.Errorf("Position = %d, %d, want 0 and a size", before, total)
	}
	if _, err := a.Copy(t.Context(), func(File) (io.Writer, error) {
		read, size := a.Position()
		if read <= 0 || read > size || size != total {
			t.Errorf("Position = %d, %d in the middle", read, size)
		}
		return io.Discard, nil
	}); err != nil {
		t.Fatal(err)
	}
	if read, size := a.Position(); read != total || size != total {
		t.Errorf("Position = %d, %d at the end, want %d", read, size, total)
	}
}

// TestNothingIsLeftBehind ends copies in all ways. The bubble of synctest fails
// if a goroutine of theirs stays.
func TestNothingIsLeftBehind(t *testing.T) {
	p := rootfsParts()
	p.dataComp, p.files[0].data = "", counting(50_000)
	good := p.build()
	for _, tt := range []struct {
		name   string
		data   []byte
		fails  int
		cancel bool
		want   error
		text   string
	}{
		{"done", good, -1, false, nil, ""},
		{"destination fails at once", good, 0, false, errPool, "the pool is empty"},
		{"destination fails later", good, 20, false, errPool, "the pool is empty"},
		{"canceled", good, -1, true, context.Canceled, "context canceled"},
		{"artifact is cut", good[:len(good)-4000], -1, false, nil, "unexpected end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				a, err := Open(bytes.NewReader(tt.data), Options{})
				if err != nil {
					t.Fatal(err)
				}
				dst := newPool(t, 3, 1000)
				dst.fails = tt.fails
				v, err := a.Copy(ctx, func(File) (io.Writer, error) {
					if tt.cancel {
						cancel()
					}
					return dst, nil
				})
				if v.Valid() != (tt.text == "") || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("Copy: %v, want %v", err, tt.want)
				}
				if tt.text != "" && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("Copy: %v, want %q", err, tt.text)
				}
			})
		})
	}
}

// hanging is a stick that was pulled out in a bad moment: from some byte on, a
// read does not return.
type hanging struct {
	r     io.Reader
	left  int
	block chan struct{}
}

func (h *hanging) Read(p []byte) (int, error) {
	if h.left == 0 {
		<-h.block
		return 0, io.ErrUnexpectedEOF
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// TestCancelWhileReadHangs: the end of the context ends the copy within a second,
// and tells the cause.
func TestCancelWhileReadHangs(t *testing.T) {
	errSignal := errors.New("interrupted")
	synctest.Test(t, func(t *testing.T) {
		p := rootfsParts()
		p.dataComp, p.files[0].data = "", counting(500_000)
		stick := &hanging{r: bytes.NewReader(p.build()), left: 300_000, block: make(chan struct{})}
		a, err := Open(stick, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		const wait = 10 * time.Second
		time.AfterFunc(wait, func() { cancel(errSignal) })
		began := time.Now()
		v, err := a.Copy(ctx, func(File) (io.Writer, error) { return newPool(t, 3, 1000), nil })
		if v.Valid() || !errors.Is(err, context.Canceled) || !errors.Is(err, errSignal) {
			t.Errorf("Copy: %v, want context.Canceled and its cause", err)
		}
		if took := time.Since(began) - wait; took < 0 || took > time.Second {
			t.Errorf("Copy ended %v after its context", took)
		}
		close(stick.block) // the read returns after all
	})
}

// TestPanicOfWriter: it comes out of Copy, whichever goroutine it was in.
func TestPanicOfWriter(t *testing.T) {
	a, err := Open(bytes.NewReader(rootfsParts().build()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != "no room" {
			t.Errorf("recovered %v", r)
		}
	}()
	_, _ = a.Copy(t.Context(), func(File) (io.Writer, error) {
		return writerFunc(func([]byte) (int, error) { panic("no room") }), nil
	})
	t.Error("Copy returned")
}
