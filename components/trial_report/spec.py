"""What a search leaves beside TFX's own list of the trials that ended well."""

# In the folder of the tuner's results.
TRIALS_FILE = "trials.json"
