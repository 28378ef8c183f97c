package artifacttest

import (
	"archive/tar"
	"encoding/json"
	"io"
)

// writeHeader writes the header archive.
func (s *Spec) writeHeader(w io.Writer, suffix string, sums []string) error {
	z, err := Compressor(w, suffix)
	if err != nil {
		return err
	}
	out := tar.NewWriter(z)
	if err := addJSON(out, "header-info", s.headerInfo()); err != nil {
		return err
	}
	for _, script := range s.Scripts {
		if err := add(out, "scripts/"+script.Name, script.Data); err != nil {
			return err
		}
	}
	if s.Version == 2 {
		names := []string{}
		for _, f := range s.Files {
			names = append(names, f.Name)
		}
		if err := addJSON(out, "headers/0000/files", map[string]any{"files": names}); err != nil {
			return err
		}
	}
	if err := addJSON(out, "headers/0000/type-info", s.typeInfo(sums)); err != nil {
		return err
	}
	if s.MetaData != nil {
		if err := add(out, "headers/0000/meta-data", s.MetaData); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (s *Spec) headerInfo() any {
	payload := []any{map[string]any{"type": s.typeValue()}}
	if s.Version == 2 {
		return map[string]any{
			"updates":                 payload,
			"artifact_name":           s.Name,
			"device_types_compatible": s.DeviceTypes,
		}
	}
	provides := map[string]any{"artifact_name": s.Name}
	if s.Group != "" {
		provides["artifact_group"] = s.Group
	}
	depends := map[string]any{"device_type": s.DeviceTypes}
	if s.DependsNames != nil {
		depends["artifact_name"] = s.DependsNames
	}
	if s.DependsGroups != nil {
		depends["artifact_group"] = s.DependsGroups
	}
	return map[string]any{
		"payloads":          payload,
		"artifact_provides": provides,
		"artifact_depends":  depends,
	}
}

func (s *Spec) typeInfo(sums []string) any {
	info := map[string]any{"type": s.typeValue()}
	if s.Version == 2 {
		return info
	}
	provides := s.Provides
	if provides == nil && s.PayloadType == rootfsImage && len(sums) == 1 {
		provides = map[string]string{
			"rootfs-image.checksum": sums[0],
			"rootfs-image.version":  s.Name,
		}
	}
	if len(provides) > 0 {
		info["artifact_provides"] = provides
	}
	if len(s.Depends) > 0 {
		depends := map[string]any{}
		for k, alternatives := range s.Depends {
			depends[k] = alternatives
			if len(alternatives) == 1 {
				depends[k] = alternatives[0]
			}
		}
		info["artifact_depends"] = depends
	}
	if s.Clears != nil && !s.NoClears {
		info["clears_artifact_provides"] = s.Clears
	}
	return info
}

// typeValue is the payload type, or null for an empty payload.
func (s *Spec) typeValue() any {
	if s.Empty {
		return nil
	}
	return s.PayloadType
}

func addJSON(out *tar.Writer, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return add(out, name, b)
}
