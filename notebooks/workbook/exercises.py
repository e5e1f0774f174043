"""All exercises, in the order of the notebooks."""

from workbook import experts, gating, tokens, words

_NOTEBOOKS = (tokens, words, experts, gating)
EXERCISES = {exercise.name: exercise for notebook in _NOTEBOOKS for exercise in notebook.EXERCISES}
