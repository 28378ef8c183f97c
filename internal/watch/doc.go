// Package watch tells which block devices are on USB and which ones come.
//
// Events are the kernel's own (source: Linux, kobject_uevent; netlink(7)). A
// message counts only if the kernel sent it, which its credentials prove;
// others are dropped. No property of an event is trusted beyond the device's
// name and number: labels and the like are the stick's words, and the reader
// of the stick finds out for itself what it holds.
//
// The message format is parsed by github.com/pilebones/go-udev, which is
// licensed under the GPL-3.0; the build tag nogpl puts a small parser of our
// own in its place, which passes the same tests. This package is the only one
// that may import go-udev, and shields it: a message is received, bounded and
// filtered here first, because that parser drops an event with a "=" in any
// value or a second "@" in the device's path, and panics on one without a NUL.
package watch
