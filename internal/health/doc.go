// Package health decides whether the system that runs now is well enough to be
// kept after an update.
//
// The owner of the device puts executables into one directory. Each tests one
// thing and says with exit code 0 that it is well. They run one after the other
// in the order of their names, each with a time limit, and the first that does
// not succeed ends the check.
//
// A check that cannot run has failed: a forgotten chmod, a dangling link or a
// missing interpreter must not turn into "healthy". Only names that editors and
// package managers leave behind are skipped, and directories.
package health
