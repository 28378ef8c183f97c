package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	results := write("results", `{"kind":"trace","seed":7,"commit":"abc","entries":703,"trace":{"states":1939,"unique":288,"moments":{"arm":4,"write":36}}}
{"kind":"round","seed":7,"commit":"abc","number":0,"stage":"arm","loss":"torn","boots":1,"outcome":"new","next":true}
{"kind":"round","seed":7,"commit":"abc","number":1,"stage":"arm","loss":"kept","boots":2,"outcome":"old","violations":["it does not come up"]}
{"kind":"pull","seed":8,"commit":"abc","stage":"write","outcome":"old"}
{"kind":"fault","seed":9,"commit":"abc","fault":"writes of data fail","outcome":"new"}
{"kind":"trace","seed":7,"bug":"arm-first","trace":{"states":10,"violations":{"slot B boots and is not whole":4}}}
`)
	powercut := write("powercut", "=== RUN   TestPowerCut\n    powercut_test.go:91: power cuts: 70, old: 60 | new: 10\n    uboot_test.go:5: power cuts, U-Boot environment\n        protocol   states\n        two phases 71\n        \n--- PASS: TestPowerCut (0.1s)\n")
	kill := write("kill", "=== RUN   TestKill/scenes/module,_install\n    kill_test.go:104: 20 writes: map[fsync:20]; killed: map[old:19 new:1]\n    kill_test.go:106: 326 points\n")
	fuzz := write("fuzz", "fuzz-all: artifact FuzzTar: execs: 100 in 10 s\nfuzz-all: xz FuzzX: execs: 50 in 5 s\nfuzz-all: 2 targets, 10s each\n")
	var out strings.Builder
	if err := run([]string{"-results", results, "-powercut", powercut, "-kill", kill, "-fuzz", fuzz}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 1939, of which 288 differ in what matters | 0 |",
		"| the device really started after the cut | 2 | 1 |",
		"| arm | 4 | 2 | 1 | 1 | 1 |",
		"1 boot(s) 1; 2 boot(s) 1;",
		"| write | 1 | 1 | 0 | 0 |",
		"| 1 | 0 | 1 | 0 | 0 |",
		"| arm-first | 10 | 4 | slot B boots and is not whole |",
		"| TestPowerCut | power cuts: 70, old: 60 / new: 10 |",
		"```\npower cuts, U-Boot environment\nprotocol   states\ntwo phases 71\n```\n",
		"SIGKILL at 326 points",
		"* module, install: 20 writes: map[fsync:20]; killed: map[old:19 new:1]",
		"2 targets, 150 inputs in 15 processor seconds; findings: 0",
		"| 7 | abc | 2 | 0 | 0 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if err := run([]string{"-results", write("broken", "{")}, &out); err == nil {
		t.Error("a broken record is no error")
	}
	if err := run([]string{"-results", filepath.Join(dir, "none")}, &out); err == nil {
		t.Error("no record is no error")
	}
}
