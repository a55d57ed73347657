"""An embedded stand-in for TensorFlow Serving 2.16: `python -m serving.server`.

It offers the gRPC and REST APIs of `tensorflow_model_server` with the same status codes. It differs
on purpose in these points:

* It has the ScaNN ops if `scann` is installed; the stock image does not.
* It listens on 127.0.0.1 by default, has `auto` ports, and writes them to `--ready_file`.
* It loads a version once its `saved_model.pb` exists, and retries a failed one when its files
  change, not only after a minute.
* A computation that has started goes on past the caller's deadline; a waiting one is dropped.
* Requests share runs by default and never wait for one another.
* Classify, Regress and MultiInference are refused.
"""
