//go:build device

package device

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// onDevice runs a program where the appliance in $DEVICE is the machine, so
// that a command line needs no options to find it.
const onDevice = `
mount -t tmpfs none /var/lib
mkdir /var/lib/mender
mount --bind $DEVICE /var/lib/mender
mount --bind $DEVICE/v3 /usr/share/mender/modules/v3
mount --bind $DEVICE/etc /etc/mender
` + runArguments

// claim is a row of the compatibility page: what a command line comes to here,
// and with the clients.
type claim struct {
	line         string
	ours, v3, v5 string
}

func claims(t *testing.T) []claim {
	t.Helper()
	b, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []claim
	row := regexp.MustCompile("(?m)^\\| (works|refused) \\| `mender ?([^`]*)` \\| ([^|]+) \\| ([^|]+) \\|")
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		rows = append(rows, claim{m[2], m[1], m[3], m[4]})
	}
	const least = 60
	if len(rows) < least {
		t.Fatalf("the page has %d command lines, want at least %d: the test does not find them", len(rows), least)
	}
	return rows
}

// managedVerbs need a server. Of a client that has them only its help is asked
// for.
var managedVerbs = []string{"daemon", "bootstrap", "check-update", "send-inventory", "setup", "snapshot"}

// TestCompatibilityPage holds the tables of command lines against our program
// and against Debian's mender-client; and, if MENDER_UPDATE names one, against
// the mender-update of generation 5. Each line runs on a device of its own.
func TestCompatibilityPage(t *testing.T) {
	need(t, "unshare", client)
	t.Setenv("NO_PROXY", "*")
	peers := []struct {
		name, program string
		word          func(claim) string
	}{
		{"ours", filepath.Join(programs(t), "mender"), func(c claim) string { return c.ours }},
		{"3.x", client, func(c claim) string { return c.v3 }},
		{"5.x", os.Getenv("MENDER_UPDATE"), func(c claim) string { return c.v5 }},
	}
	artifact := filepath.Join(t.TempDir(), "update.mender")
	write(t, artifact, artifacttest.Spec{
		Name: "app-2", DeviceTypes: []string{deviceType}, PayloadType: "app",
		Files: []artifacttest.File{artifacttest.Bytes("app", bytes.Repeat([]byte("text"), 4096))},
	})
	for _, peer := range peers {
		if peer.program == "" {
			continue // nobody packages it: it can be had by hand only
		}
		t.Run(peer.name, func(t *testing.T) {
			for _, c := range claims(t) {
				checkClaim(t, peer.program, artifact, c.line, peer.word(c))
			}
		})
	}
}

// checkClaim runs one command line, on a device with nothing pending and a
// module that wants a reboot and can roll back.
func checkClaim(t *testing.T, program, artifact, line, word string) {
	t.Helper()
	a := newAppliance(t)
	a.around = onDevice
	t.Setenv("DEVICE", a.dir)
	module := "#!/bin/sh\ncase $1 in SupportsRollback|NeedsArtifactReboot) echo Yes;; esac\n"
	if err := os.Chmod(a.put("v3/app", module), 0o755); err != nil {
		t.Fatal(err)
	}
	a.put("etc/mender.conf", "{}")
	a.put("etc/artifact_info", "artifact_name=factory\n")
	a.put("etc/server.pem", certificate())
	args := a.words(line, artifact)
	if len(args) > 0 && slices.Contains(managedVerbs, args[0]) && word == "works" {
		args = []string{args[0], "--help"}
	}
	code, out := a.run(program, args...)
	if want := codes(args, word); !slices.Contains(want, code) {
		t.Errorf("mender %s: exit status %d, the page says %q: want one of %v\n%s", line, code, word, want, out)
	}
	if word == "prints help" && !strings.Contains(out, "rollback") {
		t.Errorf("mender %s: no help:\n%s", line, out)
	}
}

// codes are the exit codes that a word of the page stands for.
func codes(args []string, word string) []int {
	switch word {
	case "refused":
		return []int{1}
	case "–", "2.x": // not known, as a command or as an option
		return []int{1, 3}
	case "exit code 3":
		return []int{3}
	case "prints help", "ignores the second", "without effect":
		return []int{0}
	case "works":
		verb := func(names ...string) bool {
			return slices.ContainsFunc(args, func(a string) bool { return slices.Contains(names, strings.TrimLeft(a, "-")) })
		}
		switch {
		case verb("help", "h", "version", "v"):
			return []int{0}
		case verb("commit", "rollback", "resume"): // nothing is pending
			return []int{2}
		case verb("reboot-exit-code"):
			return []int{4}
		default:
			return []int{0}
		}
	}
	return nil
}

// words turns a row's command line into one that can be run: FILE and the like
// become what the word before them asks for.
func (a *appliance) words(line, artifact string) []string {
	a.t.Helper()
	words := strings.Fields(line)
	for i, w := range words {
		before := ""
		if i > 0 {
			before = strings.TrimLeft(words[i-1], "-")
		}
		switch {
		case w == "http://host/FILE":
			s := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(artifact))))
			a.t.Cleanup(s.Close)
			words[i] = s.URL + "/" + filepath.Base(artifact)
		case w == "DIR" && before == "root":
			words[i] = "/"
		case w == "DIR":
			words[i] = "/var/lib/mender"
		case w == "FILE" && slices.Contains([]string{"config", "c", "fallback-config", "b"}, before):
			words[i] = "/etc/mender/mender.conf"
		case w == "FILE" && slices.Contains([]string{"log-file", "L", "passphrase-file"}, before):
			words[i] = a.put("scratch", "")
		case w == "FILE" && slices.Contains([]string{"trusted-certs", "E"}, before):
			words[i] = "/etc/mender/server.pem"
		case w == "FILE":
			words[i] = artifact
		}
	}
	return words
}

// certificate is one in PEM, of a server that nobody asks.
func certificate() string {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
