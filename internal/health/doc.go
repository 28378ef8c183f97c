// Package health decides whether the system that runs now is well enough to be
// kept after an update.
//
// The owner of the device says what must hold, in a [Config]: units of systemd
// that are active and do not restart, sockets that take a connection, pages
// that a local HTTP server returns, files that are there, and executables in
// one directory of which each tests one thing and says with exit code 0 that
// it is well. The checks run one after the other, each with a time limit, and
// the first that does not succeed ends the pass. Services need time, so that
// [Checker.Until] repeats the pass until all succeed or a deadline is over.
//
// A check that cannot run has failed: a forgotten chmod, a dangling link, a
// missing interpreter, a directory that cannot be read or a service manager
// that does not answer must not turn into "healthy". Only names that editors
// and package managers leave behind are skipped, and directories.
//
// Connections go to the device itself and nowhere else: loopback addresses and
// Unix sockets.
package health
