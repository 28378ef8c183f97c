package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// DeviceType reads the device's compatibility string from its file: one line
// device_type=VALUE, besides blank lines and # comments. An empty value is an
// error: it would match nothing, or, in some clients, everything.
func DeviceType(path string) (string, error) {
	v, err := value(path, "device_type")
	if err != nil {
		return "", fmt.Errorf("device type: %w", err)
	}
	if v == "" {
		return "", fmt.Errorf("device type: %s: device_type is empty", path)
	}
	return v, nil
}

// ArtifactInfo reads the name that a root file system gives itself from its
// artifact_info file. A missing file or name is "".
func ArtifactInfo(path string) (string, error) {
	v, err := value(path, "artifact_name")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoKey) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("artifact info: %w", err)
	}
	return v, nil
}

var errNoKey = errors.New("no such key")

// value returns the value of key in a file of key=value lines.
func value(path, key string) (string, error) {
	b, err := readFile(path)
	if err != nil {
		return "", err
	}
	found := ""
	seen := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			return "", fmt.Errorf("%s: line %.64q is not key=value", path, line)
		}
		if strings.TrimSpace(k) != key {
			continue
		}
		if seen {
			return "", fmt.Errorf("%s: %s is given twice", path, key)
		}
		found, seen = strings.TrimSpace(v), true
	}
	if !seen {
		return "", fmt.Errorf("%s: %w: %s", path, errNoKey, key)
	}
	return found, nil
}
