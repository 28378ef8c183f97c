package simscript

import (
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdSpoilEnv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(of(ts).device.SpoilEnv(args[0]))
}

func cmdFillEnv(ts *testscript.TestScript, _ bool, args []string) {
	free, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(of(ts).device.FillEnv(free))
}
