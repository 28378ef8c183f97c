package report

import "slices"

// Code is a result of a run. Its number is the exit status.
type Code struct {
	Number  int    `json:"code"`
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"` // what a person should do
}

// The result codes. Numbers are never reused. 1 is for errors that have no
// code of their own, 2 and 4 have Mender's meanings, 128 and up are left to
// signals.
var (
	OK                  = Code{0, "ok", "The run did what it was asked for.", "Nothing."}
	Failed              = Code{1, "failed", "An error without a code of its own.", "Read the message."}
	NothingToDo         = Code{2, "nothing-in-progress", "There is no update to commit or roll back.", "Nothing."}
	Usage               = Code{3, "usage", "The command line is wrong.", "Read usb-updater --help."}
	NoArtifact          = Code{10, "no-artifact", "The stick holds no artifact.", "Put a *.mender file into the root directory of the stick, or into its folder mender."}
	UpToDate            = Code{11, "up-to-date", "The device runs what the stick holds.", "Nothing."}
	Pending             = Code{12, "pending", "An update waits for its reboot, its commit or its rollback.", "Let it finish, or commit or roll back."}
	Refused             = Code{20, "refused", "No artifact on the stick may be installed.", "Run usb-updater list to see the reason for each."}
	BadArtifact         = Code{21, "bad-artifact", "The artifact is damaged, or not signed by a key of this device.", "Copy it to the stick again; if that does not help, ask with which key it was signed."}
	NotForDevice        = Code{22, "not-for-device", "The artifact is not for this device.", "Use the artifact for this device type."}
	StickFailed         = Code{30, "stick-failed", "The stick could not be read.", "Format it with FAT32 or ext4, or use another one."}
	StickLied           = Code{31, "stick-changed", "The stick returned other data than a moment ago.", "Do not use this stick again."}
	Canceled            = Code{32, "canceled", "The run was told to stop. Nothing was armed.", "Plug the stick in again."}
	StickRemoved        = Code{33, "stick-removed", "The stick was pulled out, or its card was changed, before all was read. Nothing was armed.", "Plug the stick in again and leave it in: what was written already is kept."}
	StickComposite      = Code{34, "stick-composite", "The USB device is more than storage: it could type, or be a network card.", "Use a plain stick; or set AllowComposite, if you trust who can reach the port."}
	StickNotAllowed     = Code{35, "stick-not-allowed", "The block device is on a bus that is not allowed, or on one of the device's own disks.", "Plug in a USB stick, or name the bus in Buses."}
	TooManySticks       = Code{36, "too-many-sticks", "More sticks or partitions are plugged in than are looked at.", "Plug in one stick, with one partition."}
	Interrupted         = Code{37, "interrupted", "The update was interrupted before its reboot, and undone. The old system runs.", "Plug the stick in again."}
	SlotFailed          = Code{40, "slot-failed", "The inactive slot could not be written or read back.", "The old system still runs. Check the storage of the device."}
	BootEnvFailed       = Code{41, "boot-env-failed", "The boot environment could not be read or written.", "Run usb-updater doctor: it names the boot loader and what is wrong with its environment."}
	ConfigFailed        = Code{42, "config-failed", "The configuration of the device is wrong or incomplete.", "Correct the file that the message names."}
	StateFailed         = Code{43, "state-failed", "The record of updates could not be read or written.", "Check the data partition."}
	ScriptFailed        = Code{45, "script-failed", "A state script failed. The old system runs.", "Read which script failed, and what it printed."}
	ModuleFailed        = Code{46, "module-failed", "An update module failed, or was interrupted. It rolled back, if it can.", "Read which module failed, and what it printed; install a corrected release."}
	Busy                = Code{44, "busy", "Another update operation is running.", "Wait for it."}
	ManagedClient       = Code{47, "managed-client", "A Mender client in managed mode runs on this device, and may write the same slot. Nothing was written.", "Stop its service, mender-client or mender-updated, and disable it; or update from its server only."}
	Inhibited           = Code{60, "inhibited", "A program of this device holds off updates, with the lock or the file for that.", "Wait until it is done, and plug the stick in again."}
	LowBattery          = Code{61, "low-battery", "The battery may not last until the update is done.", "Connect the power supply, and plug the stick in again."}
	NotConfirmed        = Code{62, "not-confirmed", "Nobody agreed to the update in time. Nothing was written.", "Plug the stick in again, and agree."}
	HealthFailed        = Code{50, "health-failed", "The new system failed its health check and was rolled back.", "Read which check failed; install a corrected release."}
	CommittedWithErrors = Code{52, "committed-with-errors", "The new system is permanent, but a script that ran after the commit failed.", "Read which script failed."}
	TrialFailed         = Code{51, "trial-failed", "The new system did not come up; the boot loader went back.", "Read the log of the failed boot; install a corrected release."}
)

// Codes returns all codes by number.
func Codes() []Code {
	all := []Code{
		OK, Failed, NothingToDo, Usage, NoArtifact, UpToDate, Pending, Refused, BadArtifact, NotForDevice,
		StickFailed, StickLied, Canceled, StickRemoved, StickComposite, StickNotAllowed, TooManySticks, Interrupted, SlotFailed, BootEnvFailed, ConfigFailed, StateFailed, Busy, ScriptFailed, ModuleFailed, ManagedClient,
		HealthFailed, TrialFailed, CommittedWithErrors, Inhibited, LowBattery, NotConfirmed,
	}
	slices.SortFunc(all, func(a, b Code) int { return a.Number - b.Number })
	return all
}

// Quiet tells codes that are a normal end of an insertion: nothing is wrong with
// stick, artifact or device.
func (c Code) Quiet() bool {
	switch c {
	case OK, NoArtifact, UpToDate, Pending, NothingToDo:
		return true
	}
	return false
}
