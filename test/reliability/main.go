// Command reliability writes RELIABILITY.md from what test runs have recorded:
// the results of test/power, and the output of the tests that cut the power in
// models, end the programs at their system calls, and fuzz the parsers.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

//go:embed page.md
var page string

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "reliability:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("reliability", flag.ContinueOnError)
	resultsPath := f.String("results", "test/reliability/results.jsonl", "results of test/power")
	modelsPath := f.String("powercut", ".cache/power/powercut.log", "output of make test-powercut")
	killPath := f.String("kill", ".cache/power/kill.log", "output of go test -v of test/kill")
	fuzzPath := f.String("fuzz", ".cache/power/fuzz.log", "output of make fuzz")
	if err := f.Parse(args); err != nil {
		return err
	}
	p := newPower()
	if err := eachLine(*resultsPath, p.line); err != nil {
		return err
	}
	var models models
	var kill killed
	var fuzz fuzzed
	err := errors.Join(optional(*modelsPath, models.line), optional(*killPath, kill.line), optional(*fuzzPath, fuzz.line))
	if err != nil {
		return err
	}
	t, err := template.New("page").Funcs(template.FuncMap{"bound": bound}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(out, map[string]any{"Power": p, "Models": &models, "Kill": kill, "Fuzz": fuzz})
}

// bound is the rate that n trials without an event leave possible, at 95 %
// confidence (source: the rule of three).
func bound(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("1 in %d", n/3)
}

func eachLine(path string, do func(string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if err := do(lines.Text()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return lines.Err()
}

// optional is eachLine for a file that need not be there.
func optional(path string, do func(string) error) error {
	err := eachLine(path, do)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// model is what one test has found that cuts the power in a model.
type model struct{ Test, Words string }

// table is a table that such a test has printed.
type table struct {
	Title string
	Rows  []string
}

// models reads the output of go test -v: its tests log their sums and tables.
type models struct {
	Rows   []model
	Tables []*table
	test   string
	open   bool // the last table goes on
}

var (
	running = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(\S+)`)
	logged  = regexp.MustCompile(`^ +\w+_test\.go:\d+: (.*)`)
)

const tableIndent = "        " // of what go test -v prints behind the first line of a log

func (m *models) line(text string) error {
	if found := running.FindStringSubmatch(text); found != nil {
		m.test = found[1]
	}
	found := logged.FindStringSubmatch(text)
	switch {
	case found == nil && m.open && strings.HasPrefix(text, tableIndent) && strings.TrimSpace(text) != "":
		t := m.Tables[len(m.Tables)-1]
		t.Rows = append(t.Rows, text[len(tableIndent):])
		return nil
	case found == nil:
	case strings.ContainsAny(found[1], "0123456789"):
		m.Rows = append(m.Rows, model{m.test, strings.Join(strings.Fields(strings.ReplaceAll(found[1], "|", "/")), " ")})
	default:
		m.Tables = append(m.Tables, &table{Title: found[1]})
	}
	m.open = found != nil && !strings.ContainsAny(found[1], "0123456789")
	return nil
}

// killed reads the output of the tests that end the programs at system calls.
type killed struct {
	Points    int
	Scenarios []string
	test      string
}

var (
	points   = regexp.MustCompile(`_test\.go:\d+: (\d+) points`)
	scenario = regexp.MustCompile(`_test\.go:\d+: (\d+ writes\b.*; killed: .*)`)
)

func (k *killed) line(text string) error {
	if found := points.FindStringSubmatch(text); found != nil {
		n, err := strconv.Atoi(found[1])
		k.Points += n
		return err
	}
	if found := running.FindStringSubmatch(text); found != nil {
		k.test = found[1][strings.LastIndex(found[1], "/")+1:]
	}
	if found := scenario.FindStringSubmatch(text); found != nil {
		k.Scenarios = append(k.Scenarios, strings.ReplaceAll(k.test, "_", " ")+": "+found[1])
	}
	return nil
}

// fuzzed reads the output of test/fuzz-all.
type fuzzed struct {
	Targets, Execs, Seconds int
	Failed                  []string
}

var (
	executed = regexp.MustCompile(`^fuzz-all: (\S+ \S+): execs: (\d+) in (\d+) s`)
	failing  = regexp.MustCompile(`^fuzz-all: (.*) failed$`)
)

func (f *fuzzed) line(text string) error {
	if found := failing.FindStringSubmatch(text); found != nil && !slices.Contains(f.Failed, found[1]) {
		f.Failed = append(f.Failed, found[1])
	}
	found := executed.FindStringSubmatch(text)
	if found == nil {
		return nil
	}
	execs, err := strconv.Atoi(found[2])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(found[3])
	f.Targets, f.Execs, f.Seconds = f.Targets+1, f.Execs+execs, f.Seconds+seconds
	return err
}

// decode reads one result. Members that are not used here are ignored.
func decode(text string) (result, error) {
	var r result
	err := json.Unmarshal([]byte(text), &r)
	return r, err
}
