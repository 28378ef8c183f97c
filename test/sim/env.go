package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
)

// The environment's place on the raw disk, in bytes.
const (
	envDiskSize = 1 << 20
	envSize     = 16 << 10
	envOffset1  = 0x40000
	envOffset2  = 0x80000
	envHeader   = 5 // CRC-32 and flag byte
)

// FwEnvConfig is the fw_env.config that describes the environment.
var FwEnvConfig = fmt.Sprintf("/dev/mmcblk0 %#x %#x\n/dev/mmcblk0 %#x %#x\n", envOffset1, envSize, envOffset2, envSize)

var errNoEnv = errors.New("no valid copy of the environment")

func encodeEnv(vars map[string]string, flag byte) []byte {
	data := make([]byte, envSize-envHeader)
	pos := 0
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		pos += copy(data[pos:], k+"="+vars[k]+"\x00")
	}
	out := make([]byte, envHeader, envSize)
	binary.NativeEndian.PutUint32(out, crc32.ChecksumIEEE(data))
	out[4] = flag
	return append(out, data...)
}

func decodeEnv(b []byte) (vars map[string]string, flag byte, ok bool) {
	if binary.NativeEndian.Uint32(b) != crc32.ChecksumIEEE(b[envHeader:]) {
		return nil, 0, false
	}
	vars = map[string]string{}
	for entry := range strings.SplitSeq(string(b[envHeader:]), "\x00") {
		if entry == "" {
			break
		}
		k, v, _ := strings.Cut(entry, "=")
		vars[k] = v
	}
	return vars, b[4], true
}

// readEnv returns the active copy, as U-Boot picks it, and the offset of the
// other one.
func readEnv(disk string) (vars map[string]string, flag byte, other int64, err error) {
	b, err := os.ReadFile(disk)
	if err != nil {
		return nil, 0, 0, err
	}
	v1, f1, ok1 := decodeEnv(b[envOffset1:][:envSize])
	v2, f2, ok2 := decodeEnv(b[envOffset2:][:envSize])
	switch {
	case !ok1 && !ok2:
		return nil, 0, 0, errNoEnv
	case ok1 && (!ok2 || newer(f1, f2)):
		return v1, f1, envOffset2, nil
	default:
		return v2, f2, envOffset1, nil
	}
}

// EnvWrites is the number of the boot environment's latest write: each one
// counts it up, from 255 to 0.
func (d *Device) EnvWrites() (int, error) {
	_, flag, _, err := readEnv(d.disk())
	return int(flag), err
}

// newer compares flag bytes that count up and wrap (source: U-Boot, env/common.c).
func newer(f1, f2 byte) bool {
	if f1 == 255 && f2 == 0 || f1 == 0 && f2 == 255 {
		return f1 == 0
	}
	return f1 >= f2
}

func writeEnv(disk string, vars map[string]string, flag byte, offset int64) error {
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeEnv(vars, flag), offset)
	return errors.Join(err, f.Close())
}
