"""A model server with the APIs of TensorFlow Serving 2.16: `python -m serving.server`.

It implements the gRPC and REST APIs of `tensorflow_model_server`, with the same status codes. It
intentionally differs in these points:

* It supports the ScaNN ops if `scann` is installed; the official image does not.
* It listens on 127.0.0.1 by default, can choose free ports (`auto`), and writes the ports to
  `--ready_file`.
* It loads a version when its `saved_model.pb` exists. It retries a failed load when the files
  change, not only after a minute.
* When a deadline expires, a queued request is dropped, but a computation in progress continues.
* Batching is on by default, and no timer waits for requests to fill a batch.
* Classify, Regress and MultiInference are rejected.
* HandleReloadConfigRequest reports no metrics.
"""
