"""An embedded stand-in for TensorFlow Serving 2.16: `python -m serving.server`.

It answers over gRPC and REST with the codes and texts of `tensorflow_model_server`, so that a
client cannot tell the two apart. On purpose it differs in this:

* It has the ScaNN ops wherever `scann` is installed; the stock image has not.
* `--port=auto` takes a free port, `--ready_file` tells which, and it listens on 127.0.0.1 unless
  `--bind_address` says otherwise.
* A version counts once its `saved_model.pb` is there, so a version that is being copied is no
  failed load. A version that failed is tried again when that file changes, not after a minute.
* A computation that has begun is not cut off at the caller's deadline; one that waits is.
* Requests share runs without ever waiting for one another, and by default.
* Classify, Regress and MultiInference are UNIMPLEMENTED where a model has a signature for them.

Defaults of a signature's inputs (`SignatureDef.defaults`) count over gRPC only, as there.
"""
