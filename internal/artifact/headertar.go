package artifact

import (
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// headerFiles are the contents of the header archive. A part that is absent is
// nil; one that is empty is not.
type headerFiles struct {
	info, files, typeInfo, metaData []byte
	scripts                         []Script
	scriptBytes                     int
}

const (
	nameHeaderInfo = "header-info"
	nameFiles      = "headers/0000/files"
	nameTypeInfo   = "headers/0000/type-info"
	nameMetaData   = "headers/0000/meta-data"
	scriptsPrefix  = "scripts/"
)

// IsScriptName reports whether s is the name of a state script that an artifact
// may bring, "ArtifactInstall_Enter_00_text": what Mender's own readers run,
// without the names that are not a plain file name or cannot be printed.
// (source: Mender artifact format, "scripts")
func IsScriptName(s string) bool {
	state, rest, _ := strings.Cut(s, "_")
	action, rest, _ := strings.Cut(rest, "_")
	number, text, described := strings.Cut(rest, "_")
	switch state {
	case "ArtifactInstall", "ArtifactReboot", "ArtifactCommit", "ArtifactRollback", "ArtifactRollbackReboot", "ArtifactFailure":
	default:
		return false
	}
	switch action {
	case "Enter", "Leave", "Error":
	default:
		return false
	}
	if len(number) != 2 || strings.Trim(number, "0123456789") != "" {
		return false
	}
	for _, c := range text {
		if c == ' ' || c == '/' || !unicode.IsPrint(c) {
			return false
		}
	}
	return described == (text != "") && utf8.ValidString(text) && len(s) <= maxNameSize
}

// readHeaderArchive reads the current outer entry, the header archive, and
// verifies its checksum. Nothing of it is believed before.
func (a *Artifact) readHeaderArchive(m *manifest, version int) (*headerFiles, error) {
	if a.outer.left > maxHeaderStored {
		return nil, fault(Limit, "header has %d bytes, limit %d", a.outer.left, maxHeaderStored)
	}
	sum := sha256.New()
	stored := io.TeeReader(a.outer, sum)
	files, parseErr := a.parseHeaderArchive(stored, strings.TrimPrefix(m.header, "header.tar"), version)

	// A header that is damaged rather than malformed is best told by its
	// checksum, so the rest of the entry counts too.
	if _, err := io.Copy(io.Discard, stored); err != nil {
		return nil, err
	}
	if got := sum.Sum(nil); [32]byte(got) != m.hdrSum {
		a.inner = nil // what it says is not worth mentioning
		return nil, wrongChecksum(m.hdrSum[:], got)
	}
	return files, parseErr
}

func (a *Artifact) parseHeaderArchive(stored io.Reader, suffix string, version int) (*headerFiles, error) {
	plain, err := newStream(stored, suffix, a.window)
	if err != nil {
		return nil, err
	}
	a.inner = &tarReader{
		r:          &capped{r: plain, left: maxHeaderPlain},
		what:       "header archive",
		dirs:       []string{"headers/", "headers/0000/", scriptsPrefix},
		maxEntries: maxHeaderEntries,
	}
	h := &headerFiles{}
	for {
		name, _, err := a.inner.next()
		if errors.Is(err, errEnd) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := h.take(a.inner, name, version); err != nil {
			return nil, err
		}
	}
	if a.outer.left != 0 {
		return nil, malformed("%d bytes behind the end of the compressed stream", a.outer.left)
	}
	a.inner = nil
	if h.info == nil || h.typeInfo == nil || (version == 2 && h.files == nil) {
		return nil, malformed("header archive is incomplete")
	}
	return h, nil
}

// take reads one file of the archive. The order is fixed: header-info, scripts,
// files (version 2 only), type-info, meta-data.
func (h *headerFiles) take(t *tarReader, name string, version int) (err error) {
	afterScripts := h.files != nil || h.typeInfo != nil
	switch {
	case name == nameHeaderInfo && h.info == nil:
		h.info, err = t.content(maxJSONSize)
	case h.info == nil:
		err = malformed("header archive does not begin with header-info")
	case strings.HasPrefix(name, scriptsPrefix) && !afterScripts:
		err = h.takeScript(t, strings.TrimPrefix(name, scriptsPrefix))
	case name == nameFiles && version == 2 && !afterScripts:
		h.files, err = t.content(maxJSONSize)
	case name == nameTypeInfo && h.typeInfo == nil && (version != 2 || h.files != nil):
		h.typeInfo, err = t.content(maxJSONSize)
	case name == nameMetaData && h.typeInfo != nil && h.metaData == nil:
		h.metaData, err = t.content(maxMetaDataSize)
	default:
		err = malformed("unexpected file in the header archive")
	}
	return err
}

func (h *headerFiles) takeScript(t *tarReader, name string) error {
	if !IsScriptName(name) {
		return malformed("not the name of a state script")
	}
	for _, s := range h.scripts {
		if s.Name == name {
			return malformed("state script occurs twice")
		}
	}
	if len(h.scripts) == maxScripts {
		return fault(Limit, "more than %d state scripts", maxScripts)
	}
	data, err := t.content(int64(min(maxScriptSize, maxScriptsSize-h.scriptBytes)))
	if err != nil {
		return err
	}
	h.scriptBytes += len(data)
	h.scripts = append(h.scripts, Script{Name: name, Data: data})
	return nil
}

// capped is an io.LimitedReader that does not pass its limit off as the end.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, fault(Limit, "more than %d bytes when decompressed", maxHeaderPlain)
	}
	return n, err
}
