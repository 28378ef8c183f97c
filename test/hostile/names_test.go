//go:build device

package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/fuse"
)

// evilNames are 200 names that somebody could hope to be printed, parsed, run
// or opened. None has a slash or a NUL, which no file system takes. Each can
// get ".mender" behind it.
func evilNames() []string {
	names := []string{
		"$(reboot)", "$(touch pwned)", "`touch pwned`", ";touch pwned", "|touch pwned", "&&touch pwned", "a;reboot", "a\ntouch pwned\n",
		"$IFS", "${PATH}", "~", "~root", "*", "?", "[a-z]", "{a,b}", "!!", "#", "%s%s%s%n", "%n%n%n%n", "%!d(MISSING)", "%99999999d", "%[1]*.[2]*[3]f",
		"-rf", "--help", "--root=..", "-o", "--", "-", "--config=evil", "+x", "@file", "=", "a=b", "RESULT=ok", "MESSAGE=x",
		"..", "...", "..\\..\\etc", "C:\\x", "con", "nul", "sda1", "mmcblk0p2", "..%2f..%2fetc%2fpasswd", "file:", "http:", "\\\\host\\share",
		"\x1b[31mred\x1b[0m", "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http:x\x1b\\", "\u009b31m", "\u0090q\u009c", "\x9b31m", "\x07\x07\x07",
		"\rusb-updater: committed", "a\rb", "\nusb-updater: run ended result=ok", "a\n<3>kernel: x", "<0>panic", "a\tb", "\v\f", "\x7f\x7f", "a\bb\b\b",
		"\u202egpj", "\u202d", "\u2066x\u2069", "\u200b", "\ufeff", "\u2028", "\u2029", "\u0085", "\u00ad", "\u034f", "e\u0301\u0301\u0301", "\U000e0041",
		"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "a\xffb", "\xc2", "\xe2\x80",
		" ", "  leading", "trailing  ", "'", "\"", "'; touch pwned; '", "\" ; touch pwned ; \"", "<script>", "&amp;", "{\"a\":1}", "]]>", "\\u0041", "\\x41", "\\",
		"null", "true", "nan", "0", "1e999", "release-999999999999999999999999.0.0", "v1.2.3-", "..mender", "a.mender", "A.MENDER", "日本語", "😀", "Ω", "ı", "ﬀ", "ß",
	}
	for c := byte(1); c < 0x20; c++ {
		names = append(names, fmt.Sprintf("control %d %c", c, c))
	}
	names = append(names, strings.Repeat("x", 248), strings.Repeat("\x1b", 248), strings.Repeat("\xff", 248), strings.Repeat("é", 124), strings.Repeat("$(x)", 62))
	for i := len(names); i < 200; i++ {
		b := make([]byte, 8+i%32)
		for j := range b {
			if b[j] = byte(i*31 + j*77 + i*j); b[j] == 0 || b[j] == '/' {
				b[j] = 0x1b
			}
		}
		names = append(names, string(b))
	}
	return names
}

// harmless fails if a text could do anything to a terminal or to a log.
func harmless(t *testing.T, what, text string, maxLines int) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: not UTF-8: %q", what, text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%s: raw %U in %q", what, r, text)
			break
		}
	}
	if n := strings.Count(text, "\n"); n > maxLines {
		t.Errorf("%s: %d lines, want %d at most:\n%s", what, n, maxLines, text)
	}
}

const (
	perStick = 16 // candidates that are looked at
	maxLines = perStick + 8
)

// TestDefenseD08Names: names on a stick are text that is quoted and cut, and
// nothing else. Some are directories, some are files that hold an artifact
// with an evil name of its own.
func TestDefenseD08Names(t *testing.T) {
	need(t)
	names := evilNames()
	if len(names) < 200 {
		t.Fatalf("%d names, want 200", len(names))
	}
	r := newRig(t)
	before := r.snapshot(t)
	for batch := 0; batch < len(names); batch += perStick {
		stick := t.TempDir()
		for i, evil := range names[batch:min(batch+perStick, len(names))] {
			content := []byte("no artifact")
			if i%3 == 0 {
				content = r.artifact(t, "release-2", func(s *artifacttest.Spec) {
					s.Signer = nil
					s.Name = strings.Map(jsonRune, evil)
					s.DeviceTypes = []string{strings.Map(jsonRune, evil)}
				})
			}
			path := filepath.Join(stick, evil+".mender")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if evil == ".." || evil == "..." {
				continue // these are directories already, or hidden
			}
			if err := os.Mkdir(filepath.Join(stick, cut(evil)+".d"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for what, run := range map[string]func() outcome{
			"run":    func() outcome { return r.run(t, stick) },
			"debug":  func() outcome { _, end := r.agent(t, "--log-level", "debug", "run", stick); return end() },
			"list":   func() outcome { _, end := r.agent(t, "list", stick); return end() },
			"--json": func() outcome { _, end := r.agent(t, "list", "--json", stick); return end() },
		} {
			o := run()
			lines := maxLines
			switch what {
			case "--json":
				lines = 10 * perStick
			case "list":
				lines = 3 * perStick
			}
			harmless(t, what+" of names from "+fmt.Sprint(batch), o.log+o.out, lines)
		}
		if _, err := os.Stat(filepath.Join(stick, "pwned")); err == nil {
			t.Fatal("a name was run")
		}
	}
	if _, err := os.Stat("pwned"); err == nil {
		t.Fatal("a name was run")
	}
	r.unchanged(t, before)
}

// jsonRune leaves what a document can hold.
func jsonRune(r rune) rune {
	if r == utf8.RuneError {
		return 'x'
	}
	return r
}

// cut leaves room for another ending.
func cut(name string) string { return name[:min(len(name), 200)] }

// TestDefenseD08StickPaths: what is no device and no path says so, and names
// that look like options or devices are not followed.
func TestDefenseD08StickPaths(t *testing.T) {
	need(t)
	r := newRig(t)
	before := r.snapshot(t)
	for _, evil := range []string{"$(reboot)", "../../dev/sda", "sda1;reboot", "\x1b[2J", "a\nb", "sd\xff", "..", "sda1/../sda", strings.Repeat("x", 4000), ""} {
		_, end := r.agent(t, "run", "--", evil)
		o := end()
		harmless(t, fmt.Sprintf("run %q", evil), o.log+o.out, 4)
		if o.result != "stick-failed" && o.result != "no-artifact" {
			t.Errorf("run %q: result %q, want stick-failed\n%s", evil, o.result, o.log)
		}
	}
	r.unchanged(t, before)
}

// TestDefenseD08Labels: the label of a file system decides nothing and is not
// even printed.
func TestDefenseD08Labels(t *testing.T) {
	needLoop(t)
	for _, label := range []string{"\x1b[2J$(reboot)", "a\nresult=ok", "%n%s\xff", "rootfs", "/dev/mmcblk0p3"} {
		r := newRig(t)
		m := newMedium(t, fuse.NewStick(files{image: fileSystem(t, files{name: r.artifact(t, "release-2", nil)}, "-L", label)}))
		o := r.run(t, m.loop)
		harmless(t, fmt.Sprintf("label %q", label), o.log, maxLines)
		if !r.safe(t, o, "release-2") || strings.Contains(o.log, "reboot)") {
			t.Errorf("label %q: result %q, want ok and no word of it\n%s", label, o.result, o.log)
		}
		m.end(t)
	}
}
