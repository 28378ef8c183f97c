package gate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// supplies makes a directory of power supplies. Each is "NAME key=value …".
func supplies(t *testing.T, list ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, supply := range list {
		words := strings.Fields(supply)
		if err := os.Mkdir(filepath.Join(dir, words[0]), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			if err := os.WriteFile(filepath.Join(dir, words[0], key), []byte(value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestCheckPower(t *testing.T) {
	errOther := errors.New("another error")
	tests := []struct {
		name     string
		supplies []string
		minimum  int
		want     error
	}{
		{"nothing", nil, 30, nil},
		{"mains only", []string{"AC type=Mains online=1"}, 30, nil},
		{"mains that is off, no battery", []string{"AC type=Mains online=0"}, 30, nil},
		{"full battery", []string{"BAT0 type=Battery capacity=100"}, 30, nil},
		{"just enough", []string{"BAT0 type=Battery capacity=30"}, 30, nil},
		{"too low", []string{"BAT0 type=Battery capacity=29"}, 30, ErrLowBattery},
		{"empty", []string{"BAT0 type=Battery capacity=0"}, 1, ErrLowBattery},
		{"low, charger connected", []string{"AC type=Mains online=1", "BAT0 type=Battery capacity=2"}, 30, nil},
		{"low, charger off", []string{"AC type=Mains online=0", "BAT0 type=Battery capacity=2"}, 30, ErrLowBattery},
		{"low, USB power with a fixed voltage", []string{"usb type=USB online=1", "BAT0 type=Battery capacity=2"}, 30, nil},
		{"low, programmable USB power", []string{"usb type=USB online=2", "BAT0 type=Battery capacity=2"}, 30, nil},
		{"one of two is enough", []string{"BAT0 type=Battery capacity=2", "BAT1 type=Battery capacity=80"}, 30, nil},
		{"two low ones", []string{"BAT0 type=Battery capacity=2", "BAT1 type=Battery capacity=3"}, 30, ErrLowBattery},
		{"battery of a mouse", []string{"hid type=Battery scope=Device capacity=1"}, 30, nil},
		{"battery of the system", []string{"bat type=Battery scope=System capacity=1"}, 30, ErrLowBattery},
		{"uninterruptible supply", []string{"ups type=UPS capacity=1"}, 30, ErrLowBattery},
		{"bay without a battery", []string{"BAT1 type=Battery present=0"}, 30, nil},
		{"turned off", []string{"BAT0 type=Battery capacity=1"}, 0, nil},
		{"capacity unknown", []string{"BAT0 type=Battery"}, 30, errOther},
		{"capacity unknown, charger connected", []string{"BAT0 type=Battery", "AC type=Mains online=1"}, 30, nil},
		{"capacity unknown, another is full", []string{"BAT0 type=Battery", "BAT1 type=Battery capacity=90"}, 30, nil},
		{"capacity is no number", []string{"BAT0 type=Battery capacity=full"}, 30, errOther},
		{"negative capacity", []string{"BAT0 type=Battery capacity=-1"}, 30, errOther},
		{"no type", []string{"BAT0 capacity=90"}, 30, errOther},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckPower(supplies(t, tt.supplies...), tt.minimum)
			if errors.Is(tt.want, errOther) {
				if err == nil || errors.Is(err, ErrLowBattery) {
					t.Errorf("CheckPower = %v, want an error about the supply", err)
				}
			} else if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("CheckPower = %v, want %v", err, tt.want)
			}
		})
	}
	if err := CheckPower(filepath.Join(t.TempDir(), "none"), 30); err != nil {
		t.Errorf("CheckPower without such a class = %v", err)
	}
}
