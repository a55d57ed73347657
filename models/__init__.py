"""The two towers: features in, vectors out.

Keras 2 is what TensorFlow Recommenders, Transform and TFX 1.16 were made for, and it must be
chosen before TensorFlow is imported. This is the one place that does it: every module that
needs TensorFlow imports something from here first.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TensorFlow's C++ log is noise on a machine without accelerators, its errors too.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
