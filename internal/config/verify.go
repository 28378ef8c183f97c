package config

import "errors"

// Verify says what of the slot is read back before it is armed. In the file it
// is true, false or "all".
type Verify string

// What is read back.
const (
	VerifyChanged Verify = "changed" // true: what was not seen to be right before
	VerifyAll     Verify = "all"     // everything
	VerifyNothing Verify = "nothing" // false
)

// UnmarshalJSON takes the three values.
func (v *Verify) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*v = VerifyChanged
	case "false":
		*v = VerifyNothing
	case `"all"`:
		*v = VerifyAll
	case "null": // no value, as for other keys
	default:
		return errors.New(`"VerifyWritten" is neither true, false nor "all"`)
	}
	return nil
}
