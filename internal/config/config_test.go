package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case want != "" && err == nil:
		t.Errorf("no error, want one with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error %q, want %q in it", err, want)
	}
}

func TestLoadMenderMerges(t *testing.T) {
	m, err := LoadMender(Files{
		Main:     file(t, "\xef\xbb\xbf"+`{"rootfsparta": "/dev/a", "ServerURL": "https://x", "Servers": [1, {}]}`),
		Fallback: file(t, `{"RootfsPartA": "/dev/other", "RootfsPartB": "/dev/b", "StateScriptTimeoutSeconds": 5}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Mender{RootfsPartA: "/dev/a", RootfsPartB: "/dev/b", StateScriptTimeoutSeconds: 5}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("LoadMender (-want +got):\n%s", diff)
	}
	if got := m.ScriptTimeout(); got != 5*time.Second {
		t.Errorf("ScriptTimeout = %v, want 5s", got)
	}
	if got := m.ScriptRetryInterval(); got != time.Minute {
		t.Errorf("ScriptRetryInterval = %v, want Mender's default of 1m", got)
	}
}

func TestLoadMenderErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	tests := []struct {
		name  string
		files Files
		want  string
	}{
		{"both missing", Files{Main: missing, Fallback: missing}, ""},
		{"asked for and missing", Files{Main: missing, MainRequired: true}, missing},
		{"broken", Files{Main: file(t, "{\n\"RootfsPartA\": \n}")}, "line 3"},
		{"cut", Files{Main: file(t, "{\n\"RootfsPartA\": \"x\"\n")}, "ends before"},
		{"wrong type", Files{Main: file(t, `{"RootfsPartA": 7}`)}, `"RootfsPartA" is a number, want a string`},
		{"no object", Files{Main: file(t, `[]`)}, "line 1: the file is a list, want an object"},
		{"no object inside", Files{Main: file(t, `{"HttpsClient": [1]}`)}, `"HttpsClient" is a list, want an object`},
		{"no list", Files{Main: file(t, `{"ArtifactVerifyKeys": {}}`)}, `"ArtifactVerifyKeys" is an object, want a list`},
		{"no string in a list", Files{Main: file(t, `{"ArtifactVerifyKeys": [true]}`)}, `"ArtifactVerifyKeys" is true or false, want a string`},
		{"fraction", Files{Main: file(t, `{"ModuleTimeoutSeconds": 1.5}`)}, `"ModuleTimeoutSeconds" is a number 1.5, want a whole number`},
		{"log level", Files{Main: file(t, `{"DaemonLogLevel": 7}`)}, `"DaemonLogLevel" is a number, want a string`},
		{"trailing", Files{Main: file(t, `{} {}`)}, "something follows"},
		{"both kinds of keys", Files{Main: file(t, `{"ArtifactVerifyKey": "a", "ArtifactVerifyKeys": ["b"]}`)}, "use one"},
		{"negative", Files{Main: file(t, `{"StateScriptTimeoutSeconds": -1}`)}, "negative"},
		{"negative count", Files{Main: file(t, `{"RetryDownloadCount": -1}`)}, "negative"},
		{"not a switch", Files{Main: file(t, `{"SkipVerify": "no"}`)}, `"SkipVerify" is a string, want true or false`},
		{"boot utilities", Files{Main: file(t, `{"BootUtilitiesSetActivePart": "x"}`)}, "set both"},
		{"both boot utilities", Files{Main: file(t, `{"BootUtilitiesSetActivePart": "x", "BootUtilitiesGetNextActivePart": "y"}`)}, ""},
		{"too large", Files{Main: file(t, strings.Repeat(" ", maxFile+1))}, "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadMender(tt.files)
			wantError(t, err, tt.want)
		})
	}
}

func TestHTTPSClient(t *testing.T) {
	m, err := LoadMender(Files{Main: file(t, `{"ServerCertificate": "s", "SkipVerify": true, "RetryDownloadCount": 3,
		"HttpsClient": {"Certificate": "c", "Key": "k"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	want := Mender{ServerCertificate: "s", SkipVerify: true, RetryDownloadCount: 3, HttpsClient: HTTPSClient{Certificate: "c", Key: "k"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("LoadMender (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		client HTTPSClient
		want   string
	}{
		{HTTPSClient{}, ""},
		{HTTPSClient{Certificate: "c", Key: "k"}, ""},
		{HTTPSClient{Certificate: "c"}, "only one is set"},
		{HTTPSClient{Key: "k"}, "only one is set"},
		{HTTPSClient{Certificate: "c", Key: "k", SSLEngine: "pkcs11"}, `SSLEngine "pkcs11"`},
		{HTTPSClient{Certificate: "c", Key: "PKCS11:object=k;pin-value=1234"}, "PKCS #11"},
	} {
		err := tt.client.Check()
		wantError(t, err, tt.want)
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("error %v tells the PIN", err)
		}
	}
}

// TestSlotsOnVolumes: Mender's users name UBI volumes without a directory.
func TestSlotsOnVolumes(t *testing.T) {
	a, b, err := Mender{RootfsPartA: "ubi0_0", RootfsPartB: "/dev/ubi0_1"}.Slots()
	if a != "/dev/ubi0_0" || b != "/dev/ubi0_1" || err != nil {
		t.Errorf("Slots = %q, %q, %v", a, b, err)
	}
	_, _, err = Mender{RootfsPartA: "ubi0_0", RootfsPartB: "/dev/ubi0_0"}.Slots()
	wantError(t, err, "same value")
}

func TestSlots(t *testing.T) {
	for _, tt := range []struct {
		m    Mender
		want string
	}{
		{Mender{RootfsPartA: "a", RootfsPartB: "b"}, ""},
		{Mender{RootfsPartA: "a"}, "not both set"},
		{Mender{RootfsPartA: "a", RootfsPartB: "a"}, "same value"},
	} {
		_, _, err := tt.m.Slots()
		wantError(t, err, tt.want)
	}
}

func TestLoadAgent(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"empty object", `{}`, ""},
		{"settings", `{"Reboot": "never", "AllowUnsigned": true, "FileSystems": ["ext4"]}`, ""},
		{"unknown key", `{"AllowUnsinged": true}`, "AllowUnsinged"},
		{"reboot", `{"Reboot": "maybe"}`, `"Reboot" is "maybe"`},
		{"attempts", `{"MaxAttempts": 0}`, "MaxAttempts"},
		{"health time", `{"HealthTimeoutSeconds": 0}`, "HealthTimeoutSeconds"},
		{"health time that overflows", `{"HealthTimeoutSeconds": 10000000000}`, `"HealthTimeoutSeconds" is 10000000000, want 1 to 3600`},
		{"boot loader time that overflows", `{"BootLoaderTimeoutSeconds": 10000000000}`, `"BootLoaderTimeoutSeconds" is 10000000000, want 1 to 3600`},
		{"file systems", `{"FileSystems": []}`, "FileSystems"},
		{"health directory", `{"HealthDir": ""}`, "HealthDir"},
		{"health", `{"Health": {"RequiredUnits": ["a.service"], "AllowFailedUnits": [], "Files": [{"Path": "/x", "Contains": "y"}]}}`, ""},
		{"unknown key of health", `{"Health": {"RequiredUnit": ["a.service"]}}`, "RequiredUnit"},
		{"deadline", `{"HealthDeadlineSeconds": -1}`, "HealthDeadlineSeconds"},
		{"settle time", `{"Health": {"SettleSeconds": 3601}}`, "SettleSeconds"},
		{"window", `{"Health": {"StableSeconds": 0}}`, "StableSeconds"},
		{"relative health directory", `{"HealthDir": "health.d"}`, "absolute"},
		{"boot loader", `{"BootLoader": "lilo"}`, `"BootLoader" is "lilo"`},
		{"tryboot", `{"BootLoader": "tryboot", "TrybootFile": "/boot/autoboot.txt", "TrybootPartA": 2, "TrybootPartB": 3}`, ""},
		{"one tryboot partition", `{"TrybootPartA": 2}`, "TrybootPartB"},
		{"same tryboot partition", `{"TrybootPartA": 2, "TrybootPartB": 2}`, "two partition numbers"},
		{"relative tryboot file", `{"TrybootFile": "autoboot.txt"}`, "absolute"},
		{"custom", `{"BootLoader": "custom", "BootLoaderProgram": "/usr/lib/board/slots"}`, ""},
		{"custom without a program", `{"BootLoader": "custom"}`, "BootLoaderProgram"},
		{"program without custom", `{"BootLoaderProgram": "/x"}`, `not "custom"`},
		{"gates", `{"Buses": ["usb", "mmc"], "MinBatteryPercent": 0, "InhibitWaitSeconds": 0, "Confirm": "file", "ConfirmAt": "reboot"}`, ""},
		{"no bus", `{"Buses": []}`, "Buses"},
		{"bus that is a path", `{"Buses": ["usb/1-1"]}`, "Buses"},
		{"battery", `{"MinBatteryPercent": 101}`, "MinBatteryPercent"},
		{"lock time", `{"InhibitWaitSeconds": -1}`, "InhibitWaitSeconds"},
		{"confirm", `{"Confirm": "yes"}`, `"Confirm" is "yes"`},
		{"confirm at", `{"ConfirmAt": "boot"}`, "ConfirmAt"},
		{"confirm time", `{"ConfirmTimeoutSeconds": 0}`, "ConfirmTimeoutSeconds"},
		{"key", `{"Confirm": "key", "ConfirmDevice": "/dev/input/event0", "ConfirmKey": 28}`, ""},
		{"key without a device", `{"Confirm": "key", "ConfirmKey": 28}`, "ConfirmDevice"},
		{"key without a code", `{"Confirm": "key", "ConfirmDevice": "/dev/input/event0"}`, "ConfirmKey"},
		{"verify all", `{"VerifyWritten": "all"}`, ""},
		{"verify", `{"VerifyWritten": "some"}`, `line 1: "VerifyWritten" is neither true, false nor "all"`},
		{"verify number", `{"VerifyWritten": 1}`, `"VerifyWritten" is neither`},
		{"code without a key", `{"ConfirmKey": 28}`, `not "key"`},
		{"boot loader time", `{"BootLoaderTimeoutSeconds": 0}`, "BootLoaderTimeoutSeconds"},
		{"reporting", `{"LED": "usr:status", "LEDSeconds": 0, "Hook": "/usr/lib/board/hook", "WriteReport": true}`, ""},
		{"led is a path", `{"LED": "../leds/x"}`, `"LED" is`},
		{"led time", `{"LEDSeconds": 3601}`, "LEDSeconds"},
		{"relative hook", `{"Hook": "hook"}`, "absolute"},
		{"hook time", `{"HookTimeoutSeconds": 8}`, "HookTimeoutSeconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadAgent(file(t, tt.content), true)
			wantError(t, err, tt.want)
		})
	}
	got, err := LoadAgent(filepath.Join(t.TempDir(), "none"), false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultAgent(), got); diff != "" {
		t.Errorf("no file (-want +got):\n%s", diff)
	}
	if got.VerifyWritten != VerifyChanged || got.AllowUnsigned || got.AllowDowngrade || got.AllowComposite || got.MinBatteryPercent == 0 {
		t.Errorf("defaults are not the safe ones: %+v", got)
	}
}

func TestVerifyWritten(t *testing.T) {
	for value, want := range map[string]Verify{"true": VerifyChanged, "false": VerifyNothing, `"all"`: VerifyAll, "null": VerifyChanged} {
		got, err := LoadAgent(file(t, `{"VerifyWritten": `+value+`}`), true)
		if err != nil || got.VerifyWritten != want {
			t.Errorf("VerifyWritten %s = %q, %v, want %q", value, got.VerifyWritten, err, want)
		}
	}
}

func TestDeviceType(t *testing.T) {
	for _, tt := range []struct{ content, want, err string }{
		{"device_type=board\n", "board", ""},
		{"# comment\n device_type=board", "board", ""},
		{"device_type = board \r\n\r\n", "board", ""},
		{"device_type=a=b\n", "a=b", ""},
		{"device_type=\n", "", "is empty"},
		{"", "", "no such key"},
		{"board\n", "", "not key=value"},
		{"device_type=a\ndevice_type=b\n", "", "given twice"},
	} {
		got, err := DeviceType(file(t, tt.content))
		if got != tt.want {
			t.Errorf("DeviceType(%q) = %q, want %q", tt.content, got, tt.want)
		}
		wantError(t, err, tt.err)
	}
	if _, err := DeviceType(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v, want fs.ErrNotExist", err)
	}
}

func TestArtifactInfo(t *testing.T) {
	for content, want := range map[string]string{"artifact_name=r1\nartifact_group=g\n": "r1", "other=1\n": ""} {
		got, err := ArtifactInfo(file(t, content))
		if err != nil || got != want {
			t.Errorf("ArtifactInfo(%q) = %q, %v, want %q", content, got, err, want)
		}
	}
	if got, err := ArtifactInfo(filepath.Join(t.TempDir(), "none")); got != "" || err != nil {
		t.Errorf("missing file: %q, %v", got, err)
	}
	if _, err := ArtifactInfo(file(t, "junk\n")); err == nil {
		t.Error("junk is accepted")
	}
}

// TestReadsNoPipe: a pipe with a name has no writer and would hold the agent up.
// One that a shell has made has a writer, and a device has an end.
func TestReadsNoPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- decodeFile(pipe, false, true, &Agent{}) }()
	select {
	case err := <-done:
		wantError(t, err, pipe+": is a named pipe")
	case <-time.After(10 * time.Second):
		t.Error("hangs")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		_, _ = w.WriteString(`{"MaxAttempts": 7}`)
		_ = w.Close()
	}()
	var a Agent
	wantError(t, decodeFile(fmt.Sprintf("/dev/fd/%d", r.Fd()), true, true, &a), "")
	if a.MaxAttempts != 7 {
		t.Errorf("MaxAttempts = %d, want 7", a.MaxAttempts)
	}
	wantError(t, decodeFile("/dev/null", true, true, &a), "the file ends before the object does")
}
