package artifact

// Each property that a reader of artifacts must have, with the test that guards
// it. Readers in the field have failed in each of these; where a defect has a
// public number, the test carries it.
//
//	signature and manifest
//	  every byte is covered, or says nothing             TestEveryByteCounts
//	  signature covers the manifest as it is stored      TestSignatureCoversManifestBytes
//	  unsigned parts change nothing                      TestUnsignedPartsAreRefused
//	  unusable key is no license to skip verification    TestUnusableKeyVerifiesNothing
//	  short and odd ECDSA signatures                     TestShortECDSASignature
//	  manifest lists version and header, exactly once    TestManifestIsComplete
//	  payload file outside the manifest                  TestCVE_2025_67903
//	  every file that is listed must be there            TestListedFilesMustBeThere
//	header
//	  refused artifact hands out no script               TestRefusedArtifactHandsOutNothing
//	  script names                                       TestScriptNameTraversal
//	  payload type is a name, not a path                 TestPayloadTypeTraversal
//	  payload file names                                 TestPayloadNameTraversal
//	  one header and one data entry for one payload      TestCountMismatch
//	  type-info cannot widen what header-info allows     TestTypeInfoCannotWiden
//	  empty payload has conditions, too                  TestEmptyPayloadHasConditions
//	  JSON says one thing to all readers                 TestJSONSaysOneThing
//	  names can be stored and printed                    TestNamesArePrintable
//	  legal, but long clears_artifact_provides           TestLongClears
//	  unknown device type matches nothing                TestUnknownDeviceTypeMatchesNothing
//	containers
//	  names of entries are exact                         TestEntryNamesAreExact
//	  regular files only                                 TestRegularFilesOnly
//	  suffix and stream agree, nothing is guessed        TestSuffixDecides
//	  everything is read to its end                      TestReadToTheEnd
//	robustness
//	  root file system has one file with content         TestRootfsHasContent
//	  what can be known early is refused early           TestRefusedBeforeFirstByte
//	  odd documents and parts are errors, not crashes    TestOddPartsAreErrors
//	  hostile sizes cost no memory                       TestHostileSizesCostNoMemory

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// runSigned is runDamage for artifacts that carry a good signature of the
// configured key, unless spoil says otherwise: it is not the signature that
// refuses them.
func runSigned(t *testing.T, cases []damage) {
	t.Helper()
	for i, c := range cases {
		cases[i].spoil = func(p *parts) { p.sign = signed(signRaw); c.spoil(p) }
	}
	runDamage(t, cases, signedOnly(t))
}

// signedOnly demands a signature of the ECDSA test key.
func signedOnly(t *testing.T) Options {
	t.Helper()
	return Options{Keys: []*Key{mustParseKey(t, "ec", &testKeys().ecdsa.PublicKey)}}
}

// insertOuter puts an entry before the outer entry number at, of the four with
// manifest.sig: the signature stays good.
func insertOuter(at int, e ...entry) func(*parts) {
	return outer(func(l []entry) []entry { return slices.Insert(l, at, e...) })
}

func insertHeader(at int, e entry) func(*parts) {
	return func(p *parts) { p.header = slices.Insert(p.header, at, e) }
}

// appendData puts entries behind the payload file.
func appendData(e ...entry) func(*parts) {
	return func(p *parts) { p.data = func(l []entry) []entry { return append(l, e...) } }
}

// TestSignatureCoversManifestBytes adds to a manifest, after it was signed, what
// a reader that parses it first would not notice.
func TestSignatureCoversManifestBytes(t *testing.T) {
	edit := func(f func(string) string) func(*parts) {
		return outer(func(l []entry) []entry { l[1].data = []byte(f(string(l[1].data))); return l })
	}
	for _, c := range []struct {
		name string
		edit func(string) string
		kind Kind
	}{
		{"blank line", func(s string) string { return s + "\n" }, Format},
		{"blanks", func(s string) string { return strings.ReplaceAll(s, "  ", "   ") }, Format},
		{"blank at the end", func(s string) string { return strings.Replace(s, "\n", " \n", 1) }, Format},
		{"no last newline", func(s string) string { return strings.TrimSuffix(s, "\n") }, Format},
		{"carriage return", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }, Format},
		{"upper case", func(s string) string { return strings.ToUpper(s[:64]) + s[64:] }, Format},
		{"other order", func(s string) string {
			l := strings.SplitAfter(s, "\n")
			return l[1] + l[0] + l[2]
		}, Signature},
		{"other name", func(s string) string { return strings.Replace(s, "rootfs", "Rootfs", 1) }, Signature},
		{"one line more", func(s string) string { return s[:66] + "data/0000/b\n" + s }, Signature},
	} {
		runSigned(t, []damage{{name: c.name, spoil: edit(c.edit), kind: c.kind}})
	}
}

// TestUnsignedPartsAreRefused adds the parts that a signature does not cover to
// a signed artifact.
func TestUnsignedPartsAreRefused(t *testing.T) {
	manifest := entry{name: "manifest-augment", data: []byte(strings.Repeat("0", 64) + "  header-augment.tar.gz\n")}
	header := entry{name: "header-augment.tar.gz", data: pack(tarOf([]entry{{name: nameHeaderInfo, data: []byte(`{"payloads":[{"type":"rootfs-image"}]}`)}}), ".gz")}
	var cases []damage
	for name, make := range map[string]func() *parts{"rootfs": rootfsParts, "module": moduleParts, "empty": emptyParts, "v2": v2Parts} {
		cases = append(cases,
			damage{name: name + "/manifest", make: make, spoil: insertOuter(3, manifest), kind: Unsupported, want: "augmented"},
			damage{name: name + "/header", make: make, spoil: insertOuter(4, header), kind: Unsupported, want: "augmented"},
			damage{name: name + "/both", make: make, spoil: func(p *parts) {
				p.outer = func(l []entry) []entry { return slices.Insert(slices.Insert(l, 4, header), 3, manifest) }
			}, kind: Unsupported, want: "augmented"})
	}
	runSigned(t, cases)
	// Before the signature they are just as wrong.
	runSigned(t, []damage{{name: "early", spoil: insertOuter(2, manifest), kind: Signature}})
}

// TestUnusableKeyVerifiesNothing has keys that could not be read: they are an
// error, and if that is ignored they do not verify.
func TestUnusableKeyVerifiesNothing(t *testing.T) {
	for _, text := range []string{"", "garbage", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"} {
		k, err := ParseKey("k", []byte(text))
		if k != nil || err == nil {
			t.Errorf("ParseKey(%q) = %v, %v, want an error", text, k, err)
		}
		for _, sign := range []func([]byte) []byte{nil, signed(signRaw), signed(signRSA)} {
			p := rootfsParts()
			p.sign = sign
			if _, err := Open(bytes.NewReader(p.build()), Options{Keys: []*Key{k}}); kindOf(err) != Signature {
				t.Errorf("Open with a key that is none: %v", err)
			}
		}
	}
}

// TestShortECDSASignature has signatures that are shorter or longer than r and s,
// with what is there being right.
func TestShortECDSASignature(t *testing.T) {
	edit := func(sign func([]byte) ([]byte, error), f func([]byte) []byte) func(*parts) {
		return func(p *parts) {
			p.sign = signed(func(digest []byte) ([]byte, error) {
				b, err := sign(digest)
				return f(b), err
			})
		}
	}
	cases := []damage{}
	for _, n := range []int{0, 1, 31, 32, 33, 62, 63} {
		cases = append(cases, damage{
			name: fmt.Sprint(n, " bytes"), kind: Signature, want: "does not verify",
			spoil: edit(signRaw, func(b []byte) []byte { return b[:n] }),
		})
	}
	// Filled up with zeros, the next one would verify.
	cases = append(cases, damage{name: "last byte 0 left out", kind: Signature, spoil: func(p *parts) {
		p.sign = signed(func(digest []byte) ([]byte, error) {
			for {
				b, err := signRaw(digest)
				if err != nil || b[rawECDSASize-1] == 0 {
					return b[:rawECDSASize-1], err
				}
			}
		})
	}})
	curve := testKeys().ecdsa.Params()
	runSigned(t, append(cases, []damage{
		{name: "65 bytes", spoil: edit(signRaw, func(b []byte) []byte { return append(b, 0) }), kind: Signature},
		{name: "r is 0", spoil: edit(signRaw, func(b []byte) []byte { clear(b[:32]); return b }), kind: Signature},
		{name: "s is 0", spoil: edit(signRaw, func(b []byte) []byte { clear(b[32:]); return b }), kind: Signature},
		{name: "r and s are n", spoil: edit(signRaw, func(b []byte) []byte {
			curve.N.FillBytes(b[:32])
			curve.N.FillBytes(b[32:])
			return b
		}), kind: Signature},
		{name: "s plus n", spoil: edit(signRaw, func(b []byte) []byte {
			s := new(big.Int).SetBytes(b[32:])
			return append(b[:32:32], s.Add(s, curve.N).Bytes()...) // 32 bytes in some cases, or 33
		}), kind: Signature},
		{name: "DER cut", spoil: edit(signDER, func(b []byte) []byte { return b[:len(b)-1] }), kind: Signature},
		{name: "DER longer", spoil: edit(signDER, func(b []byte) []byte { return append(b, 0) }), kind: Signature},
		{name: "DER of one number", spoil: edit(signDER, func([]byte) []byte { return []byte{0x30, 3, 2, 1, 1} }), kind: Signature},
		{name: "DER of none", spoil: edit(signDER, func([]byte) []byte { return []byte{0x30, 0} }), kind: Signature},
		{name: "only padding", spoil: func(p *parts) { p.sign = func([]byte) []byte { return []byte("====") } }, kind: Signature},
		{name: "much padding", spoil: func(p *parts) { p.sign = func([]byte) []byte { return bytes.Repeat([]byte("="), 4000) } }, kind: Signature},
		{name: "without padding", spoil: func(p *parts) {
			p.sign = func(m []byte) []byte { return bytes.TrimRight(signed(signRaw)(m), "=") }
		}, kind: Signature},
		{name: "URL alphabet", spoil: func(p *parts) {
			p.sign = func(m []byte) []byte {
				b, _ := base64.StdEncoding.DecodeString(string(signed(signRaw)(m)))
				return []byte("_-" + base64.URLEncoding.EncodeToString(b)[2:])
			}
		}, kind: Signature},
	}...))
}

// TestManifestIsComplete leaves lines out, or doubles them: no line must never
// mean no check.
func TestManifestIsComplete(t *testing.T) {
	lines := func(f func(l []string) []string) func(*parts) {
		return func(p *parts) {
			p.manifest = func(b []byte) []byte {
				l := strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
				l[2] += "\n"
				return []byte(strings.Join(f(l), ""))
			}
		}
	}
	other := strings.Repeat("0", 64)
	runSigned(t, []damage{
		{name: "no header line", spoil: lines(func(l []string) []string { return []string{l[0], l[2]} }), kind: Format, want: "lacks the line"},
		{name: "no version line", spoil: lines(func(l []string) []string { return l[:2] }), kind: Format, want: "lacks the line"},
		{name: "no payload line", spoil: lines(func(l []string) []string { return l[1:] }), kind: Format, want: "rootfs-image with 0"},
		{name: "empty checksum", spoil: lines(func(l []string) []string { return []string{l[0], l[1][64:], l[2]} }), kind: Format, want: "malformed manifest line"},
		{name: "not hexadecimal", spoil: lines(func(l []string) []string { return []string{"xy" + l[0][2:], l[1], l[2]} }), kind: Format, want: "malformed manifest line"},
		{name: "doubled", spoil: lines(func(l []string) []string { return []string{other + l[0][64:], l[0], l[1], l[2]} }), kind: Format, want: "twice"},
		{name: "two headers", spoil: lines(func(l []string) []string { return append(l, other+"  header.tar.xz\n") }), kind: Format, want: "two headers"},
		{name: "wrong header sum", spoil: lines(func(l []string) []string { return []string{l[0], other + l[1][64:], l[2]} }), kind: Checksum, want: "invalid checksum"},
		{name: "wrong version sum", spoil: lines(func(l []string) []string { return []string{l[0], l[1], other + l[2][64:]} }), kind: Checksum, want: "invalid checksum"},
		{name: "wrong payload sum", spoil: lines(func(l []string) []string { return []string{other + l[0][64:], l[1], l[2]} }), kind: Checksum, want: "invalid checksum", late: true},
		{name: "header by other name", spoil: lines(func(l []string) []string {
			return []string{l[0], strings.Replace(l[1], ".gz", ".xz", 1), l[2]}
		}), kind: Format, want: "not the header"},
	})
}

// TestCVE_2025_67903 puts payload files that the signed manifest does not list
// beside, before and in place of the one it does.
func TestCVE_2025_67903(t *testing.T) {
	evil := entry{name: "evil", data: []byte("unsigned")}
	first := func(p *parts) { p.data = func(l []entry) []entry { return append([]entry{evil}, l...) } }
	instead := func(p *parts) { p.data = func([]entry) []entry { return []entry{evil} } }
	var cases []damage
	for name, make := range map[string]func() *parts{"rootfs": rootfsParts, "module": moduleParts, "v2": v2Parts} {
		for _, comp := range []string{"", ".gz", ".xz", ".zst"} {
			for place, c := range map[string]struct {
				spoil func(*parts)
				late  bool
			}{"first": {first, false}, "instead": {instead, false}, "last": {appendData(evil), true}} {
				cases = append(cases, damage{
					name: name + comp + "/" + place, make: make, late: c.late,
					spoil: func(p *parts) { p.dataComp = comp; c.spoil(p) }, kind: Format, want: "not in the manifest",
				})
			}
		}
	}
	cases = append(cases,
		damage{name: "empty/only", make: emptyParts, spoil: instead, kind: Format, want: "not in the manifest"},
		damage{name: "name as in the manifest", spoil: func(p *parts) {
			p.data = func([]entry) []entry { return []entry{{name: "data/0000/rootfs.ext4", data: payload}} }
		}, kind: Format, want: "not in the manifest"},
		damage{name: "empty name", spoil: func(p *parts) {
			p.data = func([]entry) []entry { return []entry{{data: payload}} }
		}, kind: Format, want: "not in the manifest"},
		damage{name: "name of another part", spoil: func(p *parts) {
			p.data = func([]entry) []entry { return []entry{{name: "version", data: []byte(p.version)}} }
		}, kind: Format, want: "not in the manifest"})
	runSigned(t, cases)
}

// TestListedFilesMustBeThere leaves out files that the manifest lists.
func TestListedFilesMustBeThere(t *testing.T) {
	var cases []damage
	for i := range 3 {
		cases = append(cases, damage{
			name: fmt.Sprint("without file ", i), make: moduleParts, late: true, kind: Format, want: "is missing",
			spoil: func(p *parts) { p.data = func(l []entry) []entry { return slices.Delete(l, i, i+1) } },
		})
	}
	runSigned(t, append(cases,
		damage{name: "without all", make: moduleParts, spoil: func(p *parts) { p.data = func([]entry) []entry { return nil } }, kind: Format, want: "is missing"},
		damage{name: "one twice", make: moduleParts, late: true, spoil: func(p *parts) {
			p.data = func(l []entry) []entry { return []entry{l[0], l[0], l[2]} }
		}, kind: Format, want: "occurs twice"},
		damage{name: "listed only", make: moduleParts, late: true, spoil: func(p *parts) {
			p.manifest = func(b []byte) []byte { return append([]byte(strings.Repeat("0", 64)+"  data/0000/more\n"), b...) }
		}, kind: Format, want: "is missing"}))
}
