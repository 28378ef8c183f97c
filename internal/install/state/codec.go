package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Keys of the store. The first four are Mender's.
const (
	dbName     = "artifact-name"
	dbGroup    = "artifact-group"
	dbProvides = "artifact-provides"
	dbPending  = "standalone-state"

	dbAttempt   = "usb-updater-attempt"
	dbFailed    = "usb-updater-failed"
	dbKnown     = "usb-updater-known"
	dbInstalled = "usb-updater-installed"
	dbResult    = "usb-updater-result"
)

// Keys inside of artifact-provides that do not belong there: some clients put
// them in, and artifact-name rules (source: Mender client 3.5).
const (
	keyName  = "artifact_name"
	keyGroup = "artifact_group"
)

// ErrStateVersion means that another client left a pending update in a version
// of the state, or in a state of version 2, that this program does not know. The
// record that comes with it lacks nothing else. [Store.Save] keeps the unknown
// state unless it stores one of ours.
var ErrStateVersion = errors.New("the pending update is in a state that this program does not know")

// pendingJSON is Pending as stored.
type pendingJSON struct {
	Version        int               `json:"Version"`
	ArtifactName   string            `json:"ArtifactName"`
	ArtifactGroup  string            `json:"ArtifactGroup"`
	Provides       map[string]string `json:"ArtifactTypeInfoProvides"`
	ClearsProvides *[]string         `json:"ArtifactClearsProvides,omitempty"`
	PayloadTypes   []string          `json:"PayloadTypes"`
	InState        string            `json:"InState,omitempty"`
	Failed         *bool             `json:"Failed,omitempty"`
	RolledBack     *bool             `json:"RolledBack,omitempty"`

	OriginalSlot   string `json:"UsbUpdaterOriginalSlot,omitempty"`
	TargetSlot     string `json:"UsbUpdaterTargetSlot,omitempty"`
	BootID         string `json:"UsbUpdaterBootID,omitempty"`
	ManifestDigest string `json:"UsbUpdaterManifestDigest,omitempty"`
	NeedsReboot    bool   `json:"UsbUpdaterNeedsReboot,omitempty"`
}

// decodeRecord returns the record with everything that can be decoded, and
// [ErrCorrupt] if something of Mender's cannot.
func decodeRecord(kv map[string][]byte) (Record, error) {
	r := Record{
		ArtifactName:  string(kv[dbName]),
		ArtifactGroup: string(kv[dbGroup]),
		Installed:     string(kv[dbInstalled]),
		foreign:       maps.Clone(kv),
	}
	for _, ours := range []string{dbName, dbGroup, dbProvides, dbPending, dbAttempt, dbFailed, dbKnown, dbInstalled, dbResult} {
		delete(r.foreign, ours)
	}
	var err, pendingErr error
	// null, which Mender 3 writes, is no provides.
	r.Provides, err = decodeJSON[map[string]string](kv, dbProvides)
	delete(r.Provides, keyName)
	delete(r.Provides, keyGroup)
	// Of our own keys, what cannot be read is forgotten, as if it had never
	// been there: none of them is needed to find the way after an interruption.
	r.Attempt, _ = decodeJSON[*Attempt](kv, dbAttempt)
	r.Failed, _ = decodeJSON[map[string]Failure](kv, dbFailed)
	r.Known, _ = decodeJSON[map[string]Known](kv, dbKnown)
	r.Result, _ = decodeJSON[*Result](kv, dbResult)
	r.Pending, pendingErr = decodePending(kv)
	if errors.Is(pendingErr, ErrStateVersion) {
		r.foreign[dbPending] = kv[dbPending] // not ours to drop
	}
	return r, cmp.Or(err, pendingErr)
}

func decodePending(kv map[string][]byte) (*Pending, error) {
	if _, ok := kv[dbPending]; !ok {
		return nil, nil
	}
	j, err := decodeJSON[*pendingJSON](kv, dbPending)
	if err != nil {
		return nil, err
	}
	if j == nil {
		return nil, fmt.Errorf("%w: %s is null", ErrCorrupt, dbPending)
	}
	if j.Version != 1 && j.Version != 2 {
		return nil, fmt.Errorf("%w: version %d", ErrStateVersion, j.Version)
	}
	if j.Version == 2 && !slices.Contains(inStates[:], j.InState) {
		return nil, fmt.Errorf("%w: version 2, %.64q", ErrStateVersion, j.InState)
	}
	p := &Pending{
		Version: j.Version, InState: j.InState,
		ArtifactName: j.ArtifactName, ArtifactGroup: j.ArtifactGroup,
		Provides: j.Provides, HasClears: j.ClearsProvides != nil, PayloadTypes: j.PayloadTypes,
		Failed: j.Failed != nil && *j.Failed, RolledBack: j.RolledBack != nil && *j.RolledBack,
		OriginalSlot: j.OriginalSlot, TargetSlot: j.TargetSlot, BootID: j.BootID, ManifestDigest: j.ManifestDigest,
		NeedsReboot: j.NeedsReboot,
	}
	if p.HasClears {
		p.ClearsProvides = *j.ClearsProvides
	}
	return p, nil
}

// decodeJSON returns the value of a key, or the zero value where the key is
// absent or the error is not nil.
func decodeJSON[T any](kv map[string][]byte, key string) (T, error) {
	var v, zero T
	b, ok := kv[key]
	if !ok {
		return zero, nil
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return zero, fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
	}
	return v, nil
}

func encodeRecord(r Record) (map[string][]byte, error) {
	kv := maps.Clone(r.foreign)
	if kv == nil {
		kv = map[string][]byte{}
	}
	for key, value := range map[string]string{dbName: r.ArtifactName, dbGroup: r.ArtifactGroup, dbInstalled: r.Installed} {
		if value != "" {
			kv[key] = []byte(value)
		}
	}
	values := map[string]any{}
	if r.Provides != nil {
		values[dbProvides] = r.Provides
	}
	if r.Pending != nil {
		values[dbPending] = encodePending(*r.Pending)
	}
	if r.Attempt != nil {
		values[dbAttempt] = r.Attempt
	}
	if len(r.Failed) > 0 {
		values[dbFailed] = latest(r.Failed)
	}
	if len(r.Known) > 0 {
		values[dbKnown] = latestKnown(r.Known)
	}
	if r.Result != nil {
		values[dbResult] = r.Result
	}
	for key, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		kv[key] = b
	}
	return kv, nil
}

func encodePending(p Pending) pendingJSON {
	j := pendingJSON{
		Version: p.Version, ArtifactName: p.ArtifactName, ArtifactGroup: p.ArtifactGroup,
		Provides: p.Provides, PayloadTypes: p.PayloadTypes,
		OriginalSlot: p.OriginalSlot, TargetSlot: p.TargetSlot, BootID: p.BootID, ManifestDigest: p.ManifestDigest,
		NeedsReboot: p.NeedsReboot,
	}
	// Not null, which a strict reader may refuse.
	if j.Provides == nil {
		j.Provides = map[string]string{}
	}
	if j.PayloadTypes == nil {
		j.PayloadTypes = []string{}
	}
	if p.HasClears {
		clears := append([]string{}, p.ClearsProvides...)
		j.ClearsProvides = &clears
	}
	if p.Version == 2 {
		j.InState, j.Failed, j.RolledBack = p.InState, &p.Failed, &p.RolledBack
	}
	return j
}

// latest returns the failures without the oldest ones beyond the limit.
func latest(failed map[string]Failure) map[string]Failure {
	if len(failed) <= MaxFailed {
		return failed
	}
	newestFirst := slices.SortedFunc(maps.Keys(failed), func(a, b string) int {
		return cmp.Or(failed[b].Time.Compare(failed[a].Time), cmp.Compare(a, b))
	})
	kept := make(map[string]Failure, MaxFailed)
	for _, digest := range newestFirst[:MaxFailed] {
		kept[digest] = failed[digest]
	}
	return kept
}
