package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxLEDSeconds bounds how long a run shows its end.
	maxLEDSeconds = 3600
	// maxHookSeconds keeps the calls of a hook within the time that a service
	// manager gives a unit that it stops.
	maxHookSeconds = 7
)

// checkReporting checks the keys that say who hears of a run.
func (a Agent) checkReporting() error {
	switch {
	case strings.ContainsAny(a.LED, "/\x00") || strings.HasPrefix(a.LED, "."):
		return fmt.Errorf("\"LED\" is %.64q, want a name in /sys/class/leds", a.LED)
	case a.LEDSeconds < 0 || a.LEDSeconds > maxLEDSeconds:
		return fmt.Errorf("\"LEDSeconds\" is %d, want 0 to %d", a.LEDSeconds, maxLEDSeconds)
	case a.Hook != "" && !filepath.IsAbs(a.Hook):
		return fmt.Errorf("\"Hook\" is %.64q, want an absolute path", a.Hook)
	case a.HookTimeoutSeconds < 1 || a.HookTimeoutSeconds > maxHookSeconds:
		return fmt.Errorf("\"HookTimeoutSeconds\" is %d, want 1 to %d", a.HookTimeoutSeconds, maxHookSeconds)
	}
	return nil
}

// HookTimeout bounds one call of the hook.
func (a Agent) HookTimeout() time.Duration { return time.Duration(a.HookTimeoutSeconds) * time.Second }

// LEDTime is how long a run shows its end with the light.
func (a Agent) LEDTime() time.Duration { return time.Duration(a.LEDSeconds) * time.Second }
