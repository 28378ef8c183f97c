package artifact

import "time"

const (
	// ChunkSize is the size in bytes of the two buffers that [Artifact.Copy]
	// writes from, unless the destination lends its own. Every write but a
	// file's last one has exactly this size.
	ChunkSize = 512 << 10

	// DefaultMaxWindow is the xz dictionary and zstd window, in bytes, that is
	// accepted when [Options.MaxWindow] is 0. Stock Mender .xz artifacts
	// declare this much (source: mender-artifact, compressor_lzma.go).
	DefaultMaxWindow = 64 << 20

	// MaxRawSize bounds [Header.RawSize], in bytes. It follows from the limits of
	// the parts and of the archive around them.
	MaxRawSize = maxVersionSize + maxManifestSize + maxSignatureSize + maxHeaderStored +
		maxOuterEntries*(2*blockSize+maxPAXSize) + maxTarPadding + 3*blockSize
)

// Sizes in bytes. The format itself has no limits; these leave legitimate
// artifacts a wide margin and keep hostile ones small.
const (
	maxVersionSize   = 4 << 10
	maxManifestSize  = 256 << 10
	maxSignatureSize = 8 << 10
	maxKeySize       = 64 << 10
	maxHeaderStored  = 16 << 20
	maxHeaderPlain   = 16 << 20
	maxJSONSize      = 256 << 10
	maxMetaDataSize  = 1 << 20
	maxScriptSize    = 1 << 20
	maxScriptsSize   = 4 << 20 // all scripts of an artifact together
	maxFileSize      = 1 << 50
	maxTarPadding    = 1 << 20 // zeros behind the end of an archive
	maxPAXSize       = 64 << 10
	maxNameSize      = 255 // a tar entry's name, a payload file's name
	maxTextSize      = 1024
	maxKeyTextSize   = 256
	maxValueTextSize = 4096

	sourceBufferSize = 64 << 10
	aheadBufferSize  = 128 << 10 // as the kernel reads ahead on a stick
	aheadBuffers     = 3         // one decoded, one ready, one being read
	gzipBufferSize   = 16 << 10
	minWindow        = 1 << 10 // what the zstd decoder insists on

	// A decompressor that takes this much input without giving output is fed
	// empty members or skippable frames. A zstd block is 128 KiB at most.
	maxIdleInput = 512 << 10
	// An xz index holds a few bytes for each block of the stream before it.
	maxIdleInputXZ = 4 << 20
)

// aheadGrace is how long the end of a copy waits for a read that hangs.
const aheadGrace = 400 * time.Millisecond

// Counts.
const (
	maxOuterEntries  = 16
	maxHeaderEntries = 600
	maxDataEntries   = 2 * maxFiles // each may have a PAX header
	maxFiles         = 1000
	maxScripts       = 256
	maxDeviceTypes   = 10000
	maxList          = 1000
	maxJSONDepth     = 32
	maxJSONValues    = 50000
	maxNumberSize    = 64
	maxQuoted        = 64 // bytes of a foreign string in an error text
)
