"""Many trials as one program: what `population.py` is built of."""
