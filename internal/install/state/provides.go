package state

import (
	"maps"
	"strings"
)

// CommitProvides returns the record after the commit of p: its name, and its
// provides merged into what was there. It changes nothing else (source: Mender
// client, "clears_artifact_provides").
//
//   - Without clears_artifact_provides all that was provided goes, the group
//     included.
//   - With it, what matches one of its patterns goes.
//   - Then what p provides is added.
func (r Record) CommitProvides(p Pending) Record {
	provides := map[string]string{}
	group := ""
	if p.HasClears {
		for k, v := range r.Provides {
			if !matchesAny(p.ClearsProvides, k) {
				provides[k] = v
			}
		}
		if !matchesAny(p.ClearsProvides, keyGroup) {
			group = r.ArtifactGroup
		}
	}
	maps.Copy(provides, p.Provides)
	delete(provides, keyName)
	delete(provides, keyGroup)
	if p.ArtifactGroup != "" {
		group = p.ArtifactGroup
	}
	r.Provides, r.ArtifactGroup = provides, group
	if p.ArtifactName != "" {
		r.ArtifactName = p.ArtifactName
	}
	return r
}

// Commit returns the record when p is permanent: [Record.CommitProvides], and
// nothing is pending. What p replaces is noted, so that it does not come back by
// itself; what spoke against p is forgotten, but how often it was replaced is not.
func (r Record) Commit(p Pending) Record {
	if old := r.Installed; old != "" && old != p.ManifestDigest {
		name := strings.TrimSuffix(r.ArtifactName, InconsistentSuffix)
		r = r.Know(old, func(k Known) Known {
			k.Name = name
			k.Replaced++
			return k
		})
	}
	r = r.CommitProvides(p)
	if p.ManifestDigest != "" {
		r = r.Know(p.ManifestDigest, func(k Known) Known { return Known{Name: k.Name, Replaced: k.Replaced} })
	}
	r.Failed = maps.Clone(r.Failed)
	delete(r.Failed, p.ManifestDigest)
	r.Installed = p.ManifestDigest
	r.Pending, r.Attempt = nil, nil
	return r
}

func matchesAny(patterns []string, key string) bool {
	for _, p := range patterns {
		if matches(p, key) {
			return true
		}
	}
	return false
}

// matches tells whether key matches a pattern in which * stands for any run of
// characters and everything else for itself. It is linear in the number of
// stars: the leftmost fit of each part is as good as any.
func matches(pattern, key string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == key
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(key) < len(first)+len(last) || !strings.HasPrefix(key, first) || !strings.HasSuffix(key, last) {
		return false
	}
	key = key[len(first) : len(key)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(key, part)
		if i < 0 {
			return false
		}
		key = key[i+len(part):]
	}
	return true
}
