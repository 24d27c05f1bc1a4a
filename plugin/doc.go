// Package plugin speaks Docker's plugin protocol: JSON over HTTP on a unix socket. All calls of NetworkDriver and
// IpamDriver, and those of the command line, come in on one socket. A request is parsed once, here, into types that
// cannot be wrong; what is done with it belongs to the packages driver, ipam and cluster.
//
// Three things of dockerd's shape this package. It never cancels a call: a client that gave up repeats the call with an
// empty body, while the first one may be half done. So a call that has begun is brought to its end, whoever still
// listens, an empty body is an error, and a call that has not begun when its client goes is dropped. After a restart
// of the host dockerd waits for an answer without a limit, so that every call is answered in bounded time, even if
// what it asked for hangs. And dockerd disables a plugin whose socket is not there in time or whose process ends, so
// that the socket is served before anything else works, and bad settings are an answer rather than an exit.
package plugin
