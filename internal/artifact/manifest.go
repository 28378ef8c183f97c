package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ManifestFile is one payload file as the manifest lists it.
type ManifestFile struct {
	Name   string   // a base name of letters, digits and "_.,-"
	SHA256 [32]byte // of the file's content
}

// manifest is the list of checksums that a signature covers.
type manifest struct {
	raw     []byte
	version [32]byte
	header  string // name of the header entry, "header.tar.gz"
	hdrSum  [32]byte
	files   []ManifestFile
}

const payloadPrefix = "data/0000/"

// parseManifest decodes the lines "HEX  NAME\n". The grammar is exact because
// the signature is verified over the raw bytes: nothing in them may be skipped.
// (source: Mender artifact format, "manifest"; sha256sum(1))
func parseManifest(raw []byte) (*manifest, error) {
	m := &manifest{raw: raw}
	seen := map[string]bool{}
	for line := range bytes.Lines(raw) {
		sum, name, err := parseManifestLine(line)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, malformed("manifest lists %s twice", quote(name))
		}
		seen[name] = true
		if err := m.add(name, sum); err != nil {
			return nil, err
		}
	}
	if !seen["version"] || m.header == "" {
		return nil, malformed("manifest lacks the line of version or header")
	}
	return m, nil
}

func parseManifestLine(line []byte) (sum [32]byte, name string, err error) {
	body, terminated := bytes.CutSuffix(line, []byte("\n"))
	digits, rest, found := bytes.Cut(body, []byte("  "))
	if !terminated || !found || len(digits) != 2*len(sum) || bytes.ContainsAny(digits, "ABCDEF") {
		return sum, "", malformed("malformed manifest line %s", quote(string(line)))
	}
	if _, err := hex.Decode(sum[:], digits); err != nil {
		return sum, "", malformed("malformed manifest line %s", quote(string(line)))
	}
	return sum, string(rest), nil
}

// add takes one line's entry.
func (m *manifest) add(name string, sum [32]byte) error {
	suffix, isHeader := strings.CutPrefix(name, "header.tar")
	file, isFile := strings.CutPrefix(name, payloadPrefix)
	switch {
	case name == "version":
		m.version = sum
	case isHeader && isSuffix(suffix):
		if m.header != "" {
			return malformed("manifest lists two headers")
		}
		m.header, m.hdrSum = name, sum
	case isFile && isFileName(file):
		if len(m.files) == maxFiles {
			return fault(Limit, "manifest lists more than %d payload files", maxFiles)
		}
		m.files = append(m.files, ManifestFile{Name: file, SHA256: sum})
	case isOtherPayload(name):
		return fault(Unsupported, "artifacts with more than one payload are not supported")
	default:
		return malformed("manifest lists %s", quote(name))
	}
	return nil
}

// isOtherPayload reports whether name is a file of a second payload:
// "data/0001/" to "data/9999/".
func isOtherPayload(name string) bool {
	number, _, found := strings.Cut(strings.TrimPrefix(name, "data/"), "/")
	return strings.HasPrefix(name, "data/") && found && len(number) == 4 &&
		strings.Trim(number, "0123456789") == "" && number != "0000"
}

// isFileName reports whether s may name a payload file: the characters that
// Mender allows, and at least one that is not punctuation, which rules out "."
// and "..". (source: mender-artifact, areader, "^[\w\-.,]+$")
func isFileName(s string) bool {
	word := false
	for _, c := range []byte(s) {
		switch {
		case isAlphanumeric(c) || c == '_':
			word = true
		case c != '.' && c != ',' && c != '-':
			return false
		}
	}
	return word && len(s) <= maxNameSize
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// checkSum compares content with what the manifest promises.
func checkSum(content []byte, want [32]byte) error {
	if got := sha256.Sum256(content); got != want {
		return wrongChecksum(want[:], got[:])
	}
	return nil
}
