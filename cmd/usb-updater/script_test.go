package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usb-updater/usb-updater/test/simscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"usb-updater": main, probeName: probeConfinement})
}

func TestScript(t *testing.T) { simscript.Run(t, "testdata/script") }

// probeName is the command of TestInspectorIsConfined.
const probeName = "probe-confinement"
