// Package policy decides which artifact of a stick, if any, a device installs
// without anybody asking.
//
// [Decide] is a pure function of what the device is and what the stick holds.
// It gives a verdict with a reason for every candidate, so that the same code
// answers "what will happen" and "why not" on the device and on a laptop.
//
// Candidates are told apart by content, never by file name. Nothing on the
// stick changes the rules.
package policy
