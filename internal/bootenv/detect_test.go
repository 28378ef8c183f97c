package bootenv_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// tree makes files below a new root; a name that ends in "*" is executable.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		mode := os.FileMode(0o644)
		if n, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = n, 0o755
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// with returns all files of the maps.
func with(parts ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range parts {
		maps.Copy(all, m)
	}
	return all
}

func TestDetect(t *testing.T) {
	grubIn := func(dir string) map[string]string {
		return map[string]string{
			dir + "/mender_grubenv1/env": "", dir + "/mender_grubenv1/lock": "", dir + "/mender_grubenv2/env": "", dir + "/mender_grubenv2/lock": "",
		}
	}
	var (
		grub    = grubIn("boot/grub/grub-mender-grubenv")
		uboot   = map[string]string{"etc/fw_env.config": "/dev/mmcblk0 0x0 0x1000\n/dev/mmcblk1 0x0 0x1000\n", "dev/mmcblk1": ""}
		raw     = map[string]string{"etc/fw_env.config": "/dev/mtd1 0x0 0x1000\n"}
		yaml    = map[string]string{"etc/fw_env.config": "uboot:\n  size: 0x1000\n  devices:\n    - path: /dev/mmcblk0\n    - path: /dev/mmcblk1\n", "dev/mmcblk1": ""}
		flow    = map[string]string{"etc/fw_env.config": "uboot:\n  {size: 0x1000, devices: [{path: /dev/mmcblk0}]}\n"}
		tools   = map[string]string{"usr/bin/fw_printenv*": "", "sbin/fw_setenv*": ""}
		half    = map[string]string{"usr/bin/fw_printenv*": "", "sbin/fw_setenv": ""}
		systemd = map[string]string{"usr/bin/systemd-boot-printenv*": "", "usr/bin/systemd-boot-setenv*": ""}
		tryboot = map[string]string{"boot/firmware/autoboot.txt": shippedAutoboot}
		plain   = map[string]string{"boot/firmware/autoboot.txt": "[all]\nboot_partition=2\n"}
	)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  bootenv.Kind
		is    error
		text  string // in the last reason, or in the error
	}{
		{"GRUB before everything", with(grub, uboot, tools, tryboot), bootenv.KindGRUBMender, nil, "/boot/grub/grub-mender-grubenv"},
		{"GRUB where it is configured", with(grubIn("data/env"), map[string]string{"etc/mender_grubenv.config": "ENV_DIR=\"/data/env\"\n"}), bootenv.KindGRUBMender, nil, "/data/env"},
		{"GRUB not where it is configured", with(grub, tools, map[string]string{"etc/mender_grubenv.config": "ENV_DIR=/data/env\n"}), bootenv.KindCommand, nil, "fw_printenv"},
		{"GRUB, one lock missing", with(map[string]string{"boot/grub/mender_grubenv1/env": "", "boot/grub/mender_grubenv1/lock": "", "boot/grub/mender_grubenv2/env": ""}, uboot), bootenv.KindUBoot, nil, "fw_env.config"},
		{"U-Boot with one copy of two", with(uboot, tools, tryboot), bootenv.KindUBoot, nil, "fw_env.config names"},
		{"device missing, tools", with(map[string]string{"etc/fw_env.config": uboot["etc/fw_env.config"]}, tools), bootenv.KindCommand, nil, "fw_setenv"},
		{"raw flash, tools", with(raw, tools, tryboot), bootenv.KindCommand, nil, "fw_setenv"},
		{"raw flash, no tools", with(raw, tryboot), "", bootenv.ErrUnsupported, "raw flash"},
		{"YAML", with(yaml, tools), bootenv.KindUBoot, nil, "fw_env.config names"},
		{"more YAML than is read, tools", with(flow, tools), bootenv.KindCommand, nil, "fw_setenv"},
		{"more YAML than is read, no tools", flow, "", bootenv.ErrUnsupported, "fw_env.config"},
		{"GRUB, blanks in its configuration", with(grubIn("data/env"), map[string]string{"etc/mender_grubenv.config": "# x\nENV_DIR=/no\nENV_DIR = /data/env\n"}), bootenv.KindGRUBMender, nil, "/data/env"},
		{"GRUB, relative configuration", with(grub, map[string]string{"etc/mender_grubenv.config": "ENV_DIR=data\n"}), "", bootenv.ErrNotFound, "not an absolute path"},
		{"tools in order", with(tools, systemd), bootenv.KindCommand, nil, "systemd-boot-printenv"},
		{"half a pair", half, "", bootenv.ErrNotFound, "a pair of tools"},
		{"tryboot", tryboot, bootenv.KindTryboot, nil, "autoboot.txt has tryboot_a_b=1"},
		{"autoboot without slots", plain, "", bootenv.ErrNotFound, "tryboot_a_b=1"},
		{"nothing", nil, "", bootenv.ErrNotFound, "fw_env.config: no such file or directory"},
		{"no configuration", map[string]string{"etc/fw_env.config": "# nothing\n"}, "", bootenv.ErrNotFound, "no line of the form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := tree(t, tt.files)
			found, err := bootenv.Detect(bootenv.UsualPlaces(func(p string) string { return filepath.Join(root, p) }))
			if tt.is != nil {
				if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || len(found.Reasons) < 3 {
					t.Errorf("Detect = %v, want %v with %q and all reasons", err, tt.is, tt.text)
				}
				return
			}
			if err != nil || found.Kind != tt.want {
				t.Fatalf("Detect = %q, %v, want %q", found.Kind, err, tt.want)
			}
			if last := found.Reasons[len(found.Reasons)-1]; !strings.Contains(last, tt.text) {
				t.Errorf("reasons %q, want %q in the last", found.Reasons, tt.text)
			}
			for _, path := range []string{found.GRUBDir, found.Getter, found.Setter, found.Autoboot} {
				if path != "" && !strings.HasPrefix(path, root) {
					t.Errorf("%s is not below the root", path)
				}
			}
			if found.Kind == bootenv.KindUBoot && (len(found.Env.Copies) != 2 || !strings.HasPrefix(found.Env.Copies[0].Path, root)) {
				t.Errorf("copies %v, want two below the root", found.Env.Copies)
			}
		})
	}
}

// TestFind: a kind that is configured is not replaced by another one.
func TestFind(t *testing.T) {
	root := tree(t, map[string]string{"boot/autoboot.txt": shippedAutoboot})
	places := bootenv.UsualPlaces(func(p string) string { return filepath.Join(root, p) })
	for kind, want := range map[bootenv.Kind]error{
		bootenv.KindGRUBMender: bootenv.ErrNotFound, bootenv.KindUBoot: bootenv.ErrNotFound, bootenv.KindCommand: bootenv.ErrNotFound,
		bootenv.KindTryboot: nil, bootenv.KindCustom: nil,
	} {
		if found, err := places.Find(kind); !errors.Is(err, want) || found.Kind != kind {
			t.Errorf("Find(%s) = %q, %v, want error %v", kind, found.Kind, err, want)
		}
	}
}
