// Package forge sends what nobody should: frames in VXLAN that their sender was never asked for, with addresses that are not
// his, in fragments, as garbage or over again; and it counts what of it arrives. The command below it runs in the hosts and
// containers of the lab, and is told by an Order or a Watch in JSON what to do.
package forge
