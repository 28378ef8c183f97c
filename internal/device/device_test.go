package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenRefuses: a value of usb-updater.conf that can never work is an error
// that names the file and the key.
func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ content, want string }{
		{`{"FileSystems": ["vfat", "ext2", "ext3", "ntfs", "udf"]}`, ""},
		{`{"FileSystems": ["vfat", "fat32"]}`, `"FileSystems" has "fat32", want some of ["`},
		{`{"FileSystems": ["gpt"]}`, `"FileSystems" has "gpt"`},
		{`{"MinVersion": "v1.4.0-rc1"}`, ""},
		{`{"MinVersion": "acme-os-2024.06"}`, ""},
		{`{"MinVersion": "zebra"}`, `"MinVersion" is "zebra", want a version, as in "1.4.2"`},
		{`{"MinVersion": "1.2.3.4.5"}`, `"MinVersion" is "1.2.3.4.5"`},
	} {
		root := t.TempDir()
		file := filepath.Join(root, "etc/usb-updater/usb-updater.conf")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{Root: root})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: error %v, want none", tt.content, err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "configuration "+file+": "+tt.want)):
			t.Errorf("%s: error %v, want %q behind the file's name", tt.content, err, tt.want)
		}
	}
}
