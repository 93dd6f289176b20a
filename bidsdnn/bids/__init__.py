"""The only place that knows a BIDS file name: what is read from a dataset, and what is written to one."""
