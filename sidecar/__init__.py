"""The sidecar: a dormant program in C and the capture worker that it starts.

Everything here runs in strangers' pods: standard library, `nightcap.pcap` and the
words of `nightcap.contract` only, and what is imported before the capture is open
is counted in milliseconds.
"""
