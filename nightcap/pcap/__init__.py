"""libpcap through ctypes, and the files it writes. Needs the standard library alone."""
