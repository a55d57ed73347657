"""The model server, its launcher, the load generator, and clients of the TensorFlow Serving API."""
