package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/usb-updater/usb-updater/internal/install"
)

// command is what the user wants done.
type command string

const (
	cmdInstall      command = "install"
	cmdCommit       command = "commit"
	cmdRollback     command = "rollback"
	cmdResume       command = "resume"
	cmdShowArtifact command = "show-artifact"
	cmdShowProvides command = "show-provides"
	cmdHelp         command = "help"
	cmdVersion      command = "version"
)

// commands are the words that name a command, in any of Mender's dialects.
var commands = map[string]command{
	"install": cmdInstall, "rootfs": cmdInstall,
	"commit": cmdCommit, "rollback": cmdRollback, "resume": cmdResume,
	"show-artifact": cmdShowArtifact, "show-provides": cmdShowProvides,
	"help": cmdHelp, "h": cmdHelp, "version": cmdVersion,
}

// managed are commands that need a Mender server. They are known, so that the
// refusal can say why.
var managed = []string{"daemon", "bootstrap", "setup", "snapshot", "check-update", "send-inventory"}

// options are the parsed arguments.
type options struct {
	command        command
	args           []string
	config         string
	fallbackConfig string
	data           string
	root           string
	logFile        string
	logLevel       string
	rebootExitCode bool
	stopBefore     []string
	trustedCerts   string
	skipVerify     bool
	progress       string
}

// flag describes an option of the command line.
type flag struct {
	long, short string
	value       func(*options, string) // set if the option takes a value
	set         func(*options)         // set if it does not
}

func ignore(*options, string) {}

func flags() []flag {
	return []flag{
		{"config", "c", func(o *options, v string) { o.config = v }, nil},
		{"fallback-config", "b", func(o *options, v string) { o.fallbackConfig = v }, nil},
		{"data", "d", func(o *options, v string) { o.data = v }, nil},
		{"datastore", "", func(o *options, v string) { o.data = v }, nil},
		{"root", "", func(o *options, v string) { o.root = v }, nil},
		{"log-file", "L", func(o *options, v string) { o.logFile = v }, nil},
		{"log-level", "l", func(o *options, v string) { o.logLevel = v }, nil},
		{"log-modules", "", ignore, nil},
		{"trusted-certs", "E", func(o *options, v string) { o.trustedCerts = v }, nil},
		{"passphrase-file", "", ignore, nil},
		{"skipverify", "", nil, func(o *options) { o.skipVerify = true }},
		{"no-syslog", "", nil, func(*options) {}},
		{"forcebootstrap", "F", nil, func(*options) {}},
		{"info", "", nil, func(o *options) { o.logLevel = "info" }},
		{"debug", "", nil, func(o *options) { o.logLevel = "debug" }},
		{"progress", "", func(o *options, v string) { o.progress = v }, nil},
		{"reboot-exit-code", "", nil, func(o *options) { o.rebootExitCode = true }},
		{"stop-before", "", func(o *options, v string) { o.stopBefore = append(o.stopBefore, v) }, nil},
		{"help", "h", nil, func(o *options) { o.command = cmdHelp }},
		{"version", "v", nil, func(o *options) { o.command = cmdVersion }},
	}
}

// usageError is a mistake on the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// parse reads the command line in every dialect of Mender's clients: commands
// with no, one or two dashes, options with one or two, in any order.
func parse(args []string) (options, error) {
	var o options
	if len(args) == 0 {
		o.command = cmdHelp
		return o, nil
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" { // what follows is no option, whatever it looks like
			if o.command == "" && len(args) > 0 {
				if err := o.setCommand(args[0]); err != nil {
					return o, err
				}
				args = args[1:]
			}
			o.args = append(o.args, args...)
			break
		}
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		dashed := name != arg && name != ""
		switch {
		case !dashed && o.command == "":
			if err := o.setCommand(arg); err != nil {
				return o, err
			}
		case !dashed:
			o.args = append(o.args, arg)
		default:
			rest, err := o.parseDashed(name, arg, args)
			if err != nil {
				return o, err
			}
			args = rest
		}
	}
	return o, o.check()
}

// parseDashed handles one argument that begins with a dash, and returns the
// arguments behind it and its value.
func (o *options) parseDashed(name, arg string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(name, "=")
	if name == "" { // not the short name of an option that has none
		return nil, usageError(fmt.Sprintf("unknown option %.64q", arg))
	}
	for _, f := range flags() {
		if name != f.long && name != f.short {
			continue
		}
		if f.set != nil {
			on, err := true, error(nil)
			if hasValue { // --skipverify=true, as Go's flag package allows
				on, err = strconv.ParseBool(value)
			}
			if err != nil {
				return nil, usageError(fmt.Sprintf("option %s: its value is neither true nor false", arg))
			}
			if on {
				f.set(o)
			}
			return rest, nil
		}
		if !hasValue {
			if len(rest) == 0 {
				return nil, usageError(fmt.Sprintf("option %s needs a value", arg))
			}
			value, rest = rest[0], rest[1:]
		}
		if value == "" { // a shell variable that is not set must not stand for the real device
			return nil, usageError(fmt.Sprintf("option %s: its value is empty", arg))
		}
		f.value(o, value)
		return rest, nil
	}
	_, known := commands[name]
	if !known && !slices.Contains(managed, name) {
		return nil, usageError(fmt.Sprintf("unknown option %.64q", arg))
	}
	if o.command == cmdHelp || o.command == cmdVersion {
		return rest, nil
	}
	if o.command != "" {
		return nil, usageError(fmt.Sprintf("%s: there is a command already: %s", arg, o.command))
	}
	if hasValue { // -install=FILE, as Go's flag package allows
		o.args = append(o.args, value)
	}
	return rest, o.setCommand(name)
}

func (o *options) setCommand(name string) error {
	if c, ok := commands[name]; ok {
		o.command = c
		return nil
	}
	if slices.Contains(managed, name) {
		return usageError(fmt.Sprintf("%s: managed mode is not supported by this program: it updates without a server", name))
	}
	return usageError(fmt.Sprintf("no help topic for %.64q: it is not a command", name))
}

// progressStyle returns what --progress asks for.
func (o *options) progressStyle() (progressStyle, error) {
	if o.progress == "" {
		return progressAuto, nil
	}
	return parseProgress(o.progress)
}

// checkScope refuses an option that the command has no use for: whoever gives it
// expects something of it.
func (o *options) checkScope() error {
	for _, scope := range []struct {
		given  bool
		option string
		to     []command
	}{
		{o.rebootExitCode, "--reboot-exit-code", []command{cmdInstall, cmdResume}},
		{o.progress != "", "--progress", []command{cmdInstall, cmdResume}},
		{len(o.stopBefore) > 0, "--stop-before", []command{cmdInstall, cmdCommit, cmdRollback, cmdResume}},
	} {
		if scope.given && !slices.Contains(append(scope.to, cmdHelp, cmdVersion), o.command) {
			return usageError(fmt.Sprintf("%s has no option %s", o.command, scope.option))
		}
	}
	return nil
}

func (o *options) check() error {
	if _, err := o.progressStyle(); err != nil {
		return err
	}
	if o.command == "" {
		return usageError("no command given")
	}
	if err := o.checkScope(); err != nil {
		return err
	}
	for _, s := range o.stopBefore {
		if !slices.Contains(install.StopStates(), s) {
			return usageError(fmt.Sprintf("cannot stop before unsupported state %.64q: want one of %s", s, strings.Join(install.StopStates(), ", ")))
		}
	}
	want := 0
	if o.command == cmdInstall {
		want = 1
	}
	switch {
	case o.command == cmdHelp, o.command == cmdVersion:
	case len(o.args) < want:
		return usageError("install needs one artifact: a file name or a URL")
	case len(o.args) > want:
		return usageError(fmt.Sprintf("ambiguous arguments given - unrecognized argument: %.64q", o.args[want]))
	}
	return nil
}
