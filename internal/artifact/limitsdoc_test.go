package artifact

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestLimitsAreDocumented: docs/design/artifact.md has each limit with the
// value that is in force.
func TestLimitsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/design/artifact.md")
	if err != nil {
		t.Fatal(err)
	}
	size := func(n int64) string {
		if n >= 1<<20 {
			return fmt.Sprintf("%d MiB", n>>20)
		}
		return fmt.Sprintf("%d KiB", n>>10)
	}
	for what, limit := range map[string]string{
		"`version`":                        size(maxVersionSize),
		"`manifest`":                       size(maxManifestSize),
		"`manifest.sig`":                   size(maxSignatureSize),
		"header archive as stored":         size(maxHeaderStored),
		"header archive decompressed":      size(maxHeaderPlain),
		"one JSON document":                size(maxJSONSize),
		"nesting of JSON":                  fmt.Sprint(maxJSONDepth, " levels"),
		"values in one JSON document":      fmt.Sprint(maxJSONValues),
		"`meta-data`":                      size(maxMetaDataSize),
		"one state script":                 size(maxScriptSize),
		"all state scripts":                size(maxScriptsSize),
		"state scripts":                    fmt.Sprint(maxScripts),
		"files of a payload":               fmt.Sprint(maxFiles),
		"device types":                     fmt.Sprint(maxDeviceTypes),
		"a name":                           fmt.Sprint(maxNameSize, " bytes"),
		"an extended (PAX) header":         size(maxPAXSize),
		"xz dictionary, zstd window":       size(DefaultMaxWindow),
		"compressed bytes without content": size(maxIdleInput),
		"the same, in an xz index":         size(maxIdleInputXZ),
	} {
		row := fmt.Sprintf("| %s | %s |", what, limit)
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/design/artifact.md has no row %q", row)
		}
	}
}
