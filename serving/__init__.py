"""Serving: an embedded model server, its launcher, and clients for the TensorFlow Serving API."""
