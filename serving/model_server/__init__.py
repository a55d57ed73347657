"""An embedded stand-in for TensorFlow Serving 2.16: `python -m serving.model_server`."""
