// Package kernel makes the Linux kernel match a State, and is the only thing in the program that touches it.
//
// State says in plain values what one owner needs: links, addresses, routes, forwarding and neighbour entries, sysctls and
// firewall rules. Set reads what that owner has, compares (diff is pure), and applies the difference. The zero State
// removes everything. Restart, rollback, drift and a change learned from another host are therefore the same call. Run keeps
// what was set, against whoever else changes it.
//
// One thing is said rather than made: that an address has another MAC than before (announce.go). It is said once, when the
// difference that makes it so is applied; nothing depends on it but how soon others notice.
//
// A link is ours when its alias is "carrick OWNER". Between its creation and the setting of the alias (two requests:
// rtnl_newlink of Linux 6.18 ignores IFLA_IFALIAS and IFLA_AF_SPEC while it creates) only its name tells, which is why
// every wanted link must be named by Name. We own the device, so we own every entry on it.
package kernel
