//go:build device

package kill

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// scene is a device in some state and a command that is killed on it.
type scene struct {
	name    string
	module  string // its answer to SupportsRollback, "" for an image
	prepare func(b *bench, artifact string)
	command string
	code    int // of the command if nobody kills it
}

func scenes() []scene {
	nothing := func(*bench, string) {}
	installed := func(b *bench, artifact string) { b.must("install", artifact) }
	stopped := func(b *bench, artifact string) { b.must("install", "--stop-before", "ArtifactInstall_Enter", artifact) }
	onTrial := func(b *bench, artifact string) { b.must("install", artifact); b.boot(3) }
	wentBack := func(b *bench, artifact string) { onTrial(b, artifact); b.boot(2) }
	return []scene{
		{"image, install", "", nothing, "install", 0},
		{"image, commit", "", onTrial, "commit", 0},
		{"image, rollback on the trial", "", onTrial, "rollback", 0},
		{"image, rollback before the reboot", "", installed, "rollback", 0},
		{"image, resume", "", stopped, "resume", 0},
		{"image, commit after the boot loader went back", "", wentBack, "commit", 1},
		{"module, install", "Yes", nothing, "install", 0},
		{"module, commit", "Yes", installed, "commit", 0},
		{"module, rollback", "Yes", installed, "rollback", 0},
		{"module without rollback, install", "No", nothing, "install", 0},
	}
}

// followUp is what comes after the kill, before a person ends the update.
type followUp struct {
	name string
	do   func(b *bench, artifact string)
}

func followUps() []followUp {
	run := func(args ...string) func(*bench, string) {
		return func(b *bench, _ string) { b.checkCode(b.mender(args...)) }
	}
	afterBoot := func(do func(*bench, string)) func(*bench, string) {
		return func(b *bench, artifact string) { b.bootNext(); do(b, artifact) }
	}
	return []followUp{
		{"reboot, commit", afterBoot(run("commit"))},
		{"reboot, boot-check", afterBoot(func(b *bench, _ string) { b.program("usb-updater", "boot-check") })},
		{"reboot, resume", afterBoot(run("resume"))},
		{"resume", run("resume")},
		{"rollback", run("rollback")},
		{"install again", func(b *bench, artifact string) { b.mark(); b.checkCode(b.mender("install", artifact)) }},
	}
}

// TestKill kills mender at each of its writes and says what became of it.
func TestKill(t *testing.T) {
	need(t, "mke2fs", "debugfs")
	var total atomic.Int64
	t.Run("scenes", func(t *testing.T) {
		for i, s := range scenes() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				total.Add(killEverywhere(newBench(t), i, s))
			})
		}
	})
	t.Logf("%d points", total.Load())
	const least = 500
	if n := total.Load(); n < least && !t.Failed() {
		t.Errorf("%d points, want at least %d: the tracer misses writes", n, least)
	}
}

// killEverywhere runs the scene's command, each time from the same state, and
// ends it at its first write, at its second one, and so on until it comes to its
// end. It returns how many points that were.
func killEverywhere(b *bench, i int, s scene) int64 {
	t := b.t
	artifact := b.prepare(s)
	args := []string{"--root", b.Dir, s.command}
	if s.command == "install" {
		args = append(args, artifact)
	}
	outcomes, calls := map[string]int{}, map[string]int{}
	for k := 0; ; k++ {
		b.begin(fmt.Sprintf("killed at write %d", k+1))
		r := trace(t, b.Dir, k, filepath.Join(b.bin, "mender"), args...)
		if !r.killed {
			if r.code != s.code {
				t.Fatalf("exit status %d, want %d\n%s", r.code, s.code, r.output)
			}
			t.Logf("%d writes: %v; killed: %v", k, calls, outcomes)
			return int64(k)
		}
		f := followUps()[(i+k)%len(followUps())]
		b.about += fmt.Sprintf(" (%s), then %s", r.points[k], f.name)
		calls[r.points[k].call]++
		outcomes[b.settle(s, artifact, f, k%8 == 0)]++
		if t.Failed() {
			t.Fatalf("mender said:\n%s", r.output)
		}
		b.reset()
	}
}

// prepare brings the device into the scene's state, and keeps it.
func (b *bench) prepare(s scene) string {
	b.t.Helper()
	var artifact string
	if s.module == "" {
		artifact = b.imageArtifact()
	} else {
		artifact = b.moduleArtifact(s.module)
	}
	s.prepare(b, artifact)
	b.keep()
	return artifact
}

// settle does what a person would, and returns what has become of the update.
// However it was killed, it ends, in a state that is old or new in everything.
func (b *bench) settle(s scene, artifact string, f followUp, again bool) string {
	b.t.Helper()
	b.checkNext()
	must := b.decided(s)
	f.do(b, artifact)
	b.checkNext()
	b.end()
	outcome := b.outcome(s)
	if must != "" && f.name != "install again" && outcome != must {
		b.errorf("outcome %s, want %s: what runs was decided before", outcome, must)
	}
	b.checkCalls(s, outcome)
	if again {
		if code, out := b.mender("install", artifact); code != 0 {
			b.errorf("an installation afterward: exit status %d\n%s", code, out)
		}
	}
	return outcome
}

// decided tells the outcome where the boot environment, or the module, leaves
// no choice any more.
func (b *bench) decided(s scene) string {
	b.t.Helper()
	env, err := b.Env()
	b.check(err)
	calls := b.called()
	switch {
	case s.module != "" && slices.Contains(calls, "Cleanup") && slices.Contains(calls, "ArtifactCommit"):
		return "new"
	case s.module != "" && slices.Contains(calls, "ArtifactRollback"):
		return "old"
	case s.module != "" || env["upgrade_available"] != "0":
		return ""
	case env["mender_boot_part"] == "3":
		return "new"
	case s.command == "resume": // it may yet be installed
		return ""
	default:
		return "old"
	}
}

// end is a person who wants the update to be over, whatever it takes.
func (b *bench) end() {
	b.t.Helper()
	const patience = 4
	for range patience {
		code, out := b.mender("commit")
		b.checkCode(code, out)
		if code == 2 {
			break
		}
		if strings.Contains(out, "resume it or roll it back") { // it is where --stop-before left it
			b.checkCode(b.mender("resume"))
		}
		b.bootNext()
	}
	b.bootNext()
	if code, out := b.mender("commit"); code != 2 {
		b.errorf("the update does not end: commit: exit status %d\n%s", code, out)
	}
	if code, out := b.mender("resume"); code != 2 {
		b.errorf("the update does not end: resume: exit status %d\n%s", code, out)
	}
}

// outcome tells old from new, and complains of anything in between.
func (b *bench) outcome(s scene) string {
	b.t.Helper()
	env, err := b.Env()
	b.check(err)
	if env["upgrade_available"] != "0" {
		b.errorf("boot environment: a trial is open: %v", env)
	}
	code, out := b.mender("show-artifact")
	name := strings.TrimSpace(out)
	if code != 0 {
		b.errorf("show-artifact: exit status %d\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(b.Data(), "mender-store-broken")); err == nil {
		b.errorf("the store was broken")
	}
	if _, err := os.Lstat(filepath.Join(b.Data(), "modules/v3/payloads/0000/tree")); err == nil && slices.Contains(b.called(), "ArtifactInstall") {
		b.errorf("the module's work tree was left behind")
	}
	n, err := strconv.Atoi(env["mender_boot_part"])
	b.check(err)
	state := strings.Join([]string{b.holds(n), name, b.installedApp(s)}, " ")
	switch state {
	case "release-1 release-1 ", "release-1 release-1 old":
		return "old"
	case "release-2 release-2 ", "release-1 app-2 new":
		return "new"
	case "release-1 app-2_INCONSISTENT new", "release-1 app-2_INCONSISTENT old":
		if s.module == "No" { // it cannot be undone, and the name says so
			return "inconsistent"
		}
	}
	b.errorf("slot, name, app are %s: neither old nor new", state)
	return "neither"
}

func (b *bench) installedApp(s scene) string {
	if s.module == "" {
		return ""
	}
	content, err := os.ReadFile(b.app())
	b.check(err)
	return strings.TrimSpace(string(content))
}

// checkCalls holds what ran against the outcome.
func (b *bench) checkCalls(s scene, outcome string) {
	b.t.Helper()
	all := b.called()
	ran := func(state string) bool { return slices.Contains(all, state) }
	for part := range strings.SplitSeq(strings.Join(all, "\n"), again) {
		count := map[string]int{}
		for call := range strings.FieldsSeq(part) {
			count[call]++
		}
		for call, n := range count {
			limit := 2 // recovery may repeat a step that was cut short
			switch call {
			case "Download_Enter", "Download_Leave", "Download", "ArtifactInstall_Enter", "ArtifactInstall", "ArtifactInstall_Leave", "ArtifactCommit":
				limit = 1
			case "SupportsRollback", "NeedsArtifactReboot", "ProvidePayloadFileSizes":
				limit = 5 // questions
			}
			if n > limit {
				b.errorf("%s ran %d times: %q", call, n, all)
			}
		}
	}
	if b.marked() {
		return // two installations, whose scripts say nothing of each other
	}
	switch {
	case outcome == "new" && (ran("ArtifactRollback_Enter") || ran("ArtifactFailure_Enter")):
		b.errorf("new, and yet rolled back: %q", all)
	case outcome == "new" && (!ran("ArtifactInstall_Leave") || !ran("ArtifactCommit_Enter") || !ran("ArtifactCommit_Leave")):
		b.errorf("new, without all of its scripts: %q", all)
	case outcome == "old" && ran("ArtifactCommit_Leave"):
		b.errorf("old, and yet committed: %q", all)
	case outcome != "new" && ran("ArtifactInstall_Enter") && !ran("ArtifactFailure_Leave"):
		b.errorf("%s, without ArtifactFailure: %q", outcome, all)
	}
}
