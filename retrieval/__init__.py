"""Retrieval: segments in, authorized answers out. Two programs over one store.

`collector` takes what sidecars ship; `files` hands it to people. They share nothing
but the store, so that readers never starve collectors.
"""
