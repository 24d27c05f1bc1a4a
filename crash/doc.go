// Package crash kills the plugin's process at every one of its changes of files and of the kernel, one call of the engine after
// another, and once more while it starts again, and looks at what is there afterwards. It drives the binary over its socket,
// without an engine: make crash.
package crash
