package script

import "strings"

// parseName splits the name of a file of a script directory,
// "ArtifactInstall_Enter_00_text", by the exact rule. text is "" if there is
// none.
func parseName(name string) (state, action, text string, ok bool) {
	state, rest, _ := strings.Cut(name, "_")
	action, rest, _ = strings.Cut(rest, "_")
	number, text, described := strings.Cut(rest, "_")
	ok = state != "" && !strings.ContainsFunc(state, func(r rune) bool { return !isLetter(r) }) &&
		(action == "Enter" || action == "Leave" || action == "Error") &&
		len(number) == 2 && strings.Trim(number, "0123456789") == "" &&
		described == (text != "") && !strings.ContainsAny(text, " \t\n\v\f\r")
	return state, action, text, ok
}

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// belongs reports whether a file is a script of the state and action.
func belongs(name, state, action string) bool {
	s, a, _, ok := parseName(name)
	return ok && s == state && a == action
}

// nearMiss reports whether a file looks as if it was meant to be a script of
// the state and action, but is none at all: ArtifactInstall_Enter_00.sh.
func nearMiss(name, state, action string) bool {
	_, _, _, ok := parseName(name)
	return !ok &&
		strings.Contains(strings.ToLower(name), strings.ToLower(state+"_"+action))
}

// fromRootfs reports whether the scripts of a state belong to the root file
// system rather than to an artifact.
func fromRootfs(state string) bool { return !strings.HasPrefix(state, "Artifact") }

// tolerant reports whether an update goes on although a script of this moment
// failed: it has failed already, and the other clean-up scripts must run.
func tolerant(state, action string) bool { return action == "Error" || state == "ArtifactFailure" }
