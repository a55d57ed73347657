"""The two-tower model: features, training data, towers, training and tuning.

TFX 1.16, Transform and TensorFlow Recommenders need Keras 2, which must be selected before
TensorFlow is imported. Only this module selects it, so a module that needs TensorFlow must import
something from `models` first.
"""

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# On machines without accelerators, TensorFlow's C++ log is noise, including its errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
