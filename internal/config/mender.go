package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Default paths (source: Mender client).
const (
	DefaultDataDir   = "/var/lib/mender"
	DefaultConfigDir = "/etc/mender"
	DefaultShareDir  = "/usr/share/mender"
)

// Mender is what standalone mode uses of mender.conf. Paths are as written in
// the file.
type Mender struct {
	RootfsPartA string
	RootfsPartB string

	// ArtifactVerifyKey and ArtifactVerifyKeys name public keys; with either,
	// unsigned artifacts are refused. They exclude each other.
	ArtifactVerifyKey  string
	ArtifactVerifyKeys []string

	DeviceTypeFile string

	// DaemonLogLevel is the log level where the command line has none; a word,
	// which may be no level.
	DaemonLogLevel string

	StateScriptTimeoutSeconds       int
	StateScriptRetryIntervalSeconds int
	StateScriptRetryTimeoutSeconds  int

	ModuleTimeoutSeconds int

	// For downloads. ServerCertificate is a file of certificates that are
	// trusted besides the system's.
	ServerCertificate  string
	SkipVerify         bool
	HttpsClient        HTTPSClient
	RetryDownloadCount int // 0 stands for the default

	// Tools that stand in for the native boot environment: names or absolute
	// paths. Both or neither must be set.
	BootUtilitiesSetActivePart     string
	BootUtilitiesGetNextActivePart string
}

// HTTPSClient is what the device shows to servers that ask for it: files, in
// PEM form. SSLEngine and keys in hardware are not supported; a download that
// needs them is refused.
type HTTPSClient struct {
	Certificate, Key, SSLEngine string
}

// Check refuses a client that cannot be used. Its text holds no key name, which
// may contain a PIN.
func (c HTTPSClient) Check() error {
	switch {
	case c.SSLEngine != "":
		return fmt.Errorf("mender.conf: HttpsClient: SSLEngine %.64q: engines are not supported, use a key file", c.SSLEngine)
	case strings.HasPrefix(strings.ToLower(c.Key), "pkcs11:"):
		return errors.New("mender.conf: HttpsClient: Key is in a PKCS #11 token, which is not supported, use a key file")
	case (c.Certificate == "") != (c.Key == ""):
		return errors.New("mender.conf: HttpsClient: Certificate and Key are needed, only one is set")
	}
	return nil
}

// Files says where to find mender.conf.
type Files struct {
	// Main overrides Fallback key by key. Empty names are skipped.
	Main, Fallback string
	// MainRequired means that the user asked for Main by name.
	MainRequired, FallbackRequired bool
}

// LoadMender reads both files.
func LoadMender(files Files) (Mender, error) {
	var m Mender
	for _, f := range []struct {
		path     string
		required bool
	}{{files.Fallback, files.FallbackRequired}, {files.Main, files.MainRequired}} {
		if f.path == "" {
			continue
		}
		if err := decodeFile(f.path, f.required, false, &m); err != nil {
			return Mender{}, err
		}
	}
	return m, m.check()
}

func (m Mender) check() error {
	switch {
	case m.ArtifactVerifyKey != "" && len(m.ArtifactVerifyKeys) > 0:
		return errors.New("mender.conf: both ArtifactVerifyKey and ArtifactVerifyKeys are set: use one")
	case m.StateScriptTimeoutSeconds < 0, m.StateScriptRetryIntervalSeconds < 0, m.StateScriptRetryTimeoutSeconds < 0:
		return errors.New("mender.conf: a StateScript…Seconds value is negative")
	case m.RetryDownloadCount < 0:
		return errors.New("mender.conf: RetryDownloadCount is negative")
	case m.ModuleTimeoutSeconds < 0:
		return errors.New("mender.conf: ModuleTimeoutSeconds is negative")
	case (m.BootUtilitiesSetActivePart == "") != (m.BootUtilitiesGetNextActivePart == ""):
		return errors.New("mender.conf: of BootUtilitiesSetActivePart and BootUtilitiesGetNextActivePart only one is set: set both")
	}
	return nil
}

// ErrNoSlots means that the device is not configured for root file system
// updates.
var ErrNoSlots = errors.New("RootfsPartA and RootfsPartB are not both set, so a rootfs-image cannot be installed")

// Slots returns the device paths of both slots, or what is missing. A UBI volume
// may be named without its directory, as in "ubi0_1".
func (m Mender) Slots() (a, b string, err error) {
	if m.RootfsPartA == "" || m.RootfsPartB == "" {
		return "", "", fmt.Errorf("mender.conf: %w", ErrNoSlots)
	}
	a, b = slotPath(m.RootfsPartA), slotPath(m.RootfsPartB)
	if a == b {
		return "", "", fmt.Errorf("mender.conf: RootfsPartA and RootfsPartB cannot be set to the same value %q", m.RootfsPartA)
	}
	return a, b, nil
}

func slotPath(name string) string {
	if strings.HasPrefix(name, "ubi") && !strings.Contains(name, "/") {
		return "/dev/" + name
	}
	return name
}

// KeyFiles returns the names of the verification key files.
func (m Mender) KeyFiles() []string {
	if m.ArtifactVerifyKey != "" {
		return []string{m.ArtifactVerifyKey}
	}
	return m.ArtifactVerifyKeys
}

// DeviceTypePath returns the device type file, by default in the data
// directory.
func (m Mender) DeviceTypePath(dataDir string) string {
	if m.DeviceTypeFile != "" {
		return m.DeviceTypeFile
	}
	return filepath.Join(dataDir, "device_type")
}

// Limits of scripts and modules; a zero value stands for Mender's default.
func (m Mender) seconds(v, otherwise int) time.Duration {
	if v == 0 {
		v = otherwise
	}
	return time.Duration(v) * time.Second
}

// ScriptTimeout bounds one run of a state script.
func (m Mender) ScriptTimeout() time.Duration {
	return m.seconds(m.StateScriptTimeoutSeconds, 3600)
}

// ScriptRetryInterval is the pause before a script that asked for it runs again.
func (m Mender) ScriptRetryInterval() time.Duration {
	return m.seconds(m.StateScriptRetryIntervalSeconds, 60)
}

// ScriptRetryTimeout bounds the time in which a script may ask to run again.
func (m Mender) ScriptRetryTimeout() time.Duration {
	return m.seconds(m.StateScriptRetryTimeoutSeconds, 1800)
}

// ModuleTimeout bounds one call of an update module.
func (m Mender) ModuleTimeout() time.Duration {
	return m.seconds(m.ModuleTimeoutSeconds, 14400)
}
