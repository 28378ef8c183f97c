package bootenv

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFwEnvConfig(t *testing.T) {
	one := []Copy{{"/e", 0, 0x400}}
	tests := []struct {
		name string
		in   string
		want []Copy
		text string // of the error
	}{
		{"plain", "/e 0x0 0x400\n", one, ""},
		{"tabs and sectors", "/e\t\t0x0000\t0x400\t\t0x400\n", one, ""},
		{"size is hexadecimal without 0x", "/e 0 400\n", one, ""},
		{"offset is decimal without 0x", "/e 1024 400\n", []Copy{{"/e", 1024, 0x400}}, ""},
		{"octal offset", "/e 02000 400\n", []Copy{{"/e", 1024, 0x400}}, ""},
		{"octal offset ends at 9", "/e 09 400\n", []Copy{{"/e", 0, 9}}, "size 0x9 "},
		{"negative offset", "/e -0x4000 400\n", []Copy{{"/e", -0x4000, 0x400}}, ""},
		{"plus", "/e +16 +400\n", []Copy{{"/e", 16, 0x400}}, ""},
		{"upper case", "/e 0XA 0X4FF\n", []Copy{{"/e", 10, 0x4ff}}, ""},
		{"leading blank", "   /e 0x0 0x400\n", one, ""},
		{"comments", "# a\n\n#b\n/e 0x0 0x400\n\n", one, ""},
		{"indented comment", "  # c\n/e 0x0 0x400\n", one, ""},
		{"no final newline", "/e 0x0 0x400", one, ""},
		{"crlf", "/e 0x0 0x400\r\n", one, ""},
		{"trailing words", "/e 0x0 0x400 # the env\n", one, ""},
		{"number ends where it must", "/e 12ff8 0\n", []Copy{{"/e", 12, 0xff8}}, ""},
		{"skips what does not parse", "hello world\n/e 0x0 0x400\n", one, ""},
		{"two", "/e 0x0 0x400\n/f 0x0 0x400\n", []Copy{{"/e", 0, 0x400}, {"/f", 0, 0x400}}, ""},
		{"third is ignored", "/e 0x0 0x400\n/f 0x0 0x400\nnot 1 2\n", []Copy{{"/e", 0, 0x400}, {"/f", 0, 0x400}}, ""},
		{"same file", "/e 0x0 0x400\n/e 0x400 0x400\n", []Copy{{"/e", 0, 0x400}, {"/e", 0x400, 0x400}}, ""},
		{"from both ends", "/e 0x0 0x400\n/e -0x400 0x400\n", []Copy{{"/e", 0, 0x400}, {"/e", -0x400, 0x400}}, ""},
		{"ubi volume name", "/dev/ubi0:env 0 0x400", []Copy{{"/dev/ubi0:env", 0, 0x400}}, ""},

		{"empty", "", nil, "no line of the form"},
		{"only comments", "# nothing\n", nil, "no line of the form"},
		{"two fields", "/e 0x0\n", nil, "no line of the form"},
		{"garbage after the offset", "/e 0x0, 0x400\n", nil, "no line of the form"},
		{"prefix without digits", "/e 0x 0x400\n", nil, "no line of the form"},
		{"offset overflows", "/e 0xfffffffffffffffff 0x400\n", nil, "no line of the form"},
		{"offset at the end", "/e 0x7fffffffffffffff 0x400\n", nil, "out of range"},
		{"no size", "/e 0x0 0x0\n", nil, "size 0x0 "},
		{"negative size", "/e 0x0 -0x400\n", nil, "size 0x100001 "},
		{"huge size", "/e 0x0 fffffffffffffffffff\n", nil, "size 0x100001 "},
		{"unequal size", "/e 0x0 0x400\n/f 0x0 0x800\n", nil, "differ in size"},
		{"same bytes", "/e 0x0 0x400\n/e 0x0 0x400\n", nil, "overlap"},
		{"overlap", "/e -0x400 0x400\n/e -0x401 0x400\n", nil, "overlap"},
		{"too long", strings.Repeat("#\n", maxConfigSize), nil, "larger than"},
		{"not YAML by its first line", "uboot\n  size : 0x400\n", nil, "no line of the form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFwEnvConfig([]byte(tt.in), "any: the line form has none")
			if tt.text != "" {
				if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("ParseFwEnvConfig: %v, want text %q", err, tt.text)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseFwEnvConfig: %v", err)
			}
			if diff := cmp.Diff(FwEnvConfig{Copies: tt.want}, got); diff != "" {
				t.Errorf("ParseFwEnvConfig (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenUBootRawFlash(t *testing.T) {
	for _, path := range []string{"/dev/mtd0", "/dev/mtdblock1", "/dev/ubi0_1", "/dev/ubi0:env"} {
		_, err := OpenUBoot(UBootConfig{Copies: []Copy{{path, 0, 0x4000}}})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenUBoot(%s) = %v, want ErrUnsupported with the path", path, err)
		}
	}
}

func FuzzParseFwEnvConfig(f *testing.F) {
	f.Add("/dev/mmcblk0 0x40000 0x20000\n/dev/mmcblk0 0x60000 0x20000\n")
	f.Add("# c\n /e -0x400\t400 200 2 1\r\n")
	f.Add("/e 09 0x 0X +-")
	f.Fuzz(func(t *testing.T, in string) {
		cfg, err := ParseFwEnvConfig([]byte(in), "")
		if (err == nil) != (len(cfg.Copies) > 0) {
			t.Fatalf("ParseFwEnvConfig = %v, %v", cfg, err)
		}
		if err != nil {
			return
		}
		if err := validate(cfg.Copies); err != nil {
			t.Fatalf("ParseFwEnvConfig = %v, which is not valid: %v", cfg, err)
		}
		// What was understood says the same when it is written plainly.
		plain := ""
		for _, c := range cfg.Copies {
			plain += fmt.Sprintf(" %s %d %x\n", c.Path, c.Offset, c.Size) // a path may begin with a #
		}
		if strings.ContainsAny(plain, "#\v\f\r\"' ") && strings.Count(plain, " ") != 3*len(cfg.Copies) {
			return // the YAML form has paths that the line form has not
		}
		again, err := ParseFwEnvConfig([]byte(plain), "")
		if err != nil || !cmp.Equal(again.Copies, cfg.Copies) {
			t.Fatalf("ParseFwEnvConfig(%q) = %v, %v; want %v", plain, again, err, cfg.Copies)
		}
	})
}
