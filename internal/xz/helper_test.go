package xz_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	other "github.com/therootcompany/xz"

	"github.com/usb-updater/usb-updater/internal/xz"
)

// mib is the dictionary that most tests allow.
const mib = 1 << 20

// samples are small streams that XZ Utils 5.4.1 has made, base64.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	all := map[string][]byte{}
	for name, text := range map[string]string{
		// xz --lzma2=preset=9e,dict=64KiB
		"crc64": "/Td6WFoAAATm1rRGAgAhAQgAAADYDyMT4AGVAHJdADYaSh8IoCYDTQad7+2MoT/ILGNjU+4bs9LK8NbXaRhZzjkOXj8YcolL5BAF7f/bpvsK" +
			"oXUPDKXZcKZGUcWiaoazZ4JHPq65tv5IGj0YByZpopWhqwAMVZsI4oS8XaK6xdpuW60Z3dvvlaLIL4MsGqsTAAAAAAsnP6QcsCdrAAGOAZYD" +
			"AADkiOJAscRn+wIAAAAABFla",
		// xz -9e: a dictionary of 64 MiB
		"large dictionary": "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4AGVAHJdADYaSh8IoCYDTQad7+2MoT/ILGNjU+4bs9LK8NbXaRhZzjkOXj8YcolL5BAF7f/bpvsK" +
			"oXUPDKXZcKZGUcWiaoazZ4JHPq65tv5IGj0YByZpopWhqwAMVZsI4oS8XaK6xdpuW60Z3dvvlaLIL4MsGqsTAAAAAAsnP6QcsCdrAAGOAZYD" +
			"AADkiOJAscRn+wIAAAAABFla",
		// xz -T2 --block-size=200 --check=sha256 --lzma2=preset=6,dict=4KiB: three
		// blocks with sizes in their headers
		"blocks": "/Td6WFoAAArh+wyhA8BeyAEhAQAAAAAAV84cZ+AAxwBWXQA2GkofCKAmA00Gne/tjKE/yCxjY1PuG7PSyvDW12kYWc45Dl4/GHKJS+QQBe3/" +
			"26b7CqF1Dwyl2XCmRlHFomqGs2eCRz6uubb+SBo9GAcmaaJc2wTm1gAAACDS0vlvqBFKKPtp84s2gBeGKvhlfP6rBJ7k//R0n5MnA8BgyAEh" +
			"AQAAAAAA3HwmEeAAxwBYXQA2GkofCKAxolo9mx2L16g55aSV3Z5AxtC5xwaCMNh6A1xAguykHzGvtpNxmD1xD4HvJMiPTsmj4cp6MzSMZvcS" +
			"KgzFEQiXHeouK/4qkTGxSFcMBGaEdEJgANEe74fAGm1lwFAxYpKqQ6DJ6whwcfz9DlZyNbLyueMaA8AKBiEBAAAAAAAA0LhxWgEABXNvIG9u" +
			"CgAAACaIRoD9SouUnZEp6A7qzj6jKIjRTeLpy0e6SBVKxMeoAAOOAcgBkAHIAToGyDJDXBM6g9cDAAAAAApZWg==",
		// xz --check=crc32 --delta=dist=3 --x86 --lzma2=dict=4KiB,lc=0,lp=2,pb=1
		"filters": "/Td6WFoAAAFpIt42AwIDAQIEACEBAAAAoUAcWuAAhwBYPwB0ATwBmGQ9WtQvRbDuDxabuJKSfRkGF4aHQ8M0b0jxMffSQ22+" +
			"OuMpnxIkyLzaj1IeAbXOCV5p99JExMLRqXd5UmNlcFRYR5rX/JDLOSdHRrmIO3THB6IAAGsxWUYAAXSIAQAAADwHzGo+MA2L" +
			"AgAAAAABWVo=",
		// xz -0 --check=none: 3,000 zeros
		"none": "/Td6WFoAAAD/EtlBAgAhAQwAAACPmEGc4Au3ABVdAABv/f//o7f/Rz5IFXI5YVG4QOowRAAAAAAAASm4FwAAANCsjw6oAAr8" +
			"AgAAAAAAWVo=",
		"empty": "/Td6WFoAAATm1rRGAAAAABzfRCEftvN9AQAAAAAEWVo=",
	} {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			tb.Fatal(err)
		}
		all[name] = b
	}
	return all
}

// ours decodes with this package, theirs with therootcompany/xz, which is a
// translation of XZ Embedded.
func ours(in []byte, dictMax uint32) ([]byte, error) {
	return io.ReadAll(xz.NewReader(bytes.NewReader(in), dictMax))
}

func theirs(in []byte, dictMax uint32) ([]byte, error) {
	z, err := other.NewReader(bytes.NewReader(in), dictMax)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// mustBeTyped checks that err is one that the package promises.
func mustBeTyped(tb testing.TB, err error) {
	tb.Helper()
	_, ok := errors.AsType[*xz.Error](err)
	kind := errors.Is(err, xz.ErrCorrupt) || errors.Is(err, xz.ErrChecksum) || errors.Is(err, xz.ErrMemlimit) || errors.Is(err, xz.ErrUnsupported)
	if ok != kind || !ok && !errors.Is(err, io.ErrUnexpectedEOF) {
		tb.Fatalf("error is %T: %v", err, err)
	}
}

// allocated returns how many bytes f allocates in total. Nothing else may run.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func needTool(tb testing.TB) {
	tb.Helper()
	tier.Device.Need(tb, "xz")
}

// compress has the tool compress plain.
func compress(tb testing.TB, plain []byte, args ...string) []byte {
	tb.Helper()
	needTool(tb)
	name := filepath.Join(tb.TempDir(), "plain")
	if err := os.WriteFile(name, plain, 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), "xz", append(append([]string{"-c"}, args...), name)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s: %v", cmd, err)
	}
	return out
}

// text returns n bytes that look like a language, in pieces that look like
// another kind of data: random bytes, zeros, a table.
func text(n int) []byte {
	source := rand.New(rand.NewPCG(1, uint64(n)))
	words := make([]string, 500)
	for i := range words {
		for range 2 + source.IntN(8) {
			words[i] += string("etaoinshrdlucmfw"[min(source.IntN(16), source.IntN(16))])
		}
	}
	var b []byte
	for len(b) < n {
		end := len(b) + 1000 + source.IntN(20000)
		switch source.IntN(8) {
		case 0:
			for len(b) < end {
				b = binary.LittleEndian.AppendUint64(b, source.Uint64())
			}
		case 1:
			b = append(b, make([]byte, end-len(b))...)
		case 2:
			for i := 0; len(b) < end; i++ {
				b = binary.BigEndian.AppendUint32(b, uint32(i*i))
			}
		case 3: // an old piece again, from anywhere
			from := source.IntN(len(b) + 1)
			b = append(b, b[from:min(len(b), from+30000)]...)
		default:
			for len(b) < end {
				b = append(b, words[min(source.IntN(500), source.IntN(500))]...)
				b = append(b, " \n"[source.IntN(10)/9])
			}
		}
	}
	return b[:n]
}

// stream lays down a stream of one block without a check value.
type stream struct {
	filters   []byte // of the block header
	count     byte   // of them
	data      []byte
	content   int // its length, for the index
	declared  []uint64
	flags     byte
	dataInIdx int // said in the index instead of the true size, if not 0
}

// lzma2 is the filter LZMA2 with a dictionary of 4 KiB.
const lzma2 = "\x21\x01\x00"

func withCRC(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (s stream) build() []byte {
	header := append([]byte("\xfd7zXZ\x00"), withCRC([]byte{0, 0})[0:2]...)
	header = append(header, withCRC([]byte{0, 0})[2:]...)
	block := []byte{0, max(s.count, 1) - 1 | s.flags}
	for _, n := range s.declared {
		block = binary.AppendUvarint(block, n)
	}
	if s.filters == nil {
		s.filters = []byte(lzma2)
	}
	block = pad(append(block, s.filters...))
	block[0] = byte(len(block) / 4)
	block = withCRC(block)
	size := len(s.data)
	if s.dataInIdx != 0 {
		size = s.dataInIdx
	}
	index := binary.AppendUvarint([]byte{0, 1}, uint64(len(block)+size))
	index = withCRC(pad(binary.AppendUvarint(index, uint64(s.content))))
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, 0, 0)
	footer = append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(footer)), footer...)
	return slices.Concat(header, block, pad(slices.Clone(s.data)), index, append(footer, "YZ"...))
}

// stored returns an LZMA2 chunk that is not compressed.
func stored(control byte, content string) string {
	return fmt.Sprintf("%c%c%c%s", control, (len(content)-1)>>8, (len(content)-1)&0xff, content)
}
