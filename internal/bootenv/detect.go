package bootenv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kind names a way to drive a boot loader.
type Kind string

// The kinds.
const (
	KindUBoot      Kind = "uboot"       // Mender's variables in a U-Boot environment
	KindGRUBMender Kind = "grub-mender" // Mender's variables in grub-mender-grubenv
	KindRAUCUBoot  Kind = "rauc-uboot"  // RAUC's variables in a U-Boot environment
	KindRAUCGRUB   Kind = "rauc-grub"   // RAUC's variables in a GRUB environment block
	KindTryboot    Kind = "tryboot"     // Raspberry Pi firmware
	KindCommand    Kind = "command"     // Mender's variables behind a pair of tools
	KindCustom     Kind = "custom"      // one program of the device's maker
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{KindUBoot, KindGRUBMender, KindRAUCUBoot, KindRAUCGRUB, KindTryboot, KindCommand, KindCustom}
}

// Places says where to look for a boot loader. Zero values stand for the usual
// places.
type Places struct {
	FwEnvConfig string   // U-Boot's tools: where the environment is
	Namespace   string   // holds the name of the part of FwEnvConfig that counts
	GRUBConfig  string   // grub-mender-grubenv: may set ENV_DIR
	GRUBDirs    []string // where its environment may be
	GRUBEnvs    []string // where a plain GRUB environment block may be
	ToolDirs    []string // where tools may be
	Autoboot    []string // where autoboot.txt may be
	// Map turns a path that one of these files names into one on this machine.
	// Nil leaves it as it is.
	Map func(path string) string
}

// UsualPlaces returns the places of a device, each passed through mapping if
// that is not nil (source of the GRUB directories: grub-mender-grubenv,
// grub-mender-grubenv-print).
func UsualPlaces(mapping func(string) string) Places {
	if mapping == nil {
		mapping = func(path string) string { return path }
	}
	all := func(paths ...string) []string {
		for i, p := range paths {
			paths[i] = mapping(p)
		}
		return paths
	}
	return Places{
		FwEnvConfig: mapping("/etc/fw_env.config"),
		Namespace:   mapping("/proc/device-tree/chosen/u-boot,env-config"),
		GRUBConfig:  mapping("/etc/mender_grubenv.config"),
		GRUBDirs: all("/boot/efi/grub-mender-grubenv", "/boot/grub/grub-mender-grubenv",
			"/boot/efi/EFI/BOOT", "/boot/grub"),
		GRUBEnvs: all("/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/EFI/BOOT/grubenv", "/grubenv/grubenv"),
		ToolDirs: all(ToolDirs()...),
		Autoboot: all("/boot/firmware/autoboot.txt", "/boot/autoboot.txt"),
		Map:      mapping,
	}
}

// Found is a boot loader and why it is the one.
type Found struct {
	Kind           Kind
	Env            FwEnvConfig // uboot, rauc-uboot
	GRUBDir        string      // grub-mender
	GRUBEnv        string      // rauc-grub
	Getter, Setter string      // command
	Autoboot       string      // tryboot
	// Reasons are what was looked for, one phrase each; the last one decided.
	Reasons []string
}

// Detect looks for a boot loader that keeps Mender's variables, or for tryboot,
// in this order: grub-mender-grubenv; a U-Boot environment whose storage can be
// opened; a pair of tools; autoboot.txt. Mender's own clients prefer GRUB, too.
//
// An environment that only tools can read, such as one in raw flash, is
// [ErrUnsupported] where there are no tools. If nothing is found the error is
// [ErrNotFound] and lists what was looked for. Detect opens and reads files; it
// runs nothing and writes nothing.
func Detect(p Places) (Found, error) {
	f := Found{}
	unsupported := error(nil)
	for _, kind := range []Kind{KindGRUBMender, KindUBoot, KindCommand, KindTryboot} {
		if kind == KindTryboot && unsupported != nil {
			break // the environment is known: something else would be a guess
		}
		one, err := p.Find(kind)
		if err == nil {
			one.Reasons = slices.Concat(f.Reasons, one.Reasons)
			return one, nil
		}
		if kind == KindUBoot && errors.Is(err, ErrUnsupported) {
			unsupported = err
		}
		f.Reasons = append(f.Reasons, fmt.Sprintf("not %s: %v", kind, err))
	}
	cause := ErrNotFound
	if unsupported != nil {
		cause = ErrUnsupported
	}
	return f, fmt.Errorf("boot loader: %w: %s", cause, strings.Join(f.Reasons, "; "))
}

// Find looks for what one kind needs. It is [ErrNotFound] if that is not there.
// Kinds that are not recognized by what is on the device are found as they are.
func (p Places) Find(kind Kind) (Found, error) {
	f := Found{Kind: kind}
	var err error
	reason := ""
	switch kind {
	case KindGRUBMender:
		f.GRUBDir, err = p.grub()
		reason = f.GRUBDir + " holds both environments of grub-mender-grubenv"
	case KindUBoot, KindRAUCUBoot:
		f.Env, err = p.uboot()
		reason = p.FwEnvConfig + " names an environment that can be opened"
	case KindRAUCGRUB:
		f.GRUBEnv, err = p.grubEnv()
		reason = f.GRUBEnv + " is there"
	case KindCommand:
		f.Getter, f.Setter, err = p.tools()
		reason = f.Getter + " and " + f.Setter + " are there"
	case KindTryboot:
		f.Autoboot, err = p.autoboot()
		reason = f.Autoboot + " has tryboot_a_b=1"
	default:
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.Reasons = []string{reason}
	return f, nil
}

// grubFiles are the files of one environment of grub-mender-grubenv.
func grubFiles() []string {
	return []string{"mender_grubenv1/env", "mender_grubenv1/lock", "mender_grubenv2/env", "mender_grubenv2/lock"}
}

func (p Places) grub() (string, error) {
	dirs := p.GRUBDirs
	configured, err := envDir(p.GRUBConfig)
	if err != nil {
		return "", err
	}
	if configured != "" {
		dirs = []string{p.path(configured)}
	}
	for _, dir := range dirs {
		if !slices.ContainsFunc(grubFiles(), func(name string) bool { return !isFile(filepath.Join(dir, name)) }) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("mender_grubenv1 and mender_grubenv2: %w in %s", ErrNotFound, strings.Join(dirs, ", "))
}

func (p Places) grubEnv() (string, error) {
	for _, path := range p.GRUBEnvs {
		if isFile(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", strings.Join(p.GRUBEnvs, ", "), ErrNotFound)
}

// envDir reads ENV_DIR from the file at path, "" if it is not set. The last one
// counts, and blanks around the equals sign do not (source:
// grub-mender-grubenv, grub-mender-grubenv-print).
func envDir(path string) (string, error) {
	text, err := readConfig(path)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	dir := ""
	for line := range strings.Lines(string(text)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimRight(name, " ") == "ENV_DIR" {
			dir = strings.Trim(strings.TrimLeft(v, " "), `"'`)
		}
	}
	if dir != "" && !filepath.IsAbs(dir) {
		return "", fmt.Errorf("read %s: ENV_DIR is %s, not an absolute path: %w", path, quote(dir), ErrUnsupported)
	}
	return dir, nil
}

func (p Places) uboot() (FwEnvConfig, error) {
	text, err := readConfig(p.FwEnvConfig)
	if err != nil {
		return FwEnvConfig{}, err
	}
	namespace, err := p.namespace()
	if err != nil {
		return FwEnvConfig{}, err
	}
	cfg, err := ParseFwEnvConfig(text, namespace)
	if err != nil {
		return FwEnvConfig{}, fmt.Errorf("%s: %w", p.FwEnvConfig, err)
	}
	for i := range cfg.Locks {
		cfg.Locks[i] = p.path(cfg.Locks[i])
	}
	opened, errs := false, []error(nil)
	for i, c := range cfg.Copies {
		if isRawFlash(c.Path) {
			return FwEnvConfig{}, fmt.Errorf("%s: %s: raw flash: %w", p.FwEnvConfig, c, ErrUnsupported)
		}
		cfg.Copies[i].Path = p.path(c.Path)
		f, err := os.Open(cfg.Copies[i].Path)
		if err == nil {
			opened, err = true, f.Close()
		}
		errs = append(errs, err)
	}
	if !opened { // with one copy of two the device boots, so that is enough here
		return FwEnvConfig{}, fmt.Errorf("%s: %w", p.FwEnvConfig, notFound(errors.Join(errs...)))
	}
	return cfg, nil
}

// namespace returns the part of an fw_env.config that the device tree names, ""
// where it names none (source: libubootenv, fw_printenv.c).
func (p Places) namespace() (string, error) {
	if p.Namespace == "" {
		return "", nil
	}
	text, err := readConfig(p.Namespace)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return strings.TrimRight(string(text), "\x00"), err
}

// toolPairs are the getters and setters that are known, best first (source:
// Mender client 3, installer/bootenv.go).
func toolPairs() [][2]string {
	return [][2]string{
		{"grub-mender-grubenv-print", "grub-mender-grubenv-set"},
		{"systemd-boot-printenv", "systemd-boot-setenv"},
		{"fw_printenv", "fw_setenv"},
	}
}

func (p Places) tools() (getter, setter string, err error) {
	for _, pair := range toolPairs() {
		getter, err := FindTool(p.ToolDirs, pair[0])
		if err != nil {
			continue
		}
		if setter, err := FindTool(p.ToolDirs, pair[1]); err == nil {
			return getter, setter, nil
		}
	}
	return "", "", fmt.Errorf("a pair of tools such as fw_printenv and fw_setenv: %w in %s", ErrNotFound, strings.Join(p.ToolDirs, ":"))
}

func (p Places) autoboot() (string, error) {
	for _, path := range p.Autoboot {
		text, err := readConfig(path)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		if looksLikeAutoboot(text) {
			return path, nil
		}
		return "", fmt.Errorf("%s: tryboot_a_b=1: %w", path, ErrNotFound)
	}
	return "", fmt.Errorf("%s: %w", strings.Join(p.Autoboot, ", "), ErrNotFound)
}

// path maps a path that a file names.
func (p Places) path(path string) string {
	if p.Map == nil {
		return path
	}
	return p.Map(path)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// readConfig reads a file of bounded size. It is [ErrNotFound] if there is
// none.
func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, notFound(err)
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxConfigSize {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxConfigSize)
	}
	return b, nil
}
