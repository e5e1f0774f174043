"""Answers that students might give, a module for each notebook."""
