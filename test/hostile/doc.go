// Package hostile gives the shipped agent sticks that lie, fail, hang, vanish,
// and hold what nobody should have to read, and asks each time what the device
// boots next. Where the stick is a directory it needs nothing but tools; where it
// lies, or is a block device, it needs root, for FUSE and loop devices. It is no
// part of the product.
package hostile
