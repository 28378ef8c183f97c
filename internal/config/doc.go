// Package config reads what an integrator sets on the device: mender.conf,
// usb-updater.conf and device_type.
//
// mender.conf is Mender's own file: two places, the one in /etc wins key by
// key, keys in any letter case, unknown keys ignored (source: Mender client
// configuration). usb-updater.conf is ours and strict: an unknown key is an
// error, because a misspelled "AllowUnsigned" must not pass for a setting.
//
// Nothing is guessed. A file that cannot be read or parsed, a key of the wrong
// type or a verification key that cannot be loaded is an error; a missing file
// is an empty one, unless it was asked for by name.
//
// Only commands import this package; it hands plain values down.
package config
