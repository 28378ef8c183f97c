package module

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Names in the work tree.
const (
	nameFiles      = "files"
	nameStreams    = "streams"
	nameStreamNext = "stream-next"
)

// protocolVersion is the content of the file version.
const protocolVersion = "3"

// Payload is what a module is told of the update. None of the texts becomes a
// path but PayloadType, which must be a plain name.
type Payload struct {
	ArtifactName, ArtifactGroup    string
	PayloadType                    string
	HeaderInfo, TypeInfo, MetaData []byte // JSON, as in the artifact
	CurrentName, CurrentGroup      string // of the running system
	DeviceType                     string
}

// tree is the path of the work tree. A payload's number is its place in the
// artifact, and artifacts have one payload.
func (r *Runner) tree() string {
	return filepath.Join(r.DataDir, "modules", "v3", "payloads", "0000", "tree")
}

// makeTree makes a new work tree, in place of one that an interruption left.
// Only root gets to see it: a payload may hold secrets.
func (r *Runner) makeTree(p Payload) error {
	// A data directory that is missing is most often one that is not mounted.
	if _, err := os.Stat(r.DataDir); err != nil {
		return fmt.Errorf("work tree: %w", err)
	}
	if err := r.removeTree(); err != nil {
		return err
	}
	if err := r.fillTree(p); err != nil {
		return fmt.Errorf("work tree: %w", err)
	}
	return nil
}

func (r *Runner) fillTree(p Payload) error {
	if err := os.MkdirAll(r.tree(), 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.tree())
	if err != nil {
		return err
	}
	defer root.Close() // files are closed one by one
	for _, dir := range []string{"header", "tmp", nameStreams} {
		if err := root.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	metaData := p.MetaData
	if len(metaData) == 0 {
		metaData = []byte("null") // so that it is JSON in any case
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{"version", []byte(protocolVersion)},
		{"current_artifact_name", []byte(p.CurrentName)},
		{"current_artifact_group", []byte(p.CurrentGroup)},
		{"current_device_type", []byte(p.DeviceType)},
		{"header/artifact_name", []byte(p.ArtifactName)},
		{"header/artifact_group", []byte(p.ArtifactGroup)},
		{"header/payload_type", []byte(p.PayloadType)},
		{"header/header-info", indented(p.HeaderInfo)},
		{"header/type-info", indented(p.TypeInfo)},
		{"header/meta-data", indented(metaData)},
	} {
		if err := root.WriteFile(f.name, f.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// maxIndented bounds the memory for what [indented] makes: each byte may become a
// line of its own, as far to the right as JSON in an artifact is nested.
const maxIndented = 64 << 10

// indented returns JSON as Mender's clients hand it to modules, of which those
// without a parser look at one line at a time. What is large stays as it is.
func indented(raw []byte) []byte {
	var b bytes.Buffer
	if len(raw) > maxIndented || json.Indent(&b, raw, "", "  ") != nil {
		return raw
	}
	return b.Bytes()
}

// removeTree removes the work tree. A link in it goes, not what it points to.
func (r *Runner) removeTree() error {
	if err := os.RemoveAll(r.tree()); err != nil {
		return fmt.Errorf("remove work tree: %w", err)
	}
	return nil
}

// Flush brings the work tree to the medium, with all that the module has
// written on the same file system. Called before a record says that an update
// is pending, it makes sure that the tree is there after a power cut.
func (r *Runner) Flush() error {
	dir, err := os.Open(r.tree())
	if err != nil {
		return fmt.Errorf("flush work tree: %w", err)
	}
	defer dir.Close() // read only
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("flush work tree: %w", err)
	}
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
