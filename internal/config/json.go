package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// readFile returns the content of a configuration file. The error wraps
// fs.ErrNotExist if there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	if isNamedPipe(f) {
		return nil, fmt.Errorf("%s: is a named pipe", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), nil // editors on Windows add this mark
}

// isNamedPipe tells whether f is a pipe that lies in a directory. To read one may
// hang; one that a shell has made has a writer (source: Linux,
// include/uapi/linux/magic.h, PIPEFS_MAGIC).
func isNamedPipe(f *os.File) bool {
	var fs unix.Statfs_t
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0 &&
		unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type != unix.PIPEFS_MAGIC
}

// decodeFile merges the JSON object in the file at path into each of the
// values. A missing file leaves them alone, unless it is required.
func decodeFile(path string, required, strict bool, into any) error {
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("configuration %s: %s", path, describe(b, dec, err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: line %d: something follows the object", path, lineAt(b, dec.InputOffset()))
	}
	return nil
}

// describe puts a JSON error into the words of somebody who edits the file.
func describe(b []byte, dec *json.Decoder, err error) string {
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("line %d: %v", lineAt(b, se.Offset), se)
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		what := "the file"
		if te.Field != "" {
			what = strconv.Quote(te.Field)
		}
		return fmt.Sprintf("line %d: %s is %s, want %s", lineAt(b, te.Offset), what, jsonValue(te.Value), jsonType(te.Type))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("line %d: the file ends before the object does", lineAt(b, int64(len(b))))
	}
	return fmt.Sprintf("line %d: %s", lineAt(b, dec.InputOffset()), strings.TrimPrefix(err.Error(), "json: "))
}

// jsonValue puts what encoding/json calls a value into words.
func jsonValue(value string) string {
	switch value {
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "bool":
		return "true or false"
	default: // a string, a number, a number with its digits
		return "a " + value
	}
}

// jsonType says in words what a key of that type takes.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "a whole number"
	}
}

func lineAt(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
}
