package artifact

import "slices"

// Header is everything that is known of an artifact before its payload is read.
// All of it has been checked against the manifest, and the manifest against its
// signature if keys were given.
type Header struct {
	FormatVersion  int      // 2 or 3
	ManifestDigest [32]byte // SHA-256 of the manifest's bytes: the artifact's identity
	// RawDigest is the SHA-256 of every byte of the stream before the first
	// byte of the payload archive; of the whole stream if there is none.
	// RawSize is how many these are, at most [MaxRawSize]. With both, a second
	// read can be compared with the first before any of it is parsed.
	RawDigest  [32]byte
	RawSize    int64
	Signed     bool   // there is a manifest.sig
	VerifiedBy string // name of the key that verified it, "" if no keys were given

	Name        string
	Group       string   // "" if none
	DeviceTypes []string // at least one

	// Depends holds the alternatives that each key of the device may have, from
	// header-info and type-info, without device_type.
	Depends map[string][]string
	// Provides holds what type-info claims: no artifact_name, no
	// artifact_group. Nil in version 2.
	Provides map[string]string
	// ClearsProvides is clears_artifact_provides. HasClears tells an empty list
	// from none, which clears everything.
	ClearsProvides []string
	HasClears      bool

	PayloadType string         // "rootfs-image" or an update module's name
	Empty       bool           // no payload at all; then PayloadType is ""
	Files       []ManifestFile // payload files, in the manifest's order
	Scripts     []Script       // state scripts, in the archive's order

	HeaderInfo, TypeInfo, MetaData []byte // as in the artifact; MetaData may be nil
}

// Script is a state script that the artifact carries.
type Script struct {
	Name string // a base name as Mender defines it, "ArtifactInstall_Enter_00_x"
	Data []byte
}

// RootfsImage is the payload type of a root file system update.
const RootfsImage = "rootfs-image"

// MatchesDevice reports whether the artifact is for deviceType, byte by byte.
// An unknown device type, "", never matches.
func (h *Header) MatchesDevice(deviceType string) bool {
	return deviceType != "" && slices.Contains(h.DeviceTypes, deviceType)
}
