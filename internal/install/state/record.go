package state

import (
	"time"
)

// Record is what is known across reboots.
type Record struct {
	ArtifactName  string            // "" if the store has none
	ArtifactGroup string            // "" if none
	Provides      map[string]string // without artifact_name and artifact_group
	Pending       *Pending          // nil: no update is in progress
	Attempt       *Attempt          // nil: the content of the inactive slot is not in doubt
	Installed     string            // manifest digest of the committed artifact, "" if unknown
	// Failed has the artifacts whose trial failed on this device, by manifest
	// digest. At most [MaxFailed] are kept, the latest.
	Failed map[string]Failure
	// Known has what else is known of artifacts, by manifest digest. At most
	// [MaxKnown] are kept, the latest.
	Known  map[string]Known
	Result *Result // how the last run ended; nil if none did

	foreign map[string][]byte // keys of the store that are not ours to change
}

// InconsistentSuffix marks the name of a system on which an update script
// failed where there was no way back (source: Mender documentation, "state
// scripts").
const InconsistentSuffix = "_INCONSISTENT"

// MaxFailed bounds Record.Failed.
const MaxFailed = 64

// Pending is Mender's standalone state, with members of our own. Digests are
// lower-case hexadecimal.
type Pending struct {
	Version        int // 1: waiting for commit. 2: in InState
	InState        string
	ArtifactName   string
	ArtifactGroup  string
	Provides       map[string]string
	ClearsProvides []string
	HasClears      bool // an empty list and none differ
	PayloadTypes   []string
	Failed         bool
	RolledBack     bool

	OriginalSlot   string // "A" or "B"; "" in the record of another client, as all below
	TargetSlot     string
	BootID         string
	ManifestDigest string
	NeedsReboot    bool // an update module has asked for a reboot before the commit
}

// Slotted reports whether the update is one of a root slot, so that the boot
// environment has a part in it. Another client's record may not say; then it is.
func (p *Pending) Slotted() bool {
	return len(p.PayloadTypes) == 0 || p.PayloadTypes[0] == "rootfs-image"
}

// Values of Pending.InState (source: Mender client 5, standalone mode).
const (
	BeforeArtifactInstallEnter = "Before_ArtifactInstall_Enter"
	ArtifactInstallEnter       = "ArtifactInstall_Enter"
	BeforeArtifactCommitEnter  = "Before_ArtifactCommit_Enter"
	ArtifactCommitEnter        = "ArtifactCommit_Enter"
	BeforeArtifactCommitLeave  = "Before_ArtifactCommit_Leave"
	ArtifactCommitLeave        = "ArtifactCommit_Leave"
	ArtifactRollbackEnter      = "ArtifactRollback_Enter"
	ArtifactFailureEnter       = "ArtifactFailure_Enter"
	Cleanup                    = "Cleanup"
)

// inStates are all states that version 2 has.
var inStates = [...]string{
	BeforeArtifactInstallEnter, ArtifactInstallEnter, BeforeArtifactCommitEnter, ArtifactCommitEnter,
	BeforeArtifactCommitLeave, ArtifactCommitLeave, ArtifactRollbackEnter, ArtifactFailureEnter, Cleanup,
}

// Attempt is an artifact that was being written to a slot.
type Attempt struct {
	ManifestDigest string `json:"manifest"`
	TargetSlot     string `json:"slot"`
	BootID         string `json:"boot_id,omitempty"`
}

// Failure is an artifact whose trial failed.
type Failure struct {
	Name     string    `json:"artifact_name"`
	Attempts int       `json:"attempts"`
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"`
}

// Result is how a run ended.
type Result struct {
	Code     int       `json:"code"`
	Name     string    `json:"result"`
	Artifact string    `json:"artifact_name,omitempty"`
	Message  string    `json:"message"`
	Time     time.Time `json:"time"`
}
