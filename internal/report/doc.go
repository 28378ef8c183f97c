// Package report tells people and programs what a run did: result codes that
// never change their meaning, one line per step for the journal and the
// terminal, and status for the service manager.
//
// Every end of a run has a [Code]. It is the exit status of usb-updater, the
// RESULT field in the journal, and the "result" that usb-updater status shows.
package report
