// Package artifact reads Mender artifacts, format versions 2 and 3, from a
// stream that nobody trusts.
//
// An artifact is one POSIX tar (source: Mender artifact format v2 and v3):
//
//	version            {"format":"mender","version":3}
//	manifest           SHA-256 of every other part, one line each
//	manifest.sig       optional signature over the bytes of manifest
//	header.tar[.gz]    name, device types, depends, provides, state scripts
//	data/0000.tar[.gz] the payload files
//
// The two inner archives are plain or compressed with gzip, xz or zstd.
//
// [Open] reads and checks everything up to the first byte of the payload, so
// that a caller can refuse at no cost. [Artifact.Copy] then streams the payload
// into the caller's writers. What it has written is worth nothing until it
// returns a valid [Verified]: only then every byte up to the end of the file
// has been read and agrees with the manifest.
//
// The reader is stricter than Mender's own. It refuses whatever two readers
// could understand differently: links and sparse files, doubled entries and
// JSON keys, bytes behind the end of an archive or of a compressed stream. It
// also refuses parts that a signature does not cover (manifest-augment,
// header-augment). Format version 1 is refused by name.
//
// Memory is bounded whatever the input says: the limits are the constants in
// limits.go. An install of a plain or gzip payload needs a few MiB; xz and zstd
// add their window, see [Options.MaxWindow].
package artifact
