package xz_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	other "github.com/therootcompany/xz"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// BenchmarkDecode decodes text between other data, and a program. The bytes that
// are counted are those of the content; user-s/op is processor time, the tool's
// too. XZ_BENCH names a file to use instead.
func BenchmarkDecode(b *testing.B) {
	inputs := map[string][]byte{"text": text(16 << 20)}
	if name := os.Getenv("XZ_BENCH"); name != "" {
		plain, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		inputs = map[string][]byte{"file": plain}
	} else if name, err := os.Executable(); err == nil {
		if inputs["program"], err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	for name, plain := range inputs {
		in := compress(b, plain, "-9", "-T1")
		decode := func(open func() (io.Reader, error)) func(b *testing.B) {
			return func(b *testing.B) {
				b.Helper()
				b.SetBytes(int64(len(plain)))
				buf := make([]byte, 1<<20)
				before := userTime(b)
				for b.Loop() {
					r, err := open()
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil || int(n) != len(plain) {
						b.Fatalf("decode = %d bytes, %v, want %d", n, err, len(plain))
					}
				}
				b.ReportMetric((userTime(b)-before).Seconds()/float64(b.N), "user-s/op")
			}
		}
		b.Run(name+"/ours", decode(func() (io.Reader, error) { return xz.NewReader(bytes.NewReader(in), 64<<20), nil }))
		b.Run(name+"/therootcompany", decode(func() (io.Reader, error) { return other.NewReader(bytes.NewReader(in), 64<<20) }))
		b.Run(name+"/tool", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			var user time.Duration
			for b.Loop() {
				cmd := exec.CommandContext(b.Context(), "xz", "-dc", "-T1")
				cmd.Stdin, cmd.Stdout = bytes.NewReader(in), nil
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
				user += cmd.ProcessState.UserTime()
			}
			b.ReportMetric(user.Seconds()/float64(b.N), "user-s/op")
		})
	}
}

// userTime returns the processor time of this process.
func userTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano())
}
