"""Reasons for which a row is rejected."""

CONFLICT = "contradicts an earlier row with this id"

MISSING = "missing"
SEVERAL = "more than one value"
HOLDS_SEPARATOR = "a value of the list holds the separator"
CONTROL_CHARACTER = "holds a control character"
NOT_UTF8 = "not UTF-8"
NOT_A_NUMBER = "not a finite number"
NOT_A_TIME = "not a time"
TIME_OUT_OF_RANGE = "time outside of the years 1 to 9999; is `events.timestamp_unit` right?"
