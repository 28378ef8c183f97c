// Package pstore reads what the kernel said before a crash.
//
// The kernel keeps such logs in memory that survives a reset, and shows them in
// /sys/fs/pstore (source: kernel, Documentation/admin-guide/ramoops.rst).
// Where systemd-pstore.service is active it moves them to
// /var/lib/systemd/pstore (source: systemd-pstore.service(8)).
//
// They stay there, and the clock of a device may be wrong. So a new log is one
// that is not in a list that was made earlier, whatever its date says.
package pstore
