package script

import (
	"regexp"
	"strings"
)

var (
	// fileName is the exact rule for a file of a script directory.
	fileName = regexp.MustCompile(`^([A-Za-z]+)_(Enter|Leave|Error)_[0-9][0-9](_\S+)?$`)
	// artifactName is the rule for what an artifact may bring: it has states of
	// its own, and names that are safe to print and to create.
	artifactName = regexp.MustCompile(
		`^Artifact(Install|Reboot|Commit|Rollback|RollbackReboot|Failure)_(Enter|Leave|Error)_[0-9][0-9](_[A-Za-z0-9_.,+-]+)?$`)
)

// belongs reports whether a file is a script of the state and action.
func belongs(name, state, action string) bool {
	m := fileName.FindStringSubmatch(name)
	return m != nil && m[1] == state && m[2] == action
}

// nearMiss reports whether a file looks as if it was meant to be a script of
// the state and action, but is none at all: ArtifactInstall_Enter_00.sh.
func nearMiss(name, state, action string) bool {
	return !fileName.MatchString(name) &&
		strings.Contains(strings.ToLower(name), strings.ToLower(state+"_"+action))
}

// fromRootfs reports whether the scripts of a state belong to the root file
// system rather than to an artifact.
func fromRootfs(state string) bool { return !strings.HasPrefix(state, "Artifact") }

// tolerant reports whether an update goes on although a script of this moment
// failed: it has failed already, and the other clean-up scripts must run.
func tolerant(state, action string) bool { return action == "Error" || state == "ArtifactFailure" }
