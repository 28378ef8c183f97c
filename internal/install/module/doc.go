// Package module runs Mender update modules: executables that install payloads
// of a type of their own (source: Mender documentation, "Update modules",
// protocol version 3).
//
// A module is a file named after its payload type. Each call has two arguments,
// the state and the absolute path of the work tree, which is the working
// directory, too. Exit code 0 means that the state succeeded; a module answers
// a state that it does not know with nothing and 0.
//
//	ProvidePayloadFileSizes  "Yes": DownloadWithFileSizes in place of Download
//	Download                 reads the payload, or leaves that to us
//	DownloadWithFileSizes    the same, with sizes
//	SupportsRollback         "Yes" or "No"
//	ArtifactInstall          makes the payload effective
//	NeedsArtifactReboot      "Yes", "Automatic" or "No"
//	ArtifactCommit, ArtifactRollback, ArtifactFailure
//	Cleanup                  the last call, before the work tree goes
//
// The work tree is <data>/modules/v3/payloads/0000/tree. It outlives a reboot
// and ends with Cleanup:
//
//	version                  3
//	current_artifact_name    of the running system; also _group, current_device_type
//	header/                  artifact_name, artifact_group, payload_type,
//	                         header-info, type-info, meta-data
//	tmp/                     the module's own
//	stream-next, streams/    FIFOs, while the payload comes
//	files/                   the payload, if the module did not read it
//
// During Download each payload file is a FIFO streams/NAME. A line with that
// path comes out of the FIFO stream-next, then the content out of the other
// one; behind the last file stream-next is empty. A module that exits with 0
// and has never opened stream-next gets the payload in files/.
package module
