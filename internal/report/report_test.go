package report

import (
	"bytes"
	"errors"
	"testing"

	"github.com/rs/zerolog"
)

func TestTextLog(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(&out, "prog", zerolog.InfoLevel)
	log.Info().Str("artifact", "a b").Int64("bytes", 12345678901).Str("slot", "B").Msg("slot written")
	log.Warn().Str("name", "\x1b[31mred\n").Msg("evil\x1b[0m\nsecond line")
	log.Error().Err(errors.New("cause=x")).Msg("run ended")
	log.Debug().Msg("hidden")
	want := `prog: slot written artifact="a b" bytes=12345678901 slot=B
prog: warning: evil?[0m?second line name="\x1b[31mred\n"
prog: error: run ended error="cause=x"
`
	if out.String() != want {
		t.Errorf("log:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestParseLevel(t *testing.T) {
	for word, want := range map[string]zerolog.Level{"panic": zerolog.ErrorLevel, "WARN": zerolog.WarnLevel, "info": zerolog.InfoLevel, "trace": zerolog.DebugLevel} {
		if got, ok := ParseLevel(word); got != want || !ok {
			t.Errorf("ParseLevel(%q) = %v, %v", word, got, ok)
		}
	}
	if _, ok := ParseLevel("loud"); ok {
		t.Error("ParseLevel(loud) is accepted")
	}
}

func TestCodesAreUnique(t *testing.T) {
	numbers, names := map[int]bool{}, map[string]bool{}
	for _, c := range Codes() {
		if numbers[c.Number] || names[c.Name] || c.Name == "" || c.Meaning == "" || c.Remedy == "" {
			t.Errorf("code %+v is not unique or not complete", c)
		}
		numbers[c.Number], names[c.Name] = true, true
		if c.Number > 125 {
			t.Errorf("code %d is the shell's", c.Number)
		}
	}
}
