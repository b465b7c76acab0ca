"""Discovery: gateways are found on the LAN (mDNS, RFC 6762) and in DNS (DNS-SD, RFC 6763), and finding never hurts.

`records` and `beacon` are pure and say what is on the wire; `responder` makes ours seen, `browser` lists what is there.
Nothing of this package is imported by a start that does not use it.
"""
