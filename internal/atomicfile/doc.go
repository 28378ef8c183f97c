// Package atomicfile writes files so that a power cut does not hurt.
//
// [Write] replaces a whole file: afterwards the old content is there or the
// new, never a mix, a part or nothing. [Append] adds a line to a log: at most
// the line that was being written is torn, and the next one starts afresh.
//
// Both rest on what POSIX file systems promise: rename is one step, and what
// fsync returned for is on the medium (source: POSIX.1, rename and fsync).
package atomicfile
