// Package script keeps and runs Mender state scripts.
//
// A state script is an executable named after the moment at which it runs
// (source: Mender documentation, "State scripts"):
//
//	STATE_ACTION_NN             ArtifactInstall_Enter_00
//	STATE_ACTION_NN_anything    Download_Leave_10_stop-logging
//
// ACTION is Enter, Leave or Error; NN are two digits. The scripts of a moment
// run in the order of their names, without arguments, in "/", with our
// environment. Exit code 0 means go on, 21 ask me again later, anything else
// that the update must not go on.
//
// Download scripts belong to the running root file system, Artifact scripts
// come with the artifact: [Install] keeps them on the data partition, because
// those of the commit run after the reboot, in the new root file system.
package script
