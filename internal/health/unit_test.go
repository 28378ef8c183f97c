package health

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// manager is a service manager. Time passes only when somebody waits.
type manager struct {
	units   []dbus.UnitStatus
	aliases map[string]string
	// restarts of a service, and what each second of waiting adds.
	restarts, flapping map[string]int
	// restarted is when somebody restarted a service, which no counter counts.
	restarted map[string]time.Duration
	jobs      [][]dbus.JobStatus // now, a second later, …; the last stays
	now       time.Duration
	err       error
}

func (m *manager) ListJobsContext(context.Context) ([]dbus.JobStatus, error) {
	return m.jobs[min(int(m.now/time.Second), len(m.jobs)-1)], m.err
}

func (m *manager) ListUnitsByNamesContext(_ context.Context, names []string) ([]dbus.UnitStatus, error) {
	var out []dbus.UnitStatus
	for _, n := range names {
		if real := m.aliases[n]; real != "" {
			n = real
		}
		i := slices.IndexFunc(m.units, func(u dbus.UnitStatus) bool { return u.Name == n })
		if i < 0 {
			out = append(out, dbus.UnitStatus{Name: n, LoadState: "not-found", ActiveState: "inactive", SubState: "dead"})
			continue
		}
		out = append(out, m.units[i])
	}
	return out, m.err
}

func (m *manager) ListUnitsFilteredContext(_ context.Context, states []string) ([]dbus.UnitStatus, error) {
	var out []dbus.UnitStatus
	for _, u := range m.units {
		if slices.Contains(states, u.ActiveState) {
			out = append(out, u)
		}
	}
	return out, m.err
}

func (m *manager) GetServicePropertyContext(_ context.Context, service, name string) (*dbus.Property, error) {
	if name != "NRestarts" || !strings.HasSuffix(service, ".service") {
		return nil, errors.New("no such property")
	}
	n := m.restarts[service] + m.flapping[service]*int(m.now/time.Second)
	return &dbus.Property{Name: name, Value: godbus.MakeVariant(uint32(n))}, m.err
}

func (m *manager) GetUnitPropertyContext(_ context.Context, unit, name string) (*dbus.Property, error) {
	if name != "InvocationID" {
		return nil, errors.New("no such property")
	}
	id := make([]byte, 16)
	if at := m.restarted[unit]; at > 0 && m.now >= at {
		id[0] = 1
	}
	return &dbus.Property{Name: name, Value: godbus.MakeVariant(id)}, m.err
}

func (m *manager) GetUnitNameByPID(context.Context, uint32) (string, error) {
	return "usb-updater-boot.service", nil
}

func (m *manager) checker(t *testing.T, c Config) *Checker {
	t.Helper()
	k := newChecker(t, c)
	start := time.Now()
	k.connect = func(context.Context) (systemd, func(), error) { return m, func() {}, nil }
	k.wait = func(_ context.Context, d time.Duration) error { m.now += d; return nil }
	k.now = func() time.Time { return start.Add(m.now) }
	k.uptime = func() (time.Duration, error) { return m.now, nil }
	return k
}

func unit(name, active, sub string) dbus.UnitStatus {
	return dbus.UnitStatus{Name: name, LoadState: "loaded", ActiveState: active, SubState: sub}
}

func TestUnits(t *testing.T) {
	units := []dbus.UnitStatus{
		unit("app.service", "active", "running"), unit("data.mount", "active", "mounted"),
		unit("flaps.service", "active", "running"), unit("old-restarts.service", "active", "running"),
		unit("broken.service", "failed", "failed"), unit("slow.service", "activating", "start"),
		unit("usb-updater@sda1.service", "failed", "failed"), unit("getty@tty1.service", "failed", "failed"),
		unit("reloads.service", "reloading", "reload"), unit("again.service", "active", "running"),
		unit("usb-updater-health.socket", "failed", "failed"),
	}
	tests := []struct {
		name     string
		required []string
		allowed  []string
		want     string // the reason; "" passes
	}{
		{"nothing asked for", nil, nil, ""},
		{"all active", []string{"app.service", "data.mount", "old-restarts.service", "reloads.service"}, nil, ""},
		{"alias", []string{"alias.service"}, nil, ""},
		{"restarts again and again", []string{"app.service", "flaps.service"}, nil, "unit flaps.service was restarted within 10s"},
		{"somebody restarts it", []string{"again.service"}, nil, "unit again.service was restarted within 10s"},
		{"failed", []string{"broken.service"}, nil, "unit broken.service is failed (failed)"},
		{"still starting", []string{"slow.service"}, nil, "unit slow.service is activating (start)"},
		{"not there", []string{"none.service"}, nil, "unit none.service does not exist"},
		{"none may be failed", nil, []string{}, "broken.service, getty@tty1.service"},
		{"some may be failed", nil, []string{"getty@*.service"}, "broken.service"},
		{"both may be failed", nil, []string{"getty@*.service", "broken.service"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &manager{
				units: units, aliases: map[string]string{"alias.service": "app.service"},
				restarts: map[string]int{"old-restarts.service": 7}, flapping: map[string]int{"flaps.service": 1},
				restarted: map[string]time.Duration{"again.service": 5 * time.Second},
			}
			got, err := m.checker(t, Config{RequiredUnits: tt.required, AllowFailedUnits: tt.allowed}).Run(t.Context())
			if err != nil || got.Passed != (tt.want == "") || got.Reason != tt.want {
				t.Errorf("Run = %+v, %v, want reason %q", got, err, tt.want)
			}
		})
	}
}

// Without an answer there is no "healthy"; without a question none is needed.
func TestUnitsWithoutSystemd(t *testing.T) {
	for _, c := range []Config{{RequiredUnits: []string{"a.service"}}, {AllowFailedUnits: []string{}}} {
		c.NoSystemd = "nobody home"
		got, err := newChecker(t, c).Run(t.Context())
		if err != nil || got.Passed || got.Reason != "nobody home" {
			t.Errorf("Run(%+v) = %+v, %v, want a failure", c, got, err)
		}
		m := &manager{units: []dbus.UnitStatus{unit("a.service", "active", "running")}, err: errors.New("connection closed")}
		got, err = m.checker(t, c).Run(t.Context())
		if err != nil || got.Passed || !strings.HasSuffix(got.Reason, "connection closed") {
			t.Errorf("Run(%+v) = %+v, %v, want a failure", c, got, err)
		}
	}
	wantResult(t, Config{NoSystemd: "nobody home"}, Result{Passed: true})
}

// TestNewRefuses what makes no sense, with the key under which it is configured.
func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		want string
		c    Config
	}{
		{`"Health.RequiredUnits" `, Config{RequiredUnits: []string{"app"}}},
		{`"Health.RequiredUnits" `, Config{RequiredUnits: []string{"app@*.service"}}},
		{`"Health.AllowFailedUnits" `, Config{AllowFailedUnits: []string{"[.service"}}},
		{`"Health.Files" `, Config{Files: []File{{Path: "etc/x"}}}},
		{`"Health.TCP" `, Config{TCP: []string{"192.168.0.1:80"}}},
		{`"Health.TCP" `, Config{TCP: []string{"localhost:80"}}},
		{`"Health.TCP" `, Config{TCP: []string{"127.0.0.1"}}},
		{`"Health.TCP" `, Config{TCP: []string{"127.0.0.1:0"}}},
		{`"Health.TCP" `, Config{TCP: []string{"unix:run/x"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"https://127.0.0.1/"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"http://example.com/"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"http://user@127.0.0.1/"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"http://127.0.0.1.example.com/"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"http://127.0.0.1/a b\r\nX: y"}}},
		{`"Health.HTTP" `, Config{HTTP: []string{"http://[::1%25eth0]/"}}},
		{"health: more than 256 checks", Config{Files: slices.Repeat([]File{{Path: "/x"}}, maxChecks+1)}},
	} {
		if _, err := New(tt.c); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("New(%.200v): error %v, want %q at its begin", tt.c, err, tt.want)
		}
	}
}

func TestSettle(t *testing.T) {
	own := dbus.JobStatus{Unit: "usb-updater-boot.service", Status: "running"}
	waits := dbus.JobStatus{Unit: "usb-updater@sda1.service", Status: "waiting"}
	queued := dbus.JobStatus{Unit: "usb-updater@sda2.service", Status: "running"} // it waits for the lock that we hold
	other := dbus.JobStatus{Unit: "app.service", Status: "running"}
	tests := []struct {
		name   string
		jobs   [][]dbus.JobStatus
		min    time.Duration
		note   string
		waited time.Duration
	}{
		{"settled", [][]dbus.JobStatus{{own, waits}}, 0, "", time.Second},
		{"another partition of the stick", [][]dbus.JobStatus{{own, queued}}, 0, "", time.Second},
		{"another job", [][]dbus.JobStatus{{own, other}, {own, other, waits}, {own}}, 0, "", 3 * time.Second},
		{"a gap between two jobs", [][]dbus.JobStatus{{own}, {own, other}, {own}}, 0, "", 3 * time.Second},
		{"never", [][]dbus.JobStatus{{own, other}}, 0, "still running: app.service", 20 * time.Second},
		{"uptime", [][]dbus.JobStatus{{own}}, time.Minute, "", time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &manager{jobs: tt.jobs}
			note, err := m.checker(t, Config{Settle: 20 * time.Second, MinUptime: tt.min}).Settle(t.Context())
			if note != tt.note || err != nil || m.now != tt.waited {
				t.Errorf("Settle = %q, %v after %v, want %q after %v", note, err, m.now, tt.note, tt.waited)
			}
		})
	}
}

func TestSettleWithoutSystemd(t *testing.T) {
	note, err := newChecker(t, Config{Settle: time.Hour, NoSystemd: "nobody home"}).Settle(t.Context())
	if note != "nobody home" || err != nil {
		t.Errorf("Settle = %q, %v, want a note", note, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("shutting down")
	cancel(cause)
	for _, c := range []Config{{MinUptime: 1 << 60}, {Settle: time.Hour, NoSystemd: "nobody home"}} {
		if _, err := newChecker(t, c).Settle(ctx); !errors.Is(err, cause) {
			t.Errorf("Settle(%+v): error %v, want %v", c, err, cause)
		}
	}
}

// TestUntil: a unit needs some seconds, within the limit or beyond it.
func TestUntil(t *testing.T) {
	for _, tt := range []struct {
		limit  time.Duration
		passes bool
	}{{0, false}, {20 * time.Second, false}, {40 * time.Second, true}} {
		m := &manager{units: []dbus.UnitStatus{unit("app.service", "activating", "start")}}
		k := m.checker(t, Config{RequiredUnits: []string{"app.service"}})
		told := 0
		got, err := k.Until(t.Context(), tt.limit, func(Result) {
			told++
			if m.now >= 24*time.Second {
				m.units[0] = unit("app.service", "active", "running")
			}
		})
		if err != nil || got.Passed != tt.passes || (told == 0) != (tt.limit == 0) {
			t.Errorf("Until(%v) = %+v, %v, told %d times; want passed %v", tt.limit, got, err, told, tt.passes)
		}
		if !tt.passes && m.now > tt.limit {
			t.Errorf("Until(%v) took %v", tt.limit, m.now)
		}
	}
}

// TestUntilCutsLaterPasses: a check that hangs in its second pass does not
// count, and the first failure is what is told.
func TestUntilCutsLaterPasses(t *testing.T) {
	marker := t.TempDir() + "/again"
	dir := checks(t, map[string]string{"a": "[ -e " + marker + " ] && exec sleep 1000; touch " + marker + "; exit 4"})
	k := newChecker(t, Config{Dir: dir, Grace: time.Millisecond})
	k.wait = func(context.Context, time.Duration) error { return nil }
	got, err := k.Until(t.Context(), retryPause+300*time.Millisecond, func(Result) {})
	if err != nil || got.Passed || got.ExitCode != 4 {
		t.Errorf("Until = %+v, %v, want the failure of the first pass", got, err)
	}
}
