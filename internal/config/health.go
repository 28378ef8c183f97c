package config

import (
	"fmt"
	"time"
)

// Health says what must hold on a trial boot before it is committed.
type Health struct {
	// RequiredUnits must be active; services among them must not restart
	// within StableSeconds.
	RequiredUnits []string
	StableSeconds int
	// AllowFailedUnits are patterns of units that may be failed. Absent or
	// null, failed units are no concern; an empty list allows none.
	AllowFailedUnits []string
	// MinUptimeSeconds must have passed since the boot.
	MinUptimeSeconds int
	// SettleSeconds bounds the wait for the jobs of the boot.
	SettleSeconds int
	// TCP are sockets that must take a connection: a loopback address with a
	// port, or unix:PATH.
	TCP []string
	// HTTP are pages on a loopback address that must be returned.
	HTTP []string
	// Files must be there.
	Files []HealthFile
}

// HealthFile is a file that must be there and, if Contains is not empty, hold
// that text.
type HealthFile struct {
	Path, Contains string
}

func defaultHealth() Health {
	return Health{
		RequiredUnits: []string{}, StableSeconds: 10, SettleSeconds: 120,
		TCP: []string{}, HTTP: []string{}, Files: []HealthFile{},
	}
}

// maxHealthSeconds bounds each wait and each check of a trial boot.
const maxHealthSeconds = 3600

func (a Agent) checkHealth() error {
	for _, s := range []struct {
		name    string
		seconds int
		least   int
	}{
		{"HealthTimeoutSeconds", a.HealthTimeoutSeconds, 1},
		{"HealthDeadlineSeconds", a.HealthDeadlineSeconds, 0},
		{"StableSeconds", a.Health.StableSeconds, 1},
		{"MinUptimeSeconds", a.Health.MinUptimeSeconds, 0},
		{"SettleSeconds", a.Health.SettleSeconds, 0},
	} {
		if s.seconds < s.least || s.seconds > maxHealthSeconds {
			return fmt.Errorf("%q is %d, want %d to %d", s.name, s.seconds, s.least, maxHealthSeconds)
		}
	}
	return nil
}

// HealthDeadline bounds the time in which the checks of a trial boot may fail.
func (a Agent) HealthDeadline() time.Duration {
	return time.Duration(a.HealthDeadlineSeconds) * time.Second
}
