"""What `make bench-decoders` is made of: its peers by their own equations, its texts, its cells."""
