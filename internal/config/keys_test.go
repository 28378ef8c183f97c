package config

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestMenderKeysAreTyped gives every key that is read a value of each JSON type.
// Those of its own type are taken, the others get one line that names file, line,
// key and type. A key of either letter case is the same key.
func TestMenderKeysAreTyped(t *testing.T) {
	values := map[string]any{
		"string": "x", "number": 7, "fraction": 1.5, "bool": true, "array of strings": []string{"x"},
		"array of numbers": []int{1}, "object": map[string]any{"Certificate": "c"}, "null": nil,
	}
	takes := map[string][]string{
		"string": {"string", "null"}, "int": {"number", "null"}, "bool": {"bool", "null"},
		"[]string": {"array of strings", "null"}, "config.HTTPSClient": {"object", "null"},
	}
	keys, path := reflect.TypeFor[Mender](), file(t, "")
	for key := range keys.Fields() {
		for kind, value := range values {
			for _, name := range []string{key.Name, strings.ToLower(key.Name), strings.ToUpper(key.Name)} {
				content, err := json.Marshal(map[string]any{name: value})
				if err != nil {
					t.Fatal(err)
				}
				var m Mender
				if err := os.WriteFile(path, append([]byte("\n"), content...), 0o600); err != nil {
					t.Fatal(err)
				}
				err = decodeFile(path, true, false, &m)
				taken := false
				for _, k := range takes[key.Type.String()] {
					taken = taken || k == kind
				}
				if taken != (err == nil) {
					t.Errorf("%s = %s: error %v, taken: %v", content, kind, err, taken)
				}
				want := fmt.Sprintf("configuration %s: line 2: %q is ", path, key.Name)
				if err != nil && strings.ContainsAny(err.Error(), "[]") || strings.Contains(fmt.Sprint(err), "config.") {
					t.Errorf("%s: error %q has a type of the program's in it", content, err)
				}
				if err != nil && (!strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%s: error %q, want %q at its begin", content, err, want)
				}
				if kind != "null" && taken && reflect.ValueOf(m).FieldByIndex(key.Index).IsZero() {
					t.Errorf("%s: value %+v", content, reflect.ValueOf(m).FieldByIndex(key.Index))
				}
			}
		}
	}
}

// TestForeignKeysAreTolerated: what a server would need may have any type, and
// null is no value.
func TestForeignKeysAreTolerated(t *testing.T) {
	for _, key := range []string{
		"ClientProtocol", "Connectivity", "DBus", "DeviceTier", "InventoryPollIntervalSeconds",
		"RetryPollCount", "RetryPollIntervalSeconds", "Security", "ServerURL", "Servers", "TenantToken",
		"UpdateControlMapBootExpirationTimeSeconds", "UpdateControlMapExpirationTimeSeconds", "UpdateLogPath",
		"UpdatePollIntervalSeconds", "SomethingNew",
	} {
		for _, value := range []string{`"x"`, "1", "true", "null", "[{}]", `{"a": [1]}`} {
			if _, err := LoadMender(Files{Main: file(t, fmt.Sprintf(`{%q: %s}`, key, value))}); err != nil {
				t.Errorf("LoadMender(%s: %s): %v", key, value, err)
			}
		}
	}
}
