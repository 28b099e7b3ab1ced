"""The command line; the one place that may name drivers and simulators."""
