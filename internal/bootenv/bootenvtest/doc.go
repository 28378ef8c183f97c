// Package bootenvtest has what tests and the demo need around boot
// environments: images of them, a simulated boot loader, and the suite of
// tests that every [bootenv.Loader] passes.
package bootenvtest
