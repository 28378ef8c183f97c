package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// Keys of the store. The first four are Mender's.
const (
	dbName     = "artifact-name"
	dbGroup    = "artifact-group"
	dbProvides = "artifact-provides"
	dbPending  = "standalone-state"

	dbAttempt   = "usb-updater-attempt"
	dbFailed    = "usb-updater-failed"
	dbInstalled = "usb-updater-installed"
	dbResult    = "usb-updater-result"
)

// Keys inside of artifact-provides that do not belong there: some clients put
// them in, and artifact-name rules (source: Mender client 3.5).
const (
	keyName  = "artifact_name"
	keyGroup = "artifact_group"
)

// ErrStateVersion means that another client left a pending update in a form
// that this program does not know.
var ErrStateVersion = errors.New("the pending update has a state version that this program does not know")

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
}

func decodeRecord(kv map[string][]byte) (Record, error) {
	r := Record{
		ArtifactName:  string(kv[dbName]),
		ArtifactGroup: string(kv[dbGroup]),
		Installed:     string(kv[dbInstalled]),
		foreign:       maps.Clone(kv),
	}
	for _, ours := range []string{dbName, dbGroup, dbProvides, dbPending, dbAttempt, dbFailed, dbInstalled, dbResult} {
		delete(r.foreign, ours)
	}
	if err := decodeJSON(kv, dbProvides, &r.Provides); err != nil { // null, which Mender 3 writes, leaves nil
		return Record{}, err
	}
	delete(r.Provides, keyName)
	delete(r.Provides, keyGroup)
	// Our own keys: what cannot be read is forgotten, as if it had never been
	// there. None of them is needed to find the way after an interruption.
	_ = decodeJSON(kv, dbAttempt, &r.Attempt)
	_ = decodeJSON(kv, dbFailed, &r.Failed)
	_ = decodeJSON(kv, dbResult, &r.Result)
	var err error
	r.Pending, err = decodePending(kv)
	return r, err
}

func decodePending(kv map[string][]byte) (*Pending, error) {
	if _, ok := kv[dbPending]; !ok {
		return nil, nil
	}
	var j *pendingJSON
	if err := decodeJSON(kv, dbPending, &j); err != nil {
		return nil, err
	}
	if j == nil {
		return nil, fmt.Errorf("store: %s is null", dbPending)
	}
	if j.Version != 1 && j.Version != 2 {
		return nil, fmt.Errorf("store: %w: %d", ErrStateVersion, j.Version)
	}
	p := &Pending{
		Version: j.Version, InState: j.InState,
		ArtifactName: j.ArtifactName, ArtifactGroup: j.ArtifactGroup,
		Provides: j.Provides, HasClears: j.ClearsProvides != nil, PayloadTypes: j.PayloadTypes,
		Failed: j.Failed != nil && *j.Failed, RolledBack: j.RolledBack != nil && *j.RolledBack,
		OriginalSlot: j.OriginalSlot, TargetSlot: j.TargetSlot, BootID: j.BootID, ManifestDigest: j.ManifestDigest,
	}
	if p.HasClears {
		p.ClearsProvides = *j.ClearsProvides
	}
	return p, nil
}

func decodeJSON(kv map[string][]byte, key string, into any) error {
	b, ok := kv[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("store: %s: %w", key, err)
	}
	return nil
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
	if r.Result != nil {
		values[dbResult] = r.Result
	}
	for key, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("store: %s: %w", key, err)
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
	}
	if p.HasClears {
		clears := p.ClearsProvides
		if clears == nil {
			clears = []string{}
		}
		j.ClearsProvides = &clears
	}
	if p.Version == 2 {
		j.InState, j.Failed, j.RolledBack = p.InState, &p.Failed, &p.RolledBack
	}
	return j
}

// latest drops the oldest failures beyond the limit.
func latest(failed map[string]Failure) map[string]Failure {
	for len(failed) > MaxFailed {
		failed = maps.Clone(failed)
		oldest := ""
		for digest, f := range failed {
			if oldest == "" || f.Time.Before(failed[oldest].Time) {
				oldest = digest
			}
		}
		delete(failed, oldest)
	}
	return failed
}
