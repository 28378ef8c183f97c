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
	name    string
	reboot  bool // first
	program string
	args    []string
}

func followUps(artifact string) []followUp {
	return []followUp{
		{"reboot, commit", true, "mender", []string{"commit"}},
		{"reboot, boot-check", true, "usb-updater", []string{"boot-check"}},
		{"reboot, resume", true, "mender", []string{"resume"}},
		{"resume", false, "mender", []string{"resume"}},
		{"rollback", false, "mender", []string{"rollback"}},
		{installAgain, false, "mender", []string{"install", artifact}},
	}
}

const installAgain = "install again"

// begin is what comes before its program.
func (f followUp) begin(b *bench) {
	if f.reboot {
		b.bootNext()
	}
	if f.name == installAgain {
		b.mark()
	}
}

func (f followUp) run(b *bench) {
	f.begin(b)
	code, out := b.program(f.program, f.args...)
	if f.program == "mender" {
		b.checkCode(code, out)
	}
}

// tally is what a scene came to.
type tally struct{ points, runs, twice int64 }

// TestKill kills mender at each of its writes and says what became of it.
func TestKill(t *testing.T) {
	need(t, "mke2fs", "debugfs")
	var points, runs, twice atomic.Int64
	t.Run("scenes", func(t *testing.T) {
		for i, s := range scenes() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				sum := killEverywhere(newBench(t), i, s)
				points.Add(sum.points)
				runs.Add(sum.runs)
				twice.Add(sum.twice)
			})
		}
	})
	t.Logf("%d points, %d ways on from there, and %d that were killed in turn", points.Load(), runs.Load(), twice.Load())
	const least = 500
	if n := points.Load(); n < least && !t.Failed() {
		t.Errorf("%d points, want at least %d: the tracer misses writes", n, least)
	}
}

// killEverywhere runs the scene's command, each time from the same state, and
// ends it at its first write, at its second one, and so on until it comes to its
// end. Where that leaves a state that no point before it has left, every follow-up
// is tried, and some are killed as well; elsewhere they take turns.
func killEverywhere(b *bench, i int, s scene) (sum tally) {
	t := b.t
	artifact := b.prepare(s)
	start := b.snapshot()
	args := []string{s.command}
	if s.command == "install" {
		args = append(args, artifact)
	}
	outcomes, calls, seen := map[string]int{}, map[string]int{}, map[string]bool{}
	for k := 0; ; k++ {
		b.begin(fmt.Sprintf("killed at write %d", k+1))
		r := b.trace(k, "mender", args...)
		if !r.killed {
			if r.code != s.code {
				t.Fatalf("exit status %d, want %d\n%s", r.code, s.code, r.output)
			}
			t.Logf("%d writes, %d states: %v; killed: %v", k, len(seen), calls, outcomes)
			sum.points = int64(k)
			return sum
		}
		calls[r.points[k].call]++
		at := fmt.Sprintf("killed at write %d (%s)", k+1, r.points[k])
		ways := followUps(artifact)
		turn := (i + k) % len(ways)
		state := b.state()
		isNew := !seen[state]
		seen[state] = true
		if !isNew {
			ways = ways[turn : turn+1]
		}
		var killed snapshot
		if isNew {
			killed = b.snapshot()
		}
		for j, f := range ways {
			if j > 0 {
				b.restore(killed)
			}
			b.begin(at + ", then " + f.name)
			outcomes[b.settle(s, artifact, f, k%8 == 0 && j == 0)]++
			sum.runs++
		}
		if isNew {
			f := ways[len(seen)%(len(ways)-1)] // any but the last one, which is a scene of its own
			sum.twice += b.killAgain(s, at, f, len(seen), killed)
		}
		if t.Failed() {
			t.Fatalf("mender said:\n%s", r.output)
		}
		b.restore(start)
	}
}

// killAgain kills the follow-up, too, at two of its writes. Which two these are
// changes with n. It returns how often it did.
func (b *bench) killAgain(s scene, at string, f followUp, n int, killed snapshot) (times int64) {
	b.t.Helper()
	b.restore(killed)
	f.begin(b)
	writes := len(b.trace(-1, f.program, f.args...).points)
	if writes == 0 {
		return 0
	}
	for _, k := range []int{n % writes, (n + writes/2) % writes} {
		b.restore(killed)
		b.begin(fmt.Sprintf("%s, then %s, killed at write %d", at, f.name, k+1))
		f.begin(b)
		if r := b.trace(k, f.program, f.args...); !r.killed {
			b.errorf("not killed\n%s", r.output)
			return times
		}
		b.kills = 2
		b.checkNext()
		must := b.decided(s)
		b.end()
		b.judge(s, must)
		times++
	}
	return times
}

// prepare brings the device into the scene's state.
func (b *bench) prepare(s scene) string {
	b.t.Helper()
	var artifact string
	if s.module == "" {
		artifact = b.imageArtifact()
	} else {
		artifact = b.moduleArtifact(s.module)
	}
	s.prepare(b, artifact)
	env, err := b.Env()
	b.check(err)
	b.trialLost = false
	b.noteTrial(env)
	b.lostBefore = b.trialLost
	return artifact
}

// settle does what a person would, and returns what has become of the update.
// However it was killed, it ends, in a state that is old or new in everything.
func (b *bench) settle(s scene, artifact string, f followUp, again bool) string {
	b.t.Helper()
	b.checkNext()
	must := b.decided(s)
	if f.name == installAgain {
		must = ""
	}
	f.run(b)
	b.checkNext()
	b.end()
	outcome := b.judge(s, must)
	if again {
		if code, out := b.mender("install", artifact); code != 0 {
			b.errorf("an installation afterward: exit status %d\n%s", code, out)
		}
	}
	return outcome
}

// judge holds what the device has come to against what had to be, "" for what
// may be either.
func (b *bench) judge(s scene, must string) string {
	b.t.Helper()
	outcome := b.outcome(s)
	if must != "" && outcome != must {
		b.errorf("outcome %s, want %s: what runs was decided before", outcome, must)
	}
	b.checkCalls(s, outcome)
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
	case s.module != "" && slices.Contains(calls, "ArtifactRollback"):
		return "old"
	case s.module == "No" && slices.Contains(calls, "ArtifactFailure"):
		return "inconsistent"
	case s.module != "" && slices.Contains(calls, "Cleanup") && slices.Contains(calls, "ArtifactCommit"):
		return "new"
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
	if _, err := os.Lstat(b.tree()); err == nil && slices.Contains(b.called(), "ArtifactInstall") {
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
			limit := 1 + b.kills // recovery may repeat a step that was cut short
			switch call {
			case "Download_Enter", "Download_Leave", "Download", "ArtifactInstall_Enter", "ArtifactInstall", "ArtifactInstall_Leave", "ArtifactCommit":
				limit = 1
			case "SupportsRollback", "NeedsArtifactReboot", "ProvidePayloadFileSizes":
				limit = 3 + 2*b.kills // questions
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
	case outcome == "old" && ran("ArtifactInstall_Enter") && !b.trialLost && (!ran("ArtifactRollback_Enter") || !ran("ArtifactRollback_Leave")):
		b.errorf("old, without ArtifactRollback: %q", all)
	case outcome == "inconsistent" && ran("ArtifactRollback_Enter"):
		b.errorf("rolled back what has no way back: %q", all)
	}
}
