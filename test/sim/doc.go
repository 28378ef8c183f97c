// Package sim is a small A/B device in a directory, for the demo and for
// tests: two slots, a raw disk with a redundant U-Boot environment, a data
// directory, and a model of the boot loader.
//
// The model knows the environment's format by itself, so that it is a second
// opinion on what the programs wrote, and follows the rules of Mender's U-Boot
// integration: while upgrade_available is 1 it counts boots, and past
// bootlimit it goes back to the other slot (source: meta-mender, U-Boot boot
// code). Booting a slot means that the files below /etc of the ext4 image in
// that slot appear in the directory's etc: what was written decides what runs.
//
// It is no part of the product.
package sim
