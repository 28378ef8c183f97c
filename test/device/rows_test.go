//go:build device

package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proof is a test outside of TestDifferences: a file, and a line of it that is
// the test's name or says what it is about.
type proof struct{ file, line string }

// elsewhere are the rows that no run of a client beside ours decides: what is
// measured in time, what needs a client that fails in a certain moment, and what
// only other generations do otherwise.
func elsewhere() map[string]proof {
	const scripts = "cmd/mender/testdata/script/"
	return map[string]proof{
		"install beside a managed client":                                                  {scripts + "managed.txtar", "# Beside a managed client nothing is installed."},
		"state saved":                                                                      {"internal/install/engine_test.go", "func TestStateCannotBeSaved("},
		"background process of a script or module":                                         {"internal/runner/runner_test.go", "func TestRunLeavesTheBackgroundAlone("},
		"killed while a module runs":                                                       {"internal/runner/runner_test.go", "func TestProgramDiesWithCaller("},
		"commit of a module's update that was cut short":                                   {scripts + "crash.txtar", "# ArtifactCommit: rolled back."},
		"`rollback` of a module that has none":                                             {"internal/install/module_test.go", "func TestModuleThatCannotGoBack("},
		"`rollback` of a slot after `commit --stop-before ArtifactCommit_Leave`":           {scripts + "resume.txtar", "committed already: run commit to finish it"},
		"`resume` of a waiting update in the boot that installed a slot":                   {scripts + "resume.txtar", "stderr 'reboot first'"},
		"`depends` on `artifact_name` or `artifact_group` in header-info and in type-info": {"internal/artifact/property_header_test.go", "func TestTypeInfoCannotWiden("},
		"download: the connection breaks":                                                  {scripts + "network.txtar", "# An install from a server, over a break of the connection."},
		"download: the file changes on the server in between":                              {scripts + "network-trust.txtar", "# Another artifact under the same name after the break"},
		"download: no data":                                                                {"internal/httpsource/source_test.go", "func TestIdle("},
		"download: TLS keys of mender.conf":                                                {scripts + "network-trust.txtar", "# What mender.conf says of servers is checked for downloads only."},
		"`no_proxy`":                                                                       {"cmd/mender/script_test.go", "func TestEnvironmentProxy("},
		"order of `show-provides`":                                                         {scripts + "provides.txtar", "cmp stdout unchanged"},
		"letters of `mender_boot_part_hex`":                                                {"internal/bootenv/loader_test.go", "func TestMenderWrites("},
		"usb-updater.conf that is wrong":                                                   {scripts + "configuration.txtar", "# The file of the agent counts, too"},
		"store of a system of another word size":                                           {"internal/install/state/store_test.go", "func TestForeign("},
		"install while an update is pending whose commit or rollback is begun, with `--stop-before` or by a power cut":    {scripts + "resume.txtar", "# finished. An installation does that first, and says so."},
		"install while an update is pending whose installation was cut short":                                             {scripts + "interrupted.txtar", "try ArtifactInstall_Enter install install rollback"},
		"the boot loader went back while a commit had begun":                                                              {"internal/install/interrupted_test.go", "func TestInterrupted("},
		"`rollback` after `rollback --stop-before ArtifactFailure_Enter` or `Cleanup`":                                    {scripts + "interrupted.txtar", "'resume --stop-before ArtifactFailure_Enter' rollback"},
		"install where the boot environment names the other slot, or says that a trial is open, and no update is pending": {scripts + "environment.txtar", "# It names the other slot, and no trial explains it"},
		"boot environment that cannot be read, or a root partition that is not there":                                     {scripts + "module-alone.txtar", "# The environment is gone while an update waits for its end."},
		"update module that answers `ProvidePayloadFileSizes` with garbage or a failure":                                  {"internal/install/module/module_test.go", "func TestDownloadOfOldModules("},
		"working directory of state scripts":                                                                              {scripts + "script-places.txtar", "# arguments, in /, with nothing to read"},
		"output of state scripts and modules":                                                                             {"internal/runner/runner_test.go", "func TestRunKeepsTheEndOfTheOutput("},
		"`--log-file` that is there":                                                                                      {scripts + "commands.txtar", "install /none-either.mender"},
		"killed in ArtifactFailure of a slot's rollback":                                                                  {scripts + "interrupted.txtar", "ArtifactFailure_Enter, install rollback resume: 0 137 1, release-1"},
	}
}

// TestEveryDifference: each row of the page's table is tried by
// TestDifferences, or has a proof elsewhere, which is there.
func TestEveryDifference(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "\n## Where it differs on purpose\n")
	table, _, ok2 := strings.Cut(table, "\n## ")
	if !ok || !ok2 {
		t.Fatal("the page has no table of differences")
	}
	tried := map[string]bool{}
	for _, d := range differences() {
		tried[d.situation] = true
	}
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		row, isRow := strings.CutPrefix(cells[0], "| ")
		if !isRow || row == "situation" {
			continue
		}
		rows[row] = true
		if _, proven := elsewhere()[row]; proven == tried[row] {
			t.Errorf("row %q: tried here: %v, proof elsewhere: %v; want one of them", row, tried[row], proven)
		}
	}
	for row, p := range elsewhere() {
		if !rows[row] {
			t.Errorf("there is a proof of %q, which is no row", row)
		}
		content, err := os.ReadFile(filepath.Join("../..", p.file))
		if err != nil || !strings.Contains(string(content), p.line) {
			t.Errorf("row %q: %s has no %q: %v", row, p.file, p.line, err)
		}
	}
}
