"""Parts of `recipes/train_nano.py`: data, model families, training loop, evaluation."""
