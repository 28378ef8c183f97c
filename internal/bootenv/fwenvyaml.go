package bootenv

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// parseYAML reads an fw_env.config in its YAML form and returns the namespace
// of that name, or the first one for "".
//
//	uboot:                    # a namespace
//	  size: 0x4000            # of a copy, in bytes
//	  lockfile: /run/x.lock   # optional
//	  writelist:              # optional: what may be set, and how
//	    - name:flags
//	  devices:                # one or two
//	    - path: /dev/mmcblk0
//	      offset: 0x40000     # optional, as are sectorsize and disablelock
//
// Numbers are as in C: 0x… is hexadecimal, a leading 0 octal (source:
// libubootenv since 0.3.4, extended_config.c). This is that shape and no more of
// YAML: block style, spaces, one line for each value. Anything else, an unknown
// key above all, is an error. Every namespace must be right, also one that is
// not asked for.
func parseYAML(text, namespace string) (FwEnvConfig, error) {
	lines, err := yamlLines(text)
	if err != nil {
		return FwEnvConfig{}, err
	}
	p := yamlParser{lines}
	top, err := p.node(lines[0].indent, 0)
	if err == nil && len(p.lines) > 0 {
		err = p.lines[0].error(errors.New("unexpected indentation"))
	}
	if err != nil {
		return FwEnvConfig{}, err
	}
	var chosen *FwEnvConfig
	for i, e := range top.entries {
		if slices.ContainsFunc(top.entries[:i], func(o yamlEntry) bool { return o.key == e.key }) {
			return FwEnvConfig{}, e.value.error(fmt.Errorf("namespace %s comes twice", quote(e.key)))
		}
		cfg, err := e.value.namespace()
		if err != nil {
			return FwEnvConfig{}, fmt.Errorf("namespace %s: %w", quote(e.key), err)
		}
		if chosen == nil && (namespace == "" || namespace == e.key) {
			chosen = &cfg
		}
	}
	if chosen == nil {
		return FwEnvConfig{}, fmt.Errorf("no namespace %s", quote(namespace))
	}
	return *chosen, nil
}

// namespace reads what is below the name of a namespace.
func (n yamlNode) namespace() (cfg FwEnvConfig, err error) {
	size := -1
	err = n.fields(func(key string, v yamlNode) error {
		switch key {
		case "size":
			s, err := v.number(MaxEnvSize)
			if err == nil && s < 0 {
				err = v.error(errors.New("size is negative"))
			}
			size = int(s)
			return err
		case "lockfile":
			path, err := v.text()
			if err == nil && !filepath.IsAbs(path) {
				err = v.error(fmt.Errorf("lockfile %s is not an absolute path", quote(path)))
			}
			cfg.Locks = []string{path}
			return err
		case "writelist":
			cfg.WriteList, err = v.writeList()
			return err
		case "devices":
			if size < 0 { // libubootenv would take 0 for it
				return v.error(errors.New("size must come before devices"))
			}
			cfg.Copies, err = v.devices(size)
			return err
		default:
			return v.error(fmt.Errorf("unknown key %s", quote(key)))
		}
	})
	if err == nil {
		err = validate(cfg.Copies)
	}
	return cfg, err
}

func (n yamlNode) devices(size int) (copies []Copy, err error) {
	if len(n.items) < 1 || len(n.items) > maxCopies {
		return nil, n.error(fmt.Errorf("%d devices, want a list of 1 or %d", len(n.items), maxCopies))
	}
	for _, item := range n.items {
		c := Copy{Size: size}
		err := item.fields(func(key string, v yamlNode) (err error) {
			switch key {
			case "path":
				c.Path, err = v.text()
			case "offset":
				c.Offset, err = v.number(math.MaxInt64)
			case "sectorsize": // for raw flash
				_, err = v.number(math.MaxInt64)
			case "disablelock": // for raw flash
				if v.scalar != "yes" && v.scalar != "no" {
					err = v.error(errors.New("disablelock is neither yes nor no"))
				}
			default:
				err = v.error(fmt.Errorf("unknown key %s", quote(key)))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		copies = append(copies, c)
	}
	return copies, nil
}

func (n yamlNode) writeList() (WriteList, error) {
	if len(n.items) == 0 {
		return nil, n.error(errors.New("writelist is not a list"))
	}
	list := make(WriteList, len(n.items))
	for _, item := range n.items {
		name, flags, ok := strings.Cut(item.scalar, ":")
		if _, twice := list[name]; !ok || name == "" || twice {
			return nil, item.error(fmt.Errorf("writelist: %s is not name:flags, or comes twice", quote(item.scalar)))
		}
		list[name] = flags
	}
	return list, nil
}

// fields calls set for each entry of a mapping, and refuses one that comes
// twice or a node that is no mapping.
func (n yamlNode) fields(set func(key string, v yamlNode) error) error {
	if len(n.entries) == 0 {
		return n.error(errors.New("want keys with values"))
	}
	seen := map[string]bool{}
	for _, e := range n.entries {
		if seen[e.key] {
			return e.value.error(fmt.Errorf("key %s comes twice", quote(e.key)))
		}
		seen[e.key] = true
		if err := set(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// text returns a value that is not empty.
func (n yamlNode) text() (string, error) {
	if n.scalar == "" {
		return "", n.error(errors.New("want a value"))
	}
	return n.scalar, nil
}

// number returns a value whose magnitude is at most limit.
func (n yamlNode) number(limit uint64) (int64, error) {
	s := scanner{rest: n.scalar}
	v, ok := s.number(0)
	if !ok || s.rest != "" || !fits(v, limit) {
		return 0, n.error(fmt.Errorf("%s is not a number, or too large", quote(n.scalar)))
	}
	if v.negative {
		return -int64(v.abs), nil
	}
	return int64(v.abs), nil
}
