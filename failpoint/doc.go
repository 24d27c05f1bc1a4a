// Package failpoint lets a test stop the process between any two of its changes of a file or of the kernel. Whoever makes such
// a change makes it within Step. With the build tag failpoints the process tells of each step before and after it, and waits
// until it is told to go on, or to die; without, Step is the change alone.
package failpoint
