"""``make bench-decoders``: pruning that holds on a real language model, beside its peers (`__main__`)."""
