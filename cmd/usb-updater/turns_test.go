package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/watch"
)

// maxInstalls is how often one artifact is installed at most that stays plugged in:
// once, and three times more if its version rises above what runs again or it
// looks as if somebody plugged it in.
const maxInstalls = 4

// TestInstallsEnd leaves random artifacts in random partitions plugged in, for
// update modules and without an order, with whatever they provide and clear, and
// has all of them installed for as long as the policy lets them. It must come to an
// end; and where versions have an order and the device goes no way back, with each
// artifact installed once at most.
func TestInstallsEnd(t *testing.T) {
	most := 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := profile{device: &device.Device{}, pluggedIn: rng.IntN(2) == 0}
		p.device.Agent.AllowUnsigned, p.device.Agent.AllowDowngrade = true, rng.IntN(2) == 0
		wild := rng.IntN(2) == 0
		partitions := make([][]candidate, 1+rng.IntN(5))
		for i := range partitions {
			for range 1 + rng.IntN(3) {
				partitions[i] = append(partitions[i], randomCandidate(rng, wild))
			}
		}
		limit := 1
		if wild || p.pluggedIn || p.device.Agent.AllowDowngrade {
			limit = maxInstalls
		}
		total := 0
		for name, n := range leaveIn(t, p, partitions) {
			if total += n; n > limit {
				t.Errorf("seed %d: %s was installed %d times, want %d at most", seed, name, n, limit)
			}
		}
		most = max(most, total)
	}
	if most < 2*maxInstalls {
		t.Errorf("at most %d installs came of a device: the test shows nothing", most)
	}
}

// leaveIn boots until a boot installs nothing, and counts the installs of each
// artifact. All of them succeed.
func leaveIn(t *testing.T, p profile, partitions [][]candidate) map[string]int {
	t.Helper()
	installs := map[string]int{}
	p.record.ArtifactName = "factory-1"
	for range 1000 {
		installed := false
		for _, found := range partitions {
			p.name = p.record.ArtifactName
			decision := decide(p, found)
			if decision.Chosen < 0 {
				continue
			}
			h := found[decision.Chosen].header
			p.record = p.record.Commit(state.Pending{
				ArtifactName: h.Name, Provides: h.Provides, ClearsProvides: h.ClearsProvides, HasClears: h.HasClears,
				PayloadTypes: []string{h.PayloadType}, ManifestDigest: fmt.Sprintf("%x", h.ManifestDigest),
			})
			installs[fmt.Sprintf("%s %.4x", h.Name, h.ManifestDigest)]++
			if installed = true; h.PayloadType == artifact.RootfsImage {
				break // the reboot
			}
		}
		if !installed {
			return installs
		}
	}
	t.Errorf("it does not end: %v", installs)
	return installs
}

// randomCandidate is one of a few dozen. A wild one may be anything that a vendor
// might sign.
func randomCandidate(rng *rand.Rand, wild bool) candidate {
	version := []string{"1", "2", "3", "2-rc1", "2+a", "2+b"}[rng.IntN(6)]
	name := []string{"release-", "build-"}[rng.IntN(2)] + version
	h := &artifact.Header{PayloadType: artifact.RootfsImage, Name: name, HasClears: true, ClearsProvides: []string{"rootfs-image.*"}}
	key := "rootfs-image.version"
	if wild {
		switch rng.IntN(3) {
		case 0:
			h.PayloadType = []string{"app", "data"}[rng.IntN(2)]
			key = "rootfs-image." + h.PayloadType + ".version"
			h.ClearsProvides = []string{key}
		case 1:
			h.Name, version = []string{"zebra", "yak", "rev-b"}[rng.IntN(3)], ""
		}
		if rng.IntN(3) == 0 {
			h.HasClears = false
		}
	}
	h.Provides = map[string]string{}
	if version != "" && rng.IntN(2) == 0 {
		h.Provides[key] = version
	}
	if wild && rng.IntN(2) == 0 { // of somebody else
		other := []string{"rootfs-image.version", "rootfs-image.app.version", "rootfs-image.data.version"}[rng.IntN(3)]
		h.Provides[other] = fmt.Sprint(rng.IntN(4))
	}
	what := fmt.Sprint(h.Name, h.PayloadType, h.Provides, h.HasClears, rng.IntN(2))
	h.ManifestDigest = sha256.Sum256([]byte(what))
	if h.PayloadType == artifact.RootfsImage {
		h.Files = []artifact.ManifestFile{{SHA256: sha256.Sum256([]byte("image of " + what))}}
		h.Provides["rootfs-image.checksum"] = fmt.Sprintf("%x", h.Files[0].SHA256)
	}
	return candidate{entry: mount.Entry{Path: h.Name + ".mender"}, header: h}
}

// TestAllThatIsPluggedInIsKnown: as long as the record has room for all artifacts
// that are looked at, none of them makes the device forget another.
func TestAllThatIsPluggedInIsKnown(t *testing.T) {
	if most := watch.MaxDisks * watch.MaxPartitions * mount.MaxCandidates; state.MaxKnown < most {
		t.Errorf("MaxKnown is %d, want at least %d", state.MaxKnown, most)
	}
}
