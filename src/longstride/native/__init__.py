"""Loops in C++, written from graphs of tensors: for small states, whose steps cost what calls do."""
