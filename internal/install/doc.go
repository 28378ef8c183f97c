// Package install carries one update through its life on a device with two
// root slots: plan, write, arm, trial boot, commit or rollback, and recovery
// from whatever interrupted any of these. An update is an image for a slot, or
// a payload that an update module of the device installs, or nothing but a name
// and what it provides.
//
// It promises that at every instant one slot boots: the running one until the
// boot loader is armed, and after that the new one on trial with the old one
// behind it. What can refuse an update does so in [Engine.Plan], before the
// first byte is written. The boot loader is armed only with the proof that the
// whole artifact was read, that its checksums agree, and that the slot holds
// it.
//
// # Order of writes
//
// After each write the table says what boots if the power fails right there,
// and what the next run finds.
//
//	1  boot env: disarm, if it is armed for the target     old slot
//	2  store: attempt {artifact, target}                   old slot; nothing is pending; the content of the target is unknown
//	3  slot: payload, flush                                as 2
//	4  (slot read back and compared)                       as 2
//	5  store: pending, version 2, installing               old slot; recovery closes it as failed
//	6  boot env: arm the target                            trial boot of a whole slot; recovery rolls back
//	7  store: pending, version 1, waiting for commit       trial boot
//	8  (reboot, health check) store: version 2, committing  the boot loader falls back; recovery closes it as failed
//	9  boot env: confirm                                   new slot; recovery finishes 9 and 10
//	10 store: name and provides merged, pending removed    new slot
//
// Write 5 also counts the start of the artifact, write 10 notes the one that it
// replaces, and a rollback that follows keeps why it failed. An artifact that
// breaks before write 5 costs one more: its count.
//
// Where the boot loader is armed by the reboot itself (bootenv.Caps, Volatile),
// write 6 is no write, and a cut after 6 or 7 boots the old slot: recovery, which
// knows one boot from the next, closes the update as failed.
//
// Version 1 of the pending state is the one that every Mender client
// understands; version 2 makes an older client refuse an update that is half
// way (source: Mender client, standalone state).
//
// State scripts run between these writes, as in Mender's standalone mode.
//
// # Order of writes with an update module
//
// What the next run finds is the same in whatever slot it runs. "Undoes" is
// ArtifactRollback, if the module supports it, then ArtifactFailure and Cleanup;
// without rollback the artifact's name is marked as inconsistent.
//
//	1  store: attempt {artifact}                  nothing is pending
//	2  work tree: header, the module's Download   as 1; the next download makes a new work tree
//	3  (the file system is flushed)               as 1
//	4  store: pending, version 2, installing      recovery undoes it
//	5  module: ArtifactInstall; flush             as 4
//	6  store: pending, version 1, waiting         waits for commit; left out without rollback
//	7  store: version 2, committing               recovery undoes it
//	8  module: ArtifactCommit                     as 7
//	9  store: version 2, committed                recovery finishes 10 and 11
//	10 module: Cleanup; work tree removed         recovery finishes 11
//	11 store: name and provides merged, pending removed
//
// An artifact without payload is one write, the last.
package install
