// Package fuse is a small FUSE server for tests: a directory whose
// bytes, names and timing are decided by a function at each request. So it can
// be a stick that lies, that fails at one block, that is slow, that stops
// answering, or that is pulled out.
//
// Reads go past the page cache and names are not cached: what the function says
// is what the program under test gets, each time.
//
// It needs root and /dev/fuse. It is no part of the product (source: Linux,
// include/uapi/linux/fuse.h).
package fuse
