//go:build nogpl

package watch

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// kernelActions are the actions that the kernel has (source: Linux,
// kobject_uevent.c).
var kernelActions = []string{"add", "remove", "change", "move", "online", "offline", "bind", "unbind"}

// parse reads a message that [filter] has passed.
func parse(message []byte) (map[string]string, error) {
	header, rest, _ := bytes.Cut(message, []byte{0})
	action, _, _ := strings.Cut(string(header), "@")
	if !slices.Contains(kernelActions, action) {
		return nil, errors.New("uevent: unknown action")
	}
	props := map[string]string{}
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		if key, value, ok := bytes.Cut(field, []byte("=")); ok {
			props[string(key)] = string(value)
		}
	}
	return props, nil
}
