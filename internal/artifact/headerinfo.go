package artifact

import (
	"encoding/json"
	"maps"
	"slices"
)

// parseVersion decodes the version file and returns 2 or 3.
func parseVersion(b []byte) (int, error) {
	o, err := decodeObject("version", b)
	if err != nil {
		return 0, err
	}
	if !hasKeys(o, []string{"format", "version"}) || o["format"] != "mender" {
		return 0, malformed("not a version file of a Mender artifact")
	}
	switch v, _ := o["version"].(json.Number); v {
	case "2":
		return 2, nil
	case "3":
		return 3, nil
	case "":
		return 0, malformed("version is not a number")
	default:
		return 0, fault(Unsupported, "artifact format version %s is not supported", quote(v.String()))
	}
}

// setInfo fills in what header-info says.
// (source: Mender artifact format v3 and v2, "header-info")
func (h *Header) setInfo(raw []byte) error {
	o, err := decodeObject(nameHeaderInfo, raw)
	if err != nil {
		return err
	}
	h.HeaderInfo = raw
	if h.FormatVersion == 2 {
		return h.setInfo2(o)
	}
	if !hasKeys(o, []string{"payloads", "artifact_provides", "artifact_depends"}) {
		return malformed("header-info has other keys than payloads, artifact_provides, artifact_depends")
	}
	if err := h.setPayloadType(o["payloads"]); err != nil {
		return err
	}
	if err := h.setInfoProvides(o["artifact_provides"]); err != nil {
		return err
	}
	return h.setInfoDepends(o["artifact_depends"])
}

func (h *Header) setInfo2(o object) error {
	if !hasKeys(o, []string{"updates", "artifact_name", "device_types_compatible"}) {
		return malformed("header-info has other keys than updates, artifact_name, device_types_compatible")
	}
	if err := h.setPayloadType(o["updates"]); err != nil {
		return err
	}
	var err error
	if h.Name, err = text(o["artifact_name"], maxTextSize); err != nil {
		return badField("artifact_name", err)
	}
	if h.DeviceTypes, err = textList(o["device_types_compatible"], maxDeviceTypes); err != nil {
		return badField("device_types_compatible", err)
	}
	return nil
}

// setPayloadType takes the list of payloads, which must have one entry.
func (h *Header) setPayloadType(v any) error {
	l, ok := v.([]any)
	if !ok || len(l) == 0 {
		return malformed("header-info has no list of payloads")
	}
	if len(l) > 1 {
		return fault(Unsupported, "artifacts with more than one payload are not supported")
	}
	o, ok := l[0].(object)
	if !ok || !hasKeys(o, []string{"type"}) {
		return malformed("payload has other keys than type")
	}
	if o["type"] == nil && h.FormatVersion != 2 {
		h.Empty = true
		return nil
	}
	name, err := text(o["type"], maxNameSize)
	if err != nil {
		return badField("payload type", err)
	}
	if !isTypeName(name) {
		return malformed("payload type %s is not a plain name", quote(name))
	}
	if h.FormatVersion == 2 && name != RootfsImage {
		return fault(Unsupported, "payload type %s is not supported in format version 2", quote(name))
	}
	h.PayloadType = name
	return nil
}

// isTypeName reports whether s may be a payload type. It becomes the file name
// of an update module.
func isTypeName(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return s != "" && isAlphanumeric(s[0])
}

func (h *Header) setInfoProvides(v any) error {
	o, ok := v.(object)
	if !ok || !onlyKeys(o, []string{"artifact_name", "artifact_group"}) {
		return malformed("artifact_provides of header-info has other keys than artifact_name, artifact_group")
	}
	var err error
	if h.Name, err = text(o["artifact_name"], maxTextSize); err != nil {
		return badField("artifact_name", err)
	}
	if group := o["artifact_group"]; group != nil {
		if h.Group, err = textOrEmpty(group, maxTextSize); err != nil {
			return badField("artifact_group", err)
		}
	}
	return nil
}

func (h *Header) setInfoDepends(v any) error {
	o, ok := v.(object)
	if !ok || !onlyKeys(o, []string{"artifact_name", "artifact_group", "device_type"}) {
		return malformed("artifact_depends of header-info has other keys than artifact_name, artifact_group, device_type")
	}
	var err error
	if h.DeviceTypes, err = textList(o["device_type"], maxDeviceTypes); err != nil {
		return badField("device_type", err)
	}
	for _, k := range []string{"artifact_name", "artifact_group"} {
		v, ok := o[k]
		if !ok {
			continue
		}
		if h.Depends[k], err = textList(v, maxList); err != nil {
			return badField("depends on "+k, err)
		}
	}
	return nil
}

// setTypeInfo fills in what type-info says. In version 2 only its type counts.
// What is null there counts as absent, as for mender-client 3.x.
// (source: Mender artifact format v3, "type-info")
func (h *Header) setTypeInfo(raw []byte) error {
	o, err := decodeObject("type-info", raw)
	if err != nil {
		return err
	}
	h.TypeInfo = raw
	typ, ok := o["type"]
	// mender-artifact up to 4.3 writes "" for rootfs-image.
	same := typ == h.PayloadType || (typ == "" && h.PayloadType == RootfsImage)
	if h.Empty {
		same = typ == nil
	}
	if !ok || !same {
		return malformed("type-info and header-info name different payload types")
	}
	if h.FormatVersion == 2 {
		return nil
	}
	if err := h.setProvides(o["artifact_provides"]); err != nil {
		return err
	}
	if err := h.setDepends(o["artifact_depends"]); err != nil {
		return err
	}
	if h.HasClears = o["clears_artifact_provides"] != nil; !h.HasClears {
		return nil
	}
	return h.setClears(o["clears_artifact_provides"])
}

func (h *Header) setProvides(v any) error {
	h.Provides = map[string]string{}
	pairs, err := typeInfoPairs(v, "artifact_name")
	if err != nil {
		return badField("artifact_provides of type-info", err)
	}
	for k, v := range pairs {
		if k == "artifact_group" {
			if err := h.addGroup(v); err != nil {
				return err
			}
			continue
		}
		if h.Provides[k], err = textOrEmpty(v, maxValueTextSize); err != nil {
			return badField("provides "+quote(k), err)
		}
	}
	return nil
}

// addGroup takes the group from type-info, where mender-artifact -p writes it.
func (h *Header) addGroup(v any) error {
	group, err := textOrEmpty(v, maxTextSize)
	if err != nil {
		return badField("artifact_group of type-info", err)
	}
	if h.Group != "" && h.Group != group {
		return malformed("header-info and type-info name different groups")
	}
	h.Group = group
	return nil
}

// setDepends adds to what header-info demands. mender-artifact writes a
// condition on the artifact's name or group here; it must not be in both places.
func (h *Header) setDepends(v any) error {
	pairs, err := typeInfoPairs(v, "device_type")
	if err != nil {
		return badField("artifact_depends of type-info", err)
	}
	for k, v := range pairs {
		if _, twice := h.Depends[k]; twice {
			return malformed("header-info and type-info both depend on %s", quote(k))
		}
		if s, ok := v.(string); ok {
			s, err = textOrEmpty(s, maxValueTextSize)
			h.Depends[k] = []string{s}
		} else {
			h.Depends[k], err = textList(v, maxList)
		}
		if err != nil {
			return badField("depends on "+quote(k), err)
		}
	}
	return nil
}

func (h *Header) setClears(v any) error {
	l, ok := v.([]any)
	if !ok || len(l) > maxList {
		return badField("clears_artifact_provides", errNotList)
	}
	h.ClearsProvides = make([]string, len(l))
	for i, v := range l {
		var err error
		if h.ClearsProvides[i], err = textOrEmpty(v, maxTextSize); err != nil {
			return badField("clears_artifact_provides", err)
		}
	}
	return nil
}

// typeInfoPairs checks an object of type-info, nil if it is absent. It must not
// repeat what header-info says: readers differ in which of the two wins.
func typeInfoPairs(v any, reserved ...string) (object, error) {
	if v == nil {
		return nil, nil
	}
	o, ok := v.(object)
	if !ok || len(o) > maxList {
		return nil, errNotObject
	}
	for k := range o {
		if _, err := text(k, maxKeyTextSize); err != nil {
			return nil, err
		}
		if slices.Contains(reserved, k) {
			return nil, malformed("%s belongs into header-info", k)
		}
	}
	return o, nil
}

// checkFiles checks the payload files against type, meta-data and the list of
// version 2.
func (h *Header) checkFiles(list []byte) error {
	if len(h.MetaData) > 0 {
		if _, err := decodeObject("meta-data", h.MetaData); err != nil {
			return err
		}
	}
	switch {
	case h.Empty && (len(h.Files) > 0 || h.MetaData != nil):
		return malformed("empty payload with files or meta-data")
	case h.PayloadType == RootfsImage && len(h.Files) != 1:
		return malformed("rootfs-image with %d payload files, want 1", len(h.Files))
	case h.FormatVersion != 2:
		return nil
	}
	o, err := decodeObject("files", list)
	if err != nil {
		return err
	}
	l, _ := o["files"].([]any)
	// One entry: version 2 has rootfs-image only.
	if !hasKeys(o, []string{"files"}) || len(l) != 1 || l[0] != h.Files[0].Name {
		return malformed("files and manifest list different payload files")
	}
	return nil
}

// hasKeys reports whether o has exactly these keys.
func hasKeys(o object, keys []string) bool {
	return len(o) == len(keys) && onlyKeys(o, keys)
}

// onlyKeys reports whether o has no other keys than these.
func onlyKeys(o object, keys []string) bool {
	for k := range maps.Keys(o) {
		if !slices.Contains(keys, k) {
			return false
		}
	}
	return true
}

// badField is a malformed value of a JSON document.
func badField(field string, err error) error {
	return malformed("%s: %w", field, err)
}
