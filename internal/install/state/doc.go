// Package state keeps the record of updates on the data partition, which both
// slots share, in Mender's own store: one LMDB file, mender-store.
//
// Old and new root file system take turns on that store, and one of them may
// run another Mender client. So the store is read in every form that the
// clients 3.x, 4.x and 5.x leave behind, and what is written is something that
// they open, read and update (source: Mender client, database keys and
// standalone state):
//
//	artifact-name        text
//	artifact-group       text, absent if none
//	artifact-provides    JSON object of texts, or null
//	standalone-state     JSON object: the pending update; see [Pending]
//	usb-updater-…        ours: attempt, failed, installed, result
//	all others           foreign, kept byte for byte
//
// What only we need of a pending update is in JSON members that the others
// ignore.
//
// [Store.Save] replaces the whole file: after a power cut the old record is
// there or the new one. A lock keeps a second writer of ours away; it does not
// keep another Mender client away. The log of results, [AppendHistory], is a
// file of its own.
package state
