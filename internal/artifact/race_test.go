//go:build race

package artifact

// raceDetector makes tests of one goroutine slow and finds nothing in them.
const raceDetector = true
