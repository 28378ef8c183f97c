package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usb-updater/usb-updater/test/simscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"usb-updater": main})
}

func TestScript(t *testing.T) { simscript.Run(t, "testdata/script") }
