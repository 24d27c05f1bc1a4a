// Package kerneltest helps tests that need network namespaces of their own (NewNetNS, Join), and those that need no
// kernel at all (Fake).
package kerneltest
