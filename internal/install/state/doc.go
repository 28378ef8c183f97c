// Package state keeps the record of updates on the data partition, which both
// slots share, in Mender's own store: one LMDB file, mender-store.
//
// Old and new root file system take turns on that store, and one of them may
// run another Mender client. So the store is read in every form that the
// clients 3.x, 4.x and 5.x leave behind, foreign keys are kept byte for byte,
// and what is written is something that they open, read and update. What only
// we need is under keys of our own, and in JSON members that the others
// ignore (source: Mender client, database keys and standalone state).
//
// [Store.Save] replaces the whole file: after a power cut the old record is
// there or the new one. A lock keeps a second writer of ours away.
package state
