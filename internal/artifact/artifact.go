package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
)

var (
	// ErrNoFiles is returned by [Artifact.FirstFile] for a payload without
	// files: an empty one, or that of an update module that needs none.
	ErrNoFiles = errors.New("artifact has no payload files")

	// ErrConsumed is returned when an artifact's payload is asked for twice.
	ErrConsumed = errors.New("artifact has been read already")
)

// Options are the caller's conditions.
type Options struct {
	// Keys are the keys of which one must have signed the artifact. If there
	// are none, signatures are not checked.
	Keys []*Key
	// MaxWindow is the largest xz dictionary and zstd window in bytes that is
	// accepted, and so the memory that decompression may need; 0 means
	// [DefaultMaxWindow].
	MaxWindow int64
}

// Artifact is an artifact whose header has been read and found good and whose
// payload has not been read yet. It is for one goroutine and holds nothing that
// needs closing; the stream stays the caller's.
type Artifact struct {
	header *Header
	window int64
	src    *source
	outer  *tarReader

	suffix    string     // of the data entry's name
	hasData   bool       // there is a data entry, and outer is at its content
	inner     *tarReader // the archive inside the current outer entry, or nil
	pending   *File      // payload file whose tar header has been read
	todo      map[string][32]byte
	used      bool
	chunks    *chunks // for writers that lend no buffers
	chunkSize int64
	dataSize  int64 // of the data entry, as stored
	err       error // why the payload cannot be read any further
}

// File is a payload file as its tar header announces it.
type File struct {
	Name string // one of Header.Files
	Size int64  // in bytes; not signed, but exactly this much must follow
}

// Open reads r up to the first byte of the payload and checks all of it:
// version, manifest, signature, header archive, state scripts. It does not
// check whether the artifact fits the device; that is the caller's part, with
// [Header]. Every error is an [Error].
func Open(r io.Reader, opts Options) (*Artifact, error) {
	a := &Artifact{src: newSource(r), window: opts.MaxWindow, todo: map[string][32]byte{}}
	if a.window <= 0 {
		a.window = DefaultMaxWindow
	}
	a.outer = &tarReader{r: a.src, what: "artifact", maxEntries: maxOuterEntries}
	if err := a.open(opts.Keys); err != nil {
		return nil, a.place(err)
	}
	return a, nil
}

// Header returns what Open has read. The caller must not change it.
func (a *Artifact) Header() *Header { return a.header }

// open reads the outer entries in their only legal order.
func (a *Artifact) open(keys []*Key) error {
	a.src.sum = sha256.New()
	version, versionFile, err := a.readVersion()
	if err != nil {
		return err
	}
	m, err := a.readManifest(versionFile)
	if err != nil {
		return err
	}
	h := &Header{
		FormatVersion:  version,
		ManifestDigest: sha256.Sum256(m.raw),
		Files:          m.files,
		Depends:        map[string][]string{},
	}
	if err := a.readSignature(h, m, keys); err != nil {
		return err
	}
	files, err := a.readHeaderArchive(m, version)
	if err != nil {
		return err
	}
	if err := h.setInfo(files.info); err != nil {
		return err
	}
	if err := h.setTypeInfo(files.typeInfo); err != nil {
		return err
	}
	h.MetaData, h.Scripts = files.metaData, files.scripts
	if err := h.checkFiles(files.files); err != nil {
		return err
	}
	if err := a.findData(h.Empty); err != nil {
		return err
	}
	h.RawDigest, h.RawSize = [32]byte(a.src.sum.Sum(nil)), a.src.off
	a.src.sum = nil
	for _, f := range h.Files {
		a.todo[f.Name] = f.SHA256
	}
	a.header = h
	return nil
}

// nextEntry moves on to the next outer entry, which there must be.
func (a *Artifact) nextEntry() (string, error) {
	name, _, err := a.outer.next()
	if errors.Is(err, errEnd) {
		return "", malformed("unexpected end of artifact")
	}
	return name, err
}

func (a *Artifact) readVersion() (int, []byte, error) {
	name, err := a.nextEntry()
	if err != nil {
		return 0, nil, err
	}
	if name != "version" {
		return 0, nil, malformed("first entry is not version")
	}
	b, err := a.outer.content(maxVersionSize)
	if err != nil {
		return 0, nil, err
	}
	v, err := parseVersion(b)
	return v, b, err
}

func (a *Artifact) readManifest(versionFile []byte) (*manifest, error) {
	name, err := a.nextEntry()
	if err != nil {
		return nil, err
	}
	if name != "manifest" {
		return nil, malformed("second entry is not manifest")
	}
	b, err := a.outer.content(maxManifestSize)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, err
	}
	return m, checkSum(versionFile, m.version)
}

// readSignature reads manifest.sig if it is there, and stops at the header
// entry.
func (a *Artifact) readSignature(h *Header, m *manifest, keys []*Key) error {
	name, err := a.nextEntry()
	if err != nil {
		return err
	}
	if name == "manifest.sig" {
		b, err := a.outer.content(maxSignatureSize)
		if err != nil {
			return err
		}
		if h.VerifiedBy, err = verifySignature(keys, m.raw, b); err != nil {
			return err
		}
		h.Signed = true
		if name, err = a.nextEntry(); err != nil {
			return err
		}
	}
	if !h.Signed && len(keys) > 0 {
		return fault(Signature, "expecting signed artifact, but no signature file found")
	}
	if name == "manifest-augment" {
		return errAugmented()
	}
	if name != m.header {
		return malformed("not the header that the manifest lists, %s", quote(m.header))
	}
	return nil
}

// findData stops at the content of the data entry. Only an empty payload may do
// without one.
func (a *Artifact) findData(empty bool) error {
	name, _, err := a.outer.next()
	switch {
	case errors.Is(err, errEnd) && empty:
		return nil
	case errors.Is(err, errEnd):
		return malformed("unexpected end of artifact")
	case err != nil:
		return err
	case strings.HasPrefix(name, "header-augment.tar"):
		return errAugmented()
	}
	suffix, ok := strings.CutPrefix(name, "data/0000.tar")
	if !ok || !isSuffix(suffix) {
		return malformed("not the data entry")
	}
	a.suffix, a.hasData, a.dataSize = suffix, true, a.outer.left
	return nil
}

func errAugmented() error {
	return fault(Unsupported, "augmented artifacts are not supported: a signature does not cover them")
}

// place completes an Error of this package with where the reader is. Errors of
// the caller pass, even if they wrap some other artifact's Error.
func (a *Artifact) place(err error) error {
	e, ok := err.(*Error) //nolint:errorlint // see above
	if !ok {
		return err
	}
	e.Offset = a.src.off
	e.Entry = a.outer.name
	if a.inner != nil && a.inner.name != "" {
		e.Entry += "/" + a.inner.name
	}
	return e
}

// FirstFile reads on to the first payload file, so that the caller can compare
// its size with the room there is before anything is written. It returns
// [ErrNoFiles] if there is none. Calling it is optional.
func (a *Artifact) FirstFile() (File, error) {
	switch {
	case a.err != nil:
		return File{}, a.err
	case a.used:
		return File{}, ErrConsumed
	}
	if a.pending == nil {
		if a.err = a.place(a.nextFile()); a.err != nil {
			return File{}, a.err
		}
	}
	if a.pending == nil {
		return File{}, ErrNoFiles
	}
	return *a.pending, nil
}

// Position tells how much of the payload has been read, as it is stored, that
// is compressed, and how much there is, both in bytes. It never goes back. It
// may be called where open is called and in [Lender.Next].
func (a *Artifact) Position() (read, total int64) {
	if !a.hasData {
		return a.dataSize, a.dataSize
	}
	return a.dataSize - a.outer.left, a.dataSize
}

// Copy streams every payload file into the writer that open returns for it, in
// the order of the archive, and reads the artifact to its very end. The writers
// stay the caller's to flush and to close.
//
// It returns a [Verified] only if every file that the manifest lists was there
// with the right checksum, nothing else was, and the archives, compressed
// streams and the artifact itself ended where they should. On any error, what
// has been written is garbage that must not be used.
//
// An error of open, of a writer or of ctx ends the copy and is wrapped, that of
// ctx with its cause; any other is an [Error]. ctx is checked before each chunk
// and before each read of the stream.
//
// Reading, decoding and hashing each have a goroutine, and so open is called by
// the one that called Copy and a writer by another. A writer that is a [Lender]
// lends its own buffers; any other gets chunks of [ChunkSize] bytes. All
// goroutines have ended when Copy returns, but for one: a read of the stream
// that hangs is left behind after a moment, so that the end of ctx ends Copy
// within a second. The stream must not be used again then, only closed.
func (a *Artifact) Copy(ctx context.Context, open func(File) (io.Writer, error)) (*Verified, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case a.used:
		return nil, ErrConsumed
	}
	a.used = true
	a.src.readAhead(ctx.Done(), func() error {
		if ctx.Err() != nil {
			return fmt.Errorf("read artifact: %w", stopError(ctx))
		}
		return nil
	})
	defer a.src.end()
	if a.err = a.place(a.copy(ctx, open)); a.err != nil {
		return nil, a.err
	}
	return &Verified{manifest: a.header.ManifestDigest, complete: true}, nil
}

func (a *Artifact) copy(ctx context.Context, open func(File) (io.Writer, error)) error {
	for {
		if a.pending == nil {
			if err := a.nextFile(); err != nil {
				return err
			}
		}
		if a.pending == nil {
			break
		}
		if err := a.copyFile(ctx, *a.pending, open); err != nil {
			return err
		}
		a.pending = nil
	}
	return a.finish()
}

// nextFile reads the next payload file's tar header into pending, or leaves
// pending nil at the end of the data archive.
func (a *Artifact) nextFile() error {
	if !a.hasData {
		return nil
	}
	if a.inner == nil {
		plain, err := newStream(a.outer, a.suffix, a.window)
		if err != nil {
			return err
		}
		a.inner = &tarReader{r: plain, what: "data archive", maxEntries: maxDataEntries}
	}
	name, size, err := a.inner.next()
	if errors.Is(err, errEnd) {
		a.inner, a.hasData = nil, false
		return nil
	}
	if err != nil {
		return err
	}
	if _, ok := a.todo[name]; !ok {
		return malformed("payload file is not in the manifest, or occurs twice")
	}
	if size == 0 && a.header.PayloadType == RootfsImage {
		return malformed("root file system of 0 bytes")
	}
	a.pending = &File{Name: name, Size: size}
	return nil
}

// finish is at the end of the data archive. It checks that all files were there
// and that nothing but the end of the artifact follows.
func (a *Artifact) finish() error {
	for _, f := range a.header.Files {
		if _, missing := a.todo[f.Name]; missing {
			return malformed("payload file %s is missing", quote(f.Name))
		}
	}
	name, _, err := a.outer.next()
	switch {
	case errors.Is(err, errEnd):
		return nil
	case err != nil:
		return err
	case strings.HasPrefix(name, "data/"):
		return fault(Unsupported, "artifacts with more than one payload are not supported")
	default:
		return malformed("unexpected entry behind the payload")
	}
}

// Verified is the proof that [Artifact.Copy] has read a whole artifact and found
// every byte of it in order. Only then may the boot loader be pointed at what
// was written. The zero value and nil prove nothing.
type Verified struct {
	manifest [32]byte
	complete bool
}

// Valid reports whether v comes from a Copy that succeeded.
func (v *Verified) Valid() bool { return v != nil && v.complete }

// ManifestDigest returns which artifact it was, as [Header.ManifestDigest]. It
// is zero if v is not valid.
func (v *Verified) ManifestDigest() [32]byte {
	if !v.Valid() {
		return [32]byte{}
	}
	return v.manifest
}
