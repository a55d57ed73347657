"""The model server, its launcher, load tests, and clients of the TensorFlow Serving API."""
