// Package gate holds what may stand between a decision and an installation:
// a queue, a lock of the owner's programs, the power supply, a person who has
// to agree, and the system's own shutdown.
//
// A gate that is closed is an error that says which one. A gate that is not
// there (no battery, no D-Bus) is open; one that is there and cannot be read
// is closed. Every wait ends: with its limit, or with its context.
//
// Locks are those of flock(2). They end with the process, whatever ends it, so
// that nothing is left to be cleaned up after a kill or a power cut.
//
// Sources: flock(2) of the Linux man-pages; Linux,
// Documentation/ABI/testing/sysfs-class-power and
// Documentation/input/event-codes.rst; systemd, "Inhibitor Locks".
package gate
