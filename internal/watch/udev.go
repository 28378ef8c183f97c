//go:build !nogpl

package watch

import (
	"fmt"

	"github.com/pilebones/go-udev/netlink"
)

// parse reads a message that [filter] has passed.
func parse(message []byte) (props map[string]string, err error) {
	defer func() {
		if r := recover(); r != nil {
			props, err = nil, fmt.Errorf("uevent: %v", r)
		}
	}()
	event, err := netlink.ParseUEvent(message)
	if err != nil {
		return nil, fmt.Errorf("uevent: %w", err)
	}
	return event.Env, nil
}
