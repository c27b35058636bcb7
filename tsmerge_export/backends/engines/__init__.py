"""What the back ends share that build engines: input ranges, precision, static shapes."""
