// Package artifacttest writes Mender artifacts for tests and for the demo. It is
// not a release tool: it writes what the real mender-artifact writes, for inputs
// that it trusts.
//
// The layout is that of mender-artifact 4 (source: Mender artifact format v2 and
// v3; mender-artifact, awriter). The tests have `mender-artifact read` and
// `mender-artifact validate` accept the results, but for zstd, which versions
// before 4.0 do not know.
package artifacttest
